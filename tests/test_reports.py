"""What was reported in public of other balancing software, tried here with inputs of our own.

Each test cites one report, says what happened there, and checks the right answer in a second way: by a loop on
logarithms in long double, exact fractions, a solver of SciPy or a closed form.
"""

import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.optimize import linprog

from balance import ConvergenceWarning, Records, Scores, data_balance
from balance.clustering import assignments
from balance.contrastive import balanced_loss, log_balance
from balance.estimation import estimate
from balance.operators import markov_svd
from helpers import half_steps, log_loop, solvable

HALVES = [0.5, 0.5]


def two_by_two(table, rows, columns):
    """The balanced 2 x 2 table from its odds ratio: a quadratic equation for the first cell."""
    (a, b), (c, d) = table
    odds = a * d / (b * c)
    p, q = rows[0], columns[0]
    if odds == 1:
        corner = p * q
    else:
        linear = 1 + (odds - 1) * (p + q)
        corner = (linear - np.sqrt(linear**2 - 4 * odds * (odds - 1) * p * q)) / (2 * (odds - 1))
    return np.array([[corner, p - corner], [q - corner, 1 - p - q + corner]])


# ---- entropic transport ------------------------------------------------------------------------


def test_pot_34_zeros_in_targets():
    """PythonOT/POT #34: weights with zeros stopped with "numerical errors at iteration 0"; so did #54."""
    table = np.array([[2.0, 1], [1, 2], [1, 1]])
    targets = ([0.5, 0.5, 0], [0.4, 0.6])
    result = data_balance(table, targets, steps=20)
    assert np.allclose(result.table, half_steps(table, targets, 20), rtol=1e-13, atol=0)
    assert np.allclose(result.table[:2], two_by_two(table[:2], *targets), rtol=0, atol=1e-9)
    assert (result.table[2] == 0).all()


@pytest.mark.parametrize("reg", (1e-2, 1e-3))
def test_pot_54_small_regularization(reg):
    """PythonOT/POT #54: with a regularization of 1e-3 the kernel underflowed and the distance was 0.
    rajewsky-lab/novosparc #50: with the default of 5e-4, divisions by zero."""
    x, y = np.linspace(0, 1, 6), np.linspace(0.03, 0.9, 6) ** 2
    cost = (x[:, None] - y) ** 2
    targets = np.arange(1, 7) / 21, np.full(6, 1 / 6)
    plan = np.exp(data_balance(Scores(-cost / reg), targets, tol=1e-9).table)
    assert np.abs(plan.sum(axis=1) - targets[0]).sum() < 4e-9
    assert np.abs(plan.sum(axis=0) - targets[1]).sum() < 4e-9
    sums = np.vstack([np.kron(np.eye(6), np.ones(6)), np.kron(np.ones(6), np.eye(6))])
    least = linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate(targets)).fun
    entropy = -(plan * np.log(plan, where=plan > 0, out=np.zeros_like(plan))).sum()
    # the plan minimizes cost - reg * entropy, and entropies are >= 0
    assert least - 1e-8 <= (plan * cost).sum() <= least + reg * entropy
    kernel = data_balance(np.exp(-cost / reg), targets, tol=1e-9)
    assert kernel.reason == "tolerance"
    assert np.abs(kernel.table - plan).max() < 1e-6


def test_ott_185_zero_weights_of_a_grid():
    """ott-jax/ott #185: with two weights set to 0 the transport cost was nan. Here they are stored zeros too."""
    weights = np.array([3.0, 0, 1, 2])
    rows, columns = np.divmod(np.arange(16), 4)
    masses = np.where((rows == 1) | (columns == 2), 0.0, 1.0 + rows * columns)
    table = sparse.coo_array((masses, (rows, columns)), shape=(4, 4))
    targets = weights / 6, np.array([1, 2, 0, 3]) / 6
    result = data_balance(table, targets, steps=30)
    assert np.allclose(result.table.toarray(), half_steps(masses.reshape(4, 4), targets, 30), rtol=1e-12, atol=0)
    assert not result.table.toarray()[1].any()


def test_ott_375_converged_after_a_fixed_number_of_steps():
    """ott-jax/ott #375: with the number of iterations fixed, `converged` was never true, however small the error."""
    table, targets = np.array([[4.0, 1], [2, 3]]), (HALVES, [0.3, 0.7])
    flags = [data_balance(table, targets, steps=k).converged for k in (1, 5, 60)]
    worst = []
    for k in (1, 5, 60):
        now = half_steps(table, targets, k)
        worst.append(max(np.abs(now.sum(axis=1 - a) - targets[a]).sum() / 2 for a in (0, 1)))
    assert flags == [w <= 1e-12 for w in worst] == [False, False, True]


