"""The losses against formulas written with softmax, against `data_balance`, and against their invariances."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax, softmax

from balance import data_balance
from balance.contrastive import balanced_loss, cosine_scores, log_balance, marginals, siglip_loss
from helpers import uniform


def random_scores(m=6, l=None, size=2.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(m, l or m, generator=generator, dtype=dtype)


def joint(scores):
    return -torch.diag(log_softmax(scores.flatten(), 0).reshape(scores.shape)).mean() - math.log(len(scores))


def clip(scores):
    pairs = torch.arange(len(scores))
    return (cross_entropy(scores, pairs) + cross_entropy(scores.T, pairs)) / 2


def two_iterations(scores):
    """The column softmax of the row softmax, and the other way around, divided out by hand."""
    rows, columns = softmax(scores, 1), softmax(scores, 0)
    return -(torch.diag(rows / rows.sum(0)).log() + torch.diag((columns.T / columns.sum(1)).T).log()).mean() / 2


@pytest.mark.parametrize(("steps", "formula"), [(0, joint), (1, clip), (2, two_iterations)])
@pytest.mark.parametrize("size", [0.1, 2, 20])
def test_loss_is_the_softmax_formula_and_no_other(steps, formula, size):
    scores = random_scores(size=size)
    torch.testing.assert_close(balanced_loss(scores, steps=steps), formula(scores), rtol=1e-12, atol=1e-12)
    for other in {0, 1, 2, 3} - {steps}:
        assert abs(balanced_loss(scores, steps=other) - formula(scores)) > 1e-6


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize("weighted", [False, True])
def test_log_balance_is_data_balance(steps, first, weighted):
    scores = random_scores(4, 7, seed=steps)
    p, q = torch.arange(1.0, 5), torch.arange(3.0, 10)
    p, q = p / p.sum(), q / q.sum()
    targets = (p, q) if weighted else None
    expected = data_balance(
        np.exp(scores.numpy()),
        (p.double().numpy(), q.double().numpy()) if weighted else (np.full(4, 1 / 4), np.full(7, 1 / 7)),
        steps=steps,
        first=first,
    )
    # the targets above are in float32
    tolerance = 1e-7 if weighted else 1e-13
    table = log_balance(scores, steps=steps, targets=targets, first=first).exp().numpy()
    np.testing.assert_allclose(table, expected.table, rtol=tolerance, atol=tolerance)
    rows, columns = marginals(scores, steps=steps, targets=targets, first=first)
    np.testing.assert_allclose(rows, expected.table.sum(1), rtol=tolerance)
    np.testing.assert_allclose(columns, expected.table.sum(0), rtol=tolerance)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 10])
def test_each_half_takes_its_own_first_step(steps):
    scores, m = random_scores(), 6
    uniform = (np.full(m, 1 / m),) * 2
    halves = [
        -np.log(m * np.diag(data_balance(scores.exp().numpy(), uniform, steps=steps, first=first).table)).mean()
        for first in (0, 1)
    ]
    assert abs(balanced_loss(scores, steps=steps).item() - np.mean(halves)) < 1e-12
    assert steps == 0 or abs(halves[0] - halves[1]) > 1e-9


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients(steps, weighted):
    scores = random_scores(4, seed=1).requires_grad_()
    targets = (torch.tensor([1.0, 2, 3, 4]), torch.tensor([4.0, 1, 2, 3])) if weighted else None
    assert torch.autograd.gradcheck(lambda s: balanced_loss(s, steps=steps, targets=targets), scores)
    assert torch.autograd.gradcheck(siglip_loss, scores)


def test_gradient_reaches_the_embeddings():
    x, y = (random_scores(3, 5, seed=s).requires_grad_() for s in (1, 2))
    assert torch.autograd.gradcheck(lambda x, y: balanced_loss(cosine_scores(x, y, 3.0), steps=2), (x, y))


def half(scores, steps, first):
    return log_balance(scores, steps=steps, first=first).diagonal().mean()


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4])
def test_what_the_halves_leave_free(steps):
    """X first is blind to row offsets from k = 1 on, Y first to column offsets, neither to the other's."""
    scores = random_scores()
    rows, columns = random_scores(6, 1, seed=3), random_scores(1, 6, seed=4)
    for first, blind, seen in ((0, rows, columns), (1, columns, rows)):
        value = half(scores, steps, first)
        assert (abs(half(scores + blind, steps, first) - value) < 1e-12) == (steps > 0)
        assert abs(half(scores + seen, steps, first) - value) > 1e-4
    loss = balanced_loss(scores, steps=steps)
    assert abs(balanced_loss(scores + 7, steps=steps) - loss) < 1e-12
    assert min(abs(balanced_loss(scores + offset, steps=steps) - loss) for offset in (rows, columns)) > 1e-4


def test_the_limit_leaves_all_offsets_free():
    scores = random_scores()
    shifted = scores + random_scores(6, 1, seed=3) + random_scores(1, 6, seed=4)
    assert abs(balanced_loss(shifted, steps=400) - balanced_loss(scores, steps=400)) < 1e-10


def test_first_step_is_the_best_row_offset():
    """The X-first half at k = 1 is the minimum of the joint loss over row offsets."""
    scores = random_scores()
    best = -half(scores, 1, 0)
    offset = -torch.logsumexp(scores, 1, keepdim=True)
    assert abs(-half(scores + offset, 0, 0) - best) < 1e-12
    for seed in range(20):
        assert -half(scores + offset + 0.1 * random_scores(6, 1, seed=seed), 0, 0) > best


