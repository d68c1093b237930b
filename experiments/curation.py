"""Train on curated pools of icons: python experiments/curation.py

Each cell of the grid is measured once; a table in balance/datasets/data/results that lacks cells is completed. The loss
is CLIP's, the encoder "good". Every run takes the same number of batches, whatever the size of its pool.

Pools, by the seed of the run: "raw" is all pairs, "match" those whose caption matches a keyword. A pool that names a
cap is drawn once with replacement, by the masses of `curate`, to the size of "match"; if it is "fresh", for every batch
anew, so that training goes once through as many pairs as it needs. "MetaCLIP" keeps each matched pair with the
probability of its own rule. "without replacement" has as many pairs as "t = 50" has distinct ones on average. After
three steps all matched pairs have the same mass: these pools show what drawing with replacement does alone.
"""

import re
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from balance.curation import curate, effective_sample_size, match_keywords, metaclip_inclusion
from balance.datasets import icons, load_keywords
from balance.labs.contrastive import CPU, Benchmark, ContrastivePreset, train
from balance.labs.icons_benchmark import icon_benchmark
from balance.sampling import poisson_sample, resample
from experiments.grid import complete

SEEDS = range(8)
PRESETS = [replace(CPU, checkpoints=3), replace(CPU, batch_size=512, iterations=300, checkpoints=3)]
POOLS = ("raw", "match", "t = 200", "t = 50", "t = 15")
MORE = (
    "t = 50, 3 steps",
    "t = 50, 4 steps",
    "t = 50, 20 steps",
    "MetaCLIP",
    "without replacement",
    "t = 50, 3 steps, fresh",
)
FRESH = ("t = 200, fresh", "t = 50, fresh", "t = 15, fresh")
CAP, STEPS = 50, 2  # unless the pool's name says otherwise

KEYS = ("brands", "batch_size", "pool", "seed")
GRID = [
    dict(zip(KEYS, (brands, preset.batch_size, pool, seed), strict=True))
    for seed, brands, preset in product(SEEDS, (1, 0), PRESETS)
    for pool in POOLS + FRESH + (MORE if brands else ())
]


@cache
def benchmark(brands: int) -> Benchmark:
    """The icons, with one test of classification: overall, and for the rarer and the commoner half of its classes.

    A class is rare or common by the number of training captions, without brands, that have its word.
    """
    full = icon_benchmark("good", brands=bool(brands))
    images, labels, texts = full.zero_shot["artists"]
    names = icons.load_classes("artists").texts
    known = match_keywords(icon_captions(), names).sum(0)
    common = np.argsort(np.argsort(known, kind="stable")) >= len(names) // 2
    tasks = {
        name: (images[inside], labels[inside], texts)
        for name, inside in (("all", labels >= 0), ("rare", ~common[labels]), ("common", common[labels]))
    }
    return replace(full, zero_shot=tasks, retrieval={"artists": full.retrieval["artists"]}, probes={})


def icon_captions() -> tuple[str, ...]:
    return icons.load_icons("train").captions


@cache
def table(brands: int) -> csr_array:
    """Which keyword is in which training caption."""
    return match_keywords(benchmark(brands).captions, load_keywords())


def draw(pool: str, table: csr_array, preset: ContrastivePreset, rng: np.random.Generator) -> NDArray[np.int64]:
    """The rows of a pool."""
    matched = np.flatnonzero(table.sum(1))
    if pool == "raw":
        return np.arange(table.shape[0])
    if pool == "match":
        return matched
    if pool == "MetaCLIP":
        return poisson_sample([metaclip_inclusion(table, CAP)], 1, rng)
    numbers = [int(number) for number in re.findall(r"\d+", pool)]
    cap, steps = (*numbers, STEPS)[:2] if numbers else (CAP, STEPS)
    weights = curate(table, cap, steps=steps).weights
    if pool == "without replacement":
        distinct = (1 - (1 - weights) ** len(matched)).sum()
        return resample(weights, round(distinct), replace=False, rng=rng)
    size = preset.iterations * preset.batch_size if "fresh" in pool else len(matched)
    return resample(weights, size, replace=True, rng=rng)


def measure(cell: dict, stop: int | None = None) -> list[dict]:
    """One row for each checkpoint of a run after its start.

    "effective_sample_size" is that of the numbers of times the pairs occur in the pool.
    """
    preset = next(p for p in PRESETS if p.batch_size == cell["batch_size"])
    rows = draw(cell["pool"], table(cell["brands"]), preset, np.random.default_rng(cell["seed"]))
    data = benchmark(cell["brands"]).pool(rows)
    pool = {
        "pairs": len(rows),
        "distinct_pairs": len(np.unique(rows)),
        "distinct_captions": len(set(data.captions)),
        "effective_sample_size": effective_sample_size(np.bincount(rows)),
    }
    run = train(data, preset, seed=cell["seed"], stop=stop)
    columns = {
        "zero_shot": "zero_shot_all",
        "zero_shot_rare": "zero_shot_rare",
        "zero_shot_common": "zero_shot_common",
        "image_to_text": "image_to_text_artists",
        "text_to_image": "text_to_image_artists",
        "held_out_loss": "held_out_loss",
    }
    return [
        cell | {"iteration": entry["iteration"]} | pool | {name: entry[key] for name, key in columns.items()}
        for entry in run.history[1:]
    ]


if __name__ == "__main__":
    complete("curation_training", GRID, measure, ["numpy", "scipy", "torch"])