@pytest.mark.parametrize("dtype", (np.float16, np.float32))
def test_ott_google_5_cost_in_float32(dtype):
    """google-research/ott #5: in float32 the cost was nan, though it had converged to finite potentials."""
    cost = (np.arange(5)[:, None] - np.arange(5)) ** 2 / 16
    table = np.exp(-cost / 0.05).astype(dtype)
    targets = np.arange(1, 6) / 15, np.full(5, 0.2)
    result = data_balance(table, targets, tol=1e-10)
    right = half_steps(table, targets, 4000)
    assert result.converged
    assert np.abs(result.table - right).max() < 1e-8
    assert (result.table * cost).sum() == pytest.approx((right * cost).sum(), rel=1e-8)


def test_ott_165_forbidden_couplings():
    """ott-jax/ott #165: couplings known to be impossible, that is infinite costs, had no way in."""
    scores = np.array([[0.0, 1, -np.inf], [2, 0, 1], [-np.inf, 0, 0]])
    targets = [0.2, 0.5, 0.3], [0.3, 0.3, 0.4]
    right = log_loop(scores, targets, 7)
    for given in (scores, torch.tensor(scores)):
        ours = np.asarray(data_balance(Scores(given), targets, steps=7).table)
        assert ((ours == -np.inf) == (scores == -np.inf)).all()
        assert np.allclose(np.exp(ours), np.exp(right).astype(float), rtol=1e-13, atol=0)


def test_pot_397_large_and_sparse():
    """PythonOT/POT #397 and PR #683: half a million points whose far pairs may not be coupled did not fit in memory.

    On a ring where each point may stay or move one place on, with the same weight everywhere, the plan is known.
    """
    n = 50_000
    here = np.arange(n)
    table = sparse.coo_array((np.tile([3.0, 1.0], (n, 1)).T.ravel(), (np.tile(here, 2), np.r_[here, (here + 1) % n])))
    result = data_balance(table, (np.full(n, 1 / n), np.full(n, 1 / n)))
    assert np.allclose(result.table.diagonal() * n, 0.75, atol=1e-8, rtol=0)
    assert result.table.nnz == 2 * n


def test_geomloss_51_one_atom_on_itself():
    """jeanfeydy/geomloss #51: the loss of a single point and itself crashed, the diameter being 0."""
    result = data_balance([[3]], ([1], [1]))
    assert result.table.tolist() == [[1.0]]
    assert result.converged
    assert data_balance(Scores([[-700.0]]), ([1], [1])).table.tolist() == [[0.0]]


# ---- iterative proportional fitting -----------------------------------------------------------


def crossed_problem():
    rng = np.random.default_rng(22)
    joint = rng.dirichlet(np.ones(24)).reshape(2, 3, 2, 2)
    codes = np.array(list(np.ndindex(2, 3, 2, 2))).T
    return rng, joint, pd.DataFrame(codes.T, columns=["e", "a", "g", "c"])


def test_ipfn_22_three_margins_that_share_a_column():
    """Dirguis/ipfn #22: three two-way margins with one variable in common stopped far from them, called a success.

    Their joint law is known: given the common variable the others are independent, if all records weigh the same.
    """
    _, joint, frame = crossed_problem()
    pairs = {("e", "a"): joint.sum(axis=(2, 3)), ("e", "g"): joint.sum(axis=(1, 3)), ("e", "c"): joint.sum(axis=(1, 2))}
    e = joint.sum(axis=(1, 2, 3))
    right = np.einsum("ea,eg,ec,e->eagc", *pairs.values(), 1 / e**2)
    targets = {names: {key: margin[key] for key in np.ndindex(margin.shape)} for names, margin in pairs.items()}
    result = data_balance(Records(frame), targets, tol=1e-12)
    assert np.allclose(np.asarray(result.weights).reshape(joint.shape), right, atol=1e-11, rtol=0)
    columns = [Records.cross(frame["e"].to_numpy(), frame[v].to_numpy()) for v in "agc"]
    by_codes = data_balance(Records(*columns), list(pairs.values()), tol=1e-12)
    assert np.allclose(np.asarray(by_codes.weights).reshape(joint.shape), right, atol=1e-11, rtol=0)


