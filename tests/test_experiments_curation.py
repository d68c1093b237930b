"""Pools of the curation experiment, and one row of its results measured again.

Tolerances: losses within 2 percent and shares within 0.02, since arithmetic differs from machine to machine.
"""

import numpy as np
import pytest

from balance.curation import curate, metaclip_inclusion
from balance.datasets import icons, load_results
from experiments import curation as experiments

POOL = ("pairs", "distinct_pairs", "distinct_captions", "effective_sample_size")


@pytest.fixture(scope="module")
def results():
    return load_results("curation_training")


def test_table_is_complete(results):
    keys = (*experiments.KEYS, "iteration")
    rows = [tuple(str(results[key][i]) for key in keys) for i in range(len(results))]
    lengths = {p.batch_size: p.iterations for p in experiments.PRESETS}
    expected = {
        (*map(str, cell.values()), str(lengths[cell["batch_size"]] * part // 3))
        for cell in experiments.GRID
        for part in (1, 2, 3)
    }
    assert len(rows) == len(expected)
    assert set(rows) == expected


def test_training(results):
    cell = {"brands": 1, "batch_size": 512, "pool": "t = 50", "seed": 0}
    assert cell in experiments.GRID
    (row,) = experiments.measure(cell, stop=100)
    stored = results.where(**cell, iteration=100)
    assert len(stored) == 1
    for column in set(stored.columns) - {*cell, "iteration"}:
        tolerance = {"rel": 0.02} if column == "held_out_loss" else {"rel": 1e-4} if column in POOL else {"abs": 0.02}
        assert row[column] == pytest.approx(stored[column][0], **tolerance), column


@pytest.mark.parametrize("pool", experiments.POOLS + experiments.FRESH + experiments.MORE)
def test_pools(pool, results):
    """The sizes that were stored, and how often each pair is drawn, against its mass."""
    table = experiments.table(1)
    preset = experiments.PRESETS[0]
    rows = experiments.draw(pool, table, preset, np.random.default_rng(0))
    captions = np.array(experiments.benchmark(1).captions)
    stored = results.where(brands=1, pool=pool, seed=0, batch_size=preset.batch_size)
    sizes = [len(rows), len(set(rows.tolist())), len(set(captions[rows].tolist()))]
    assert {tuple(stored[name][i] for name in POOL[:3]) for i in range(len(stored))} == {tuple(sizes)}
    matched = (table.sum(1) > 0).astype(float)
    assert pool == "raw" or (matched[rows] == 1).all()
    fixed = pool.removesuffix(", fresh")
    number = preset.iterations * preset.batch_size if fixed != pool else matched.sum()
    masses = {
        "t = 200": curate(table, 200).weights,
        "t = 50": curate(table, 50).weights,
        "t = 15": curate(table, 15).weights,
        "t = 50, 3 steps": matched / matched.sum(),
        "t = 50, 4 steps": curate(table, 50, steps=4).weights,
        "t = 50, 20 steps": curate(table, 50, steps=20).weights,
    }
    if pool == "without replacement":
        distinct = 1 - (1 - masses["t = 50"]) ** number
        assert sizes[:2] == [round(distinct.sum())] * 2
        return
    expected = {"raw": np.ones(len(captions)), "match": matched, "MetaCLIP": metaclip_inclusion(table, 50)}
    expected |= {name: number * mass for name, mass in masses.items()}
    drawn = np.bincount(rows, minlength=len(captions))
    groups = np.digitize(expected[fixed], np.quantile(expected[fixed][matched > 0], [0.2, 0.4, 0.6, 0.8]))
    for group in np.unique(groups):
        mean = expected[fixed][groups == group].sum()
        assert abs(drawn[groups == group].sum() - mean) <= 4 * np.sqrt(mean) * (pool not in ("raw", "match"))


def test_rare_and_common_are_halves():
    """The rare classes have fewer training captions than the common ones."""
    tasks = experiments.benchmark(1).zero_shot
    names = icons.load_classes("artists").texts
    words = [set(caption.split()) for caption in icons.load_icons("train").captions]
    known = np.array([sum(name in caption for caption in words) for name in names])
    rare, common = (np.unique(tasks[part][1]) for part in ("rare", "common"))
    assert sorted([*rare, *common]) == list(range(len(names)))
    assert len(common) - len(rare) in (0, 1)
    assert known[rare].max() <= known[common].min()
    assert len(tasks["rare"][1]) + len(tasks["common"][1]) == len(tasks["all"][1])
