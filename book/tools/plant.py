"""Plant errors in the statements, and see whether the check cells and the tests notice.

`tests/planted/NN_name.toml` lists the errors of a chapter. One is planted in the
package, or in the claim that a check cell and a marked test compare with something
else. A check that passes with a false claim is a fault of the check: `make plant`
lists these.
"""

import argparse
import ast
import contextlib
import importlib
import inspect
import json
import os
import re
import shutil
import sys
import tempfile
import time
import tomllib
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import statements
from statements import BOOK, ROOT, chapter_paths

PLANTED = ROOT / "tests" / "planted"
KEYS = {"statement", "error", "package", "cell", "test", "true"}
# A plant that raises one of these is no claim at all: it says nothing about the check.
BROKEN = (NameError, SyntaxError, ImportError, AttributeError, RecursionError)
TIMEOUT = 300  # seconds, after which a run that no longer ends counts as noticed


class PlantError(Exception):
    """A plant that does not fit the text it is meant for."""


@dataclass(frozen=True)
class Plant:
    """An error: in the package, or in a cell and in a test; `true` if it is none."""

    statement: str
    error: str
    package: tuple[str, str, str] | None = None
    cell: tuple[str, str] | None = None
    test: tuple[str, str] | None = None
    true: str = ""

    def __post_init__(self):
        both = self.cell is not None and self.test is not None
        if not self.error or (self.package is not None) == both:
            raise PlantError(
                f"{self.statement} ({self.error}): plant an error, said in words, "
                "in the package, or in cell and test"
            )


@dataclass
class Outcome:
    """What became of a plant: noticed, missed or broken, with what was raised."""

    plant: Plant
    cell: str = "missed"
    test: str = "missed"
    raised: dict[str, str] = field(default_factory=dict)

    @property
    def faults(self) -> Iterator[str]:
        for place, result in (("check cell", self.cell), ("test", self.test)):
            if self.plant.true and result == "noticed":
                yield f"the {place} refutes what is called true"
            elif result == "broken":
                yield f"the plant breaks the {place}: {self.raised.get(place, '')}"
            elif result == "missed" and not self.plant.true:
                yield f"the {place} does not notice"


def read(stem: str, folder: Path = PLANTED) -> list[Plant]:
    """The plants of a chapter, in the order of the file."""
    path = folder / f"{stem}.toml"
    entries = tomllib.loads(path.read_text()).get("plant", []) if path.exists() else []
    plants = []
    for entry in entries:
        if unknown := entry.keys() - KEYS:
            raise PlantError(f"{path.name}: unknown keys {sorted(unknown)}")
        fixed = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
        plants.append(Plant(**fixed))
    return plants


def replace_once(text: str, old: str, new: str, where: str) -> str:
    if (count := text.count(old)) != 1:
        raise PlantError(f"{old!r} occurs {count} times in {where}, not once")
    return text.replace(old, new)


class Section:
    """The cells of a statement, from its heading through the last of its checks."""

    def __init__(self, notebook, number: str):
        self.cells = notebook.cells
        heading = re.compile(rf"^### \w+ {re.escape(number)} \(", re.MULTILINE)
        headings = [i for i, c in enumerate(self.cells) if heading.search(c.source)]
        tag = f"check-{number}"
        checks = [
            i for i, c in enumerate(self.cells) if tag in c.metadata.get("tags", [])
        ]
        if not headings or not checks:
            raise PlantError(f"{number} has no heading or no check cell")
        self.start, self.checks = headings[0], checks
        self.stop = checks[-1] + 1

    def sources(self, plant: Plant) -> list[str]:
        """The code to run for a plant: a changed helper first, then the section."""
        inside = {
            i: c.source
            for i, c in enumerate(self.cells[: self.stop])
            if c.cell_type == "code"
        }
        helper = []
        if plant.cell:
            old, new = plant.cell
            # the check cells first, then the section, then what stands above it
            order = [*self.checks, *range(self.start, self.stop), *inside]
            places = [i for i in dict.fromkeys(order) if old in inside.get(i, "")]
            if not places:
                raise PlantError(f"{old!r} stands in no cell of {plant.statement}")
            at = places[0]
            changed = replace_once(inside[at], old, new, f"cell {self.cells[at].id}")
            inside[at] = changed
            helper = [changed] if at < self.start else []
        return helper + [s for i, s in inside.items() if i >= self.start]