def test_ipfn_22_margins_in_a_triangle():
    """Dirguis/ipfn #22, the case that was really wanted: [ab], [bc] and [ac], where no closed form is known."""
    rng, joint, frame = crossed_problem()
    joint, cells = joint.sum(axis=3), list(np.ndindex(2, 3, 2))
    start = rng.gamma(2.0, size=12)
    names, lost = (("e", "a"), ("a", "g"), ("e", "g")), (2, 0, 1)
    margins = [joint.sum(axis=axis) for axis in lost]
    frame = frame[frame["c"] == 0][["e", "a", "g"]].reset_index(drop=True)
    targets = {n: {key: m[key] for key in np.ndindex(m.shape)} for n, m in zip(names, margins, strict=True)}
    ours = data_balance(Records(frame, weights=start), targets, tol=1e-12).weights
    now = np.reshape(start / start.sum(), (2, 3, 2))
    for _ in range(500):
        for axis, margin in zip(lost, margins, strict=True):
            now = now * np.expand_dims(margin / now.sum(axis=axis), axis)
    assert frame.to_numpy().tolist() == [list(cell) for cell in cells]
    assert np.allclose(ours, now.ravel(), atol=1e-10, rtol=0)


def test_ipfn_28_zero_cells_stay_zero():
    """Dirguis/ipfn #28: cells that were zero in the seed came back with mass."""
    table = np.random.default_rng(28).integers(0, 3, size=(3, 4, 2)) + np.eye(3, 4)[..., None]
    targets = [0.2, 0.3, 0.5], [0.25] * 4, [0.4, 0.6]
    result = data_balance(table, targets, steps=12, keep_iterates=True)
    for k, iterate in enumerate(result.iterates):
        assert ((iterate == 0) == (table == 0)).all()
        assert np.allclose(iterate, half_steps(table, targets, k), rtol=1e-13, atol=0)


def test_ipfn_17_labels_in_another_order():
    """Dirguis/ipfn #17: margins whose index came in another order than the table's were given to the wrong rows."""
    frame = pd.DataFrame([[3.0, 1, 2], [1, 5, 1]], index=["f", "m"], columns=["low", "mid", "top"])
    rows, columns = pd.Series({"m": 0.4, "f": 0.6}), pd.Series({"top": 0.2, "low": 0.3, "mid": 0.5})
    result = data_balance(frame, (rows, columns), steps=9)
    right = half_steps(frame.to_numpy(), ([0.6, 0.4], [0.3, 0.5, 0.2]), 9)
    assert np.allclose(result.table.loc[["f", "m"], ["low", "mid", "top"]], right, rtol=1e-13, atol=0)


def test_ipfn_4_convergence_of_every_axis():
    """Dirguis/ipfn PR #4: convergence was tested on the last dimension only, which is exact after each sweep."""
    table = np.random.default_rng(4).gamma(0.3, size=(3, 3, 3)) + 1e-3
    targets = [0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]
    sweep = data_balance(table, targets, steps=3)
    now = half_steps(table, targets, 3)
    right = [
        np.abs(now.sum(axis=others) - t).sum() / 2 for others, t in zip(((1, 2), (0, 2), (0, 1)), targets, strict=True)
    ]
    assert np.allclose(sweep.errors, right, atol=1e-14, rtol=0)
    assert sweep.errors[2] < 1e-14 < 1e-3 < sweep.errors[0]
    assert not sweep.converged
    assert data_balance(table, targets, tol=1e-8).errors.max() <= 1e-8


def test_ipfn_13_frames_crosstabs_and_categories():
    """Dirguis/ipfn #13 and #14: a new release of pandas broke the labelled mode."""
    sex = pd.Series(["f", "m", "f", "f", "m", "f"], index=[9, 7, 5, 3, 1, 0])
    age = pd.Series(pd.Categorical([2, 1, 2, 3, 3, 1], categories=[3, 2, 1]), index=sex.index)
    goals = pd.Series({"m": 0.5, "f": 0.5}), pd.Series({1: 0.2, 2: 0.3, 3: 0.5})
    table = pd.crosstab(sex, age)
    right = half_steps(table.loc[["f", "m"], [1, 2, 3]], ([0.5, 0.5], [0.2, 0.3, 0.5]), 8)
    balanced = data_balance(table, goals, steps=8).table
    assert np.allclose(balanced.loc[["f", "m"], [1, 2, 3]], right, rtol=1e-13, atol=0)
    weights = data_balance(Records(sex, age), goals, steps=8).weights
    assert weights.index.equals(sex.index)
    assert np.allclose(
        pd.crosstab(sex, age, weights, aggfunc="sum").loc[["f", "m"], [1, 2, 3]].fillna(0), right, rtol=1e-10, atol=0
    )
    # a vector follows the order of the categories
    plain = data_balance(Records(sex, age), (goals[0], [0.5, 0.3, 0.2]), steps=8).weights
    assert np.allclose(plain, weights, rtol=1e-14, atol=0)


