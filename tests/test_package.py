"""The package as a whole: what it imports, that each module has its tests, how results compare."""

import importlib
import pkgutil
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import balance
from balance import data_balance
from balance.datasets import load_table

ROOT = Path(balance.__file__).parents[1]
MODULES = sorted(m.name for m in pkgutil.walk_packages(balance.__path__, "balance.") if not m.ispkg)


def test_importing_balance_takes_numpy_and_scipy_only():
    code = "import sys, balance; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    others = {"ahocorasick", "IPython", "ipywidgets", "matplotlib", "pandas", "sklearn", "torch"}
    assert not others & set(done.stdout.split())
    assert {"numpy", "scipy"} <= set(done.stdout.split())


ENGINE = {f"test_{name}.py" for name in ("engine", "engine_checks", "engine_kinds", "exact", "inputs", "reports")}


def test_every_module_has_a_file_of_tests():
    """`balance.labs.paper` has `test_labs_paper.py`; the private engine is tested as one, in the files of `ENGINE`.

    The input `Scores` is tested there too.
    """
    public = [name for name in MODULES if "._engine" not in name and name != "balance.scores"]
    wanted = {f"test_{name.removeprefix('balance.').replace('.', '_')}.py" for name in public}
    others = ["book", "package", "readme", "sphinx", "tools"]
    others += [f"experiments_{name}" for name in ("contrastive", "clustering", "curation")]
    known = wanted | ENGINE | {f"test_{name}.py" for name in others}
    assert {path.name for path in (ROOT / "tests").glob("test_*.py")} == known


def test_every_chapter_has_a_file_of_statements():
    chapters = {f"test_{path.stem}.py" for path in (ROOT / "book").glob("[0-9][0-9]_*.ipynb")}
    assert {path.name for path in (ROOT / "tests" / "statements").glob("*.py")} == chapters


@pytest.mark.parametrize("name", MODULES)
def test_results_that_hold_arrays_compare_by_identity(name):
    for value in vars(importlib.import_module(name)).values():
        if is_dataclass(value) and isinstance(value, type):
            held = " ".join(map(str, value.__annotations__.values()))
            if "ndarray" in held or ("Tensor" in held and "Callable" not in held):
                assert value.__eq__ is object.__eq__, value


def test_results_can_be_compared_and_hashed():
    first, second = (data_balance([[1, 1], [1, 3]], ([1, 1], [1, 1]), steps=1) for _ in range(2))
    assert first == first and first != second and len({first, second}) == 2
    assert load_table("vision") != load_table("vision")