def misfits(stem: str) -> Iterator[str]:
    """What is wrong with the list of a chapter, without running anything."""
    notebook, plants = statements.read(BOOK / f"{stem}.ipynb"), read(stem)
    tests = (ROOT / "tests" / f"statements/test_{stem}.py").read_text()
    for s in statements.statements(statements.markdown(notebook)):
        if sum(plant.statement == s.number for plant in plants) < 3:
            yield f"{s.name} has fewer than three plants"
    for plant in plants:
        name = f"{plant.statement} ({plant.error})"
        try:
            Section(notebook, plant.statement).sources(plant)
            if plant.package:
                file, old, new = plant.package
                replace_once((ROOT / file).read_text(), old, new, file)
            if plant.test:
                replace_once(tests, *plant.test, f"the tests of {stem}")
        except PlantError as error:
            yield f"{name}: {error}"


def swap(current, fresh) -> None:
    """Give a function, or the methods of a class, the code of another."""
    if isinstance(current, type):
        for name, value in vars(fresh).items():
            if not isinstance(value, type):  # which may lead back here
                swap(vars(current).get(name), value)
        return
    for name in ("__func__", "fget", "func", "__wrapped__"):
        if hasattr(current, name) and hasattr(fresh, name):
            return swap(getattr(current, name), getattr(fresh, name))
    both = isinstance(current, types.FunctionType) and isinstance(
        fresh, types.FunctionType
    )
    if both and current.__code__.co_freevars == fresh.__code__.co_freevars:
        current.__code__ = fresh.__code__
        current.__defaults__ = fresh.__defaults__
        current.__kwdefaults__ = fresh.__kwdefaults__


def instructions(source: str) -> str:
    """What a module does: its syntax without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
    return ast.dump(tree)


def plant_in_package(file: str, old: str, new: str) -> None:
    """Change a module where it is loaded, also for those who imported from it."""
    path = ROOT / file
    before = path.read_text()
    source = replace_once(before, old, new, file)
    if instructions(source) == instructions(before):
        raise PlantError(f"{new!r} changes nothing that runs in {file}")
    parts = Path(file).with_suffix("").parts
    module = importlib.import_module(".".join(p for p in parts if p != "__init__"))
    fresh = types.ModuleType(module.__name__)
    keep = ("__name__", "__package__", "__file__", "__path__")
    fresh.__dict__.update({k: v for k, v in vars(module).items() if k in keep})
    sys.modules[module.__name__] = fresh  # dataclasses look their module up by name
    try:
        exec(compile(source, str(path), "exec"), fresh.__dict__)
    finally:
        sys.modules[module.__name__] = module
    for name, value in vars(fresh).items():
        code = isinstance(value, types.FunctionType | type)
        own = getattr(value, "__module__", None) == module.__name__
        if (code and own) or hasattr(value, "__wrapped__"):
            swap(vars(module).get(name), value)
        elif isinstance(value, int | float | tuple | str) and name not in keep:
            setattr(module, name, value)


def forked(action: Callable[[], None]) -> tuple[str, str]:
    """Run in a child process; "noticed" if it raises, and what."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        result = ["missed", ""]
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        try:
            action()
        except PlantError as error:
            result = ["broken", str(error)]
        except BROKEN as error:
            result = ["broken", repr(error)]
        except BaseException as error:
            result = ["noticed", repr(error)[:200]]
        os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    deadline = time.monotonic() + TIMEOUT
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            os.close(reading)
            return "noticed", "timeout"
        time.sleep(0.005)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    return tuple(json.loads(said)) if said else ("broken", "the process died")


def run_cells(path: Path, outcomes: list[Outcome]) -> None:
    """Run a chapter; before each statement, its section with every plant in it."""
    import matplotlib.pyplot as plt
    from IPython.core.inputtransformer2 import TransformerManager

    notebook = statements.read(path)
    transform = TransformerManager().transform_cell
    names = {"__name__": "__main__"}

    def execute(source: str) -> None:
        exec(compile(transform(source), path.name, "exec"), names)

    sections = {
        o.plant.statement: Section(notebook, o.plant.statement) for o in outcomes
    }
    last = max(s.start for s in sections.values())
    for index, cell in enumerate(notebook.cells[: last + 1]):
        for outcome in outcomes:
            section, plant = sections[outcome.plant.statement], outcome.plant
            if section.start != index:
                continue

            def planted(section=section, plant=plant):
                sources = section.sources(plant)
                if plant.package:
                    plant_in_package(*plant.package)
                for source in sources:
                    execute(source)

            outcome.cell, outcome.raised["check cell"] = forked(planted)
        if cell.cell_type == "code":
            with open(os.devnull, "w") as silent, contextlib.redirect_stdout(silent):
                execute(cell.source)
            plt.close("all")


