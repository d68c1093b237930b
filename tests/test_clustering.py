"""Codes against `data_balance`, an optimal-transport library and optimal assignments; measures by enumeration."""

import math
from itertools import permutations, product

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from balance import data_balance
from balance.clustering import (
    assignments,
    centered_softmax,
    clustering_accuracy,
    cross_entropy,
    nmi_and_ari,
    swapped_loss,
    update_center,
    usage,
    usage_entropy,
    usage_variance,
)
from balance.contrastive import log_balance
from helpers import random_cosines

SIZES = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


@pytest.mark.parametrize("sweeps", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("targets", [None, SIZES])
@pytest.mark.parametrize("epsilon", [0.05, 0.7])
def test_codes_are_data_balance(sweeps, targets, epsilon):
    scores = random_cosines()
    sizes = np.full(4, 1 / 4) if targets is None else targets.numpy()
    start = np.exp(scores.numpy() / epsilon)
    steps, first = (2 * sweeps, 1) if sweeps else (1, 0)
    expected = 6 * data_balance(start, (np.full(6, 1 / 6), sizes), steps=steps, first=first).table
    codes = assignments(scores, sweeps=sweeps, epsilon=epsilon, targets=targets).numpy()
    np.testing.assert_allclose(codes, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(codes.sum(1), 1, rtol=1e-12)
    for other in {0, 1, 2} - {sweeps}:
        assert (
            np.abs(assignments(scores, sweeps=other, epsilon=epsilon, targets=targets).numpy() - expected).max() > 1e-6
        )


@pytest.mark.parametrize("targets", [None, SIZES])
def test_many_sweeps_are_entropic_transport(targets):
    """Scores are minus the costs."""
    scores = random_cosines()
    sizes = np.full(4, 1 / 4) if targets is None else targets.numpy()
    plan = ot.sinkhorn(np.full(6, 1 / 6), sizes, -scores.numpy(), reg=0.2, stopThr=1e-13, numItermax=100_000)
    codes = assignments(scores, sweeps=3000, epsilon=0.2, targets=targets)
    np.testing.assert_allclose(codes, 6 * plan, atol=1e-9)
    assert np.abs(assignments(-scores, sweeps=3000, epsilon=0.2, targets=targets).numpy() - 6 * plan).max() > 0.1


@pytest.mark.parametrize("seed", range(5))
def test_low_temperature_gives_the_best_assignment(seed):
    """Up to the entropy, at most log 5 for each of the 5 rows; and the opposite sign the worst."""
    scores, epsilon = random_cosines(5, 5, seed=seed), 0.02
    best, worst = (
        scores.numpy()[linear_sum_assignment(scores.numpy(), maximize=maximize)].sum() for maximize in (True, False)
    )
    assert best - worst > 2
    right, wrong = (
        (assignments(sign * scores, sweeps=1000, epsilon=epsilon) * scores).sum().item() for sign in (1, -1)
    )
    assert best - epsilon * 5 * math.log(5) < right < best + 1e-3
    assert worst - 1e-3 < wrong < worst + epsilon * 5 * math.log(5)


def test_leading_axes():
    scores = torch.stack([random_cosines(seed=seed) for seed in range(6)]).unflatten(0, (2, 3))
    codes = assignments(scores, targets=SIZES)
    assert codes.shape == (2, 3, 6, 4)
    torch.testing.assert_close(codes[1, 2], assignments(scores[1, 2], targets=SIZES))
    torch.testing.assert_close(usage(codes)[1, 2], codes[1, 2].mean(0))
    torch.testing.assert_close(cross_entropy(codes, scores)[1, 2], cross_entropy(codes[1, 2], scores[1, 2]))


def test_offsets():
    """A Y-step forgets an offset of a column; one of a row stays until the last step, and acts on the first."""
    scores = random_cosines()
    column, row = torch.arange(4.0), torch.arange(6.0)[:, None] / 10
    codes = assignments(scores, sweeps=1)
    torch.testing.assert_close(assignments(scores + column, sweeps=1), codes)
    assert (assignments(scores + row, sweeps=1) - codes).abs().max() > 0.01
    assert (assignments(scores + column, sweeps=0) - assignments(scores, sweeps=0)).abs().max() > 0.1
    torch.testing.assert_close(assignments(scores + row, sweeps=0), assignments(scores, sweeps=0))


def test_codes_of_few_bits_are_computed_with_more():
    scores = random_cosines().bfloat16()
    for sweeps in (0, 3):
        codes = assignments(scores / 8, sweeps=sweeps)
        assert codes.dtype == torch.float32
        torch.testing.assert_close(codes.sum(1), torch.ones(6))


def test_losses():
    a, b, codes_a, codes_b = (random_cosines(seed=seed) for seed in range(4))
    codes_a, codes_b = codes_a.softmax(1), codes_b.softmax(1)
    for tau in (0.1, 0.5):
        from_a, from_b = (torch.nn.functional.cross_entropy(s / tau, q).item() for s, q in ((b, codes_a), (a, codes_b)))
        assert cross_entropy(codes_a, b, tau).item() == pytest.approx(from_a)
        assert swapped_loss(a, b, codes_a, codes_b, tau).item() == pytest.approx((from_a + from_b) / 2)
        assert abs(swapped_loss(a, b, codes_b, codes_a, tau).item() - (from_a + from_b) / 2) > 0.01


def test_no_gradient_flows_through_the_codes():
    a, b = (random_cosines(seed=seed).requires_grad_() for seed in (1, 2))
    codes = assignments(a), assignments(b)
    assert codes[0].requires_grad
    gradients = torch.autograd.grad(swapped_loss(a, b, *codes), (a, b))
    for scores, code, gradient in zip((a, b), reversed(codes), gradients, strict=True):
        expected = ((scores / 0.1).softmax(1) - code) / (2 * 6 * 0.1)
        torch.testing.assert_close(gradient, expected)


def test_codes_are_differentiable():
    scores = random_cosines().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: assignments(s, sweeps=2, epsilon=0.5, targets=SIZES), scores)


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 50.0])
def test_centering_is_nearly_a_y_step(epsilon):
    """One sweep subtracts epsilon log mean exp(S / epsilon) from a column; the mean is less, by range^2 / 8 epsilon."""
    scores = random_cosines(200)
    exact = epsilon * (torch.logsumexp(scores / epsilon, 0) - math.log(200))
    torch.testing.assert_close(centered_softmax(scores, exact, epsilon), assignments(scores, sweeps=1, epsilon=epsilon))
    offset = scores / epsilon - log_balance(scores / epsilon, steps=1, first=1)
    torch.testing.assert_close(offset.mean(0) * epsilon, exact + epsilon * math.log(4 * 200))
    mean = update_center(torch.zeros(4), scores, momentum=0)
    torch.testing.assert_close(mean, scores.mean(0))
    difference = exact - mean
    bound = (scores.amax(0) - scores.amin(0)) ** 2 / (8 * epsilon)
    assert (difference > 0).all()
    assert (difference <= bound).all()
    if epsilon == 50:
        torch.testing.assert_close(difference, scores.var(0, correction=0) / (2 * epsilon), rtol=0.02, atol=0)


