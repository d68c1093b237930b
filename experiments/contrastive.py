"""Measure the contrastive losses on the icons: python experiments/contrastive.py [training|marginals|variance] ...

Each cell of a grid is measured once; a table in balance/datasets/data/results that lacks cells is completed.
"""

import sys
from dataclasses import replace
from functools import cache
from itertools import product

import torch

from balance.contrastive import balanced_loss, marginals
from balance.datasets.icons import ENCODERS
from balance.labs.contrastive import CPU, Benchmark, Heads, train
from balance.labs.icons_benchmark import icon_benchmark
from experiments.grid import complete

SEEDS = range(4)
STEPS = (0, 1, 2)
MORE_STEPS = (3, 5, 10)
PRESETS = [CPU, replace(CPU, batch_size=512, iterations=300)]
LONG = replace(CPU, iterations=3000, checkpoints=10)
BATCHES = 100

GRIDS = {
    "training": [
        {"encoder": encoder, "batch_size": p.batch_size, "length": p.iterations, "steps": k, "seed": seed}
        for seed, p, encoder, k in [
            *product(SEEDS, PRESETS, ENCODERS, STEPS),
            *product(SEEDS, [CPU], ["good", "poor"], MORE_STEPS),
            *product(SEEDS[:2], [LONG], ["good", "poor"], STEPS),
        ]
    ],
    "marginals": [
        {"encoder": encoder, "heads": heads, "seed": seed}
        for seed in SEEDS[:2]
        for encoder, heads in product(ENCODERS, ["initial", "k = 0", "k = 1", "k = 2"])
    ],
    "variance": [
        {"encoder": encoder, "heads": heads, "batch_size": size, "seed": seed}
        for seed in SEEDS[:2]
        for encoder, heads, size in product(["good", "poor"], ["initial", "trained"], [32, 128, 512])
    ],
}


@cache
def benchmark(encoder: str) -> Benchmark:
    return icon_benchmark(encoder)


@cache
def trained_heads(encoder: str, steps: int | None, seed: int) -> Heads:
    """Heads after training with batches of 128, or, without steps, before."""
    preset, stop = replace(CPU, checkpoints=1), 0 if steps is None else None
    return train(benchmark(encoder), preset, loss=steps or 0, seed=seed, stop=stop).heads


def measure_training(cell: dict, stop: int | None = None) -> list[dict]:
    """One row for each checkpoint of a run."""
    preset = next(p for p in [*PRESETS, LONG] if (p.batch_size, p.iterations) == (cell["batch_size"], cell["length"]))
    run = train(benchmark(cell["encoder"]), preset, loss=cell["steps"], seed=cell["seed"], stop=stop)
    return [cell | entry for entry in run.history]


def measure_marginals(cell: dict) -> list[dict]:
    """Total variation of the marginals of contrast matrices from uniform after k steps, mean of 20 batches of 128."""
    steps = None if cell["heads"] == "initial" else int(cell["heads"][-1])
    heads = trained_heads(cell["encoder"], steps, cell["seed"])
    with torch.no_grad():
        scores = torch.stack([heads(*batch) for batch in batches(benchmark(cell["encoder"]), 128, 20)])
    rows = []
    for k in range(5):
        errors = [(margin - 1 / 128).abs().sum(-1).mean().item() / 2 for margin in marginals(scores, steps=k)]
        rows.append(cell | {"k": k, "rows": errors[0], "columns": errors[1]})
    return rows


def measure_variance(cell: dict, steps=(0, 1, 2, 3, 5, 10), number: int = BATCHES) -> list[dict]:
    """Mean and variance over batches of L_k and of its gradient in the weights of the heads.

    The variance of a gradient is the trace of its covariance matrix; its squared mean is corrected for the
    variance of the average.
    """
    heads = trained_heads(cell["encoder"], None if cell["heads"] == "initial" else 1, cell["seed"])
    weights = list(heads.parameters())
    count = {k: [] for k in steps}
    sums = {k: torch.zeros(sum(w.numel() for w in weights)) for k in steps}
    squares = dict.fromkeys(steps, 0.0)
    for batch in batches(benchmark(cell["encoder"]), cell["batch_size"], number):
        scores = heads(*batch)
        for k in steps:
            loss = balanced_loss(scores, steps=k)
            gradients = torch.autograd.grad(loss, weights, retain_graph=k != steps[-1])
            gradient = torch.cat([g.flatten() for g in gradients])
            count[k].append(loss.item())
            sums[k] += gradient
            squares[k] += gradient.square().sum().item()
    rows = []
    for k in steps:
        losses = torch.tensor(count[k])
        variance = (squares[k] - sums[k].square().sum().item() / number) / (number - 1)
        size = (sums[k] / number).square().sum().item() - variance / number
        rows.append(
            cell
            | {"k": k, "loss": losses.mean().item(), "loss_variance": losses.var().item()}
            | {"gradient_squared": size, "gradient_variance": variance, "relative_variance": variance / size}
        )
    return rows


def batches(data: Benchmark, size: int, number: int):
    """Independent batches of training pairs, without repetition within a batch."""
    generator = torch.Generator().manual_seed(2024)
    for _ in range(number):
        rows = torch.randperm(len(data.train[0]), generator=generator)[:size].numpy()
        yield data.train[0][rows], data.train[1][rows]


MEASURES = {"training": measure_training, "marginals": measure_marginals, "variance": measure_variance}


def main(names):
    for name in names or GRIDS:
        complete(f"contrastive_{name}", GRIDS[name], MEASURES[name], ["numpy", "torch"])


if __name__ == "__main__":
    main(sys.argv[1:])
