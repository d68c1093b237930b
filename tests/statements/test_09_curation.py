"""The statements of chapter 9, against fractions, enumeration and general solvers."""

from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import block_diag
from scipy.optimize import linprog, minimize
from scipy.sparse import csr_array
from scipy.stats import multinomial

from balance import Records, data_balance
from balance.curation import capped_target, curate, effective_sample_size, metaclip_inclusion
from balance.sampling import count_keywords, poisson_sample, resample, stream_weights, weighted_reservoir
from helpers import uniform

DIVERGENCES = {
    "KL": lambda p, q: np.sum(p * np.log(p / q)),
    "reverse KL": lambda p, q: np.sum(q * np.log(q / p)),
    "total variation": lambda p, q: np.abs(p - q).sum() / 2,
    "chi-square": lambda p, q: np.sum(p**2 / q) - 1,
}
each_divergence = pytest.mark.parametrize("divergence", DIVERGENCES.values(), ids=DIVERGENCES)


def random_pool(seed, n=12, keywords=5):
    """Zeros and ones without empty rows and columns, the first columns being the fullest."""
    rng = np.random.default_rng(seed)
    while True:
        table = (rng.random((n, keywords)) < 0.9 / np.arange(1, keywords + 1)).astype(int)
        table = table[table.any(axis=1)]
        if table.any(axis=0).all():
            return table


def one_keyword_each(seed, n=15, keywords=5):
    rng = np.random.default_rng(seed)
    return np.eye(keywords, dtype=int)[np.concatenate([np.arange(keywords), rng.integers(keywords, size=n - keywords)])]


def shares(table):
    return (table / table.sum(axis=1, keepdims=True)).mean(axis=0)


def masses(table, target):
    return data_balance(table, (uniform(len(table)), target), steps=2).table.sum(axis=1)


@pytest.mark.statement("9.1")
@pytest.mark.parametrize("seed", range(10))
def test_mass_is_the_mean_worth_of_the_keywords(seed):
    table = random_pool(seed)
    n, counts = len(table), table.sum(axis=0)
    degrees = [Fraction(int(d)) for d in table.sum(axis=1)]
    capped = [Fraction(min(int(c), 2)) for c in counts]
    target = [v / sum(capped) for v in capped]
    share = [sum(Fraction(int(a)) / d for a, d in zip(column, degrees, strict=True)) / n for column in table.T]
    exact = [
        sum(int(a) * t / r for a, t, r in zip(row, target, share, strict=True)) / d / n
        for row, d in zip(table, degrees, strict=True)
    ]
    assert sum(exact) == 1
    expected = np.array(exact, dtype=float)
    chosen = curate(table, cap=2)
    np.testing.assert_allclose(chosen.weights, expected, rtol=1e-12)
    np.testing.assert_allclose(chosen.balanced, np.array(target, dtype=float), rtol=1e-12)
    known = count_keywords([csr_array(table)])
    np.testing.assert_allclose(next(stream_weights([csr_array(table)], known, 2)), expected, rtol=1e-12)


@pytest.mark.statement("9.1")
def test_mass_is_a_keyword_then_one_of_its_captions():
    table, rng = random_pool(1), np.random.default_rng(1)
    target, values = rng.dirichlet(np.ones(5)), rng.normal(size=len(table))
    within = [column / table.sum(axis=1) for column in table.T]
    game = sum(t * v / v.sum() for t, v in zip(target, within, strict=True))
    np.testing.assert_allclose(masses(table, target), game, rtol=1e-12)
    means = [np.average(values, weights=v) for v in within]
    assert masses(table, target) @ values == pytest.approx(target @ means, rel=1e-12)
    evenly = sum(t * column / column.sum() for t, column in zip(target, table.T, strict=True))
    assert np.abs(evenly - game).max() > 1e-3
    single = one_keyword_each(1)
    expected = (target / single.sum(axis=0))[single.argmax(axis=1)]
    np.testing.assert_allclose(masses(single, target), expected, rtol=1e-12)


@pytest.mark.statement("9.1")
def test_records_have_the_masses_of_the_table():
    table = random_pool(2)
    target, (rows, columns) = capped_target(table.sum(axis=0), 2), table.nonzero()
    records = data_balance(Records(rows, columns), (uniform(len(table)), target), steps=2).table
    np.testing.assert_allclose(np.bincount(rows, records.weights), masses(table, target), rtol=1e-12)