def test_each_half_falls_with_the_steps():
    scores = random_scores(size=5.0)
    losses = torch.stack([balanced_loss(scores, steps=k) for k in range(30)])
    assert (losses.diff() < 1e-12).all()
    assert (losses > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("steps", [0, 1, 2, 9])
def test_few_bits_at_scale_100(dtype, steps):
    x, y = (random_scores(128, 64, seed=s) for s in (1, 2))
    y = 0.3 * x + y
    x, y = (e.to(dtype).requires_grad_() for e in (x, y))
    loss = balanced_loss(cosine_scores(x, y), steps=steps)
    loss.backward()
    assert loss.dtype == torch.float32
    exact = balanced_loss(cosine_scores(x.detach().double(), y.detach().double()), steps=steps)
    assert abs(loss.item() - exact.item()) < 1e-4 * (1 + exact.item())
    assert all(e.grad.isfinite().all() and e.grad.abs().max() > 0 for e in (x, y))


def test_extreme_scores_stay_finite():
    scores = torch.where(torch.eye(4) > 0, -100.0, 100.0).bfloat16().requires_grad_()
    for steps in (0, 1, 2, 50):
        loss = balanced_loss(scores, steps=steps)
        loss.backward()
        assert abs(loss.item() - (200 + math.log(12 if steps == 0 else 3) - (math.log(4) if steps == 0 else 0))) < 1e-3
        assert scores.grad.isfinite().all()


def test_marginal_of_the_last_step_is_the_target():
    p, q = torch.tensor([1.0, 2, 3]).double() / 6, torch.tensor([0.5, 0.25, 0.25]).double()
    for steps in range(1, 6):
        pair = marginals(random_scores(3), steps=steps, targets=(p, q))
        hit, missed = ((0, p), (1, q))[:: 1 if steps % 2 else -1]
        torch.testing.assert_close(pair[hit[0]], hit[1])
        assert (pair[missed[0]] - missed[1]).abs().max() > 1e-9


def test_batches_are_their_matrices():
    scores = torch.stack([random_scores(seed=s) for s in range(3)])
    single = torch.stack([balanced_loss(s, steps=3) for s in scores])
    torch.testing.assert_close(balanced_loss(scores, steps=3), single)


def test_siglip_is_a_sum_of_binary_cross_entropies():
    scores, bias = random_scores(), -1.5
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        scores + bias, torch.eye(6, dtype=scores.dtype), reduction="sum"
    )
    torch.testing.assert_close(siglip_loss(scores, bias), expected / 6)


def test_siglip_of_a_stack_is_one_loss_for_each_matrix():
    scores = torch.stack([random_scores(3, seed=s) for s in range(10)]).reshape(2, 5, 3, 3)
    losses = siglip_loss(scores, -1.5)
    assert losses.shape == (2, 5)
    for i, j in np.ndindex(2, 5):
        torch.testing.assert_close(losses[i, j], siglip_loss(scores[i, j], -1.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: balanced_loss(s[:, :3], steps=1), "square"),
        (lambda s: balanced_loss(s, steps=-1), "steps = -1"),
        (lambda s: balanced_loss(s, steps=1.0), "steps = 1.0"),
        (lambda s: log_balance(s, steps=1, first=2), "first = 2"),
        (lambda s: log_balance(s[0], steps=1), "1 axes"),
        (lambda s: balanced_loss(s, steps=1, targets=[torch.ones(6)]), "1 targets"),
        (
            lambda s: balanced_loss(s, steps=1, targets=[torch.ones(6), torch.ones(5)]),
            r"\[0\] sums to 6 and targets\[1\] to 5",
        ),
        (
            lambda s: balanced_loss(s, steps=1, targets=[torch.ones(6), 1.2 * torch.ones(5)]),
            r"targets\[1\] has length 5",
        ),
        (lambda s: balanced_loss(s, steps=1, targets=[torch.zeros(6), torch.ones(6)]), r"targets\[0\] has no mass"),
        (
            lambda s: log_balance(s.index_fill(0, torch.tensor(2), -torch.inf), steps=1),
            "scores: a row or column with a target is empty, all its scores are -inf",
        ),
        (lambda s: log_balance(s * torch.nan, steps=1), r"scores\[0, 0\] = nan"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(random_scores())


def test_nothing_but_offsets():
    rng = np.random.default_rng(15)
    scores = torch.tensor(rng.normal(size=(6, 1)) + rng.normal(size=6))
    excess = [balanced_loss(scores, steps=k).item() - math.log(6) for k in range(4)]
    assert excess[0] == pytest.approx(2 * excess[1], rel=1e-12)
    assert excess[2:] == pytest.approx([0, 0], abs=1e-12)


def test_log_balance_of_the_limit_stays():
    scores = 1.5 * np.random.default_rng(16).normal(size=(5, 5))
    table = torch.tensor(data_balance(np.exp(scores), (uniform(5), uniform(5)), tol=1e-14).table)
    torch.testing.assert_close(log_balance(table.log(), steps=3).exp(), table)


@pytest.mark.parametrize("axis", (0, 1))
@pytest.mark.parametrize("first", (0, 1))
@pytest.mark.parametrize("steps", (0, 1, 2))
def test_an_empty_row_or_column_is_refused_whichever_axis_is_visited(axis, first, steps):
    scores = torch.zeros(4, 4).index_fill(axis, torch.tensor(2), -torch.inf)
    with pytest.raises(ValueError, match="all its scores are -inf"):
        log_balance(scores, steps=steps, first=first)
    with pytest.raises(ValueError, match="all its scores are -inf"):
        balanced_loss(scores, steps=steps)
    without = [torch.tensor([1.0, 1, 0, 1]) / 3 if a == axis else torch.full((4,), 0.25) for a in (0, 1)]
    kept = log_balance(scores, steps=steps, first=first, targets=without).exp()
    assert kept.sum() == pytest.approx(1, rel=1e-6) and (kept.select(axis, 2) == 0).all()
