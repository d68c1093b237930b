"""Measure several ways to compute the same, in turn, and write down what was measured.

An answer that is wrong has no speed: before anything is timed the arms of a case are run once and their answers
compared with that of the first arm; one that differs is not timed. Then the arms run in turn, again and again, so
that whatever else the machine does hits all of them. The best time is the one to compare; the median says how much
it varies.
"""

import datetime
import inspect
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("numpy", "scipy", "torch", "pandas", "POT", "geomloss", "ipfn", "open_clip_torch")
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")}


@dataclass(frozen=True)
class Arm:
    """One way to compute: what is timed, and how its answer is read as arrays (None: it has none)."""

    run: Callable[..., Any]
    answer: Callable[[Any], Any] | None = np.asarray


@dataclass(frozen=True)
class Row:
    """What was measured of an arm. `ratio` is its best time over that of the first arm, which is ours."""

    task: str
    case: str
    arm: str
    best: float
    median: float
    runs: int
    ratio: float
    difference: float | None
    megabytes: float | None = None
    note: str = ""


def on_one_thread() -> None:
    """Start this program anew with one thread for each library and, where it can be had, one core."""
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        # Libraries read this when they are loaded, and NumPy is loaded by now.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})
    if hasattr(os, "sched_setaffinity"):
        # `balance_many` shares its blocks among the cores.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def difference(found: Any, expected: Any) -> float:
    """The largest difference of two arrays, or lists of arrays, over the largest entry expected."""
    pairs = zip(found, expected, strict=True) if isinstance(expected, tuple | list) else [(found, expected)]
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(b).max()) for a, b in pairs)


def compare(arms: Mapping[str, Arm], data: tuple) -> dict[str, float | None]:
    """Run each arm once; return how far its answer is from that of the first."""
    found: dict[str, float | None] = {}
    expected = None
    for name, arm in arms.items():
        answer = arm.answer(arm.run(*data)) if arm.answer else None
        expected = answer if expected is None else expected
        found[name] = None if answer is None else difference(answer, expected)
    return found


def measure(
    task: str,
    case: str,
    arms: Mapping[str, Arm],
    *,
    tolerance: float,
    draw: Callable[[], tuple] = tuple,
    seconds: float = 3.0,
    runs: tuple[int, int] = (3, 30),
    per: int = 1,
    megabytes: Mapping[str, float] | None = None,
) -> list[Row]:
    """Compare the arms, then time them in turn for some seconds each; print and return the rows.

    `draw` makes the data of a round, the same for all arms; making them is not timed. Times are divided by `per`.
    """
    differences = compare(arms, draw())
    wrong = {name: off for name, off in differences.items() if off is not None and not off <= tolerance}
    arms = {name: arm for name, arm in arms.items() if name not in wrong}
    times: dict[str, list[float]] = {name: [] for name in arms}
    until = time.perf_counter() + seconds * len(arms)
    for round_ in range(runs[1]):
        if round_ >= runs[0] and time.perf_counter() > until:
            break
        data = draw()
        for name, arm in arms.items():
            began = time.perf_counter()
            result = arm.run(*data)
            times[name].append((time.perf_counter() - began) / per)
            del result  # not while the next arm is timed
    ours = min(times[next(iter(arms))])
    rows = [
        Row(task, case, name, min(t), statistics.median(t), len(t), min(t) / ours, differences[name])
        for name, t in times.items()
    ]
    rows = [replace(row, megabytes=(megabytes or {}).get(row.arm)) for row in rows]
    for row in rows:
        print(line(row), flush=True)
    return rows + [left_out(task, case, name, f"WRONG: differs by {off:.0e}") for name, off in wrong.items()]


def left_out(task: str, case: str, arm: str, note: str) -> Row:
    """The row of an arm that was not run, with the reason."""
    row = Row(task, case, arm, float("nan"), float("nan"), 0, float("nan"), None, note=note)
    print(line(row), flush=True)
    return row


def amount(seconds: float) -> str:
    """A time with three digits and a unit."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} us"


def cells(row: Row) -> list[str]:
    if row.runs == 0:
        return [row.case, row.arm, row.note, "", "", "", ""]
    off = "" if row.difference is None else f"{row.difference:.0e}"
    memory = "" if row.megabytes is None else f"{row.megabytes:.0f} MB"
    return [row.case, row.arm, amount(row.best), amount(row.median), f"{row.ratio:.2f}", off, memory]


def line(row: Row) -> str:
    return "{:12s} {:30s} {:34s} {:>10s} {:>10s} {:>8s} {:>7s} {:>9s}".format(row.task, *cells(row))


def machine() -> dict[str, Any]:
    """What the times depend on: processor, versions, threads, date."""
    cpu = platform.processor()
    if (linux := Path("/proc/cpuinfo")).exists():
        cpu = next((x.split(":")[1].strip() for x in linux.read_text().splitlines() if x.startswith("model name")), cpu)
    versions = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    try:
        from threadpoolctl import threadpool_info

        keys = ("internal_api", "version", "architecture", "num_threads")
        libraries = [" ".join(f"{info[key]}" for key in keys if key in info) for info in threadpool_info()]
    except ImportError:
        libraries = []
    return {"date": datetime.date.today().isoformat(), "cpu": cpu, "versions": versions, "libraries": libraries}


def write(rows: list[Row], folder: Path, texts: Mapping[str, str]) -> None:
    """Write engine.json and engine.md. `texts` says of each task what it does."""
    folder.mkdir(parents=True, exist_ok=True)
    about = machine()
    # JSON has no NaN: an arm that was left out has null.
    plain = [{k: None if v != v else v for k, v in asdict(row).items()} for row in rows]
    (folder / "engine.json").write_text(json.dumps({**about, "rows": plain}, indent=1) + "\n")
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    parts = [
        "# The engine beside its peers",
        f"One run of `make bench`, {about['date']}; one thread, one core. {about['cpu']}. {versions}. "
        f"Numerical libraries: {'; '.join(about['libraries'])}.",
        "Arms of a case run in turn; best and median of their times. Ratio: best time over that of the first arm, "
        "above 1 means slower than ours. Difference: of the answers, over the largest entry of ours.",
    ]
    head = (
        "| case | arm | best | median | ratio | difference | peak |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for task in dict.fromkeys(row.task for row in rows):
        body = ["| " + " | ".join(cells(row)) + " |" for row in rows if row.task == task]
        parts += [f"## {task}", inspect.cleandoc(texts[task]), "\n".join([head, *body])]
    (folder / "engine.md").write_text("\n\n".join(parts) + "\n")
