"""Small tables of measured results: written by the scripts in ``experiments``, read by the chapters and the tests."""

import contextlib
import csv
import datetime
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(str(resources.files("balance.datasets"))) / "data" / "results"
_LISTED = 30


@dataclass(frozen=True, eq=False)
class Results:
    """A table of results, one array for each column.

    Attributes
    ----------
    columns : dict of str to ndarray
        Numbers as float or int, the rest as str.
    about : dict of str to str
        "command", "date", "versions".
    """

    columns: dict[str, NDArray] = field(repr=False)
    about: dict[str, str]

    def __getitem__(self, column: str) -> NDArray:
        return self.columns[column]

    def where(self, **values) -> "Results":
        """The rows in which the columns have these values; all rows if no column is named.

        Raises
        ------
        ValueError
            If a value does not occur in its column at all.
        """
        inside = np.ones(len(self), dtype=bool)
        for column, value in values.items():
            found = self.columns[column] == value
            if not found.any():
                known = np.unique(self.columns[column]).tolist()
                listed = ", ".join([*map(repr, known[:_LISTED]), *["..."] * (len(known) > _LISTED)])
                raise ValueError(f"no row has {column} = {value!r}: choose one of {listed}")
            inside &= found
        return Results({name: column[inside] for name, column in self.columns.items()}, self.about)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def load_results(name: str, folder: Path = FOLDER) -> Results:
    """Read a table of results.

    Parameters
    ----------
    name : str
        "contrastive_training" and the other tables of ``balance/datasets/data/results``.
    folder : Path

    Returns
    -------
    Results

    Raises
    ------
    FileNotFoundError
        If there is no such table.
    """
    with (Path(folder) / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        lines = file.read().splitlines()
    about = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    header, *rows = csv.reader(line for line in lines if not line.startswith("# "))
    return Results({name: _numbers(column) for name, column in zip(header, np.array(rows).T, strict=True)}, about)


class Writer:
    """Adds rows to a table, cell of the grid by cell, so that a run that was stopped goes on where it was.

    Parameters
    ----------
    name, folder
        As for `load_results`.
    keys : sequence of str
        The columns that name a cell. A cell may have several rows.
    command : str
        What to type to get the table.
    packages : sequence of str
        Whose versions are noted.
    """

    def __init__(self, name: str, keys: Iterable[str], command: str, packages: Iterable[str], folder: Path = FOLDER):
        self.path = Path(folder) / f"{name}.csv"
        self.keys = tuple(keys)
        self.about = {
            "command": command,
            "date": datetime.date.today().isoformat(),
            "versions": ", ".join(
                [f"python {platform.python_version()}", *(f"{p} {importlib.metadata.version(p)}" for p in packages)]
            ),
        }
        self.rows = []
        if self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as file:
                self.rows = list(csv.DictReader(line for line in file if not line.startswith("# ")))

    def cell(self, row: Mapping) -> tuple[str, ...]:
        """The cell to which a row belongs."""
        return tuple(str(row[key]) for key in self.keys)

    def __contains__(self, cell: Mapping) -> bool:
        return self.cell(cell) in {self.cell(row) for row in self.rows}

    def add(self, rows: Iterable[Mapping]) -> None:
        """Add the rows of a cell and write the table, in the order of the cells."""
        self.rows += [{k: f"{v:.5g}" if isinstance(v, float) else str(v) for k, v in row.items()} for row in rows]
        self.rows.sort(key=lambda row: [(len(part), part) if part.isdigit() else (0, part) for part in self.cell(row)])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", encoding="utf-8", newline="") as file:
            file.writelines(f"# {key}: {value}\n" for key, value in self.about.items())
            writer = csv.DictWriter(file, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def _numbers(values: NDArray) -> NDArray:
    for kind in (np.int64, np.float64):
        with contextlib.suppress(ValueError):
            return values.astype(kind)
    return values
