"""Execute each chapter whose code, package or environment changed, for tests and book.

A stale chapter is copied into an empty folder below build/executed and run there by
`pytest --nbmake` against the installed wheel. Its outputs go to the cache from which
the book is rendered; build/executed/status.json says what ran, when and for how long.
"""

import argparse
import datetime
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
from install import ROOT, install
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from statements import chapter_paths

EXECUTED = ROOT / "build" / "executed"
STATUS = EXECUTED / "status.json"
CACHE = ROOT / "build" / "cache"
MATPLOTLIB = ROOT / "build" / "matplotlib"
TIMEOUT = 600  # seconds for one cell
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
REPORTED = ("numpy", "scipy", "matplotlib", "torch")


def environment() -> dict[str, str]:
    """Name and version of all that is installed, with Python, without our wheel."""
    found = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
    found.pop("benefits-of-balance", None)
    return {"python": platform.python_version(), **dict(sorted(found.items()))}


def fingerprint(notebook, package: str, versions: dict[str, str]) -> str:
    """The hash that decides whether a chapter is stale. The prose is no part of it."""
    code = [(c.source, c.metadata) for c in notebook.cells if c.cell_type == "code"]
    known = json.dumps([code, package, versions], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()


def read_status() -> dict:
    return json.loads(STATUS.read_text()) if STATUS.exists() else {"chapters": {}}


def prepare(paths: list[Path]) -> list[Path]:
    """Copy each chapter into an empty folder of its own."""
    EXECUTED.mkdir(parents=True, exist_ok=True)
    (EXECUTED / "pytest.ini").write_text("[pytest]\n")
    shutil.copy(Path(__file__).with_name("kernels.py"), EXECUTED / "conftest.py")
    copies = []
    for path in paths:
        folder = EXECUTED / path.stem
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        copies.append(Path(shutil.copy(path, folder)))
    return copies


def kernel_environment() -> dict[str, str]:
    """The environment of the kernels: one thread each, no settings of the user."""
    private = {
        "OMP_NUM_THREADS": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "IPYTHONDIR": str(ROOT / "build" / "ipython"),
        "MPLCONFIGDIR": str(MATPLOTLIB),
        "PYTHONNOUSERSITE": "1",
    }
    dropped = ("PYTHONPATH", "PYTHONWARNINGS", "MPLBACKEND")
    variables = {k: v for k, v in os.environ.items() if k not in dropped} | private
    if not MATPLOTLIB.exists():
        # Matplotlib's list of fonts is made here: a kernel would report that it does.
        command = [sys.executable, "-c", "import matplotlib.font_manager"]
        subprocess.run(command, env=variables, check=True, stderr=subprocess.DEVNULL)
    return variables


def run(copies: list[Path]) -> dict[str, float]:
    """Run the copies in place; return the seconds of each one that passed."""
    report = EXECUTED / "report.xml"
    report.unlink(missing_ok=True)
    workers = 2 if len(copies) > 1 else 0
    options = ["-q", "--nbmake", "--overwrite", f"--nbmake-timeout={TIMEOUT}"]
    options += [f"--numprocesses={workers}", "--dist=worksteal"]
    options += [f"--rootdir={EXECUTED}", "-c", str(EXECUTED / "pytest.ini")]
    options += ["-p", "no:cacheprovider", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, copies)]
    subprocess.run(
        command, env=kernel_environment(), cwd=EXECUTED, stdin=subprocess.DEVNULL
    )
    if not report.exists():
        sys.exit("The chapters were not executed.")
    cases = ET.parse(report).iter("testcase")
    return {c.get("name"): float(c.get("time")) for c in cases if len(c) == 0}


def clean(notebook) -> list[str]:
    """Drop what a static page cannot use; return the faults of the outputs."""
    faults = []
    notebook.metadata.pop("widgets", None)
    for cell in (c for c in notebook.cells if c.cell_type == "code"):
        cell.metadata.pop("execution", None)
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        for output in cell.outputs:
            data = output.get("data", {})
            data.pop(WIDGET_VIEW, None)
            if output.get("name") == "stderr":
                faults.append(f"cell {cell.id} writes to stderr:\n{output.text}")
            if any(kind.startswith("image/") for kind in data) and not alt:
                faults.append(f"cell {cell.id} draws without mystnb.image.alt")
        faults += stray(cell)
    return faults