def test_center_is_a_running_mean():
    batches = torch.stack([random_cosines(seed=seed) for seed in range(3)])
    center = torch.zeros(4, dtype=torch.float64)
    for batch in batches:
        center = update_center(center, batch, momentum=0.8)
    weights = torch.tensor([0.8**2, 0.8, 1]) * 0.2
    torch.testing.assert_close(center, (weights.double()[:, None] * batches.mean(1)).sum(0))
    together = update_center(torch.zeros(4), batches, momentum=0.8)
    torch.testing.assert_close(together, 0.2 * batches.mean((0, 1)))


def test_usage_entropy():
    for used in (1, 2, 5):
        codes = torch.eye(5)[torch.arange(30) % used]
        assert usage_entropy(codes) == pytest.approx(math.log(used) / math.log(5), abs=1e-6)
    assert usage_entropy(SIZES.expand(7, 4)) == pytest.approx(
        -sum(p * math.log(p) for p in SIZES.tolist()) / math.log(4)
    )


def test_agreement_by_hand():
    labels, clusters = [0, 0, 0, 1, 1, 1], [2, 2, 7, 7, 7, 7]
    table = np.array([[2, 1], [0, 3]]) / 6
    outer = table.sum(1, keepdims=True) * table.sum(0)
    information = sum(p * math.log(p / q) for p, q in zip(table.flat, outer.flat, strict=True) if p)
    entropies = [-sum(p * math.log(p) for p in table.sum(axis)) for axis in (0, 1)]
    # pairs together in both: 1 + 3; in the labels 6, in the clusters 7, of 15
    expected = 6 * 7 / 15
    nmi, ari = nmi_and_ari(labels, clusters)
    assert nmi == pytest.approx(2 * information / sum(entropies))
    assert ari == pytest.approx((4 - expected) / ((6 + 7) / 2 - expected))


