"""The numbered statements of chapter 8, against solvers, enumeration, rational arithmetic and simulation."""

import math
from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import linprog, minimize

from balance import data_balance, kl_divergence
from balance.clustering import (
    assignments,
    centered_softmax,
    clustering_accuracy,
    cross_entropy,
    usage,
    usage_variance,
)
from balance.operators import markov_svd
from helpers import random_cosines

SIZES = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


@pytest.mark.statement("8.1")
@pytest.mark.parametrize("sign", [1, -1])
def test_codes_maximize_score_and_entropy(sign):
    """Against a general solver over the tables with the constraints, and against optimal assignments."""
    scores, epsilon = random_cosines(4, 2).numpy(), 0.3
    for sweeps, sums, totals in [
        (0, np.kron(np.eye(4), np.ones(2)), np.full(4, 1 / 4)),
        (400, np.vstack([np.kron(np.eye(4), np.ones(2)), np.kron(np.ones(4), np.eye(2))[:1]]), [1 / 4] * 4 + [1 / 2]),
    ]:
        best = minimize(
            lambda q: epsilon * (q * np.log(q)).sum() - sign * q @ scores.ravel(),
            np.full(8, 1 / 8),
            bounds=[(1e-9, 1)] * 8,
            constraints={"type": "eq", "fun": lambda q, sums=sums, totals=totals: sums @ q - totals},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        codes = assignments(torch.tensor(sign * scores), sweeps=sweeps, epsilon=epsilon).numpy() / 4
        np.testing.assert_allclose(codes.ravel(), best.x, atol=1e-5)
    cold = sign * assignments(torch.tensor(sign * scores), sweeps=3000, epsilon=0.02).numpy() / 4 * scores
    hard = [sign * scores[range(4), list(way)].mean() for way in product(range(2), repeat=4) if sum(way) == 2]
    assert -0.02 * math.log(2) <= cold.sum() - max(hard) <= 1e-6


@pytest.mark.statement("8.2")
def test_what_a_small_loss_proves():
    generator = torch.Generator().manual_seed(1)
    epsilon, tau, l = 0.25, 0.6, 3
    codes = (3 * torch.randn(5, l, generator=generator, dtype=torch.float64)).softmax(1)
    logits = torch.randn(5, l, generator=generator, dtype=torch.float64)
    q, p = codes.numpy(), logits.softmax(1).numpy()
    loss = cross_entropy(codes, logits, 1.0).item()
    entropy = -(q.mean(0) * np.log(q.mean(0))).sum()
    information = (q * np.log(q / q.mean(0))).sum() / 5
    assert math.isclose(loss, entropy - information + (q * np.log(q / p)).sum() / 5, rel_tol=1e-12)
    assert (q.mean(0) * np.log(q.mean(0) / p.mean(0))).sum() <= loss
    offsets = torch.tensor([[1.0], [-2.0], [0.5]]) + torch.tensor([0.3, -0.1, 0.9])
    torch.testing.assert_close(assignments(offsets, sweeps=1), torch.full((3, 3), 1 / 3))
    # no loss of row softmax codes below the bound: search among all scores in [-1, 1] with a general solver
    bound = math.log(1 + (l - 1) * math.exp(-2 / tau))

    def swapped(both):
        code, prediction = torch.tensor(both).reshape(2, 1, l)
        return cross_entropy(assignments(code, sweeps=0, epsilon=epsilon), prediction, tau).item()

    starts = np.random.default_rng(0).uniform(-1, 1, size=(10, 2 * l))
    found = min(minimize(swapped, start, bounds=[(-1, 1)] * (2 * l)).fun for start in starts)
    collapsed = swapped(np.tile([1.0, -1, -1], 2))
    assert bound < found <= collapsed + 1e-9 <= bound + 2 / tau * (l - 1) * math.exp(-2 / epsilon)


@pytest.mark.statement("8.3")
@pytest.mark.parametrize(("kind", "common"), [(0, 1), (1, 0), (2, 0), ("centered", 0)])
@pytest.mark.parametrize("epsilon", [0.2, 0.5, 0.9])
def test_rates_near_the_undecided_state(kind, common, epsilon):
    """The Jacobian of the flow of the loss, by automatic differentiation, has the eigenvalues of the formula."""
    tau, l = 0.5, 3
    features = random_cosines(7, 2, seed=3) + 1
    second = features.T @ features / 7
    mean = features.mean(0)

    def flow(weights):
        scores = features @ weights
        if kind == "centered":
            codes = centered_softmax(scores, scores.mean(0), epsilon)
        else:
            codes = assignments(scores, sweeps=kind, epsilon=epsilon)
        return features.T @ (codes - (scores / tau).softmax(1)) / (7 * tau)

    start = 1e-3 * random_cosines(2, l)
    weights = start.clone().requires_grad_()
    codes = (features @ weights / epsilon).softmax(1)
    (slope,) = torch.autograd.grad(cross_entropy(codes, features @ weights, tau), weights)
    if kind == 0:  # the flow is that of the loss
        torch.testing.assert_close(flow(start), -slope, rtol=1e-9, atol=1e-12)
    zero = torch.zeros(2, l, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(flow, zero).reshape(2 * l, 2 * l)
    codes_part = second - (1 - common) * torch.outer(mean, mean)
    rates = torch.linalg.eigvals((codes_part / epsilon - second / tau) / (l * tau)).real
    expected = torch.cat([rates, rates, torch.zeros(2, dtype=torch.float64)]).sort().values  # two mean-zero directions
    torch.testing.assert_close(torch.linalg.eigvals(jacobian).real.sort().values, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.statement("8.3")
def test_slow_center_loses():
    """Identical images and a running mean as the center, simulated on both sides of the bound."""
    tau, epsilon, square = 0.5, 0.2, 2.0
    bound = square / (3 * tau) * (1 / epsilon - 1 / tau)
    start = 1e-5 * np.array([1.0, -2, 1, 0, 0, 0])

    def moving(time, state, rho):
        b, c = torch.tensor(state[:3]), torch.tensor(state[3:])
        difference = centered_softmax(b, c, epsilon) - (b / tau).softmax(0)
        return np.concatenate([square / tau * difference.numpy(), rho * (b - c).numpy()])

    ends = [solve_ivp(moving, (0, 60), start, args=(f * bound,), rtol=1e-8, atol=1e-12).y[:, -1] for f in (0.8, 1.25)]
    assert np.abs(ends[0]).max() > 1e-3
    assert np.abs(ends[1]).max() < 1e-6


@pytest.mark.statement("8.3")
@pytest.mark.parametrize(("factor", "returns"), [(0.9, False), (1.0, True), (2.0, True)])
def test_fast_teacher_loses(factor, returns):
    """Images are alike, the network learns at any speed; roots of the linear system by NumPy."""
    tau, epsilon, gamma = 0.5, 0.2, 0.3
    rho = factor * gamma * (tau / epsilon - 1)
    worst = -math.inf
    for speed in np.geomspace(1e-3, 1e4, 30):
        system = [[-speed / tau, speed / epsilon, -speed / epsilon], [gamma, -gamma, 0], [0, rho, -rho]]
        worst = max(worst, np.linalg.eigvals(system).real.max())
    assert (worst < 0) == returns


@pytest.mark.statement("8.4")
@pytest.mark.parametrize("epsilon", [0.2, 0.5, 0.8])
def test_sharpening_decides(epsilon):
    """Small steps of descent on the loss of one row."""
    scores = torch.tensor([[0.1, 0.13, -0.2]], dtype=torch.float64)
    begin = scores.clone()
    for _ in range(1500):
        scores.requires_grad_()
        codes = assignments(scores, sweeps=0, epsilon=epsilon)
        (slope,) = torch.autograd.grad(cross_entropy(codes, scores, 0.5), scores)
        scores = (scores - 0.1 * slope).detach()
    prediction = (scores / 0.5).softmax(1)[0]
    limits = {0.2: torch.tensor([0.0, 1, 0]), 0.5: (begin / 0.5).softmax(1)[0], 0.8: torch.full((3,), 1 / 3)}
    torch.testing.assert_close(prediction, limits[epsilon].double(), atol=0.01, rtol=0)
    assert abs(prediction - (begin / 0.5).softmax(1)[0]).max() > 0.05 or epsilon == 0.5


@pytest.mark.statement("8.5")
def test_y_step_subtracts_a_soft_maximum():
    scores = random_cosines(8, 3, seed=5)
    mean, spread = scores.mean(0), scores.amax(0) - scores.amin(0)
    for epsilon in (0.02, 0.1, 0.5, 3.0):
        soft = epsilon * torch.log(torch.exp(scores / epsilon).mean(0))
        sweep = assignments(scores, sweeps=1, epsilon=epsilon)
        torch.testing.assert_close(sweep, centered_softmax(scores, soft, epsilon), rtol=1e-9, atol=1e-12)
        assert torch.all(soft >= mean) and torch.all(soft - mean <= spread**2 / (8 * epsilon))
        apart = (sweep - centered_softmax(scores, mean, epsilon)).abs().sum(1).max() / 2
        assert apart <= torch.tanh(((soft - mean).max() - (soft - mean).min()) / (4 * epsilon))
    second = (soft - mean) * 2 * epsilon / scores.var(0, correction=0)  # the last epsilon is large
    torch.testing.assert_close(second, torch.ones(3, dtype=torch.float64), rtol=0.1, atol=0)
    # Hoeffding's constant is attained in the limit: half of the scores at each end
    ends = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    soft = 100 * torch.log(torch.exp(ends / 100).mean(0))
    assert math.isclose(soft.item(), 2**2 / (8 * 100), rel_tol=1e-3)


@pytest.mark.statement("8.6")
@pytest.mark.parametrize("m", [3, 5, 20])
def test_centered_codes_can_be_uneven(m):
    scores = torch.zeros(m, 2, dtype=torch.float64)
    scores[0, 0] = -1
    shares = [usage(centered_softmax(scores, scores.mean(0), 0.002))[0]]
    shares += [usage(assignments(scores, sweeps=t, epsilon=0.002))[0] for t in (1, 2000)]
    expected = [Fraction(m - 1, m), Fraction(m - 1, 2 * m - 1), Fraction(1, 2)]
    np.testing.assert_allclose(shares, [float(f) for f in expected], atol=2e-4)


@pytest.mark.statement("8.7")
def test_usage_evens_out_after_the_first_sweep():
    for seed, epsilon in product(range(30), (0.05, 1.0)):
        scores = random_cosines(5, 4, seed=seed)
        product_law = SIZES / 5
        removable = (product_law * (scores / epsilon).exp()).sum().log() - (product_law * scores / epsilon).sum()
        width = (scores.max() - scores.min()) / epsilon
        assert removable <= min(width, width**2 / 8)
        previous = None
        for sweeps in range(1, 10):
            u = usage(assignments(scores, sweeps=sweeps, epsilon=epsilon, targets=SIZES))
            errors = [(SIZES * (SIZES / u).log()).sum(), (u * (u / SIZES).log()).sum(), (u - SIZES).abs().sum()]
            assert errors[0] <= removable / sweeps
            if previous:
                assert all(now <= before + 1e-12 for now, before in zip(errors, previous, strict=True))
            previous = errors
    rows = [[Fraction(18), Fraction(2)], [Fraction(1), Fraction(9)]]
    once = [[a / 19, b / 11] for a, b in rows]
    assert [sum(row[i] / sum(row) for row in rows) / 2 for i in range(2)] == [Fraction(1, 2)] * 2
    assert [sum(row[i] / sum(row) for row in once) / 2 for i in range(2)] == [
        Fraction(4829, 10738),
        Fraction(5909, 10738),
    ]
    logs = torch.tensor([[18.0, 2], [1, 9]], dtype=torch.float64).log()
    assert math.isclose(usage(assignments(logs, sweeps=1, epsilon=1.0))[0], 4829 / 10738, rel_tol=1e-12)


@pytest.mark.statement("8.7")
@pytest.mark.parametrize("seed", range(5))
def test_what_the_sweeps_remove_adds_up_to_the_budget(seed):
    """The removed divergences and what is left are the budget of (8.9), which is not reached."""
    independent, scaled = (SIZES / 5).expand(5, 4).numpy(), random_cosines(5, 4, seed=seed).numpy() / 0.5
    budget = np.log((independent * np.exp(scaled)).sum()) - (independent * scaled).sum()
    start, goals = independent * np.exp(scaled), (np.full(5, 1 / 5), SIZES.numpy())
    tables = data_balance(start, goals, steps=200, first=1, keep_iterates=True).iterates
    removed = [kl_divergence(goals[1 - k % 2], table.sum(axis=k % 2)) for k, table in enumerate(tables)]
    left = kl_divergence(independent, tables[-1])
    assert budget == pytest.approx(sum(removed) + left, rel=1e-9) and min(removed[0], left) > 1e-3
    usages = [usage(assignments(torch.tensor(scaled), sweeps=t, epsilon=1.0, targets=SIZES)) for t in (1, 2, 3)]
    for t, u in enumerate(usages, 1):
        raw = np.exp(scaled) / np.exp(scaled).sum()
        assert kl_divergence(goals[1], u.numpy()) == pytest.approx(
            kl_divergence(goals[1], data_balance(raw, goals, steps=2 * t, first=1).table.sum(axis=0)), abs=1e-12
        )
        assert kl_divergence(goals[1], u.numpy()) == pytest.approx(removed[2 * t], abs=1e-12)


@pytest.mark.statement("8.8")
@pytest.mark.parametrize("queue", [0, 3])
def test_small_batches_have_flat_codes(queue):
    """No table with the marginals has a larger entry: a linear program."""
    m, l = 3, 12
    rows = m + queue
    sums = np.vstack([np.kron(np.eye(rows), np.ones(l)), np.kron(np.ones(rows), np.eye(l))])
    totals = [1 / rows] * rows + [1 / l] * l
    largest = -rows * linprog(-np.eye(rows * l)[0], A_eq=sums, b_eq=totals).fun
    assert math.isclose(largest, rows / l, rel_tol=1e-9)
    codes = assignments(random_cosines(rows, l), sweeps=3000)[:m]
    assert codes.max() <= rows / l + 1e-9
    assert torch.special.entr(codes).sum(1).min() >= math.log(l / rows) - 1e-9
    for seed in range(5):
        assert cross_entropy(codes, 3 * random_cosines(m, l, seed=seed), 1.0) >= math.log(l / rows)
    own = torch.tensor(np.kron(np.eye(rows), np.full(l // rows, rows / l)))
    torch.testing.assert_close(usage(own), torch.full((l,), 1 / l, dtype=torch.float64))
    assert math.isclose(cross_entropy(own, torch.log(own + 1e-300), 1.0), math.log(l / rows), rel_tol=1e-9)


@pytest.mark.statement("8.9")
@pytest.mark.parametrize("sweeps", [0, 1, 2])
def test_variance_over_all_batches(sweeps):
    """Every batch of three images, with its probability; the remainder falls like the square of the batch size."""
    sizes = SIZES.numpy()
    start = np.random.default_rng(0).gamma(2.0, size=(3, 4))
    table = data_balance(start, (np.full(3, 1 / 3), sizes), tol=1e-13).table
    remainders = []
    for m in (20, 40):
        used, chances = [], []
        for a, b in product(range(m + 1), repeat=2):
            if a + b <= m:
                counts = (a, b, m - a - b)
                start = torch.tensor(np.log(3 * table)).repeat_interleave(torch.tensor(counts), dim=0)
                codes = assignments(start, sweeps=sweeps, epsilon=1.0, targets=torch.tensor(sizes))
                used.append((usage(codes) if sweeps else usage(start.exp())).numpy())
                chances.append(math.factorial(m) / math.prod(map(math.factorial, counts)) / 3**m)
        used, chances = np.array(used), np.array(chances)
        variance = chances @ used**2 - (chances @ used) ** 2
        total = chances @ ((used - sizes) ** 2 / sizes).sum(1)
        expected = (markov_svd(table).singular_values[1:] ** (4 * sweeps + 2)).sum() / m
        remainders.append([np.abs(variance - usage_variance(table, m, sweeps)).max(), abs(total - expected)])
    ratios = np.divide(*remainders[::-1])
    if sweeps:
        assert np.all((ratios > 0.15) & (ratios < 0.35))
    else:
        assert np.max(remainders) < 1e-12


@pytest.mark.statement("8.10")
def test_floor_of_clusters_of_wrong_sizes():
    """Over all clusterings of seven images with given sizes."""
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    for sizes in [(3, 2, 2), (5, 1, 1), (1, 1, 5)]:
        filled = {way for way in permutations(np.repeat(range(3), sizes))}
        for f in product(range(3), repeat=3):
            u = np.bincount(f, weights=sizes, minlength=3) / 7
            apart = np.abs(u - np.array([4, 2, 1]) / 7).sum() / 2
            best = max(np.mean(np.array(f)[list(way)] == labels) for way in filled)
            assert math.isclose(best, 1 - apart)
        best = max(clustering_accuracy(labels, np.array(way)) for way in filled)
        paired = np.abs(np.sort(sizes)[::-1] - np.array([4, 2, 1])).sum() / 14
        assert math.isclose(best, 1 - paired)
    for J, l in [(2, 3), (3, 4), (3, 7)]:
        rng = np.random.default_rng(J * l)
        for p in rng.dirichlet(np.ones(J), size=30):
            ways = np.array([w for w in product(range(l + 1), repeat=J) if sum(w) == l])
            assert np.abs(ways / l - p).sum(1).min() / 2 <= J / (4 * l)