def stray(cell) -> list[str]:
    """The value of the last expression, printed beside a figure: end it with `;`."""
    shown = [output.get("data", {}) for output in cell.outputs]
    drawn = any(kind.startswith("image/") for data in shown for kind in data)
    values = [data["text/plain"] for data in shown if set(data) == {"text/plain"}]
    return [f"cell {cell.id} prints {v:.60} beside a figure" for v in values if drawn]


def store(copies: list[Path], keys: dict, seconds: dict, status: dict) -> list[str]:
    """Put the executed chapters into cache and status; return the faults found."""
    cache, faults = get_cache(str(CACHE)), []
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    for path in copies:
        name = path.stem
        status["chapters"].pop(name, None)
        if path.name not in seconds:
            faults.append(f"{path.name}: failed")
            continue
        notebook = nbformat.read(path, as_version=4)
        found = clean(notebook)
        faults += [f"{path.name}: {fault}" for fault in found]
        if not found:
            bundle = CacheBundleIn(
                notebook, name, data={"execution_seconds": seconds[path.name]}
            )
            record = cache.cache_notebook_bundle(
                bundle, check_validity=False, overwrite=True
            )
            entry = {"key": keys[name], "seconds": seconds[path.name], "date": today}
            status["chapters"][name] = {**entry, "record": record.hashkey}
    return faults


def prune(status: dict, names: set[str]) -> None:
    """Forget chapters that are gone, and outputs that no chapter has any more."""
    for gone in set(status["chapters"]) - names:
        del status["chapters"][gone]
    for folder in EXECUTED.iterdir():
        if folder.is_dir() and folder.name not in names:
            shutil.rmtree(folder)
    cache = get_cache(str(CACHE))
    kept = {entry["record"] for entry in status["chapters"].values()}
    for record in cache.list_cache_records():
        if record.hashkey not in kept:
            cache.remove_cache(record.pk)


def execute(only: str | None = None) -> int:
    """Execute what is stale, of the chapter `only` if given; return how many faults."""
    started = time.perf_counter()
    package, versions, status = install(), environment(), read_status()
    chapters = {p.stem: p for p in chapter_paths()}
    chosen = {n: p for n, p in chapters.items() if only is None or n.startswith(only)}
    if only and not chosen:
        sys.exit(f"No chapter book/{only}*.ipynb")
    keys = {
        n: fingerprint(nbformat.read(p, as_version=4), package, versions)
        for n, p in chosen.items()
    }
    stale = [n for n in chosen if status["chapters"].get(n, {}).get("key") != keys[n]]
    copies = prepare([chosen[n] for n in stale])
    seconds = run(copies) if copies else {}
    faults = store(copies, keys, seconds, status)
    prune(status, set(chapters))
    status["versions"] = {
        n: versions[n] for n in ("python", *REPORTED) if n in versions
    }
    STATUS.write_text(json.dumps(status, indent=1, sort_keys=True) + "\n")

    for name in chosen:
        entry = status["chapters"].get(name)
        state = "FAILED" if not entry else "executed" if name in stale else "up to date"
        print(f"{name:32} {state}" + (f" ({entry['seconds']:.1f} s)" if entry else ""))
    print(*faults, sep="\n", end="\n" if faults else "")
    total = time.perf_counter() - started
    fresh = len(chosen) - len(stale)
    print(f"{len(stale)} executed, {fresh} up to date, in {total:.1f} s")
    return len(faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", metavar="NN", help="the chapter whose file name starts so"
    )
    only = parser.parse_args().only
    (ROOT / "build").mkdir(exist_ok=True)
    with open(ROOT / "build" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sys.exit(1 if execute(only) else 0)


if __name__ == "__main__":
    main()
