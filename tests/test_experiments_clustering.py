"""One row of each table of results, measured again.

The first checkpoint after the start of training, since small differences of arithmetic grow on the way: shares within
0.03, losses within 3 percent.
"""

import pytest
import torch

from balance.datasets import load_results
from experiments import clustering as experiments
from helpers import stored

CELLS = {
    "sweeps": {"data": "digits", "prototypes": 10, "sign": 1, "sweeps": 3, "seed": 0},
    "teacher": {"momentum": 0.99, "arm": "both", "seed": 0},
    "queue": {"batch_size": 32, "queue": 224, "queue_from": 0, "seed": 0},
    "sizes": {"target": "true", "seed": 0},
}
FIRST = {"sweeps": 30, "teacher": 60, "queue": 240, "sizes": 30}


@pytest.mark.parametrize("name", CELLS)
def test_training(name):
    assert CELLS[name] in experiments.GRIDS[name]
    rows = experiments.MEASURES[name](CELLS[name], stop=FIRST[name])
    assert [row["iteration"] for row in rows] == [0, FIRST[name]]
    for row in rows:
        expected = stored(f"clustering_{name}", experiments.GRIDS[name], row)
        assert row["loss"] == pytest.approx(expected.pop("loss"), rel=0.03)
        assert abs(row["used"] - expected.pop("used")) <= 2
        for column, value in expected.items():
            assert row[column] == pytest.approx(value, abs=0.03), column


def test_kmeans():
    cell = {"data": "digits", "prototypes": 10, "seed": 0}
    assert cell in experiments.GRIDS["kmeans"]
    row = experiments.measure_kmeans(cell)[0]
    for column, value in stored("clustering_kmeans", experiments.GRIDS["kmeans"], row).items():
        assert row[column] == pytest.approx(value, abs=0.03), column


@pytest.mark.parametrize("name", experiments.GRIDS)
def test_tables_are_complete(name):
    results, keys = load_results(f"clustering_{name}"), list(experiments.GRIDS[name][0])
    rows = [tuple(str(results[key][i]) for key in keys) for i in range(len(results))]
    cells = {tuple(map(str, cell.values())) for cell in experiments.GRIDS[name]}
    assert set(rows) == cells
    # before training, and ten times on the way
    assert all(rows.count(cell) == (1 if name == "kmeans" else 11) for cell in cells)


def test_arms_differ():
    """What the arms of the teacher and of the targets do to one batch of scores."""
    scores = 2 * torch.rand(2, 50, 10, generator=torch.Generator().manual_seed(0)) - 1
    codes = {arm: make()(scores) for arm, make in experiments.TEACHERS.items()}
    assert codes["sharpening"].amax(-1).mean() > codes["neither"].amax(-1).mean() + 0.05
    torch.testing.assert_close(codes["both"], codes["sharpening"])  # the first center is 0
    for arm, centers in (("both", True), ("centering", True), ("sharpening", False), ("neither", False)):
        make = experiments.TEACHERS[arm]()
        uses = [make(scores + torch.linspace(0, 2, 10)).mean((0, 1)) for _ in range(60)]
        assert (uses[-1].max() < 0.25) == centers, arm
    sizes = torch.as_tensor(experiments.pictures("unequal").labels).bincount()
    assert (sizes.sort(descending=True).values == sizes).all()
