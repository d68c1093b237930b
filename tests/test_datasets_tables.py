"""The data sets against figures published elsewhere, and against each other."""

import re
from dataclasses import FrozenInstanceError
from importlib import resources

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from balance.datasets import load_population, load_table
from balance.datasets.tables import _POPULATIONS, _TABLES
from experiments import clustering, contrastive

DATA = resources.files("balance.datasets") / "data"
SHAPES_AND_TOTALS = {
    "hair_eye": ((4, 4), 592),
    "british_mobility": ((8, 8), 3498),
    "glass_mobility": ((5, 5), 3500),
    "vision": ((4, 4), 7477),
    "yamaguchi_us": ((5, 5), 18237),
    "yamaguchi_uk": ((5, 5), 8312),
    "yamaguchi_japan": ((5, 5), 2338),
}


@pytest.mark.parametrize("name", SHAPES_AND_TOTALS)
def test_sizes_are_the_published_ones(name):
    table = load_table(name)
    assert (table.counts.shape, int(table.counts.sum())) == SHAPES_AND_TOTALS[name]
    assert (len(table.rows), len(table.columns)) == table.counts.shape
    assert len(set(table.rows)) == len(table.rows) and "" not in table.rows + table.columns
    assert table.counts.dtype == np.int64 and table.counts.min() >= 0


def test_every_table_and_file_is_known():
    assert set(SHAPES_AND_TOTALS) == set(_TABLES)
    files = {f.name for f in DATA.iterdir()}
    known = {f"{name}.csv" for name in [*_TABLES, *_POPULATIONS, "published_zero_shot"]}
    known |= {"README.md", "icons", "results", "keywords.txt", "keywords.NOTICE.md"}
    assert files == known
    parts = {f"{name}.npz" for name in ("brands", "digits", "icons", "texts")}
    assert {f.name for f in (DATA / "icons").iterdir()} == parts | {"LICENSE-Apache-2.0.txt", "NOTICE.md"}
    measured = {f"contrastive_{name}" for name in contrastive.GRIDS} | {"curation_training"}
    measured |= {f"clustering_{name}" for name in clustering.GRIDS}
    assert {f.name for f in (DATA / "results").iterdir()} == {f"{name}.csv" for name in measured}


def test_hair_and_eyes_give_the_published_chi_square():
    table = load_table("hair_eye")
    assert chi2_contingency(table.counts).statistic == pytest.approx(138.29, abs=0.005)
    hair = dict(zip(table.rows, table.counts.sum(axis=1).tolist(), strict=True))
    eyes = dict(zip(table.columns, table.counts.sum(axis=0).tolist(), strict=True))
    assert hair == {"black": 108, "brown": 286, "red": 71, "blond": 127}
    assert eyes == {"brown": 220, "blue": 215, "hazel": 93, "green": 64}


def test_vision_gives_the_published_test_of_equal_margins():
    """Stuart (1955) tests marginal homogeneity on this table: Q = 11.96 with 3 degrees of freedom."""
    n = load_table("vision").counts.astype(float)
    difference = (n.sum(axis=1) - n.sum(axis=0))[:3]
    covariance = np.diag(n.sum(axis=1) + n.sum(axis=0)) - n - n.T
    statistic = difference @ np.linalg.solve(covariance[:3, :3], difference)
    assert statistic == pytest.approx(11.96, abs=0.005)
    assert n[:, 0].sum() == 1907 and n[0].sum() == 1976


def test_the_two_british_tables_agree_when_classes_are_merged():
    """Fixes the order of the eight classes: an independent printing of the survey has five."""
    fine, coarse = load_table("british_mobility").counts, load_table("glass_mobility").counts
    starts = [0, 1, 3, 4, 6]
    merged = np.add.reduceat(np.add.reduceat(fine, starts, axis=0), starts, axis=1)
    differences = {tuple(map(int, i)): int(merged[tuple(i)] - coarse[tuple(i)])
                   for i in np.argwhere(merged != coarse)}  # fmt: skip
    assert differences == {(3, 3): 1, (4, 0): -3}


def test_british_margins():
    counts = load_table("british_mobility").counts
    assert counts.sum(axis=1).tolist() == [129, 150, 345, 518, 156, 1355, 458, 387]
    assert counts.sum(axis=0).tolist() == [103, 159, 330, 459, 244, 1186, 593, 424]


def test_yamaguchi_total_and_farm_sons():
    tables = [load_table(f"yamaguchi_{c}") for c in ("us", "uk", "japan")]
    assert sum(int(t.counts.sum()) for t in tables) == 28887
    for table in tables:  # in each country most farmers' sons left farming, hardly anyone entered it
        farm = table.rows.index("farm")
        assert table.counts[:, farm].sum() < table.counts[farm].sum()


@pytest.mark.parametrize(("name", "size"), [("gss_vocab", 27408), ("acs12", 1561)])
def test_populations_are_complete_and_coded(name, size):
    population = load_population(name)
    assert population.size == size
    for variable, values in population.variables.items():
        assert values.shape == (size,) and values.min() >= 0
        if variable in population.labels:
            codes = range(len(population.labels[variable]))
            assert set(np.unique(values).tolist()) == set(codes)


def test_populations_show_known_facts():
    gss = load_population("gss_vocab")
    words, education = gss.variables["words"], gss.variables["education"]
    assert words.max() == 10
    means = [words[education == e].mean() for e in range(5)]
    assert means == sorted(means) and means[4] - means[0] > 2
    acs = load_population("acs12")
    counts = np.bincount(acs.variables["education"])
    assert counts[2] == 144 and counts[1] == 359  # every graduate of the 2,000 records is an adult
    assert acs.variables["age"].min() == 18
    work, income = acs.variables["employment"], acs.variables["income"]
    assert np.median(income[work == 0]) > 20_000 > np.median(income[work == 1])


@pytest.mark.parametrize(("load", "known"), [(load_table, _TABLES), (load_population, _POPULATIONS)])
def test_unknown_name_lists_the_known_ones(load, known):
    with pytest.raises(ValueError, match="choose one of " + re.escape(", ".join(known))):
        load("../README")


def test_loading_twice_gives_independent_copies():
    first = load_table("vision")
    first.counts[0, 0] = 0
    assert load_table("vision").counts[0, 0] == 1520
    with pytest.raises(FrozenInstanceError):
        first.source = ""
    load_population("acs12").labels.clear()
    assert load_population("acs12").labels
