"""Train clusters of digits and icons: python experiments/clustering.py [sweeps|teacher|queue|sizes|kmeans] ...

Each cell of a grid is measured once; a table in balance/datasets/data/results that lacks cells is completed.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import product

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from balance.clustering import assignments
from balance.labs.augment import Pictures, digit_pictures, icon_pictures
from balance.labs.clustering import DIGITS, ICONS, Centering, ClusteringPreset, cluster_measures, train_clusters
from experiments.grid import complete

SEEDS = range(8)
SHARE = 0.1  # of the images of the rarest class that are left where classes are unequal
# the codes of an image in these arms come from a teacher; the prediction has temperature 0.1
TEACHERS = {
    "both": Centering,
    "centering": partial(Centering, temperature=0.1),
    "sharpening": lambda: partial(assignments, sweeps=0, epsilon=0.04),
    "neither": lambda: partial(assignments, sweeps=0, epsilon=0.1),
    "sinkhorn": lambda: assignments,
}
TEMPERS = {"uniform": 0.0, "tempered": 0.5, "true": 1.0}

GRIDS = {
    "sweeps": [
        {"data": data, "prototypes": prototypes, "sign": sign, "sweeps": sweeps, "seed": seed}
        for seed in SEEDS
        for data, prototypes, sign, sweeps in [
            *product(["digits"], [10, 30], [1], [0, 1, 3]),
            *product(["icons"], [100], [1], [0, 1, 3]),
            ("digits", 10, -1, 3),
        ]
    ],
    "teacher": [
        {"momentum": momentum, "arm": arm, "seed": seed}
        for seed in SEEDS
        for momentum, arm in [*product([0.99], TEACHERS), (0.9, "both"), (0.9, "sinkhorn")]
    ],
    "queue": [
        {"batch_size": size, "queue": queue, "queue_from": start, "seed": seed}
        for seed, (size, queue, start) in product(SEEDS, [(32, 0, 0), (32, 224, 0), (32, 224, 1200), (256, 0, 0)])
    ],
    "sizes": [{"target": target, "seed": seed} for seed, target in product(SEEDS, TEMPERS)],
    "kmeans": [
        {"data": data, "prototypes": prototypes, "seed": seed}
        for seed in SEEDS
        for data, prototypes in [("digits", 10), ("digits", 30), ("digits", 100), ("unequal", 10), ("icons", 100)]
    ],
}


@cache
def pictures(data: str) -> Pictures:
    return {"digits": digit_pictures, "unequal": partial(digit_pictures, SHARE), "icons": icon_pictures}[data]()


def trained(cell: dict, data: str, preset: ClusteringPreset, codes: int | Callable[[Tensor], Tensor], stop: int | None):
    """One row for each checkpoint of a run."""
    run = train_clusters(pictures(data), preset, assign=codes, seed=cell["seed"], stop=stop)
    return [cell | entry for entry in run.history]


def measure_sweeps(cell: dict, stop: int | None = None) -> list[dict]:
    preset = replace(DIGITS if cell["data"] == "digits" else ICONS, prototypes=cell["prototypes"])
    return trained(cell, cell["data"], preset, lambda s: assignments(cell["sign"] * s, sweeps=cell["sweeps"]), stop)


def measure_teacher(cell: dict, stop: int | None = None) -> list[dict]:
    """A run of twice the length, since a slow teacher delays it."""
    preset = replace(DIGITS, momentum=cell["momentum"], iterations=2 * DIGITS.iterations)
    return trained(cell, "digits", preset, TEACHERS[cell["arm"]](), stop)


def measure_queue(cell: dict, stop: int | None = None) -> list[dict]:
    """A run with 100 prototypes that sees as many images as one with batches of 256."""
    changes = {key: cell[key] for key in ("batch_size", "queue", "queue_from")}
    iterations = DIGITS.iterations * DIGITS.batch_size // cell["batch_size"]
    return trained(cell, "digits", replace(DIGITS, prototypes=100, iterations=iterations, **changes), 3, stop)


def measure_sizes(cell: dict, stop: int | None = None) -> list[dict]:
    """A run on classes of unequal size; the target of prototype k is a power of the size of class k."""
    sizes = torch.as_tensor(pictures("unequal").labels).bincount()
    return trained(cell, "unequal", DIGITS, partial(assignments, targets=sizes ** TEMPERS[cell["target"]]), stop)


def measure_kmeans(cell: dict, stop: int | None = None) -> list[dict]:
    """k-means, the best of 10 starts, of the inputs of the networks that are measured."""
    data = pictures(cell["data"])
    means = KMeans(cell["prototypes"], n_init=10, random_state=cell["seed"]).fit(data.inputs.flatten(1).numpy())
    return [cell | cluster_measures(data.labels, means.labels_, cell["prototypes"])]


MEASURES = {
    "sweeps": measure_sweeps,
    "teacher": measure_teacher,
    "queue": measure_queue,
    "sizes": measure_sizes,
    "kmeans": measure_kmeans,
}


def main(names):
    for name in names or GRIDS:
        complete(f"clustering_{name}", GRIDS[name], MEASURES[name], ["numpy", "scikit-learn", "torch"])


if __name__ == "__main__":
    main(sys.argv[1:])