@pytest.mark.statement("9.2")
@pytest.mark.parametrize("cap", [1.5, 4, 11, 40])
def test_capped_target_is_a_projection(cap):
    counts = np.array([30, 12, 9, 4, 2, 1])
    raw, target = counts / counts.sum(), capped_target(counts, cap)
    found = minimize(
        lambda q: np.sum(q * np.log(q / raw)),
        uniform(6),
        bounds=[(1e-9, target.max())] * 6,
        constraints={"type": "eq", "fun": lambda q: q.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(found.x, target, atol=2e-5)
    kl, rng = DIVERGENCES["KL"], np.random.default_rng(0)
    for other in rng.dirichlet(np.ones(6), size=200):
        most = min(1, (target.max() - 1 / 6) / (other.max() - 1 / 6))
        other = most * other + (1 - most) / 6
        assert kl(other, raw) >= kl(other, target) + kl(target, raw) - 1e-12
    if 4 <= cap < 12:  # two keywords below the bound: moving mass between them leaves no slack
        other = target + np.array([0, 0, 0, 0, 0.01, -0.01])
        assert kl(other, raw) == pytest.approx(kl(other, target) + kl(target, raw), rel=1e-12)
    if 2 < cap < 30:  # the counts themselves are above the bound
        assert kl(raw, raw) < kl(raw, target) + kl(target, raw) - 0.01


@pytest.mark.statement("9.2")
@each_divergence
def test_smaller_cap_is_more_even_and_farther_from_the_counts(divergence):
    rng = np.random.default_rng(1)
    for _ in range(20):
        counts = rng.integers(1, 50, size=8)
        targets = [np.sort(capped_target(counts, cap))[::-1] for cap in (0.5, 1, 3, 6, 13, 29, 50)]
        raw = np.sort(counts / counts.sum())[::-1]
        assert np.all(np.diff(np.cumsum(targets, axis=1), axis=0) > -1e-12)
        entropies = [-np.sum(q * np.log(q)) for q in targets]
        assert np.all(np.diff(entropies) < 1e-12)
        assert np.all(np.diff([divergence(q, raw) for q in targets]) < 1e-12)
        assert entropies[0] > entropies[-1] + 0.01
        assert np.all(np.diff([targets[-1][0], targets[0][0]]) < 0)


@pytest.mark.statement("9.2")
@pytest.mark.parametrize("counts", [[30, 12, 9, 4, 2], [7, 7, 3, 3, 3], [5, 5, 5, 5]])
def test_when_the_capped_target_is_uniform_or_the_counts(counts):
    counts, n = np.array(counts), len(counts)
    low, high, even = counts.min(), counts.max(), np.ptp(counts) == 0
    for cap in (low / 2, low, low + 0.5, high - 0.5, high, 2 * high):
        target = capped_target(counts, cap)
        assert np.allclose(target, uniform(n), rtol=1e-12, atol=0) == (cap <= low or even)
        assert np.allclose(target, counts / counts.sum(), rtol=1e-12, atol=0) == (cap >= high or even)


@pytest.mark.statement("9.3")
@each_divergence
def test_captions_are_less_uneven_than_the_target(divergence):
    rng, slack = np.random.default_rng(2), []
    for seed in range(40):
        table, target = random_pool(seed), rng.dirichlet(np.ones(5))
        gap = divergence(target, shares(table)) - divergence(masses(table, target), uniform(len(table)))
        slack.append(gap)
        single = one_keyword_each(seed)
        equal = divergence(target, shares(single)) - divergence(masses(single, target), uniform(len(single)))
        assert equal == pytest.approx(0, abs=1e-12)
    assert min(slack) > -1e-12
    assert max(slack) > 0.01


def least_effective_size(table, target):
    """The bound of the theorem."""
    return len(table) / np.sum(target**2 / shares(table))


@pytest.mark.statement("9.3")
def test_effective_size():
    signs = np.array(list(product((-1, 1), repeat=6)))
    weights = np.random.default_rng(3).dirichlet(np.ones(6))
    assert np.var(signs @ weights) == pytest.approx(1 / effective_sample_size(weights), rel=1e-12)
    for seed in range(20):
        table = random_pool(seed)
        target = capped_target(table.sum(axis=0), 2)
        assert curate(table, 2).effective_sample_size >= least_effective_size(table, target) - 1e-9
        single = one_keyword_each(seed)
        other = np.random.default_rng(seed).dirichlet(np.ones(5))
        reached = least_effective_size(single, other)
        assert effective_sample_size(masses(single, other)) == pytest.approx(reached, rel=1e-12)
        counts = single.sum(axis=0)
        sizes = [curate(single, cap).effective_sample_size for cap in range(1, 9)]
        cut = [np.minimum(counts, cap) for cap in range(1, 9)]
        np.testing.assert_allclose(sizes, [v.sum() ** 2 / np.sum(v**2 / counts) for v in cut])
        assert np.all(np.diff(sizes) > -1e-9)
        assert sizes[0] < 0.99 * sizes[-1]


@pytest.mark.statement("9.3")
def test_effective_size_may_rise_as_the_cap_falls():
    """With several keywords in a caption."""
    table = np.array([[0, 0, 1], [1, 1, 0], [1, 1, 0], [1, 1, 0]])
    sizes = [curate(table, cap).effective_sample_size for cap in (1, 2, 3)]
    assert sizes == pytest.approx([27 / 7, 75 / 19, 49 / 13], rel=1e-12)


def kinds(keywords):
    return np.array([kind for kind in product((0, 1), repeat=keywords) if any(kind)])


def curated_mean(table, values, law, target):
    """The curated mean of a population, by balancing the table with its probabilities as masses."""
    result = data_balance(table * law[:, None], (law / law.sum(), target), steps=2)
    return result.table.sum(axis=1) @ values


def influence_of_mean(table, values, law, target):
    part = table / table.sum(axis=1, keepdims=True)
    r = law @ part
    theta = (law * values) @ part / r
    return np.sum(part * target / r * (values[:, None] - theta), axis=1)


@pytest.mark.statement("9.4")
def test_influence_function_is_the_derivative():
    rng, table = np.random.default_rng(4), kinds(3)
    law, other, target = rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(3))
    values = rng.normal(size=7)
    psi = influence_of_mean(table, values, law, target)
    ends = [curated_mean(table, values, law + s * 1e-5 * (other - law), target) for s in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx((other - law) @ psi, abs=1e-8)
    assert abs(law @ psi) < 1e-12
    wrong = np.sum(table * target / (law @ table) * values[:, None], axis=1)
    assert abs((ends[0] - ends[1]) / 2e-5 - (other - law) @ wrong) > 1e-3


@pytest.mark.statement("9.4")
def test_law_of_the_curated_mean_over_all_samples():
    """Captions of three kinds, two values; every sample of 400 has its multinomial probability."""
    n, table, law = 400, np.array([[1, 0], [0, 1], [1, 1]]), np.array([0.4, 0.25, 0.35])
    target, values = np.array([0.25, 0.75]), np.array([1.0, -0.5, 2.0])
    counts = np.array([(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)])
    chance = multinomial(n, law).pmf(counts)
    counts, chance = counts[chance > 1e-18], chance[chance > 1e-18]
    part = table / table.sum(axis=1, keepdims=True)
    means = ((counts * values) @ part / (counts @ part)) @ target
    limit = ((law * values) @ part / (law @ part)) @ target
    error, variance = np.sqrt(n) * (means - limit), law @ influence_of_mean(table, values, law, target) ** 2
    mean = chance @ error
    assert chance @ error**2 - mean**2 == pytest.approx(variance, rel=0.01)
    assert abs(mean) < 0.05 * np.sqrt(variance)
    for z, below in ((-1, 0.1587), (0, 0.5), (1, 0.8413)):
        assert chance @ (error < z * np.sqrt(variance)) == pytest.approx(below, abs=0.03)


@pytest.mark.statement("9.4")
def test_variance_with_one_keyword_each():
    rng, table = np.random.default_rng(6), np.repeat(np.eye(3), 4, axis=0)
    law, target, values = rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(3)), rng.normal(size=12)
    share = law @ table
    theta = (law * values) @ table / share
    within = np.array([np.sum(law * table[:, y] * (values - theta[y]) ** 2) / share[y] for y in range(3)])
    curated = law @ influence_of_mean(table, values, law, target) ** 2
    assert curated == pytest.approx(np.sum(target**2 / share * within), rel=1e-12)
    plain = law @ (values - law @ values) ** 2
    between = share @ (theta - law @ values) ** 2
    assert plain == pytest.approx(share @ within + between, rel=1e-12)
    # the target of the theorem is fixed: one that is counted with the captions gives the plain mean
    assert curated_mean(table, values, law, share) == pytest.approx(law @ values, rel=1e-12)
    assert between > 0.01


WEIGHTS, VALUES, DRAWS = np.array([0.35, 0.25, 0.2, 0.15, 0.05]), np.array([1.0, -1.0, 2.0, 0.5, 4.0]), 2
SIGNS = np.array(list(product((-1, 1), repeat=5)))


@pytest.mark.statement("9.5")
def test_draws_with_replacement_by_enumeration():
    size = effective_sample_size(WEIGHTS)
    variance = WEIGHTS @ VALUES**2 - (WEIGHTS @ VALUES) ** 2
    for number in (1, 2, 4):
        rows = np.array(list(product(range(5), repeat=number)))
        chance = WEIGHTS[rows].prod(axis=1)
        times = np.array([np.bincount(row, minlength=5) for row in rows])
        means = times @ VALUES / number
        assert chance @ means == pytest.approx(WEIGHTS @ VALUES)
        assert chance @ (means - WEIGHTS @ VALUES) ** 2 == pytest.approx(variance / number)
        assert chance @ (times > 0).sum(axis=1) == pytest.approx(np.sum(1 - (1 - WEIGHTS) ** number))
        # noise of +1 or -1 for each caption
        noise = chance @ ((times @ SIGNS.T / number) ** 2).mean(axis=1)
        assert noise == pytest.approx(1 / number + (1 - 1 / number) / size)


@pytest.mark.statement("9.5")
def test_poisson_sampling_by_enumeration():
    kept = np.array(list(product((0, 1), repeat=5)))
    chance = np.where(kept, DRAWS * WEIGHTS, 1 - DRAWS * WEIGHTS).prod(axis=1)
    mean = WEIGHTS @ VALUES
    estimates = mean + kept @ (VALUES - mean) / DRAWS
    variance = WEIGHTS @ (VALUES - mean) ** 2 / DRAWS - WEIGHTS**2 @ (VALUES - mean) ** 2
    assert chance @ estimates == pytest.approx(mean)
    assert chance @ (estimates - mean) ** 2 == pytest.approx(variance)
    numbers = kept.sum(axis=1)
    assert chance @ numbers == pytest.approx(DRAWS)
    assert chance @ (numbers - DRAWS) ** 2 == pytest.approx(DRAWS * (1 - DRAWS / effective_sample_size(WEIGHTS)))
    assert chance @ ((kept @ SIGNS.T / DRAWS) ** 2).mean(axis=1) == pytest.approx(1 / DRAWS)


@pytest.mark.statement("9.5")
def test_samplers_draw_as_stated():
    rng = np.random.default_rng(7)
    rows = resample(WEIGHTS, 40_000, replace=True, rng=rng)
    np.testing.assert_allclose(np.bincount(rows) / 40_000, WEIGHTS, atol=0.01)
    kept = np.concatenate([poisson_sample([WEIGHTS], DRAWS, rng) for _ in range(8000)])
    np.testing.assert_allclose(np.bincount(kept) / 8000, DRAWS * WEIGHTS, atol=0.025)


def ordered_chances(weights, number):
    """Probability of each ordered sample without replacement."""
    chances = {}
    for order in permutations(range(len(weights)), number):
        left, chance = 1.0, 1.0
        for x in order:
            chance, left = chance * weights[x] / left, left - weights[x]
        chances[order] = chance
    return chances


def inclusion(weights, number):
    result = np.zeros(len(weights))
    for order, chance in ordered_chances(weights, number).items():
        result[list(order)] += chance
    return result


@pytest.mark.statement("9.6")
@pytest.mark.parametrize("number", range(1, 6))
def test_race_is_sampling_without_replacement(number):
    for x in range(5):  # among the first if fewer than `number` of the others come before it
        others = np.delete(WEIGHTS, x)

        def late(s, x=x, others=others):
            before = np.array([1.0])
            for w in others:
                before = np.convolve(before, [np.exp(-w * s), 1 - np.exp(-w * s)])
            return WEIGHTS[x] * np.exp(-WEIGHTS[x] * s) * before[:number].sum()

        assert quad(late, 0, np.inf)[0] == pytest.approx(inclusion(WEIGHTS, number)[x], abs=1e-8)


@pytest.mark.statement("9.6")
def test_order_of_the_first_two():
    """x has come before the time s, y comes at s, all others come later."""
    for (x, y), expected in ordered_chances(WEIGHTS, 2).items():
        late = np.delete(WEIGHTS, x).sum()
        found = quad(lambda s, x=x, y=y, r=late: (1 - np.exp(-WEIGHTS[x] * s)) * WEIGHTS[y] * np.exp(-r * s), 0, np.inf)
        assert found[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.statement("9.6")
def test_order_of_the_race():
    rng, trials = np.random.default_rng(8), 6000
    expected = ordered_chances(WEIGHTS[:4] / WEIGHTS[:4].sum(), 2)
    for draw in (
        lambda w: resample(w, 2, replace=False, rng=rng),
        lambda w: weighted_reservoir([w[:2], w[2:]], 2, rng),
    ):
        seen = dict.fromkeys(expected, 0)
        for _ in range(trials):
            seen[tuple(draw(WEIGHTS[:4]).tolist())] += 1
        statistic = sum((seen[key] - trials * p) ** 2 / (trials * p) for key, p in expected.items())
        assert statistic < 33  # chi-square with 11 degrees of freedom: probability 0.0005


@pytest.mark.statement("9.6")
def test_without_replacement_flattens():
    for number in range(1, 6):
        chances = inclusion(WEIGHTS, number)
        x, y = np.triu_indices(5, 1)  # the weights fall
        ratio, limit = chances[x] / chances[y], WEIGHTS[x] / WEIGHTS[y]
        assert np.all(ratio >= 1 - 1e-12)
        assert np.all(ratio <= limit + 1e-12)
        assert np.allclose(ratio, limit) == (number == 1)
        assert np.allclose(ratio, 1) == (number == 5)


def sums(table):
    rows, columns = np.nonzero(table)
    return [
        (np.arange(size)[:, None] == which).astype(float)
        for size, which in zip(table.shape, (rows, columns), strict=True)
    ]


def smallest_distance(table, target):
    """Total variation distance from uniform of the most even captions, by linear programming."""
    by_row, by_column = sums(table)
    n = len(table)
    slack = np.eye(n)
    return linprog(
        np.concatenate([np.zeros(by_row.shape[1]), np.full(n, 0.5)]),
        A_ub=np.block([[by_row, -slack], [-by_row, -slack]]),
        b_ub=np.repeat([1 / n, -1 / n], n),
        A_eq=np.hstack([by_column, np.zeros((len(target), n))]),
        b_eq=target,
    ).fun


def smallest_divergence(table, target, function, slope):
    """Smallest sum of function(n w) / n over the captions, by SLSQP."""
    by_row, by_column = sums(table)
    n = len(table)
    found = minimize(
        lambda q: function(n * by_row @ q).mean(),
        data_balance(table, (uniform(n), target), steps=2).table[table > 0],
        jac=lambda q: by_row.T @ slope(n * by_row @ q),
        bounds=[(1e-12, 1)] * by_row.shape[1],
        constraints={"type": "eq", "fun": lambda q: by_column @ q - target, "jac": lambda q: by_column},
        options={"ftol": 1e-13, "maxiter": 500},
    )
    return found.fun


@pytest.mark.statement("9.7")
@each_divergence
def test_more_sweeps_make_captions_more_even(divergence):
    moved = 0
    for seed in range(15):
        table = random_pool(seed)
        weights = [curate(table, 1 + seed % 3, steps=k).weights for k in (2, 4, 6, 10, 30)]
        np.testing.assert_allclose(curate(table, 1 + seed % 3, steps=3).weights, 1 / len(table), rtol=1e-12)
        values = [divergence(w, uniform(len(table))) for w in weights]
        assert np.all(np.diff(values) < 1e-12)
        moved += values[0] - values[-1] > 1e-3
    assert moved > 10


@pytest.mark.statement("9.7")
def test_limit_is_the_most_even_law():
    infeasible = 0
    for seed in (2, 4, 5, 6, 7, 9, 11, 13):  # the others are slow, as the last test of this theorem
        table = random_pool(seed, n=8, keywords=4)
        limit = curate(table, 1 + seed % 3, steps=4000)
        distance = np.abs(limit.weights - 1 / len(table)).sum() / 2
        assert distance == pytest.approx(smallest_distance(table, limit.target), abs=1e-9)
        ratio = len(table) * limit.weights
        squares = smallest_divergence(table, limit.target, lambda s: s**2, lambda s: 2 * s)
        assert (ratio**2).mean() == pytest.approx(squares, abs=1e-5)
        assert limit.effective_sample_size == pytest.approx(len(table) / squares, abs=1e-4)
        logs = smallest_divergence(table, limit.target, lambda s: -np.log(s), lambda s: -1 / s)
        assert -np.log(ratio).mean() == pytest.approx(logs, abs=1e-5)
        infeasible += distance > 0.01
    assert 0 < infeasible < 8


@pytest.mark.statement("9.7")
def test_uniform_captions_are_reached_if_hall_allows():
    pools, verdicts = [(random_pool(seed, n=7, keywords=3), 1 + seed % 3) for seed in range(10)], []
    # the only caption of the first keyword is a set that fails
    pools.append((np.array([[1, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1]]), 1))
    for table, cap in pools:
        target, n = capped_target(table.sum(axis=0), cap), len(table)
        subsets = np.array(list(product((0, 1), repeat=n)))
        gap = (subsets.sum(axis=1) / n - (subsets @ table > 0) @ target).max()
        error = np.abs(curate(table, cap, steps=2000).weights - 1 / n).sum() / 2
        verdicts.append(gap < 1e-12)
        assert (error < 1e-9) == verdicts[-1]
        assert error == pytest.approx(gap, abs=1e-9)
    assert 0 < sum(verdicts) < len(pools)


@pytest.mark.statement("9.7")
def test_limit_with_a_set_on_the_boundary_is_reached_as_one_over_k():
    """Where a set of captions has excess 0, cells die out, and the distance halves as k doubles."""
    table = random_pool(10, n=7, keywords=3)
    errors = [curate(table, 2, steps=k).errors[0] for k in (1000, 2000, 4000)]
    assert errors[1] / errors[0] == pytest.approx(0.5, abs=0.01)
    assert errors[2] / errors[1] == pytest.approx(0.5, abs=0.01)


@pytest.mark.statement("9.8")
@pytest.mark.parametrize("seed", range(8))
def test_own_rule_of_metaclip_overshoots(seed):
    # beside a random pool two keywords whose captions have no other, a common and a rare one
    table = block_diag(random_pool(seed, n=8, keywords=3), np.ones((4, 1), int), np.ones((1, 1), int))
    counts, cap = table.sum(axis=0), 1 + seed % 3
    coins = np.array(list(product((0, 1), repeat=5)))
    p = np.minimum(1, cap / counts)
    chance = np.where(coins, p, 1 - p).prod(axis=1)
    kept = chance @ (coins @ table.T > 0)
    np.testing.assert_allclose(metaclip_inclusion(table, cap), kept, rtol=1e-12)
    alone = np.array([(table[column > 0].sum(axis=1) == 1).all() for column in table.T])
    over = table.T @ kept - np.minimum(counts, cap)
    assert over.min() > -1e-12
    np.testing.assert_array_equal(over < 1e-9, (counts <= cap) | alone)
    chosen = curate(table, cap)
    over = table.T @ chosen.weights - chosen.target
    assert over.min() > -1e-12
    np.testing.assert_array_equal(over < 1e-9, alone)


@pytest.mark.statement("9.8")
@pytest.mark.parametrize("cap", [1, 2, 3, 9])
def test_both_rules_agree_with_one_keyword_each(cap):
    table = one_keyword_each(9)
    total = np.minimum(table.sum(axis=0), cap).sum()
    np.testing.assert_allclose(metaclip_inclusion(table, cap), total * curate(table, cap).weights, rtol=1e-12)