def test_humanleague_50_an_empty_column():
    """virgesmith/humanleague #50: a seed with an empty column that must have mass: "pick failed: 0.000000 from ..."."""
    seed = np.ones((3, 3))
    seed[:, 0] = 0
    with pytest.raises(ValueError, match=r"targets\[1\]\[0\] = 0\.33.* column 0 .* empty") as caught:
        data_balance(seed, (np.ones(3), np.ones(3)))
    assert "drop or merge" in str(caught.value)


def test_humanleague_55_shares_that_sum_to_nearly_one():
    """virgesmith/humanleague #55: probabilities of three variables were refused for sums that rounding had spoilt."""
    rng = np.random.default_rng(55)
    table = rng.gamma(1.0, size=(3, 4, 2)) + 0.1
    for _ in range(20):
        shares = [rng.dirichlet(np.ones(n)).astype(np.float32) for n in table.shape]
        right = half_steps(table, [s / s.sum(dtype=float) for s in shares], 3)
        assert np.allclose(data_balance(table, shares, steps=3).table, right, rtol=1e-12, atol=0)
    # in double precision a hundred-millionth is no rounding
    with pytest.raises(ValueError, match=r"1\.00000001"):
        data_balance(table, ([0.2, 0.3, 0.50000001], [0.25] * 4, HALVES))


@pytest.mark.parametrize(
    "rows, columns",
    [
        pytest.param([400, 573], [500, 472], id="mipfp #10"),
        pytest.param([40, 60], [50, 51], id="synthpop PR #29"),
    ],
)
def test_mipfp_10_and_synthpop_29_totals_that_differ(rows, columns):
    """jojo-/mipfp #10 (totals off by 1 in 973): "shifting to probabilities", without saying which target is wrong.
    UDST/synthpop PR #29 (100 against 101): the fit swung between the totals until the iterations ran out."""
    with pytest.raises(ValueError) as caught:
        data_balance([[3, 1], [1, 5]], (rows, columns))
    assert all(str(total) in str(caught.value) for total in (sum(rows), sum(columns)))
    # the way out: shares
    ways = [np.asarray(t) / np.sum(t) for t in (rows, columns)]
    assert np.allclose(
        data_balance([[3, 1], [1, 5]], ways).table, two_by_two([[3, 1], [1, 5]], *ways), atol=1e-8, rtol=0
    )


def test_stateior_34_negative_entries():
    """USEPA/stateior #34 asks for GRAS, which balances accounts with negative entries. Masses have none: an error."""
    with pytest.raises(ValueError, match=r"table\[0, ?1\] = -1.* negative"):
        data_balance([[5, -1], [2, 3]], ([4, 5], [6, 3]))


# ---- weights of surveys ------------------------------------------------------------------------


def survey():
    """Six records, the region a, b or c of each and its sex; of region d there is none."""
    return pd.DataFrame({"region": list("aabbcc"), "sex": list("fmfmfm")})


def test_balance_80_a_category_without_records():
    """facebookresearch/balance #80 and #73: raking failed while a category had one record or none."""
    targets = {"region": {"a": 0.2, "b": 0.3, "c": 0.3, "d": 0.2}, "sex": {"f": 0.5, "m": 0.5}}
    with pytest.raises(ValueError, match="'d'"):
        data_balance(Records(survey()), targets)
    # merged by its name, whatever its place: the weights of the others do not shift
    targets["region"] = {"d": 0, "c": 0.5, "a": 0.2, "b": 0.3}
    weights = data_balance(Records(survey()), targets).weights
    assert np.allclose(weights, np.repeat([0.1, 0.15, 0.25], 2), atol=1e-9, rtol=0)
    # one record is enough
    one = data_balance(Records(survey()[1:]), targets, tol=1e-12)
    table = np.array([[0, 1], [1, 1], [1, 1]])
    assert np.allclose(one.weights, half_steps(table, ([0.2, 0.3, 0.5], HALVES), 4000)[table > 0], atol=1e-10, rtol=0)