class Witness:
    """Remembers what the tests raised."""

    def __init__(self):
        self.errors: list[BaseException] = []

    def pytest_exception_interact(self, call):
        self.errors.append(call.excinfo.value)


def warm_up(path: Path) -> None:
    """Import what the tests import, before the process is forked for each plant."""
    import pytest

    for file in (path, path.parents[1] / "helpers.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if name != "helpers":
                    importlib.import_module(name)
    with open(os.devnull, "w") as silent, contextlib.redirect_stdout(silent):
        pytest.main(["--version"])  # loads the plug-ins


def run_pytest(folder: Path, tests: list[str]) -> None:
    """Run tests of a copy; raise what the first of them raised."""
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}"]
    options += ["-c", str(folder / "pyproject.toml")]
    # what was imported before the fork is not rewritten, and need not be
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    witness = Witness()
    code = pytest.main([*options, *tests], plugins=[witness])
    if witness.errors:
        raise witness.errors[0]
    if code:
        raise PlantError(f"pytest ended with {code}")


def run_tests(path: Path, outcomes: list[Outcome]) -> None:
    """Run the marked tests of each statement with its plants, on a copy of them."""
    name = f"statements/test_{path.stem}.py"
    source = (ROOT / "tests" / name).read_text()
    warm_up(ROOT / "tests" / name)
    with tempfile.TemporaryDirectory() as temporary:
        folder, copy = Path(temporary), Path(temporary, "tests")
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "tests", copy, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", folder)
        marked = {
            number: [str(copy / test) for test in tests]
            for number, tests in statements.tests().items()
        }
        sound = sorted({t for o in outcomes for t in marked[o.plant.statement]})
        result, raised = forked(lambda: run_pytest(folder, sound))
        if result != "missed":
            raise PlantError(f"{path.stem}: the tests fail without a plant: {raised}")
        for outcome in outcomes:
            plant = outcome.plant

            def planted(plant=plant):
                if plant.test:
                    (copy / name).write_text(replace_once(source, *plant.test, name))
                else:
                    plant_in_package(*plant.package)
                run_pytest(folder, marked[plant.statement])

            outcome.test, outcome.raised["test"] = forked(planted)
            (copy / name).write_text(source)


def run(stem: str, only: list[str]) -> list[Outcome]:
    """Plant the errors of one chapter."""
    os.environ["MPLBACKEND"] = "Agg"
    sys.dont_write_bytecode = True  # a changed test must not be read from a cache
    for folder in (ROOT, ROOT / "tests"):
        sys.path.insert(0, str(folder))
    path = BOOK / f"{stem}.ipynb"
    outcomes = [Outcome(p) for p in read(stem) if not only or p.statement in only]
    if outcomes:
        run_cells(path, outcomes)
        run_tests(path, outcomes)
    return outcomes


def report(stem: str, outcomes: list[Outcome]) -> int:
    """Print the share that was noticed and the faults; return their number."""
    false = [o for o in outcomes if not o.plant.true]
    shares = [sum(getattr(o, w) == "noticed" for o in false) for w in ("cell", "test")]
    print(
        f"{stem}: {len(outcomes)} planted, {len(false)} of them false; "
        f"the cells notice {shares[0]}, the tests {shares[1]}",
        flush=True,
    )
    faults = [(o, fault) for o in outcomes for fault in o.faults]
    for outcome, fault in faults:
        print(f"  {outcome.plant.statement} ({outcome.plant.error}): {fault}")
    return len(faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=inspect.cleandoc(__doc__))
    parser.add_argument("chapters", nargs="*", help="two digits each; all if none")
    parser.add_argument("--only", nargs="*", default=[], help="numbers of statements")
    arguments = parser.parse_args()
    stems = [p.stem for p in chapter_paths()]
    if arguments.chapters:
        stems = [s for s in stems if s[:2] in arguments.chapters]
    total = 0
    # a fresh process for each chapter: one may not see what another imported
    with ProcessPoolExecutor(
        min(os.cpu_count() or 1, len(stems)),
        get_context("spawn"),
        max_tasks_per_child=1,
    ) as pool:
        runs = [pool.submit(run, stem, arguments.only) for stem in stems]
        for stem, done in zip(stems, runs, strict=True):
            total += report(stem, done.result())
    sys.exit(f"{total} faults" if total else 0)


if __name__ == "__main__":
    main()