@pytest.mark.parametrize(("classes", "prototypes"), [(4, 4), (3, 5), (5, 3)])
def test_clustering_accuracy_over_all_matchings(classes, prototypes):
    rng = np.random.default_rng(classes)
    labels, clusters = rng.integers(classes, size=40), rng.integers(prototypes, size=40)
    names = max(classes, prototypes)
    best = max((np.take(order, clusters) == labels).mean() for order in permutations(range(names)))
    assert clustering_accuracy(labels, 10 * clusters) == best
    sizes = [np.sort(np.bincount(values, minlength=names))[::-1] / 40 for values in (labels, clusters)]
    assert best <= 1 - np.abs(sizes[0] - sizes[1]).sum() / 2 + 1e-12


def population(images=12, prototypes=4, seed=0):
    """A table whose rows are equal and whose columns have the given sizes."""
    rng = np.random.default_rng(seed)
    start = np.exp(rng.normal(size=(images, prototypes)))
    return data_balance(start, (np.full(images, 1 / images), SIZES.numpy()), tol=1e-13).table


def test_variance_of_the_usage_without_sweeps_is_exact():
    """Over all batches of 2 images out of 5."""
    table = population(5)
    codes = 5 * table
    usages = np.array([codes[list(batch)].mean(0) for batch in product(range(5), repeat=2)])
    np.testing.assert_allclose(usage_variance(table, 2, 0), usages.var(0), rtol=1e-10)


@pytest.mark.parametrize("sweeps", [1, 2])
def test_variance_of_the_usage_in_random_batches(sweeps):
    table, size = population(), 500
    rows = torch.as_tensor(np.log(table)[np.random.default_rng(1).integers(12, size=(2000, size))])
    usages = usage(assignments(rows, sweeps=sweeps, epsilon=1.0, targets=SIZES)).numpy()
    # a sample variance of 2000 draws has a standard deviation of 3.2 percent
    np.testing.assert_allclose(usages.var(0, ddof=1), usage_variance(table, size, sweeps), rtol=0.12)


def test_total_variance_of_the_usage():
    """The expected chi-square divergence of the usage from the sizes is a power sum of the singular values."""
    table = population()
    values = np.linalg.svd(table * 12**0.5 / SIZES.numpy() ** 0.5, compute_uv=False)[1:]
    for sweeps in (0, 1, 3):
        total = (usage_variance(table, 50, sweeps) / SIZES.numpy()).sum()
        assert total == pytest.approx((values ** (4 * sweeps + 2)).sum() / 50)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: assignments(torch.zeros(3)), r"scores has shape \(3,\)"),
        (lambda: assignments(torch.zeros(3, 2), sweeps=-1), "sweeps = -1"),
        (lambda: assignments(torch.zeros(3, 2), sweeps=1.0), "sweeps = 1.0"),
        (lambda: assignments(torch.zeros(3, 2), epsilon=0), "epsilon = 0"),
        (lambda: assignments(torch.zeros(3, 2), epsilon=math.nan), "epsilon = nan"),
        (
            lambda: assignments(torch.zeros(3, 2), targets=torch.ones(3)),
            r"targets\[1\] has length 3, axis 1 of the table has length 2",
        ),
        (lambda: assignments(torch.zeros(3, 2), targets=torch.tensor([2.0, -1.0])), r"targets\[1\] = -1.0 is negative"),
        (lambda: cross_entropy(torch.zeros(3, 2), torch.zeros(2, 3)), r"codes have shape \(3, 2\)"),
        (lambda: cross_entropy(torch.zeros(3, 2), torch.zeros(3, 2), 0), "temperature = 0"),
        (lambda: centered_softmax(torch.zeros(3, 2), torch.zeros(3)), r"center has shape \(3,\), expected \(2,\)"),
        (lambda: centered_softmax(torch.zeros(3, 2), torch.zeros(2), -1), "temperature = -1"),
        (lambda: update_center(torch.zeros(2), torch.zeros(3, 2), momentum=1), "momentum = 1"),
        (lambda: update_center(torch.zeros(1), torch.zeros(3, 2)), r"center has shape \(1,\)"),
        (lambda: usage(torch.zeros(3)), r"scores has shape \(3,\)"),
        (lambda: usage_entropy(torch.ones(3, 1)), "1 prototype"),
        (lambda: usage_variance([[1, 2], [1, 1]], 5, 1), "row sums range from 0.4 to 0.6"),
        (lambda: usage_variance(np.eye(2), 0, 1), "batch_size = 0"),
        (lambda: usage_variance(np.eye(2), 1, -1), "sweeps = -1"),
        (lambda: usage_variance([[1, 0], [1, 0]], 1, 1), "column 1"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