def test_rcrunch_184_zero_observations():
    """Crunch-io/rcrunch #184: a category of zero observations is given a weight, and raking never converges."""
    code = np.array([0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"targets\[0\]\[2\]"):
        data_balance(Records(code, [0, 1, 0, 1]), ([0.3, 0.3, 0.4], HALVES))
    fine = data_balance(Records(code, [0, 1, 0, 1]), ([0.3, 0.7, 0], HALVES))
    assert np.allclose(fine.weights, [0.15, 0.15, 0.35, 0.35], atol=1e-9, rtol=0)


@pytest.mark.parametrize("option", ("trim", "weight_trimming_mean_ratio", "cap", "bounds"))
def test_balance_69_trimming_is_not_ignored_without_a_word(option):
    """facebookresearch/balance #69: rake accepted an argument for trimming and did not trim."""
    with pytest.raises(TypeError, match=option):
        data_balance([[3, 1], [1, 5]], (HALVES, HALVES), **{option: 5})


def test_populationsim_221_a_cap_on_weights_is_not_promised():
    """ActivitySim/populationsim #221: a cap on the weights was accepted and not kept. Here it is refused."""
    with pytest.raises(TypeError, match="max_weight"):
        Records([0, 1], [1, 0], max_weight=2)


def test_balance_431_design_weights_within_a_cell():
    """facebookresearch/balance #431: all records of a cell got the same weight, whatever their design weights."""
    frame = survey().iloc[[0, 0, 1, 2, 3, 4, 5]].reset_index(drop=True)
    design = np.array([1.0, 3, 2, 2, 1, 1, 1])
    targets = {"region": {"a": 0.2, "b": 0.3, "c": 0.5}, "sex": {"f": 0.4, "m": 0.6}}
    weights = data_balance(Records(frame, weights=design), targets, steps=7).weights
    cells = half_steps([[4, 2], [2, 1], [1, 1]], ([0.2, 0.3, 0.5], [0.4, 0.6]), 7)
    assert weights[1] / weights[0] == pytest.approx(3, rel=1e-14)
    assert weights[0] + weights[1] == pytest.approx(cells[0, 0], rel=1e-13)
    assert np.allclose(weights[2:], cells.ravel()[1:], rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    "column, target",
    [([0, 0, 1, 1], [32, 48]), ([0, 0, 1, 1], {1: 48, 0: 32}), (["u", "u", "v", "v"], {"v": 48, "u": 32})],
)
def test_balance_438_one_variable(column, target):
    """facebookresearch/balance PR #438: raking on a single variable was an error; it is post-stratification."""
    result = data_balance(Records(column, weights=[1, 1, 1, 3]), [target])
    assert np.allclose(result.weights, [16, 16, 12, 36], rtol=1e-14, atol=0)
    assert (result.converged, result.steps) == (True, 1)


@pytest.mark.parametrize("missing", (np.nan, None, pd.NA, pd.NaT))
def test_quantipy_212_missing_labels(missing):
    """Quantipy/quantipy PR #212 (issue #177): cells without a value and absent codes broke the weighting."""
    frame = pd.DataFrame({"x": pd.Series(["a", "b", missing, "a"], dtype=object), "y": [0, 1, 0, 1]})
    with pytest.raises(ValueError, match=r"\b2\b") as caught:
        data_balance(Records(frame), {"x": {"a": 0.5, "b": 0.5}, "y": [0.5, 0.5]})
    assert "x" in str(caught.value)
    with pytest.raises(ValueError):
        estimate((frame["x"], frame["y"]), [1.0, 2, 3, 4], ({"a": 0.5, "b": 0.5}, [0.5, 0.5]), steps=1)
    kept = frame.drop(index=2)
    weights = data_balance(Records(kept), {"x": {"a": 0.5, "b": 0.5}, "y": {0: 0.25, 1: 0.75}}).weights
    assert weights.index.tolist() == [0, 1, 3]
    assert np.allclose(weights, [0.25, 0.5, 0.25], atol=1e-9, rtol=0)


def test_quantipy3_11_targets_keyed_from_one():
    """Quantipy/quantipy3 #11: targets keyed 1, 2, 3 for values that were labels: "unsuitable for Weighting", no more.

    That is how shares look after `value_counts` and a reset of the index: the labels are lost.
    """
    category = pd.Series(["bar", "foo", "foo", "baz"])
    shares = category.value_counts(normalize=True).reset_index(drop=True)
    shares.index += 1
    with pytest.raises(ValueError, match=r"'ba[rz]'|'foo'"):
        data_balance(Records(category), [shares.to_dict()])
    # keys that are the values are right, from whatever number they count
    ones = data_balance(Records(pd.Series([3, 1, 1, 2])), [{1: 0.2, 2: 0.3, 3: 0.5}])
    assert np.allclose(ones.weights, [0.5, 0.1, 0.1, 0.3], rtol=1e-14, atol=0)
    # a vector has places 0, 1, 2
    with pytest.raises(ValueError, match="3"):
        data_balance(Records(np.array([3, 1, 1, 2])), [[0.2, 0.3, 0.5]])


def test_surveysd_24_missing_numbers():
    """statistikat/surveysd #24: missing values in a numeric constraint: totals 99.8 % off, "convergence reached"."""
    x, y, z = [0, 0, 1, 1], [0, 1, 0, 1], [1.0, 2, np.nan, 4]
    with pytest.raises(ValueError, match=r"\[2\] = nan"):
        estimate((x, y), z, (HALVES, HALVES), steps=1)
    with pytest.raises(ValueError, match=r"weights\[2\] = nan"):
        Records(x, y, weights=z)


def test_spatial_microsim_141_zeros_in_constraints():
    """Robinlovelace/spatial-microsim-book #141: with some zeros in four constraints the weights of a zone were NaN."""
    rng = np.random.default_rng(141)
    codes = [rng.integers(n, size=60) for n in (5, 2, 4)]
    targets = [12, 0, 8, 5, 5], [14, 16], [10, 0, 15, 5]
    table = np.zeros((5, 2, 4))
    np.add.at(table, tuple(codes), 1)
    result = data_balance(Records(*codes), targets, tol=1e-11)
    right = half_steps(table, [np.array(t) / 30 for t in targets], 6000)
    assert np.allclose(result.weights, (30 * right / table.clip(1))[tuple(codes)], atol=1e-7, rtol=0)
    assert not np.asarray(result.weights)[(codes[0] == 1) | (codes[2] == 1)].any()


def test_raker_64_a_zone_without_population():
    """philmikejones/rakeR #64: a zone whose constraints are all zero ended in an error code of BLAS."""
    with pytest.raises(ValueError, match=r"targets\[0\] has no mass"):
        data_balance(Records([0, 1, 1], [0, 0, 1]), ([0, 0], [0, 0]))


def test_svy_147_standard_error_of_a_calibrated_estimate():
    """samplics-org/svy PR #147: the Taylor variance took calibrated weights as fixed, and was off by -11 % to +14 %.

    After linearization the records' scores are residuals of a weighted regression of the outcome on the margins.
    """
    rng = np.random.default_rng(147)
    codes = [rng.integers(size, size=300) for size in (3, 4, 2)]
    design = rng.gamma(4.0, size=300)
    z = codes[0] + 0.5 * codes[1] * codes[2] + rng.normal(size=300)
    targets = [0.2, 0.3, 0.5], [0.4, 0.3, 0.2, 0.1], [0.45, 0.55]
    for variables in ((0, 1), (0, 1, 2)):
        chosen, goals = [codes[v] for v in variables], [targets[v] for v in variables]
        found = estimate(Records(*chosen, weights=design), z, goals)
        w = design / design.sum()
        for _ in range(400):
            for code, goal in zip(chosen, goals, strict=True):
                w = w * (np.array(goal) / np.bincount(code, w))[code]
        dummies = np.hstack([np.eye(len(goal))[code] for code, goal in zip(chosen, goals, strict=True)])
        root = np.sqrt(w)[:, None]
        residual = z - dummies @ np.linalg.lstsq(root * dummies, root[:, 0] * z, rcond=None)[0]
        fitted = np.linalg.matrix_rank(dummies)
        assert found.value == pytest.approx(w @ z, rel=1e-8)
        assert found.degrees_of_freedom == 300 - fitted
        assert found.standard_error == pytest.approx(
            np.sqrt(300 / (300 - fitted) * np.sum((w * residual) ** 2)), rel=1e-6
        )
        fixed = np.sqrt(300 / 299 * np.sum((w * (z - w @ z)) ** 2))
        assert abs(found.standard_error / fixed - 1) > 0.02


def test_partially_observed_margins():
    """No report, and in every forum: one margin of three is not known. IPF leaves that axis alone."""
    table = np.random.default_rng(40).gamma(1.0, size=(2, 3, 2)) + 0.1
    targets = [0.3, 0.7], None, [0.6, 0.4]
    result = data_balance(table, targets, steps=5)
    pair = half_steps(table.sum(axis=1), (targets[0], targets[2]), 5)
    right = table / table.sum(axis=1, keepdims=True) * pair[:, None]
    assert np.allclose(result.table, right, rtol=1e-13, atol=0)
    frame = pd.DataFrame(list(np.ndindex(2, 3, 2)), columns=["x", "y", "z"])
    named = {"x": {0: 0.3, 1: 0.7}, "z": {0: 0.6, 1: 0.4}}
    weights = data_balance(Records(frame, weights=table.ravel()), named, steps=5).weights
    assert np.allclose(weights, right.ravel(), rtol=1e-13, atol=0)


# ---- self-supervised learning --------------------------------------------------------------------


@pytest.mark.parametrize("size", (10.0, 1e4, 1e6))
def test_swav_67_scores_that_are_not_normalized(size):
    """facebookresearch/swav #67: without unit vectors exp(scores / 0.05) was infinite and the codes NaN."""
    scores = torch.tensor(np.random.default_rng(67).normal(size=(8, 5)) * size)
    codes = assignments(scores, sweeps=3, epsilon=0.05)
    logs = log_loop(scores.numpy().astype(np.longdouble) / np.longdouble(0.05), [[1 / 8] * 8, [1 / 5] * 5], 6, first=1)
    assert np.allclose(codes, 8 * np.exp(logs).astype(float), atol=1e-6, rtol=0)
    assert np.allclose(codes.sum(-1), 1, atol=1e-12, rtol=0)


def test_vissl_250_which_sinkhorn():
    """facebookresearch/vissl #250: which sign, and why is the result not that of an optimal transport library?

    The recipe of SwAV in plain floats: exp(+scores / eps), columns first, three sweeps, then rows that sum to 1.
    """
    rng = np.random.default_rng(250)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(4, 3))
    scores = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T
    q = np.exp(scores / 0.05)
    for _ in range(3):
        q /= q.sum(axis=0) * 4
        q /= q.sum(axis=1, keepdims=True) * 7
    ours = assignments(torch.tensor(scores), sweeps=3, epsilon=0.05)
    assert np.allclose(ours, q * 7, rtol=1e-12, atol=0)
    transport = data_balance(Scores(scores / 0.05), (np.full(7, 1 / 7), np.full(4, 0.25)), steps=6, first=1).table
    assert np.allclose(ours, np.exp(transport) * 7, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float32))
