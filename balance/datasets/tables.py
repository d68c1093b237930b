"""Small real tables and populations: father-son mobility, hair and eyes, eyesight, surveys.

Where each set of numbers comes from is written in ``balance/datasets/data/README.md``.
"""

import csv
from dataclasses import dataclass, field
from importlib import resources

import numpy as np
from numpy.typing import NDArray

# name: (row variable, column variable, source)
_TABLES = {
    "hair_eye": (
        "hair color",
        "eye color",
        "Snee (1974), The American Statistician 28, 9-12: 592 students",
    ),
    "british_mobility": (
        "father's class",
        "son's class",
        "Goodman (1979), Journal of the American Statistical Association 74, 537-552: 3,498 pairs",
    ),
    "glass_mobility": (
        "father's class",
        "son's class",
        "Glass (1954), Social Mobility in Britain: 3,500 pairs",
    ),
    "vision": (
        "right eye",
        "left eye",
        "Stuart (1953), Biometrika 40, 105-110: 7,477 women",
    ),
    "yamaguchi_us": (
        "father's class",
        "son's class",
        "Yamaguchi (1987), American Sociological Review 52, 482-494: United States, 1973",
    ),
    "yamaguchi_uk": (
        "father's class",
        "son's class",
        "Yamaguchi (1987), American Sociological Review 52, 482-494: United Kingdom, 1972",
    ),
    "yamaguchi_japan": (
        "father's class",
        "son's class",
        "Yamaguchi (1987), American Sociological Review 52, 482-494: Japan, 1975",
    ),
}

_SEX = ("female", "male")
# name: (labels of the coded variables, source)
_POPULATIONS = {
    "gss_vocab": (
        {
            "gender": _SEX,
            "age": ("18-29", "30-39", "40-49", "50-59", "60+"),
            "education": ("< 12 years", "12 years", "13-15 years", "16 years", "> 16 years"),
        },
        "General Social Survey, NORC, 1978-2016: 27,408 answers to a ten-word vocabulary test",
    ),
    "acs12": (
        {
            "gender": _SEX,
            "race": ("white", "black", "asian", "other"),
            "married": ("no", "yes"),
            "education": ("high school or lower", "college", "graduate school"),
            "employment": ("employed", "unemployed", "not in labor force"),
        },
        "American Community Survey, US Census Bureau, 2012: 1,561 adults",
    ),
}


@dataclass(frozen=True, eq=False)
class ContingencyTable:
    """A contingency table.

    Attributes
    ----------
    counts : ndarray of int, shape (m, l)
    rows, columns : tuple of str
        Labels of the m values of X and of the l values of Y.
    row_name, column_name : str
        What X and Y are.
    source : str
    """

    counts: NDArray[np.int64] = field(repr=False)
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_name: str
    column_name: str
    source: str


@dataclass(frozen=True, eq=False)
class Population:
    """Records of a finite population.

    Attributes
    ----------
    variables : dict of str to ndarray of int, shape (size,)
        One array per variable; codes 0, 1, ... where the variable has labels.
    labels : dict of str to tuple of str
        What the codes mean; a variable that is a number (a score, an age, an income) has no entry.
    size : int
        Number of records.
    source : str
    """

    variables: dict[str, NDArray[np.intp]] = field(repr=False)
    labels: dict[str, tuple[str, ...]]
    size: int
    source: str


def load_table(name: str) -> ContingencyTable:
    """Load a contingency table.

    Parameters
    ----------
    name : str
        "hair_eye" (4 x 4), "british_mobility" (8 x 8), "glass_mobility" (5 x 5), "vision" (4 x 4),
        "yamaguchi_us", "yamaguchi_uk" or "yamaguchi_japan" (5 x 5).

    Returns
    -------
    ContingencyTable

    Raises
    ------
    ValueError
        If there is no table of that name.

    Examples
    --------
    >>> table = load_table("vision")
    >>> table.counts.tolist()[0], table.rows
    ([1520, 266, 124, 66], ('best', 'second', 'third', 'worst'))
    >>> int(table.counts.sum())
    7477
    """
    row_name, column_name, source = _entry(_TABLES, name, "table")
    (_, *columns), *lines = _read(name)
    return ContingencyTable(
        counts=np.array([line[1:] for line in lines], dtype=np.int64),
        rows=tuple(line[0] for line in lines),
        columns=tuple(columns),
        row_name=row_name,
        column_name=column_name,
        source=source,
    )


def load_population(name: str) -> Population:
    """Load a population of survey records, sorted by their values.

    Parameters
    ----------
    name : str
        "gss_vocab" (gender, age and education groups, words known out of ten) or "acs12" (adults:
        gender, race, marriage, education, employment, age in years, yearly income in dollars).

    Returns
    -------
    Population
        Complete records only.

    Raises
    ------
    ValueError
        If there is no population of that name.

    Examples
    --------
    >>> gss = load_population("gss_vocab")
    >>> gss.size, sorted(gss.variables)
    (27408, ['age', 'education', 'gender', 'words'])
    >>> table = np.zeros((5, 5), dtype=int)
    >>> np.add.at(table, (gss.variables["age"], gss.variables["education"]), 1)
    >>> gss.labels["age"][0], table[0].tolist()
    ('18-29', [1020, 1803, 1747, 763, 365])
    """
    labels, source = _entry(_POPULATIONS, name, "population")
    header, *lines = _read(name)
    columns = np.array(lines, dtype=np.intp).T
    variables = {
        variable: np.repeat(values, columns[-1]) for variable, values in zip(header[:-1], columns[:-1], strict=True)
    }
    return Population(variables, labels.copy(), int(columns[-1].sum()), source)


def _entry(known, name, kind):
    if name not in known:
        raise ValueError(f"no {kind} is called {name!r}: choose one of {', '.join(known)}")
    return known[name]


def _read(name):
    """Return the lines of a CSV file, the header first."""
    text = resources.files("balance.datasets").joinpath("data", f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.reader(text.splitlines()))
