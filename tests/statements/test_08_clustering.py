"""The numbered statements of chapter 8, against solvers, enumeration, rational arithmetic and simulation."""

import math
from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
import torch
from scipy import special
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, linear_sum_assignment, linprog, minimize

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
    scores, epsilon, targets = random_cosines(4, 2).numpy(), 0.3, np.array([0.3, 0.7])
    rows, columns = np.kron(np.eye(4), np.ones(2)), np.kron(np.ones(4), np.eye(2))
    for sweeps, sums, totals in [
        (0, rows, np.full(4, 1 / 4)),
        (400, np.vstack([rows, columns[:1]]), [1 / 4] * 4 + [targets[0]]),
    ]:
        best = minimize(
            lambda q: epsilon * (q * np.log(q)).sum() - sign * q @ scores.ravel(),
            np.full(8, 1 / 8),
            bounds=[(1e-9, 1)] * 8,
            constraints={"type": "eq", "fun": lambda q, sums=sums, totals=totals: sums @ q - totals},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        codes = assignments(torch.tensor(sign * scores), sweeps=sweeps, epsilon=epsilon, targets=torch.tensor(targets))
        np.testing.assert_allclose(codes.numpy().ravel() / 4, best.x, atol=1e-5)
    # as epsilon falls: the best of all ways to give each prototype two images
    ways = [list(way) for way in product(range(2), repeat=4) if sum(way) == 2]
    best = max(ways, key=lambda way: sign * scores[range(4), way].sum())
    cold = assignments(torch.tensor(sign * scores), sweeps=3000, epsilon=0.005)
    np.testing.assert_allclose(cold, np.eye(2)[best], atol=0.01)
    tied = assignments(torch.zeros(4, 2), sweeps=9, epsilon=0.005)
    torch.testing.assert_close(tied, torch.full((4, 2), 1 / 2))


@pytest.mark.statement("8.1")
def test_what_the_entropy_costs():
    """At most epsilon log min(m, l) of the mean score; the diagonal comes as near as one wants for large tables."""
    epsilon, allowed = 0.3, lambda log_m, log_l: 0.3 * min(log_m, log_l)
    lost = []  # x epsilon on the diagonal of a square table, 0 elsewhere: the table is in balance
    for x, log_m in [(2.0, math.log(5)), (4.0, math.log(40)), (990.0, 1000.0)]:
        exact = x * epsilon / (1 + math.exp(x - math.log1p(-math.exp(-log_m)) - log_m))
        lost.append(exact / allowed(log_m, log_m))
        if log_m < 10:
            scores = x * epsilon * torch.eye(round(math.exp(log_m)), dtype=torch.float64)
            limit = assignments(scores, sweeps=50, epsilon=epsilon)
            assert math.isclose(x * epsilon - (limit * scores).sum(1).mean(), exact, rel_tol=1e-12)
    assert 0.98 < max(lost) < 1
    for seed, shape in product(range(5), [(6, 2), (2, 6), (4, 4)]):
        scores = random_cosines(*shape, seed=seed)
        mean = (assignments(scores, sweeps=300, epsilon=epsilon) * scores).sum(1).mean()
        size = math.lcm(*shape)  # copies of images and of prototypes, so that both have one mass
        copies = np.kron(scores, np.ones((size // shape[0], size // shape[1])))
        rows, columns = linear_sum_assignment(copies, maximize=True)
        assert 0 <= copies[rows, columns].mean() - mean <= allowed(*map(math.log, shape))


@pytest.mark.statement("8.2")
def test_what_a_small_loss_proves():
    generator = torch.Generator().manual_seed(1)
    epsilon, tau, l = 0.25, 0.6, 3
    codes = (3 * torch.randn(5, l, generator=generator, dtype=torch.float64)).softmax(1)
    logits = torch.randn(5, l, generator=generator, dtype=torch.float64)
    one_hot = torch.eye(l, dtype=torch.float64)[[1] * 5]  # alike for all images, as are the predictions
    even, surplus = [], []
    for code, logit in [(codes, logits), (codes, codes.log()), (one_hot, logits[:1].expand(5, l))]:
        q, p = code.numpy(), logit.softmax(1).numpy()
        loss = cross_entropy(code, logit, 1.0).item()
        used, guess = q.mean(0), p.mean(0)
        entropy, information = special.entr(used).sum(), special.rel_entr(q, used).sum() / 5
        assert math.isclose(loss, entropy - information + special.rel_entr(q, p).sum() / 5, rel_tol=1e-12)
        even.append(special.rel_entr(used, guess).sum() / loss)
        surplus.append(information - (entropy - loss))
        alike = cross_entropy(code, logit[:1].expand(5, l), 1.0).item()
        assert math.isclose(alike, entropy + special.rel_entr(used, p[0]).sum(), rel_tol=1e-12)
    assert math.isclose(max(even), 1, rel_tol=1e-12) and abs(min(surplus)) < 1e-12  # both bounds are attained
    offsets = torch.tensor([[1.0], [-2.0], [0.5]]) + torch.tensor([0.3, -0.1, 0.9])
    wanted = torch.tensor([0.5, 0.3, 0.2])
    for sweeps in (1, 2):
        codes = assignments(offsets, sweeps=sweeps, epsilon=0.5, targets=wanted)
        torch.testing.assert_close(codes, wanted.expand(3, 3))
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

    ends = [
        solve_ivp(moving, (0, 250), start, "DOP853", args=(f * bound,), rtol=1e-7, atol=1e-12).y[:, -1]
        for f in (0.97, 1.03)
    ]
    assert np.abs(ends[0]).max() > 1e-3
    assert np.abs(ends[1]).max() < 1e-6


@pytest.mark.statement("8.3")
@pytest.mark.parametrize(("factor", "returns"), [(0.99, False), (1.0, True), (2.0, True)])
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
@pytest.mark.parametrize("epsilon", [0.2, 0.48, 0.5, 0.52, 0.8, math.inf])
def test_sharpening_decides(epsilon):
    """The flow of one row of scores along the gradient of its loss; without an epsilon the codes are uniform."""
    tau, begin = 0.5, np.array([0.1, 0.13, -0.2])

    def slope(time, scores):
        scores = torch.tensor(scores)[None].requires_grad_()
        uniform = torch.full((1, 3), 1 / 3, dtype=torch.float64)
        codes = assignments(scores, sweeps=0, epsilon=epsilon) if epsilon < math.inf else uniform
        return -torch.autograd.grad(cross_entropy(codes, scores, tau), scores)[0][0].numpy()

    def end(start):
        return special.softmax(solve_ivp(slope, (0, 1e5), start, "LSODA", rtol=1e-8).y[:, -1] / tau)

    if epsilon < tau:
        np.testing.assert_allclose(end(begin), [0, 1, 0], atol=0.01)
        np.testing.assert_allclose(end([0.13, 0.13, -0.2]), [0.5, 0.5, 0], atol=0.01)  # two largest entries
    elif epsilon == tau:
        np.testing.assert_allclose(end(begin), special.softmax(begin / tau), rtol=1e-9)
    else:
        np.testing.assert_allclose(end(begin), np.full(3, 1 / 3), atol=1e-4)


@pytest.mark.statement("8.5")
def test_y_step_subtracts_a_soft_maximum():
    def soft(scores, epsilon):
        return epsilon * torch.log(torch.exp(scores / epsilon).mean(0))

    def most(width, epsilon):
        return width**2 / (8 * epsilon)

    def halfway(epsilon):
        """Two prototypes; the last image is as far from the one kind of code as from the other."""
        fill = lambda v: torch.tensor([[-1.0, 0], [1, 0], [v, 0]], dtype=torch.float64)  # noqa: E731
        return fill(brentq(lambda v: (2 * v - fill(v).mean(0) - soft(fill(v), epsilon))[0].item(), -1, 1, xtol=1e-15))

    ratios = []
    for epsilon in (0.02, 0.1, 0.5, 3.0):
        for scores in (random_cosines(8, 3, seed=5), halfway(epsilon)):
            mean, spread, high = scores.mean(0), scores.amax(0) - scores.amin(0), soft(scores, epsilon)
            sweep = assignments(scores, sweeps=1, epsilon=epsilon)
            torch.testing.assert_close(sweep, centered_softmax(scores, high, epsilon), rtol=1e-9, atol=0)
            assert torch.all(high >= mean) and torch.all(high - mean <= most(spread, epsilon))
            apart = (sweep - centered_softmax(scores, mean, epsilon)).abs().sum(1).max() / 2
            ratios.append(apart / torch.tanh(((high - mean).max() - (high - mean).min()) / (4 * epsilon)))
    assert math.isclose(max(ratios), 1, rel_tol=1e-6)
    # the expansion for a large epsilon, with its third term, and the limit for a small one
    scores = random_cosines(8, 3, seed=5)
    mean, cumulant = scores.mean(0), ((scores - scores.mean(0)) ** 3).mean(0)
    rest = soft(scores, 1000.0) - mean - scores.var(0, correction=0) / 2000
    torch.testing.assert_close(rest * 6 * 1000.0**2, cumulant, rtol=0.01, atol=1e-4)
    torch.testing.assert_close(soft(scores, 0.002), scores.amax(0), atol=0.005, rtol=0)
    # Hoeffding's constant is attained in the limit: half of the scores at each end
    ends = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    assert 0.999 < soft(ends, 100.0).item() / most(2, 100) < 1


@pytest.mark.statement("8.6")
@pytest.mark.parametrize("m", [3, 5, 20])
def test_centered_codes_can_be_uneven(m):
    scores = torch.zeros(m, 2, dtype=torch.float64)
    scores[0, 0] = -1
    shares = [usage(centered_softmax(scores, scores.mean(0), 0.002))[0]]
    shares += [usage(assignments(scores, sweeps=t, epsilon=0.002))[0] for t in (1, 2000)]
    expected = [Fraction(m - 1, m), Fraction(m - 1, 2 * m - 1), Fraction(1, 2)]
    np.testing.assert_allclose(shares, [float(f) for f in expected], atol=2e-4)


def distances(u):
    """Both divergences and the total variation distance of a usage and SIZES."""
    u, law = u.numpy(), SIZES.numpy()
    return np.array([special.rel_entr(law, u).sum(), special.rel_entr(u, law).sum(), np.abs(u - law).sum() / 2])


@pytest.mark.statement("8.7")
def test_usage_evens_out_after_the_first_sweep():
    for seed, epsilon in product(range(30), (0.05, 1.0)):
        scores = random_cosines(5, 4, seed=seed)
        width = ((scores.max() - scores.min()) / epsilon).item()
        used = [usage(assignments(scores, sweeps=t, epsilon=epsilon, targets=SIZES)) for t in range(1, 10)]
        errors = np.array([distances(u) for u in used])
        assert np.diff(errors, axis=0).max() < 1e-12 < errors[0].min()
        for sweeps, (one, other, _) in enumerate(errors, 1):
            assert one + other <= min(width, width**2 / 8) / sweeps
        used = [usage(assignments(scores, sweeps=t, epsilon=epsilon)).numpy() for t in range(1, 10)]
        entropies = [special.entr(u).sum() for u in used]
        assert np.diff(entropies).min() > -1e-12
        assert math.isclose(entropies[0], math.log(4) - special.rel_entr(used[0], 1 / 4).sum())
    rows = [[Fraction(18), Fraction(2)], [Fraction(1), Fraction(9)]]
    once = [[a / 19, b / 11] for a, b in rows]
    assert [sum(row[i] / sum(row) for row in rows) / 2 for i in range(2)] == [Fraction(1, 2)] * 2
    assert [sum(row[i] / sum(row) for row in once) / 2 for i in range(2)] == [
        Fraction(4829, 10738),
        Fraction(5909, 10738),
    ]
    logs = torch.tensor([[18.0, 2], [1, 9]], dtype=torch.float64).log()
    before, after = (usage(assignments(logs, sweeps=t, epsilon=1.0))[0] for t in (0, 1))
    assert math.isclose(before, 1 / 2, rel_tol=1e-12) and math.isclose(after, 4829 / 10738, rel_tol=1e-12)


@pytest.mark.statement("8.7")
@pytest.mark.parametrize(("width", "sweeps", "least"), [(16.0, 1, 0.6), (6000.0, 560, 0.97)])
def test_tiny_entries_use_up_the_bound(width, sweeps, least):
    """One image fits one prototype only, the others the other; the targets are the wrong way round."""
    m = 200
    scores = torch.tensor([[0.0, -width]] * (m - 1) + [[-width, 0]], dtype=torch.float64)
    targets = np.array([1 / m, 1 - 1 / m])
    u = usage(assignments(scores, sweeps=sweeps, epsilon=1.0, targets=torch.tensor(targets))).numpy()
    both = special.rel_entr(targets, u).sum() + special.rel_entr(u, targets).sum()
    assert least < both / (min(width, width**2 / 8) / sweeps) <= 1
    # the pattern of zeros keeps the wrong usage
    assert math.isclose(u[0], 1 - 1 / m, abs_tol=1 / m)


@pytest.mark.statement("8.7")
def test_the_budget_can_be_as_large_as_the_bound():
    """Divergences of an independent table from the weighted one: one high score of many, and two poles."""
    for independent, scores in [
        (np.full((50, 50), 1 / 2500), 500.0 * (np.arange(2500).reshape(50, 50) == 0)),
        (np.full((2, 2), 1 / 4), np.array([[0.05, -0.05], [-0.05, 0.05]])),
    ]:
        weighted = independent * np.exp(scores)
        width = np.ptp(scores)
        budget = kl_divergence(independent, weighted / weighted.sum())
        assert 0.98 < budget / min(width, width**2 / 8) <= 1


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
    own = torch.tensor(np.kron(np.eye(rows), np.full(l // rows, rows / l)))
    peaks, entropies, losses = [], [], []
    for table in (assignments(random_cosines(rows, l), sweeps=3000), own):
        torch.testing.assert_close(usage(table), torch.full((l,), 1 / l, dtype=torch.float64))
        codes = table[:m]
        peaks.append(codes.max().item())
        entropies.append(torch.special.entr(codes).sum(1).min().item())
        predictions = [3 * random_cosines(m, l, seed=seed) for seed in range(5)]
        losses += [cross_entropy(codes, p, 1.0).item() for p in (*predictions, torch.log(codes + 1e-300))]
    # nothing is beyond the bounds, and codes of which no two share a prototype attain them
    assert math.isclose(max(peaks), rows / l, rel_tol=1e-9)
    assert math.isclose(min(entropies), math.log(l / rows), rel_tol=1e-9)
    assert math.isclose(min(losses), math.log(l / rows), rel_tol=1e-9)
    apart = torch.tensor(np.kron(np.eye(m), np.full(l // m, m / l)))
    unlike = assignments(random_cosines(m, l), sweeps=2)  # the usage is not yet even
    assert max((codes / (m * usage(codes))).max() for codes in (unlike, apart)) == pytest.approx(1, rel=1e-12)


@pytest.mark.statement("8.9")
@pytest.mark.parametrize("sweeps", [0, 1, 2])
def test_variance_over_all_batches(sweeps):
    """Every batch of three images, with its probability; the remainder falls like the square of the batch size."""
    sizes = SIZES.numpy()
    start = np.random.default_rng(6).gamma(0.5, size=(3, 4))
    table = data_balance(start, (np.full(3, 1 / 3), sizes), tol=1e-13).table
    claimed = usage_variance(table, 1, sweeps)
    claimed = np.append(claimed, (markov_svd(table).singular_values[1:] ** (4 * sweeps + 2)).sum())
    assert np.array_equal(usage_variance(table, 8, sweeps), claimed[:-1] / 8)
    seen = []
    for m in (20, 40, 80):
        counts = np.array([(a, b, m - a - b) for a, b in product(range(m + 1), repeat=2) if a + b <= m])
        drawn = np.array([np.repeat(range(3), c) for c in counts])
        codes = torch.tensor(3 * table)[drawn]
        if sweeps:
            codes = assignments(codes.log(), sweeps=sweeps, epsilon=1.0, targets=torch.tensor(sizes))
        used = usage(codes).numpy()
        chances = np.exp(special.gammaln(m + 1) - special.gammaln(counts + 1).sum(1) - m * math.log(3))
        variance = chances @ used**2 - (chances @ used) ** 2
        seen.append(m * np.append(variance, chances @ ((used - sizes) ** 2 / sizes).sum(1)))
    small, middle, large = seen
    if sweeps:
        ratios = (large - claimed) / (middle - claimed) / 2
        assert np.all((ratios > 0.2) & (ratios < 0.3))
        np.testing.assert_allclose((small - 6 * middle + 8 * large) / 3, claimed, rtol=0.01)
    else:
        np.testing.assert_allclose(seen, [claimed] * 3, rtol=1e-10)


@pytest.mark.statement("8.10")
def test_floor_of_clusters_of_wrong_sizes():
    """Over all clusterings of seven images with given sizes."""
    for classes, sizes in [((4, 2, 1), (5, 1, 1)), ((4, 2, 1), (1, 1, 5)), ((5, 1, 1), (3, 2, 2))]:
        labels = np.repeat(range(3), classes)
        filled = {way for way in permutations(np.repeat(range(3), sizes))}
        for f in product(range(3), repeat=3):
            u = np.bincount(f, weights=sizes, minlength=3) / 7
            apart = np.abs(u - np.array(classes) / 7).sum() / 2
            best = max(np.mean(np.array(f)[list(way)] == labels) for way in filled)
            assert math.isclose(best, 1 - apart)
        # over the one-to-one maps; in the last case f = (0, 0, 1) would have a higher bound
        shares = []
        for way in filled:
            shares.append(max(np.mean(np.array(f)[list(way)] == labels) for f in permutations(range(3))))
            assert math.isclose(clustering_accuracy(labels, np.array(way)), shares[-1])
        best = max(shares)
        paired = np.abs(np.sort(sizes)[::-1] - np.array(classes)).sum() / 14
        assert math.isclose(best, 1 - paired)
    for J, l in [(2, 3), (4, 8), (3, 7)]:
        rng = np.random.default_rng(J * l)
        halves = np.arange(J) + 0.5
        halves[-1] += l - halves.sum()
        ways = np.array([w for w in product(range(l + 1), repeat=J) if sum(w) == l])
        laws = [*rng.dirichlet(np.ones(J), size=30), halves / l]
        ratio = max(np.abs(ways / l - p).sum(1).min() / 2 / (J / (4 * l)) for p in laws)
        assert ratio <= 1 + 1e-9 and (J % 2 or ratio > 1 - 1e-9)  # fractional parts of 1/2 are the worst