def test_clip_40_half_precision(dtype):
    """openai/CLIP #40 and PR #530: in half precision, or with a scale that grew without bound, the loss became NaN."""
    eye = torch.eye(4, dtype=dtype)
    for scale in (1.0, 100.0, 1e4):
        scores = (scale * eye).requires_grad_()
        wide = scores.detach().double()[0, 0].item()
        for steps in (0, 1, 2, 5):
            loss = balanced_loss(scores, steps=steps)
            # on this matrix every half-step is a softmax with e^scale on the diagonal
            right = np.log1p(3 * np.exp(-wide))
            assert loss.dtype == torch.float32
            assert loss.item() == pytest.approx(right, rel=1e-5, abs=1e-7 * wide + 1e-6)
            (slope,) = torch.autograd.grad(loss, scores)
            assert torch.isfinite(slope).all()


def test_gumbel_sinkhorn_3_rows_do_not_sum_to_one():
    """HeddaCohenIndelman/Learning-Gumbel-Sinkhorn-Permutations-w-Pytorch #3: after 20 iterations the rows did not sum
    to 1, and nothing said by how much."""
    scores = np.random.default_rng(3).normal(size=(6, 6)) * 4
    ones = np.ones(6)
    result = data_balance(Scores(scores), (ones, ones), steps=20)
    plan = np.exp(log_loop(scores, (ones / 6, ones / 6), 20)).astype(float)
    right = [np.abs(plan.sum(axis=1 - a) - 1 / 6).sum() / 2 for a in (0, 1)]
    assert np.allclose(result.errors, right, atol=1e-13, rtol=0)
    assert right[0] > 1e-6
    assert not result.converged
    assert data_balance(Scores(scores), (ones, ones)).errors.max() <= 1e-9


