"""One row of each table of results, measured again, and compared in what does not depend on the machine.

Processors round sums in their own ways, and training makes of that a small perturbation of the run. On one machine,
with three sets of instructions, 100 iterations with one seed ended with the losses that were trained for within 0.3
percent, the other losses within 2.1 percent, and shares of correct items within 2.4 binomial standard errors of the
stored ones.
"""

import numpy as np
import pytest
import torch

from balance.contrastive import balanced_loss
from balance.datasets import load_results
from experiments import contrastive as experiments
from helpers import stored


def tolerance(column, value):
    """What a recomputation elsewhere has to reproduce: see above, with room for another machine."""
    if column.endswith("_loss"):
        return 0.01 * value
    if column.endswith("_clip"):
        return 0.04 * value
    data, (kind, _, name) = experiments.benchmark("good"), column.rpartition("_")
    items = {"zero_shot": data.zero_shot, "probe": data.probes}.get(kind, data.retrieval)[name][0]
    return 4 * np.sqrt(value * (1 - value) / len(items))


def test_training():
    cell = {"encoder": "good", "batch_size": 128, "length": 600, "steps": 2, "seed": 0}
    assert cell in experiments.GRIDS["training"]
    row = experiments.measure_training(cell, stop=100)[-1]
    assert row["iteration"] == 100
    expected = stored("contrastive_training", experiments.GRIDS["training"], row)
    # At this iteration nothing is known of digits: the four seeds have 0.05 to 0.12, reruns with one seed 0.07 to
    # 0.13, around chance, 1 of 10. Items of one class fall together, so that they are not independent.
    assert expected.pop("zero_shot_digits") < 0.2 and row["zero_shot_digits"] < 0.2
    assert len(expected) == 15
    for column, value in expected.items():
        assert row[column] == pytest.approx(value, rel=0, abs=tolerance(column, value)), column


def test_marginals():
    cell = {"encoder": "good", "heads": "initial", "seed": 0}
    assert cell in experiments.GRIDS["marginals"]
    for row in experiments.measure_marginals(cell):
        for column, value in stored("contrastive_marginals", experiments.GRIDS["marginals"], row).items():
            assert row[column] == pytest.approx(value, abs=0.005), (row["k"], column)


def test_variance():
    cell = {"encoder": "good", "heads": "initial", "batch_size": 32, "seed": 0}
    assert cell in experiments.GRIDS["variance"]
    for row in experiments.measure_variance(cell):
        for column, value in stored("contrastive_variance", experiments.GRIDS["variance"], row).items():
            assert row[column] == pytest.approx(value, rel=0.05), (row["k"], column)


@pytest.mark.parametrize("name", experiments.GRIDS)
def test_tables_are_complete(name):
    results = load_results(f"contrastive_{name}")
    cells = {tuple(str(results[key][i]) for key in experiments.GRIDS[name][0]) for i in range(len(results))}
    assert cells == {tuple(map(str, cell.values())) for cell in experiments.GRIDS[name]}


def test_variance_of_the_gradient_is_the_trace_of_its_covariance():
    """Against a matrix of all gradients, for few batches."""
    cell = {"encoder": "good", "heads": "initial", "batch_size": 32, "seed": 0}
    row = experiments.measure_variance(cell, steps=(2,), number=5)[0]
    heads = experiments.trained_heads("good", None, 0)
    gradients = []
    for batch in experiments.batches(experiments.benchmark("good"), 32, 5):
        heads.zero_grad()
        balanced_loss(heads(*batch), steps=2).backward()
        gradients.append(torch.cat([w.grad.flatten() for w in heads.parameters()]).double().numpy())
    assert row["gradient_variance"] == pytest.approx(np.var(gradients, axis=0, ddof=1).sum(), rel=1e-4)
    square = (np.mean(gradients, axis=0) ** 2).sum() - row["gradient_variance"] / 5
    assert row["gradient_squared"] == pytest.approx(square, rel=1e-3)