@pytest.mark.parametrize("source", ("gpt-neox", "dualsimplex"))
def test_gpt_neox_1370_the_check_of_convergence(source):
    """EleutherAI/gpt-neox PR #1370: the comparison was the wrong way round, and it stopped while the error was large.
    artyomovlab/dualsimplex #37: nothing was checked at all."""
    table, targets = np.array([[50.0, 1], [1, 20]]), ([0.2, 0.8], [0.6, 0.4])
    if source == "gpt-neox":
        result = data_balance(table, targets, tol=1e-8)
        assert result.errors.max() <= 1e-8 < result.history[result.steps // 2].max()
        assert np.allclose(result.table, two_by_two(table, *targets), atol=1e-7, rtol=0)
        return
    with pytest.warns(ConvergenceWarning, match="max_steps"):
        result = data_balance(table, targets, tol=1e-12, max_steps=3)
    assert (result.converged, result.reason) == (False, "max_steps")
    assert result.errors.max() > 1e-12


# ---- matrix scaling --------------------------------------------------------------------------------


def test_scikit_learn_8809_a_zero_row():
    """scikit-learn #8809: a row of zeros ended in an SVD of infinities, and the message named no row."""
    with pytest.raises(ValueError, match="row 1"):
        markov_svd([[1, 0], [0, 0]])


def test_scikit_learn_34871_sparse_as_dense():
    """scikit-learn PR #34871: sparse input was normalized by one pass only, dense input until it converged."""
    table = np.random.default_rng(34871).random((60, 50))
    table[table < 0.6] = 0
    goals = np.full(60, 1 / 60), np.full(50, 1 / 50)
    runs = [data_balance(kind(table), goals, steps=11) for kind in (sparse.csr_array, sparse.coo_array, np.array)]
    right = half_steps(table, goals, 11)
    for run in runs:
        assert np.allclose(run.table.toarray() if sparse.issparse(run.table) else run.table, right, rtol=1e-12, atol=0)
        assert np.allclose(run.history, runs[0].history, atol=1e-15, rtol=0)


def test_scipy_12675_support_and_total_support():
    """scipy PR #12675 was asked for "a proper total support check". Three supports, three answers.

    A full table converges; a triangle has support but not total support, its corner must vanish; a matrix whose two
    rows share one column has no support at all.
    """
    third = np.full(3, 1 / 3)
    full = data_balance([[1, 2, 3], [4, 5, 6], [7, 8, 10]], (third, third))
    assert full.reason == "tolerance"
    triangle = np.tril(np.ones((3, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        slow = data_balance(triangle, (third, third), max_steps=2000)
    assert solvable(triangle > 0, (third, third))
    assert slow.reason != "infeasible"
    assert slow.obstruction is None
    assert np.abs(slow.table - np.eye(3) / 3).max() < 1e-2
    none = np.array([[1.0, 0, 0], [1, 0, 0], [1, 1, 1]])
    with pytest.warns(ConvergenceWarning) as said:
        stuck = data_balance(none, (third, third))
    assert stuck.reason == "infeasible"
    assert not solvable(none > 0, (third, third))
    assert len(str(said[0].message)) <= 500
    proof = stuck.obstruction
    across = none if proof.axis == 0 else none.T
    assert set(np.flatnonzero(across[proof.values].any(axis=0))) <= set(proof.reachable)
    assert proof.excess == pytest.approx(len(proof.values) / 3 - len(proof.reachable) / 3)
    assert proof.excess > 0


def test_nearest_reachable_margins_of_an_infeasible_table():
    """The same report asks what then: with the rows exact, the limit has the nearest column margins that can be had.

    Two of three rows have only column 0, which therefore gets 2/3 at least; the divergence is least with 2/3, 1/6, 1/6.
    """
    table, third = np.array([[1.0, 0, 0], [1, 0, 0], [1, 1, 1]]), np.full(3, 1 / 3)
    result = data_balance(table, (third, third), steps=401)
    assert result.steps == 401
    assert np.allclose(result.table, np.array([[2, 0, 0], [2, 0, 0], [0, 1, 1]]) / 6, atol=1e-9, rtol=0)


def test_exact_fractions_of_a_small_survey():
    """Reports of weights that differ from a calculation by hand are many; this one is done in fractions."""
    table = [[Fraction(3), Fraction(1)], [Fraction(1), Fraction(5)]]
    goals = [[Fraction(2, 5), Fraction(3, 5)], [Fraction(1, 2), Fraction(1, 2)]]
    total = sum(map(sum, table))
    now = [[x / total for x in row] for row in table]
    for k in range(6):
        if k % 2 == 0:
            now = [[x * goals[0][i] / sum(row) for x in row] for i, row in enumerate(now)]
        else:
            sums = [sum(column) for column in zip(*now, strict=True)]
            now = [[x * goals[1][j] / sums[j] for j, x in enumerate(row)] for row in now]
    ours = data_balance(table, goals, steps=6).table
    assert np.abs(ours / np.array(now, dtype=float) - 1).max() < 1e-15
    logs = log_balance(
        torch.tensor([[3.0, 1], [1, 5]], dtype=torch.float64).log(), steps=6, targets=([0.4, 0.6], HALVES)
    )
    assert np.abs(logs.exp().numpy() / np.array(now, dtype=float) - 1).max() < 1e-14
