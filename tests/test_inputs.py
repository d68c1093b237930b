"""Bad, odd and extreme inputs of every entry point: the right answer, an error of ours, or a warning with its reason.

A case is a call and its outcome. The right answers come from a loop on logarithms in long double, below. Of every call
it is also checked that nothing is nan, that nothing else is said (warnings are errors) and that its arguments are as
they were before.
"""

import array
import re
import warnings
from copy import deepcopy
from decimal import Decimal
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.special import logsumexp

import balance
from balance import (
    BalanceResult,
    ConvergenceWarning,
    Records,
    Scores,
    data_balance,
    estimate,
    kl_divergence,
    marginal,
    project,
    total_variation,
)
from balance.batched import balance_many, balanced_means
from balance.clustering import assignments
from balance.contrastive import balanced_loss, log_balance
from balance.curation import curate
from balance.marginals import soft_balance
from helpers import half_steps, log_loop, log_of, solvable

HERE = Path(balance.__file__).parent
# words of Python, NumPy, SciPy, pandas and torch
NOT_OURS = (
    *("list' argument", "could not convert", "inhomogeneous", "zero-size", "math domain", "only integer scalar"),
    *("only 0-dimensional", "ufunc", "object of type", "not supported", "unsupported operand", "has no attribute"),
    *("be real number", "be a real number", "array element", "truth value", "not iterable", "not subscriptable"),
    *("invalid literal", "cannot convert", "unhashable", "out of bounds", "out of range", "too large to convert"),
    *("float() argument", "broadcast", "reshape", "missing 1 required", "not implemented", "not support"),
)
TABLE = [[3, 1], [1, 5]]
HALVES = [0.5, 0.5]
TARGETS = ([0.4, 0.6], HALVES)
AT = r"table\[0, ?1\]"


# ---- the right answers ------------------------------------------------------------------------


def loop(table, targets=TARGETS, steps=3, first=0):
    return half_steps(table, targets, steps, first)


def soft_loop(table, targets=TARGETS, exponent=0.5, steps=3, accumulate=False):
    logs = log_loop(log_of(table), targets, steps, exponent=exponent, kept=1 - exponent if accumulate else 0)
    return np.exp(logs - logsumexp(logs)).astype(float)


def from_scores(scores, targets=TARGETS, steps=3, first=0):
    return np.exp(log_loop(scores, targets, steps, first)).astype(float)


def shares_of(target):
    return np.asarray(target, dtype=float) / np.sum(target)


# ---- outcomes ------------------------------------------------------------------------------------


def plain(value):
    """Whatever came back, as an array."""
    if isinstance(value, torch.Tensor):
        return value.detach().double().numpy()
    if sparse.issparse(value):
        return value.toarray() if np.prod(value.shape) < 1e6 else value.tocoo().data
    return np.asarray(value, dtype=float)


def answer(result):
    """The number or the masses for which a function was called."""
    if isinstance(result, BalanceResult) and isinstance(result.table, Records):
        return plain(result.weights)
    for name in ("table", "tables", "values"):
        if not isinstance(result, (np.ndarray, torch.Tensor, pd.DataFrame)) and hasattr(result, name):
            return plain(getattr(result, name))
    return plain(result)


def without_nan(result):
    """The result, of which no part may be nan."""
    names = ("table", "potentials", "scalings", "marginals", "errors", "history")
    for name in names if isinstance(result, BalanceResult) else ():
        parts = getattr(result, name)
        for part in parts if isinstance(parts, tuple) else [parts]:
            assert isinstance(part, Records) or not np.isnan(plain(part)).any(), name
    return result


class Gives(NamedTuple):
    right: object
    rtol: float = 1e-12
    atol: float = 0
    read: object = answer

    def check(self, call):
        result = without_nan(call())
        np.testing.assert_allclose(self.read(result), self.right, rtol=self.rtol, atol=self.atol)


class Refuses(NamedTuple):
    telling: str

    def check(self, call):
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
        text = str(caught.value)
        assert re.search(self.telling, text), text
        assert not [words for words in NOT_OURS if words in text], text
        assert len(text) <= 500
        assert HERE in Path(caught.traceback[-1].path).parents, "raised by somebody else"


class Warns(NamedTuple):
    reason: str

    def check(self, call):
        with pytest.warns(ConvergenceWarning) as said:
            result = without_nan(call())
        assert [str(warning.message) for warning in said] == [result.message]
        assert said[0].filename == __file__
        assert len(result.message) <= 500
        assert (result.reason, result.converged) == (self.reason, False)
        assert np.max(result.errors) > 1e-12


class Either(NamedTuple):
    """Right or refused, and never anything else."""

    right: Gives
    refusal: Refuses

    def check(self, call):
        try:
            self.right.check(call)
        except (ValueError, TypeError):
            self.refusal.check(call)


def near(right, atol):
    return Gives(right, 0, atol)


def same(a, b):
    """Whether two arguments are equal in every entry, dtype and label."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, (pd.DataFrame, pd.Series, pd.Categorical)):
        return a.equals(b)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and repr(a.tolist() if a.layout == torch.strided else a) == repr(
            b.tolist() if b.layout == torch.strided else b
        )
    if sparse.issparse(a):
        return a.dtype == b.dtype and a.nnz == b.nnz and same(a.toarray(), b.toarray())
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and repr(a) == repr(b)
    return repr(a) == repr(b) or a == b


def settle(function, given, outcome):
    before = deepcopy(given)
    outcome.check(lambda: function(*given))
    assert same(given, before)


def on(cases):
    return pytest.mark.parametrize("function, given, outcome", cases)


def case(name, outcome, function, *given):
    return pytest.param(function, given, outcome, id=name)


def gives(function, rtol=1e-12, atol=0, **cases):
    """Cases of a name, a right answer and what is given."""
    return [case(name, Gives(right, rtol, atol), function, *given) for name, (right, *given) in cases["of"].items()]


def refuses(function, **cases):
    """Cases of a name, what the error must tell and what is given."""
    return [case(name, Refuses(telling), function, *given) for name, (telling, *given) in cases["of"].items()]


def refuses_option(option, values, call):
    return [case(f"{option} {name}", Refuses(option), call, value) for name, value in values.items()]


# ---- functions that take what is tried ------------------------------------------------------


def balanced(table, targets=TARGETS, **options):
    return data_balance(table, targets, **({"steps": 3} | options))


def by_steps(table, targets, steps):
    return data_balance(table, targets, steps=steps)


def first_target(target, second=HALVES):
    return balanced(TABLE, (target, second))


def by_scores(scores, targets=TARGETS, steps=3):
    return np.exp(plain(without_nan(data_balance(Scores(scores), targets, steps=steps)).table))


def by_records(columns, targets, weights=None):
    return data_balance(Records(*columns, weights=weights), targets, steps=3)


def by_frame(frame, targets, weights=None):
    return data_balance(Records(frame, weights=weights), targets, steps=3)


# ---- tables ------------------------------------------------------------------------------------


class Wrapped:
    """What offers itself as an array, as those of xarray do."""

    def __array__(self, dtype=None, copy=None):
        return np.array(TABLE, dtype=dtype)

    def __repr__(self):
        return "Wrapped"


def read_only(values):
    values = np.array(values)
    values.flags.writeable = False
    return values


masked, series, frame_of = np.ma.masked_array, pd.Series, pd.DataFrame
INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
DTYPES = (*INTEGERS, np.float16, np.float32, np.float64, np.longdouble, ">f8", ">i4")
TENSORS = (torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64)
AS_TABLE = {
    "list": TABLE,
    "tuple": ((3, 1), (1, 5)),
    "ints and floats": [[3, 1.0], [True, 5]],
    "list of arrays": [np.array([3, 1]), np.array([1.0, 5])],
    "tuple of ranges": (range(3, 0, -2), range(1, 6, 4)),
    "array.array": [array.array("d", [3, 1]), array.array("i", [1, 5])],
    "fractions": [[Fraction(3, 7), Fraction(1, 7)], [Fraction(1, 7), Fraction(5, 7)]],
    "decimals": [[Decimal("0.3"), Decimal("0.1")], [Decimal("0.1"), Decimal("0.5")]],
    "object array": np.array(TABLE, dtype=object),
    "huge integers": [[3 * 10**30, 10**30], [10**30, 5 * 10**30]],
    "beyond int64": [[3 << 62, 1 << 62], [1 << 62, 5 << 62]],
    "Fortran order": np.asfortranarray(TABLE),
    "transposed": np.array(TABLE).T,
    "backwards": np.array([[5, 1], [1, 3]])[::-1, ::-1],
    "every second": np.kron(np.array(TABLE), [[1, 0], [0, 0]])[::2, ::2],
    "read-only": read_only(TABLE),
    "array protocol": Wrapped(),
    "masked array without a mask": masked(TABLE),
    "masked array with nothing masked": masked(TABLE, mask=[[0, 0], [0, 0]]),
    "frame of ints": frame_of(TABLE),
    "frame of objects": frame_of(TABLE, dtype=object),
    "frame of Int64": frame_of(TABLE, dtype="Int64"),
    "frame of UInt8": frame_of(TABLE, dtype="UInt8"),
    "frame of Float64": frame_of(TABLE, dtype="Float64"),
    "frame of Int64 and float": frame_of({0: pd.array([3, 1], dtype="Int64"), 1: [1.0, 5.0]}),
    **{f"array of {np.dtype(d).str}": np.array(TABLE, dtype=d) for d in DTYPES},
}
FINE, ONES = loop(TABLE), [[1, 1], [0, 1]]
GOOD_TABLES = [
    *gives(balanced, of={name: (FINE, table) for name, table in AS_TABLE.items()}),
    *gives(balanced, 2e-6, of={f"{d}": (FINE, torch.tensor(TABLE, dtype=d)) for d in TENSORS}),
    *gives(balanced, 2e-6, of={"requires grad": (FINE, torch.tensor(TABLE, dtype=torch.float32, requires_grad=True))}),
    *gives(balanced, 2e-6, of={"torch.bool": (loop(ONES), torch.tensor(ONES) > 0)}),
    *gives(
        balanced,
        of={
            "bool": (loop(ONES), np.array(ONES, dtype=bool)),
            "uint64 beyond int64": (loop([[3, 1], [1, 3]]), np.array([[3, 1], [1, 3]], np.uint64) << np.uint64(62)),
            "negative zero": (loop([[3, 0], [1, 5]]), [[3, -0.0], [1, 5]]),
            "one cell": ([[1]], [[7]], ([1], [1])),
        },
    ),
]


@on(GOOD_TABLES)
def test_numbers_of_every_kind_are_a_table(function, given, outcome):
    settle(function, given, outcome)


def put(value, dtype=float):
    table = np.array(TABLE, dtype=dtype)
    table[0, 1] = value
    return table


HIDDEN = [[0, 1], [0, 0]]
BAD_TABLES = refuses(
    balanced,
    of={
        "None": ("table", None),
        "string": ("table", "3115"),
        "bytes": ("table", b"3115"),
        "a number": ("ax[ei]s", 3.0),
        "0-d array": ("ax[ei]s", np.array(3.0)),
        "0-d tensor": ("ax[ei]s", torch.tensor(3.0)),
        "one axis, two targets": ("targets|ax[ei]s", [3, 1]),
        "one axis, one target": ("ax[ei]s", [3, 1], [[0.4, 0.6]]),
        "two axes, one target": ("1 targets? .*2 axes", [[3, 1], [1, 5], [2, 2]], [[0.4, 0.6]]),
        "empty list": ("table|target", []),
        "no columns": ("table|target", [[], []]),
        "shape (0, 2)": ("table|target", np.zeros((0, 2))),
        "shape (0, 0) with empty targets": ("table|target", np.zeros((0, 0)), ([], [])),
        "ragged": ("table", [[3, 1], [1]]),
        "ragged in depth": ("table", [[3, [1]], [1, 5]]),
        "numbers as strings": ("table", [["3", "1"], ["1", "5"]]),
        "a string among numbers": ("table", [[3, "1"], [1, 5]]),
        "object array with a string": ("table", put("x", object)),
        "bytes inside": ("table", np.array([[b"3", b"1"], [b"1", b"5"]])),
        "complex": ("complex", np.array(TABLE, dtype=complex)),
        "complex in a list": ("complex", [[3 + 0j, 1], [1, 5]]),
        "complex objects": ("complex|table", put(1 + 2j, object)),
        "complex tensor": ("complex", torch.tensor(TABLE, dtype=torch.complex64)),
        "dates": ("table", np.array(TABLE, dtype="datetime64[D]")),
        "time differences": ("table", np.array(TABLE, dtype="timedelta64[s]")),
        "structured": ("table", np.zeros((2, 2), dtype=[("a", float)])),
        "None inside": ("table", [[3, None], [1, 5]]),
        "pd.NA inside": ("table", put(pd.NA, object)),
        "set": ("table", {1, 2}),
        "mapping": ("table", {"a": [3, 1], "b": [1, 5]}),
        "function": ("table", len),
        "nan": (AT + " = nan", put(np.nan)),
        "nan in a list": (AT + " = nan", [[3, float("nan")], [1, 5]]),
        "nan in float16": (AT + " = nan", put(np.nan, np.float16)),
        "nan tensor": (AT + " = nan", torch.tensor(put(np.nan))),
        "Decimal nan": ("(?i)table.*nan", [[3, Decimal("NaN")], [1, 5]]),
        "inf": (AT + " = inf", put(np.inf)),
        "-inf": (AT + " = -inf", put(-np.inf)),
        "inf tensor": (AT + " = inf", torch.tensor(put(np.inf))),
        "an integer beyond floats": ("table", [[3, 10**400], [1, 5]]),
        "negative": (AT + " = -1", put(-1)),
        "negative integer": (AT + " = -1", put(-1, np.int8)),
        "negative fraction": (AT, [[3, Fraction(-1, 3)], [1, 5]]),
        "negative tensor": (AT + " = -1", torch.tensor(put(-1))),
        "barely negative": (AT + " = -1e-300", put(-1e-300)),
        "no mass": ("table.*mass", [[0, 0], [0, 0]]),
        "no mass in a tensor": ("table.*mass", torch.zeros(2, 2)),
        "empty row": (r"targets\[0\]\[1\] = 0\.6.*row 1", [[3, 1], [0, 0]]),
        "empty column": (r"targets\[1\]\[0\] = 0\.5.*column 0", [[0, 1], [0, 5]]),
        "empty row of a tensor": (r"targets\[0\]\[1\] = 0\.6", torch.tensor([[3.0, 1], [0, 0]])),
        "empty slice": (r"targets\[2\]\[1\].*slice 1", [[[3, 0], [1, 0]]] * 2, (*TARGETS, HALVES)),
        "masked": ("mask", masked([[3, 999], [1, 5]], mask=HIDDEN)),
        "masked nan": ("mask", masked(put(np.nan), mask=HIDDEN)),
        "masked integers": ("mask", masked(put(-7, int), mask=HIDDEN)),
        "all masked": ("mask", masked(TABLE, mask=True)),
        "frame of strings": ("table", frame_of([["3", "1"], ["1", "5"]])),
        "frame with NA": ("table", frame_of([[3, None], [1, 5]], dtype="Int64")),
        "frame with Float64 NA": ("table", frame_of([[3, None], [1, 5]], dtype="Float64")),
        "frame with nan": ("nan", frame_of(put(np.nan))),
        "frame of dates": ("table", frame_of(np.array(TABLE, dtype="datetime64[s]"))),
        "frame without columns": ("table|target", frame_of(index=["a", "b"])),
        "sparse tensor": ("(?i)sparse|dense", torch.tensor(put(0)).to_sparse()),
    },
)


@on(BAD_TABLES)
def test_what_is_not_a_table_is_refused(function, given, outcome):
    settle(function, given, outcome)


# ---- sparse tables --------------------------------------------------------------------------


SPARSE_DTYPES = (np.bool_, *INTEGERS, np.float32, np.float64, np.longdouble)
WIDE = ([0.4, 0.6], [0.2, 0.3, 0.5])


def repeated(kind, dtype):
    """Records that fall into few cells, 300 in one of them, as the container keeps them before sums are made."""
    rows, columns = np.repeat([0, 0, 1], [300, 100, 200]), np.repeat([0, 1, 1], [300, 100, 200])
    ones = np.ones(600, dtype=dtype)
    parts = {
        "coo": (ones, (rows, columns)),
        "csr": (ones, columns, [0, 400, 600]),
        "csc": (ones, rows, [0, 300, 600]),
        "bsr": (ones.reshape(-1, 1, 1), columns, [0, 400, 600]),
    }
    return getattr(sparse, f"{kind}_array")(parts[kind], shape=(2, 2))


def full_rows(kind, dtype):
    """A table without repeated cells, whose rows have a sum that the dtype does not hold."""
    top = np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 1 if dtype is np.bool_ else 100
    return getattr(sparse, f"{kind}_array")(np.array([[top, top, top], [0, top, top]], dtype=dtype))


def csr(data, *structure):
    return sparse.csr_array((np.array(data, dtype=float), *structure), shape=(2, 2))


SPARSE = [
    *gives(
        balanced,
        of={
            f"{kind} of {np.dtype(d).name}, repeated": (loop([[3, 1], [0, 2]]), repeated(kind, d))
            for kind, d in product(("coo", "csr", "csc", "bsr"), SPARSE_DTYPES)
        },
    ),
    *gives(
        balanced,
        of={
            f"{kind} of {np.dtype(d).name}": (loop([[1, 1, 1], [0, 1, 1]], WIDE), full_rows(kind, d), WIDE)
            for kind, d in product(("coo", "csr", "csc", "dok", "lil", "bsr", "dia"), SPARSE_DTYPES)
        },
    ),
    *gives(
        balanced,
        of={
            "old matrices": (FINE, sparse.coo_matrix(np.array(TABLE))),
            "unsorted": (FINE, csr([1, 3, 5, 1], [1, 0, 1, 0], [0, 2, 4])),
            "stored zeros": (loop([[3, 0], [1, 5]]), csr([3, 0, 1, 5], [0, 1, 0, 1], [0, 2, 4])),
            "an empty row": (
                loop([[3, 1], [0, 0]], ([1, 0], HALVES)),
                sparse.csr_array([[3, 1], [0, 0]]),
                ([1, 0], HALVES),
            ),
        },
    ),
    *gives(marginal, of={"marginal": ([0.6, 0.4], sparse.coo_array(([200, 100, 200], ([0, 0, 1], [0, 0, 0]))), 0)}),
    *refuses(
        balanced,
        of={
            "complex": ("complex", sparse.csr_array(np.array(TABLE, dtype=complex))),
            "nan": (AT + " = nan", sparse.csr_array(put(np.nan))),
            "inf": (AT + " = inf", sparse.coo_array(put(np.inf))),
            "negative": (AT + " = -1", sparse.csc_array(put(-1))),
            "negative int8": (AT + " = -1", sparse.dok_array(put(-1, np.int8))),
            "nothing stored": ("table.*mass", sparse.csr_array((2, 2))),
            "only zeros stored": ("table.*mass", sparse.coo_array(([0.0], ([0], [0])), shape=(2, 2))),
            "no rows": ("table|target", sparse.csr_array((0, 2))),
            "an empty row with a target": (r"targets\[0\]\[1\] = 0\.6", sparse.csr_array([[3, 1], [0, 0]])),
            "wrong length": (r"targets\[0\]", sparse.csr_array([[3, 1], [0, 1], [2, 2]])),
            "one axis": ("ax[ei]s", sparse.coo_array([3, 1])),
            "three axes": ("ax[ei]s", sparse.coo_array(np.ones((2, 2, 2))), (*TARGETS, HALVES)),
            "one target": ("ax[ei]s|targets", sparse.csr_array(TABLE), [[0.4, 0.6]]),
            "sparse target": ("targets", TABLE, (sparse.coo_array([[0.4, 0.6]]), HALVES)),
        },
    ),
]


@on(SPARSE)
def test_sparse_tables_of_all_formats_and_types(function, given, outcome):
    settle(function, given, outcome)


# ---- targets -----------------------------------------------------------------------------------


FOUR_SIX = {
    "list": [4, 6],
    "tuple": (4, 6),
    "range": range(4, 7, 2),
    "uint8": np.array([80, 120], dtype=np.uint8),
    "int8 with a sum beyond it": np.array([80, 120], dtype=np.int8),
    "fractions": [Fraction(2, 5), Fraction(3, 5)],
    "decimals": [Decimal("0.4"), Decimal("0.6")],
    "huge integers": [4 * 10**40, 6 * 10**40],
    "longdouble": np.array([0.4, 0.6], dtype=np.longdouble),
    "tensor": torch.tensor([0.4, 0.6], dtype=torch.float64),
    "masked array with nothing masked": masked([4.0, 6.0]),
    "series": series([4, 6]),
    "series in another order": series([6, 4], [1, 0]),
    "series of Int64": series([4, 6], dtype="Int64"),
    "mapping": {0: 4, 1: 6},
    "mapping in another order": {1: 6, 0: 4},
    "mapping with NumPy keys": {np.int64(1): 6, np.int64(0): 4},
    "near the end of floats": [4e307, 6e307],
    "near the other end": [4e-300, 6e-300],
}
OTHERS = {
    "bool": ([1, 1], [True, True]),
    "zero": ([0, 1], [0, 6]),
    "-0": ([0, 1], [-0.0, 6]),
    "tiny": ([1e-300, 1],) * 2,
}


def with_halves(target):
    """A target, and another of the same total."""
    values = list(target.values()) if isinstance(target, dict) else np.asarray(target).tolist()
    return target, [sum(float(v) / 2 for v in values)] * 2


GOOD_TARGETS = [
    *gives(first_target, of={name: (FINE, *with_halves(t)) for name, t in FOUR_SIX.items()}),
    *gives(first_target, of={name: (loop(TABLE, (p, HALVES)), *with_halves(t)) for name, (p, t) in OTHERS.items()}),
    *gives(
        balanced,
        of={
            "rows of an array": (FINE, TABLE, np.array(TARGETS)),
            "list of targets": (FINE, TABLE, list(TARGETS)),
            "free rows": (loop(TABLE, (None, HALVES), 1), TABLE, (None, HALVES)),
            "free columns": (loop(TABLE, ([0.4, 0.6], None), 1), TABLE, ([0.4, 0.6], None)),
            "zero on an empty row": ([HALVES, [0, 0]], [[3, 1], [0, 0]], ([1, 0], HALVES)),
            "any total": (FINE, TABLE, ([400, 600], [500, 500])),
        },
    ),
    *gives(first_target, 1e-9, of={"totals within 1e-10": (FINE, [4, 6], [5, 5 + 5e-10])}),
    case("free everywhere", Either(Gives(np.array(TABLE) / 10), Refuses("target")), balanced, TABLE, (None, None)),
]


@on(GOOD_TARGETS)
def test_targets_of_every_kind(function, given, outcome):
    settle(function, given, outcome)


BAD_TARGETS = [
    *refuses(
        first_target,
        of={
            "too long": (r"targets\[0\].*(length|shape)", [0.2, 0.2, 0.6]),
            "too short": (r"targets\[0\].*(length|shape)", [1.0]),
            "empty": (r"targets\[0\]", []),
            "a number": (r"targets\[0\]", 0.5),
            "0-d array": (r"targets\[0\]", np.array(0.5)),
            "string": (r"targets\[0\]", "ab"),
            "bytes": (r"targets\[0\]", b"ab"),
            "set": (r"targets\[0\]", {0.4, 0.6}),
            "a row in a row": (r"targets\[0\]", [[0.4, 0.6]]),
            "a target for each of three tables": (r"targets\[0\]", np.full((3, 2), 0.5)),
            "ragged": (r"targets\[0\]", [[0.4], 0.6]),
            "strings inside": (r"targets\[0\]", ["0.4", "0.6"]),
            "a string inside": (r"targets\[0\]", [0.4, "0.6"]),
            "None inside": (r"targets\[0\]", [0.4, None]),
            "complex": ("complex", [0.4 + 0j, 0.6]),
            "imaginary parts": ("complex", np.array([0.4 + 1j, 0.6 - 1j])),
            "dates": (r"targets\[0\]", np.array(["2020", "2021"], dtype="datetime64[Y]")),
            "nan": (r"targets\[0\]\[1\] = nan", [0.4, np.nan]),
            "inf": (r"targets\[0\]\[1\] = inf", [0.4, np.inf]),
            "negative": (r"targets\[0\]\[1\] = -0\.4", [1.4, -0.4]),
            "no mass": (r"targets\[0\].*mass", [0, 0]),
            "an integer beyond floats": (r"targets\[0\]", [10**400, 10**400]),
            "a sum beyond floats": (r"targets\[0\].*(infinite|sum)", [1.2e308, 1.6e308], [1.4e308, 1.4e308]),
            "masked": ("mask", masked([0.4, 0.6], mask=[0, 1])),
            "NA": (r"targets\[0\]", series([4, None], dtype="Int64")),
            "series with nan": ("nan", series([0.4, np.nan])),
            "series of strings": (r"targets\[0\]", series(["0.4", "0.6"])),
            "series of names": ("'f'|'m'", series([0.4, 0.6], ["f", "m"])),
            "series counted from one": ("0|2", series([0.4, 0.6], [1, 2])),
            "series with a code twice": ("1", series([0.4, 0.3, 0.3], [0, 1, 1])),
            "series with half a code": (r"0\.5", series([0.4, 0.6], [0, 0.5])),
            "mapping counted from one": ("0|2", {1: 0.4, 2: 0.6}),
            "mapping of names": ("'f'|'m'", {"f": 0.4, "m": 0.6}),
            "mapping of numerals": ("'0'|'1'", {"0": 0.4, "1": 0.6}),
            "mapping that lacks a code": ("1", {0: 1.0}),
            "mapping with one code too many": ("2", {0: 0.4, 1: 0.5, 2: 0.1}),
            "mapping with a negative code": ("-1", {-1: 0.4, 0: 0.3, 1: 0.3}),
            "mapping with nan as key": ("nan", {0: 0.4, 1: 0.5, np.nan: 0.1}),
            "mapping with None as key": ("None", {0: 0.4, 1: 0.5, None: 0.1}),
            "mapping of strings": (r"targets\[0\]", {0: "0.4", 1: "0.6"}),
            "mapping of None": (r"targets\[0\]", {0: 0.4, 1: None}),
            "mapping of nan": ("nan", {0: 0.4, 1: np.nan}),
            "mapping of negative masses": (r"-0\.4", {0: 1.4, 1: -0.4}),
            "empty mapping": (r"targets\[0\]", {}),
            "totals of survey and census": ("100.*101|101.*100", [40, 60], [50, 51]),
            "totals off by 1e-8": (r"targets\[1\]", [0.4, 0.6], [0.5, 0.50000001]),
            "percentages to one decimal": (r"99\.9", [40.0, 60.0], [33.3, 66.6]),
            "negative on the other axis": (r"targets\[1\]\[0\] = -1", [0.4, 0.6], [-1, 2]),
        },
    ),
    *refuses(
        balanced,
        of={
            "None": ("targets", TABLE, None),
            "one number": ("targets", TABLE, 0.5),
            "one string": ("targets", TABLE, "ab"),
            "two strings": ("targets", TABLE, ("sex", "age")),
            "mapping by axis": ("targets", TABLE, {0: [0.4, 0.6], 1: HALVES}),
            "mapping by name": ("targets", TABLE, {"sex": [0.4, 0.6], "age": HALVES}),
            "mapping by name for a tensor": ("targets", torch.ones(2, 2), {"a": [1, 1], "b": [1, 1]}),
            "a set of targets": ("targets", TABLE, {(0.4, 0.6), (0.5, 0.5)}),
            "no targets": ("target", TABLE, []),
            "three targets": ("targets", TABLE, (*TARGETS, [1.0])),
            "one vector": ("targets", TABLE, HALVES),
            "nested once too often": ("targets", TABLE, [TARGETS]),
            "nan in the third": (r"targets\[2\]\[1\] = nan", [TABLE, TABLE], (*TARGETS, [0.5, np.nan])),
        },
    ),
]


@on(BAD_TARGETS)
def test_targets_that_are_refused(function, given, outcome):
    settle(function, given, outcome)


def narrow(kind, seed):
    """A table, shares whose sum is 1 in few digits and not beyond, and the right answer for them."""
    rng = np.random.default_rng(seed)
    table = rng.gamma(1.0, size=(5, 7)) + 0.01
    targets = [kind(rng.dirichlet(np.ones(n))) for n in table.shape]
    return loop(table, [plain(t) for t in targets]), table, targets


def bfloat16(values):
    return torch.tensor(values).bfloat16()


def pair(kind):
    return tuple(map(kind, TARGETS))


PRECISION = [
    *gives(
        balanced,
        of={
            f"{k.__name__} {seed}": narrow(k, seed) for k, seed in product((np.float16, np.float32, bfloat16), range(6))
        },
    ),
    *gives(first_target, 1e-6, of={"float32 beside float64": (loop(TABLE, ([1, 9], HALVES)), np.float32([0.1, 0.9]))}),
    *gives(first_target, 1e-6, of={"float32 percentages": (FINE, np.float32([40.0, 60.00001]), [50, 50])}),
    *gives(balanced, 1e-6, of={"float32 tensors": (FINE, TABLE, pair(torch.tensor))}),
    *refuses(
        first_target,
        of={
            "float32 off by a thousandth": (r"1\.001", np.float32([0.401, 0.6]), np.float32(HALVES)),
            "float16 off by a twentieth": (r"1\.0(5|49)", np.float16([0.45, 0.6])),
            "bfloat16 off by a fifth": (r"1\.2", bfloat16([0.6, 0.6])),
        },
    ),
    *gives(kl_divergence, of={"kl of float32": (0, *[np.float32([0.1, 0.2, 0.7])] * 2)}),
    *refuses(
        kl_divergence, of={"float32 off in kl": (r"sums to 1\.0", np.float32([0.11, 0.9]), np.float32([0.1, 0.9]))}
    ),
]


@on(PRECISION)
def test_totals_agree_within_the_precision_of_what_was_passed(function, given, outcome):
    settle(function, given, outcome)


# ---- options -------------------------------------------------------------------------------------


BAD_COUNTS = {
    "negative": -1,
    "float": 1.5,
    "integral float": 2.0,
    "string": "2",
    "True": True,
    "nan": np.nan,
    "inf": np.inf,
    "NumPy float": np.float64(2),
    "0-d array": np.array(2),
    "array": np.array([2]),
    "list": [2],
    "complex": 2 + 0j,
    "Decimal": Decimal(2),
    "mapping": {},
}
BAD_SHARES = {
    "zero": 0,
    "negative": -1e-3,
    "one": 1,
    "above one": 2.5,
    "nan": np.nan,
    "inf": np.inf,
    "string": "1e-3",
    "True": True,
    "array": np.array([1e-3]),
    "list": [1e-3],
    "complex": 1e-3 + 0j,
}
BAD_POSITIVES = {
    "zero": 0,
    "negative": -0.5,
    "nan": np.nan,
    "string": "1",
    "None": None,
    "array": np.array([1.0, 2]),
    "complex": 1j,
}
BAD_AXES = {
    "negative": -1,
    "beyond": 2,
    "float": 0.0,
    "string": "0",
    "True": True,
    "None": None,
    "nan": np.nan,
    "array": np.array([0]),
    "0-d array": np.array(0),
    "huge": 10**30,
}
LIMIT = loop(TABLE, steps=400)


def with_steps(steps, tol=None):
    return data_balance(TABLE, TARGETS, steps=steps, tol=tol)


def with_tol(tol):
    return data_balance(TABLE, TARGETS, tol=tol)


def with_first(first):
    return data_balance(TABLE, TARGETS, steps=3, first=first)


def with_max_steps(max_steps, table=TABLE):
    return data_balance(table, TARGETS, max_steps=max_steps)


OPTIONS = [
    *refuses_option("steps", BAD_COUNTS, with_steps),
    *refuses_option("max_steps", BAD_COUNTS | {"None": None}, with_max_steps),
    *refuses_option("tol", BAD_SHARES, with_tol),
    *refuses_option("first", BAD_AXES, with_first),
    *refuses(project, of={f"axis {name}": ("axis", TABLE, [0.4, 0.6], v) for name, v in BAD_AXES.items()}),
    *refuses(marginal, of={f"axis of marginal {name}": ("axis", TABLE, v) for name, v in BAD_AXES.items()}),
    *refuses(with_steps, of={f"{k} steps and tol": ("steps.*tol|tol.*steps", k, 1e-3) for k in (0, 3)}),
    *gives(with_steps, of={f"steps of {t.__name__}": (FINE, t(3)) for t in INTEGERS}),
    *gives(with_first, of={f"first of {t.__name__}": (loop(TABLE, first=1), t(1)) for t in INTEGERS}),
    *gives(marginal, of={f"axis of {t.__name__}": ([0.4, 0.6], TABLE, t(1)) for t in INTEGERS}),
    *gives(with_tol, 1e-5, of={f"tol of {t.__name__}": (LIMIT, t(1e-7)) for t in (np.float32, float, np.longdouble)}),
    *gives(with_steps, of={"no steps": (np.array(TABLE) / 10, 0)}),
    *gives(with_max_steps, 1e-8, of={"as many as allowed": (LIMIT, np.int64(500))}),
    case("too few steps allowed", Warns("max_steps"), with_max_steps, 2, [[50, 1], [1, 20]]),
    case("no step allowed", Warns("max_steps"), with_max_steps, 0),
]


@on(OPTIONS)
def test_options_of_wrong_type_and_range(function, given, outcome):
    settle(function, given, outcome)


# ---- labels of frames ---------------------------------------------------------------------------


VOTES = frame_of([[3.0, 1, 2], [1, 5, 4]], index=["f", "m"], columns=["left", "mid", "right"])
RIGHT_VOTES = loop(VOTES, ([0.6, 0.4], [0.3, 0.5, 0.2]))
SEX, PARTY = {"f": 0.6, "m": 0.4}, {"left": 0.3, "mid": 0.5, "right": 0.2}
LAST_SEX, LAST_PARTY = dict(reversed(SEX.items())), dict(reversed(PARTY.items()))
SQUARE = frame_of(TABLE, index=["f", "m"], columns=["no", "yes"])
DATES = pd.to_datetime(["2020-01-01", "2021-01-01"])
SIX_FOUR = loop(TABLE, ([0.6, 0.4], HALVES))
PAIR_INDEX = pd.MultiIndex.from_tuples([("f", 1), ("m", 2)])


def by_label(frame, *targets):
    """The masses by label, whatever their order."""
    return data_balance(frame, targets, steps=3).table.loc[["f", "m"], ["left", "mid", "right"]]


def rows_to(frame, target):
    return data_balance(frame, (target, HALVES), steps=3)


FRAMES = [
    *gives(
        by_label,
        of={
            f"{a}, {b}, {c}": (RIGHT_VOTES, frame, x, y)
            for (a, x), (b, y), (c, frame) in product(
                {"mapping": SEX, "other order": LAST_SEX, "series": series(LAST_SEX), "vector": [0.6, 0.4]}.items(),
                {"mapping": PARTY, "other order": LAST_PARTY, "series": series(LAST_PARTY)}.items(),
                {"in order": VOTES, "shuffled": VOTES.iloc[:, [1, 2, 0]]}.items(),
            )
        },
    ),
    *gives(
        by_label,
        of={
            "rows and columns shuffled": (RIGHT_VOTES, VOTES.iloc[::-1, [1, 2, 0]], SEX, PARTY),
            "vectors go by place": (RIGHT_VOTES, VOTES, [0.6, 0.4], [0.3, 0.5, 0.2]),
            "a free axis": (loop(VOTES, ([0.6, 0.4], None)), VOTES, LAST_SEX, None),
            "categories": (
                RIGHT_VOTES,
                VOTES.set_axis(pd.CategoricalIndex(["f", "m"], ["m", "f"])),
                series(SEX),
                PARTY,
            ),
        },
    ),
    *gives(
        rows_to,
        of={
            "integers": (SIX_FOUR, frame_of(TABLE, index=[7, 3]), {3: 0.4, 7: 0.6}),
            "dates": (SIX_FOUR, frame_of(TABLE, index=DATES), series([0.4, 0.6], DATES[::-1])),
            "pairs": (SIX_FOUR, frame_of(TABLE, index=PAIR_INDEX), {("m", 2): 0.4, ("f", 1): 0.6}),
            "no mass": (
                loop([[3, 1], [0, 0]], ([1, 0], HALVES)),
                frame_of([[3, 1], [0, 0]], ["f", "m"]),
                {"m": 0, "f": 1},
            ),
        },
    ),
    *gives(project, of={"projection": (loop(VOTES, ([0.6, 0.4], None), 1), VOTES, series(LAST_SEX), 0)}),
    *gives(marginal, of={"marginal": (np.array([4, 6, 6]) / 16, VOTES, 1)}),
    *refuses(
        rows_to,
        of={
            f"{name} in {kind.__name__}": (telling, frame, kind(target))
            for kind in (dict, series)
            for name, telling, frame, target in [
                ("an unknown label", "'x'", SQUARE, {"f": 0.5, "m": 0.4, "x": 0.1}),
                ("a missing label", "'m'", SQUARE, {"f": 1.0}),
                ("labels that are all wrong", "'[xqfm]'", SQUARE, {"x": 0.6, "q": 0.4}),
                ("labels of the other axis", "'(no|yes|f|m)'", SQUARE, {"no": 0.6, "yes": 0.4}),
                ("another case", "'[FMfm]'", SQUARE, {"F": 0.6, "M": 0.4}),
                ("a space", "'f ?'", SQUARE, {"f ": 0.6, "m": 0.4}),
                ("numerals for integers", "'?[12]'?", SQUARE.set_axis([1, 2]), {"1": 0.6, "2": 0.4}),
                ("integers for numerals", "'?[12]'?", SQUARE.set_axis(["1", "2"]), {1: 0.6, 2: 0.4}),
                ("codes for labels", "'[fm]'|0|1", SQUARE, {0: 0.6, 1: 0.4}),
                ("a label twice in the table", "'f'", SQUARE.set_axis(["f", "f"]), {"f": 1.0}),
                ("nan in a label of the table", "nan|'m'", SQUARE.set_axis(["f", np.nan]), SEX),
            ]
        },
    ),
    *refuses(rows_to, of={"a label twice in a series": ("'f'", SQUARE, series([0.3, 0.3, 0.4], list("ffm")))}),
    *refuses(
        balanced,
        of={
            "axes in the other order": ("'(no|yes|f|m)'", SQUARE, ({"no": 0.5, "yes": 0.5}, SEX)),
            "wrong labels on axis 1": ("'(maybe|yes)'", SQUARE, (HALVES, series({"no": 0.5, "maybe": 0.5}))),
            "mapping by name of the axis": ("targets", SQUARE, {"index": SEX, "columns": PARTY}),
            "a frame is not a stack": ("ax[ei]s|targets", VOTES, [[0.3, 0.5, 0.2]]),
        },
    ),
]


@on(FRAMES)
def test_labels_of_frames_are_aligned_or_refused(function, given, outcome):
    settle(function, given, outcome)


def test_a_balanced_frame_has_the_labels_of_the_frame():
    named = VOTES.rename_axis(index="sex", columns="party").iloc[::-1]
    result = data_balance(named, (SEX, PARTY), steps=2, keep_iterates=True)
    for frame in (result.table, *result.iterates):
        assert frame.index.equals(named.index)
        assert frame.columns.equals(named.columns)
        assert (frame.index.name, frame.columns.name) == ("sex", "party")


# ---- records -------------------------------------------------------------------------------------


X, Y = [0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 0, 1, 1]
COUNTS = np.array([[3, 1], [1, 2]])
SPREAD = (loop(COUNTS) / COUNTS)[X, Y]
AB, UV = ["a" if x == 0 else "b" for x in X], ["u" if y == 0 else "v" for y in Y]
OF_AB, OF_UV = {"b": 0.6, "a": 0.4}, {"u": 0.5, "v": 0.5}
OF_XY = {"x": OF_AB, "y": OF_UV}
DESIGN = [2.0, 0, 1, 3, 2, 1, 1]
FRAME = frame_of({"x": AB, "y": UV, "w": DESIGN}, index=list("ABCDEFG"))
COLUMNS = FRAME[["x", "y"]]
ALONE = np.where(X, 0.6 / 3, 0.1)


def with_design(weights):
    table = np.zeros((2, 2))
    np.add.at(table, (X, Y), weights)
    return (loop(table) / table)[X, Y] * weights


def one_column(column, target=TARGETS[0]):
    """Records of a column that is tried and one that is fine."""
    return by_records([column, Y], (target, HALVES))


def with_weights(weights):
    return by_records([X, Y], TARGETS, weights)


def crossed(a, b, target):
    return data_balance(Records(Records.cross(a, b)), [target], steps=1)


DESIGNED = with_design(DESIGN)
MANY_EQUAL = np.repeat([2 / 300, 1.5], [300, 2])
FALSE_TRUE = {True: 0.6, False: 0.4}
GOOD_RECORDS = [
    *gives(one_column, of={f"codes of {d.__name__}": (SPREAD, np.array(X, dtype=d)) for d in INTEGERS}),
    *gives(
        one_column,
        of={
            "list of codes": (SPREAD, X),
            "tensor of codes": (SPREAD, torch.tensor(X)),
            "series of codes": (SPREAD, series(X)),
            "Int64 codes": (SPREAD, series(X, dtype="Int64")),
            "codes and a mapping": (SPREAD, X, {1: 0.6, 0: 0.4}),
            "codes and a series": (SPREAD, X, series([0.6, 0.4], [1, 0])),
            "bool codes and a mapping": (SPREAD, np.array(X, dtype=bool), FALSE_TRUE),
            "floats and a mapping": (SPREAD, np.array(X, dtype=float), {1.0: 0.6, 0.0: 0.4}),
            "object codes": (SPREAD, np.array(X, dtype=object), {1: 0.6, 0: 0.4}),
            "list of labels": (SPREAD, AB, OF_AB),
            "array of labels": (SPREAD, np.array(AB), OF_AB),
            "array of bytes": (SPREAD, np.array(AB, dtype="S1"), {b"b": 0.6, b"a": 0.4}),
            "object array of labels": (SPREAD, np.array(AB, dtype=object), OF_AB),
            "labels and a series": (SPREAD, AB, series(OF_AB)),
            "series of labels": (SPREAD, series(AB), OF_AB),
            "series of strings": (SPREAD, series(AB, dtype="string"), OF_AB),
            "categories and a vector": (SPREAD, pd.Categorical(AB)),
            "categories in another order": (SPREAD, pd.Categorical(AB, ["b", "a"]), [0.6, 0.4]),
            "categories and a mapping": (SPREAD, series(pd.Categorical(AB, ["b", "a"])), OF_AB),
            "labels of two types": (SPREAD, ["a" if x == 0 else 7 for x in X], {7: 0.6, "a": 0.4}),
            "dates": (SPREAD, series(DATES[X]), dict(zip(DATES, TARGETS[0], strict=True))),
            "pairs": (SPREAD, series([("p", x) for x in X]), {("p", 1): 0.6, ("p", 0): 0.4}),
            "a category without records or mass": (SPREAD, AB, OF_AB | {"z": 0}),
            "a code without records or mass": (SPREAD, X, [0.4, 0.6, 0]),
            "a free variable": (loop(COUNTS, (None, HALVES), 1)[X, Y] / COUNTS[X, Y], X, None),
        },
    ),
    *gives(
        with_weights,
        of={
            "design weights": (DESIGNED, DESIGN),
            "uint8 weights": (DESIGNED, np.array(DESIGN, dtype=np.uint8)),
            "bool weights": (with_design(np.array(DESIGN) > 0), np.array(DESIGN) > 0),
            "decimal weights": (DESIGNED, [Decimal(w) for w in DESIGN]),
            "fractions as weights": (DESIGNED, [Fraction(w) for w in DESIGN]),
            "Int64 weights": (DESIGNED, series(DESIGN, dtype="Int64")),
            "masked weights, none masked": (DESIGNED, masked(DESIGN)),
            "tiny weights": (DESIGNED, np.array(DESIGN) * 1e-300),
            "great weights": (DESIGNED, np.array(DESIGN) * 5e307),
        },
    ),
    *gives(
        by_records,
        of={
            "one variable": (ALONE, [X], [[0.4, 0.6]]),
            "one variable of labels": (ALONE, [AB], [OF_AB]),
            "300 equal records": (MANY_EQUAL, [[0] * 300 + [1] * 2], [[2, 3]], np.ones(302, np.uint8)),
            "totals are kept": (SPREAD * 250, [X, Y], ([100, 150], [125, 125])),
        },
    ),
    *gives(
        by_frame,
        of={
            "a frame and a mapping": (SPREAD, COLUMNS, OF_XY),
            "a frame and a list": (SPREAD, COLUMNS, (OF_AB, OF_UV)),
            "a column of weights": (DESIGNED, FRAME, OF_XY, "w"),
            "a series of weights": (DESIGNED, COLUMNS, OF_XY, FRAME["w"]),
            "a mapping of columns": (SPREAD, {"x": AB, "y": UV}, OF_XY),
            "some columns only": (ALONE, FRAME, {"x": OF_AB}),
            "some columns and weights": (np.array(DESIGN) * np.where(X, 0.6 / 4, 0.4 / 6), FRAME, {"x": OF_AB}, "w"),
        },
    ),
    case("floats and a vector", Either(Gives(SPREAD), Refuses("float|label")), one_column, np.array(X, dtype=float)),
]


@on(GOOD_RECORDS)
def test_records_of_codes_and_labels(function, given, outcome):
    settle(function, given, outcome)


JOINT = np.array([[0.1, 0.2], [0.3, 0.4]])
BY_CELL = (JOINT / COUNTS)[X, Y]
BY_CODES = {(1, 1): 0.4, (0, 0): 0.1, (0, 1): 0.2, (1, 0): 0.3}
BY_LABELS = {("b", "v"): 0.4, ("a", "u"): 0.1, ("a", "v"): 0.2, ("b", "u"): 0.3}
CROSS_TABLE = frame_of(JOINT[::-1], index=["b", "a"], columns=["u", "v"])
CROSSED = [
    *gives(
        crossed,
        of={
            "codes and an array": (BY_CELL, X, Y, JOINT),
            "codes and a mapping": (BY_CELL, X, Y, BY_CODES),
            "labels and a mapping": (BY_CELL, AB, UV, BY_LABELS),
            "labels and a cross-table": (BY_CELL, AB, UV, CROSS_TABLE),
        },
    ),
    *gives(
        by_frame,
        of={
            "names and a mapping": (BY_CELL, FRAME, {("x", "y"): BY_LABELS}),
            "names and a cross-table": (BY_CELL, FRAME, {("x", "y"): CROSS_TABLE}),
        },
    ),
    *refuses(
        crossed,
        of={
            "an array of another shape": (r"shape|\(0, 1\)", X, Y, np.full((2, 1), 0.5)),
            "a pair without target": (r"\('b', 'v'\)", AB, UV, {("a", "u"): 0.5, ("a", "v"): 0.3, ("b", "u"): 0.2}),
            "a pair without records": (r"\('a', 'w'\)", AB, UV, BY_LABELS | {("a", "w"): 0.3}),
            "lengths that differ": ("7.*6|6.*7", X, Y[:6], JOINT),
            "a negative code": ("-1", X, [-1, *Y[1:]], JOINT),
            "nan": ("nan|missing", X, [np.nan, *Y[1:]], JOINT),
            "labels and an array": (r"label|mapping|\('a', 'u'\)", AB, UV, JOINT),
        },
    ),
]


@on(CROSSED)
def test_crossed_columns(function, given, outcome):
    settle(function, given, outcome)


def starts(value, rest=X):
    return [value, *rest[1:]]


def as_objects(values):
    return np.array([*values, None], dtype=object)[:-1]


HIDE_FIRST = [1, 0, 0, 0, 0, 0, 0]
MISSING = {"None": None, "nan": np.nan, "NA": pd.NA, "NaT": pd.NaT}
BAD_RECORDS = [
    *refuses(
        one_column,
        of={
            "a number": ("column", 3),
            "None": ("column", None),
            "one string": ("column|single", "aaabbbb", OF_AB),
            "two axes": ("shape|ax[ei]s|column", np.zeros((7, 2), dtype=int)),
            "another length": ("7.*6|6.*7", X[:6]),
            "a negative code": ("-1", starts(-1)),
            "a code without target": (r"\b2\b", starts(2)),
            "smallest int64": ("-9223372036854775808", np.array(starts(-(2**63)))),
            "identifiers": ("10000000000", starts(10**10)),
            "uint64 identifiers": ("9223372036854775813", np.array(starts(2**63 + 5), dtype=np.uint64)),
            "huge identifiers": ("label|0{30}", starts(10**30)),
            "int8 codes and a long target": (r"targets\[0\]\[199\]", np.int8(X), [0.4, 0.5] + [0] * 197 + [0.1]),
            "half a code": (r"0\.5|label", starts(0.5)),
            "nan among codes": ("nan|missing", starts(np.nan)),
            "inf among codes": ("inf|label", starts(np.inf)),
            "complex codes": ("complex", np.array(X, dtype=complex)),
            "masked codes": ("mask", masked(X, mask=HIDE_FIRST)),
            "NA among codes": ("NA|missing", series(starts(None), dtype="Int64")),
            "labels and a vector": ("label|Categorical|mapping", AB),
            "labels and codes as keys": ("'[ab]'", AB, {0: 0.4, 1: 0.6}),
            "codes and labels as keys": ("'[ab]'|value 0", X, OF_AB),
            "numerals and integers": ("'?[01]'?", [str(x) for x in X], {0: 0.4, 1: 0.6}),
            "a label without target": ("'c'", starts("c", AB), OF_AB),
            "a target without records": ("'z'", AB, {"a": 0.4, "b": 0.5, "z": 0.1}),
            "a category without records": ("'z'|unseen", pd.Categorical(AB, list("abz")), [0.4, 0.5, 0.1]),
            "a code without records": (r"targets\[0\]\[2\]", X, [0.4, 0.5, 0.1]),
            "a category longer than its target": ("targets", pd.Categorical(AB, list("abz"))),
            "nan in a list of strings": ("nan|missing", starts(np.nan, AB), OF_AB),
            "nan in a category": ("nan|missing", pd.Categorical(starts(None, AB)), OF_AB),
            "a label that is a list": ("label", as_objects([[1]] * 7), OF_AB),
            "a label twice in a series": ("'a'", AB, series([0.2, 0.2, 0.6], list("aab"))),
            **{
                f"{name} as label": ("(?i)nan|none|missing", as_objects(starts(v, AB)), OF_AB)
                for name, v in MISSING.items()
            },
        },
    ),
    *refuses(
        with_weights,
        of={
            "too few weights": ("weights.*6|6.*weights", DESIGN[:6]),
            "one weight": ("weights", 2.0),
            "weights with two axes": ("weights", np.ones((7, 1))),
            "negative weight": (r"weights\[0\] = -2", starts(-2, DESIGN)),
            "nan weight": (r"weights\[0\] = nan", starts(np.nan, DESIGN)),
            "inf weight": (r"weights\[0\] = inf", starts(np.inf, DESIGN)),
            "None as weight": ("weights", starts(None, DESIGN)),
            "NA as weight": ("weights", series(starts(None, DESIGN), dtype="Float64")),
            "strings as weights": ("weights", [str(w) for w in DESIGN]),
            "a name of a column": ("weights|'w'", "w"),
            "complex weights": ("complex", np.array(DESIGN, dtype=complex)),
            "masked weights": ("mask", masked(DESIGN, mask=HIDE_FIRST)),
            "no weight": ("weights.*mass", np.zeros(7)),
            "no weight for a code": (r"targets\[0\]\[1\]|\b1\b", [1, 1, 1, 1, 0, 0, 0]),
        },
    ),
    *refuses(
        by_records,
        of={
            "no variable": ("variable|column", [], []),
            "no records": ("record|empty", [[], []], TARGETS),
            "one target too few": ("target", [X, Y], [[0.4, 0.6]]),
            "one target too many": ("target", [X], TARGETS),
            "mapping for columns without names": ("targets|name", [X, Y], {"x": [0.4, 0.6], "y": HALVES}),
        },
    ),
    *refuses(
        by_frame,
        of={
            "a frame without columns": ("column|variable", frame_of(index=[1, 2]), {}),
            "a frame without rows": ("record|empty", FRAME[:0], {"x": OF_AB}),
            "an unknown column": ("'z'", FRAME, {"z": OF_AB}),
            "an unknown column in a pair": ("'z'", FRAME, {("x", "z"): {("a", "u"): 1.0}}),
            "an unknown column of weights": ("'v'", FRAME, {"x": OF_AB}, "v"),
            "the column of weights as variable": ("'w'", FRAME, {"w": {1.0: 1.0}}, "w"),
            "a column of strings as weights": ("weights|'y'", FRAME, {"x": OF_AB}, "y"),
            "no targets at all": ("target", FRAME, {}),
            "targets None": ("targets", FRAME, None),
            "columns of unequal length": ("7.*2|2.*7", {"x": AB, "y": ["u", "v"]}, (OF_AB, OF_UV)),
            "columns of one name": ("name", frame_of([[0, 1]], columns=["x", "x"]), {"x": [1.0]}),
        },
    ),
]


@on(BAD_RECORDS)
def test_records_that_are_refused(function, given, outcome):
    settle(function, given, outcome)


def test_weights_are_labelled_as_the_records_were():
    for records, targets in (
        (Records(FRAME, weights="w"), {"x": OF_AB}),
        (Records(FRAME["x"], FRAME["y"]), (OF_AB, OF_UV)),
    ):
        assert data_balance(records, targets, steps=3).weights.index.equals(FRAME.index)
    assert isinstance(data_balance(Records(X, Y), TARGETS, steps=1).weights, np.ndarray)


REVERSED = [
    pytest.param(lambda: Records(FRAME["x"], FRAME["y"].iloc[::-1]), SPREAD, id="another column"),
    pytest.param(lambda: Records(FRAME["x"], FRAME["y"], weights=FRAME["w"].iloc[::-1]), DESIGNED, id="weights"),
    pytest.param(lambda: Records(COLUMNS, weights=FRAME["w"].iloc[::-1]), DESIGNED, id="weights of a frame"),
    pytest.param(lambda: Records({"x": FRAME["x"], "y": FRAME["y"].iloc[::-1]}), SPREAD, id="a mapping of columns"),
]


@pytest.mark.parametrize("make, right", REVERSED)
def test_series_are_never_joined_by_place_against_their_labels(make, right):
    """As in pandas: what has the same labels in another order belongs together by label, or not at all."""
    try:
        weights = data_balance(make(), (OF_AB, OF_UV), steps=3).weights
    except ValueError as error:
        assert re.search("index|label", str(error))
    else:
        assert np.allclose(weights.loc[FRAME.index], right, rtol=1e-10, atol=0)


# ---- scores ----------------------------------------------------------------------------------------


LOGS = np.log(TABLE)
HARD = np.array([[0.0, -np.inf, 1], [2, 0, -1]])
EDGE = np.array([[1.0, 0.5], [-np.inf, -np.inf]])
FAR = np.array([[1.0, 0], [0, 1]])


def random_scores(size, seed):
    return np.random.default_rng(seed).normal(size=(3, 4)) * size


def rounded(dtype):
    return plain(torch.tensor(LOGS).to(dtype))


EVEN = (np.full(3, 1 / 3), np.full(4, 1 / 4))
HALF_TYPES = (torch.float16, torch.bfloat16, torch.float32)
NUMPY_OR_TORCH = {"array": np.asarray, "tensor": torch.tensor}
SCORES = [
    *gives(by_scores, 0, 1e-6, of={f"{d}": (from_scores(rounded(d)), torch.tensor(LOGS).to(d)) for d in HALF_TYPES}),
    *gives(
        by_scores,
        0,
        1e-6,
        of={f"{d.__name__}": (from_scores(LOGS.astype(d)), d(LOGS)) for d in (np.float16, np.float32)},
    ),
    *gives(
        by_scores,
        0,
        1e-14,
        of={
            "array": (from_scores(LOGS), LOGS),
            "list": (from_scores(LOGS), LOGS.tolist()),
            "integers": (from_scores(TABLE), TABLE),
            "decimals": (from_scores(TABLE), [[Decimal(3), 1], [1, Decimal(5)]]),
            "negative is fine": (from_scores([[-3, -1], [-1, -5]]), [[-3, -1], [-1, -5]]),
            "a free axis": (from_scores(LOGS, (None, HALVES), 1), LOGS, (None, HALVES)),
            **{
                f"{what}, {name}": (from_scores(scores, targets), kind(scores), targets)
                for name, kind in NUMPY_OR_TORCH.items()
                for what, scores, targets in [
                    ("an empty cell", HARD, WIDE),
                    ("an empty row without target", EDGE, ([1, 0], HALVES)),
                    ("far from zero", LOGS + 2.0**40, TARGETS),
                ]
            },
        },
    ),
    *gives(by_scores, 0, 1e-6, of={"integer tensor": (from_scores(TABLE), torch.tensor(TABLE))}),
    *gives(by_scores, 0, 1e-10, of={"rows far apart": (loop(TABLE), LOGS + np.array([[-1e5], [0]]))}),
    *(
        case(f"{name} of size {size:g}, {seed}", near(right, 1e-14 * size), by_scores, kind(scores), EVEN, 40)
        for size, seed in product((1e2, 1e4, 1e6), range(2))
        for scores in [random_scores(size, seed)]
        for right in [from_scores(scores, EVEN, 40)]
        for name, kind in NUMPY_OR_TORCH.items()
    ),
    *(
        case(
            f"differences of {size:g}",
            Either(near(from_scores(FAR * size), 1e-8), Refuses("scores")),
            by_scores,
            FAR * size,
        )
        for size in (1e6, 1e16, 1e300)
    ),
    *refuses(
        by_scores,
        of={
            **{
                f"{what}, {name}": (telling, kind(scores))
                for name, kind in NUMPY_OR_TORCH.items()
                for what, telling, scores in [
                    ("nan", r"\[0, ?1\] = nan", [[1.0, np.nan], [0, 1]]),
                    ("+inf", r"\[0, ?1\] = inf", [[1.0, np.inf], [0, 1]]),
                    ("an empty row", r"targets\[0\]\[1\] = 0\.6", EDGE),
                    ("all empty", "mass", np.full((2, 2), -np.inf)),
                    ("complex", "complex", LOGS.astype(complex)),
                    ("one axis", "ax[ei]s", LOGS[0]),
                ]
            },
            "strings": ("(?i)scores", [["a", "b"], ["c", "d"]]),
            "None": ("(?i)scores", None),
            "None inside": ("(?i)scores", [[1, None], [2, 3]]),
            "ragged": ("(?i)scores", [[1, 2], [3]]),
            "masked": ("mask", masked(LOGS, mask=HIDDEN)),
            "a number": ("ax[ei]s", 3.0),
            "no rows": ("(?i)scores|mass|empty|target", np.zeros((0, 2))),
            "sparse": ("(?i)scores|sparse", sparse.csr_array(LOGS)),
            "too many targets": ("targets|ax[ei]s", LOGS, (*TARGETS, [1.0])),
        },
    ),
]


@on(SCORES)
def test_scores_of_any_size(function, given, outcome):
    settle(function, given, outcome)


# ---- stacks -------------------------------------------------------------------------------------


STACK = np.array([TABLE, [[3, 1], [0, 0]], [[0, 2], [4, 1]]], dtype=float)
LOG_STACK = log_of(STACK).astype(float)
KEPT = np.array([loop(TABLE), STACK[1] / 4, loop(STACK[2])])
EACH = np.array([[0.4, 0.6], [1, 0], [0.3, 0.7]])
OWN = np.stack([loop(t, (q, HALVES)) for t, q in zip(STACK, EACH, strict=True)])
STACKS = [
    *gives(
        balanced,
        of={
            "array": (KEPT, STACK),
            "list": (KEPT, STACK.tolist()),
            "tensor": (KEPT, torch.tensor(STACK)),
            "integers": (KEPT, STACK.astype(np.int8)),
            "a target for each": (OWN, STACK, (EACH, HALVES)),
            "tensors for each": (OWN, torch.tensor(STACK), (torch.tensor(EACH), HALVES)),
            "a mapping for all": (KEPT, STACK, ({1: 0.6, 0: 0.4}, HALVES)),
            "two axes before": ([KEPT, KEPT], np.array([STACK, STACK])),
        },
    ),
    *gives(by_scores, 0, 1e-14, of={"scores": (KEPT, LOG_STACK), "tensor of scores": (KEPT, torch.tensor(LOG_STACK))}),
    case("no tables", Either(Gives(np.zeros((0, 2, 2))), Refuses("table")), balanced, np.zeros((0, 2, 2))),
    *refuses(
        balanced,
        of={
            "a table without mass": (r"tables?\[1\].*mass", STACK * [[[1]], [[0]], [[1]]]),
            "nan": (r"tables?\[2, ?0, ?1\] = nan", np.where(STACK == 2, np.nan, STACK)),
            "negative": (r"tables?\[2, ?0, ?1\] = -2", np.where(STACK == 2, -2, STACK)),
            "totals that differ in one table": (r"1\.5", STACK, (EACH * [[1], [1.5], [1]], HALVES)),
            "one target too few": (r"targets\[0\]", STACK, (EACH[:2], HALVES)),
            "nan in a target of one": (r"targets\[0\].*nan", STACK, (np.where(EACH == 0.3, np.nan, EACH), HALVES)),
        },
    ),
]


@on(STACKS)
def test_stacks(function, given, outcome):
    settle(function, given, outcome)


@pytest.mark.parametrize("kind", NUMPY_OR_TORCH.values())
def test_a_table_of_a_stack_that_lacks_a_value_is_flagged(kind):
    result = data_balance(kind(STACK), TARGETS, steps=3)
    assert plain(result.complete).tolist() == [1, 0, 1]
    assert result.history.shape == (4, 3, 2)
    assert plain(data_balance(kind(STACK), (EACH, HALVES), steps=3).complete).all()


def test_a_limit_of_a_stack_keeps_what_has_no_limit():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = data_balance(STACK, TARGETS)
    assert np.allclose(result.table[[0, 2]], [loop(TABLE, steps=2000), loop(STACK[2], steps=2000)], atol=1e-8, rtol=0)
    assert np.allclose(result.table[1], STACK[1] / 4, rtol=1e-10, atol=0)


# ---- extreme masses -----------------------------------------------------------------------------


ENDS = {
    "greatest": np.full((2, 2), 1.7e308),
    "great": np.array([[1e308, 2e307], [3e306, 9e307]]),
    "small": np.array([[1e-300, 3e-300], [2e-301, 5e-299]]),
    "smallest": np.full((2, 2), 5e-324),
    "denormal": np.array(TABLE) * 5e-324,
    "from 1e-300 to 1": np.array([[1e-300, 1], [1, 1e-200]]),
    "from 1 to 1e300": np.array([[1, 1e300], [1e280, 1e10]]),
    "two small cells": np.array([[1, 1e-250], [1e-250, 1]]),
}
KINDS = {"array": np.asarray, "sparse": sparse.csr_array, "tensor": torch.tensor, "frame": frame_of}
LOST = np.array([[5e-324, 1], [1, 1e300]])


def spread_table(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(2, 5, size=rng.integers(2, 4))
    return 10.0 ** rng.uniform(-290, 0, size=shape), [rng.dirichlet(np.ones(n) * 2) for n in shape]


EXTREME = [
    *gives(
        by_steps,
        1e-11,
        of={
            f"{name}, {kind}, {k} steps": (loop(table, steps=k), make(table), TARGETS, k)
            for (name, table), (kind, make), k in product(ENDS.items(), KINDS.items(), (0, 1, 2, 25))
        },
    ),
    *gives(by_scores, 1e-11, of={f"{name}, scores": (loop(table), np.log(table)) for name, table in ENDS.items()}),
    *(
        case(
            f"lost beside 1e300, {kind}",
            Either(Gives(loop(LOST), 1e-11), Refuses("table.*double precision")),
            balanced,
            make(LOST),
        )
        for kind, make in KINDS.items()
    ),
]


@on(EXTREME)
def test_masses_from_the_smallest_to_the_greatest(function, given, outcome):
    settle(function, given, outcome)


@pytest.mark.parametrize("seed", range(24))
def test_masses_spread_over_290_orders_of_magnitude(seed):
    table, targets = spread_table(seed)
    k = int(np.random.default_rng(seed).integers(1, 60))
    cells = tuple(np.indices(table.shape).reshape(table.ndim, -1))
    found = [
        data_balance(table, targets, steps=k),
        data_balance(torch.tensor(table), targets, steps=k),
        data_balance(Records(*cells, weights=table.ravel()), targets, steps=k),
        by_scores(np.log(table), targets, k),
    ]
    if table.ndim == 2:
        found += [data_balance(sparse.csr_array(table), targets, steps=k), balance_many(table[None], targets, steps=k)]
    for ours in found:
        np.testing.assert_allclose(
            np.reshape(answer(ours), table.shape), loop(table, targets, k), rtol=1e-9, atol=1e-14
        )


@pytest.mark.parametrize("kind", (np.asarray, torch.tensor, sparse.csr_array, Scores))
def test_floating_point_errors_of_the_user_are_not_raised(kind):
    """Whoever makes NumPy strict is not stopped by what underflows inside."""
    tables = [(t, goals) for t, goals in map(spread_table, range(12)) if t.ndim == 2]
    with np.errstate(all="raise"):
        for table, targets in tables:
            assert len(data_balance(kind(table), targets, steps=9).history) == 10


# ---- limits: plateaus, floors and proofs -----------------------------------------------------


PLATEAU = 10.0 ** np.array([[0, -9, -9], [-18, 0, -27]]), ([0.6, 0.4], np.array([3, 4, 4]) / 11)


def transport(reg):
    x, y = np.linspace(0, 1, 6), np.linspace(0.05, 0.95, 6) ** 1.5
    return -((x[:, None] - y) ** 2) / reg, (np.arange(1, 7.0), np.arange(6, 0, -1.0))


def assert_limit(logs, targets, result):
    """One table only has these marginals and is the start times a function of the rows and one of the columns."""
    table = np.exp(plain(result.table)) if plain(result.table).min() < 0 else plain(result.table)
    for axis, target in enumerate(targets):
        assert np.abs(table.sum(axis=1 - axis) - shares_of(target)).sum() / 2 <= 1.0001e-9
    built = logs + plain(result.potentials[0])[:, None] + plain(result.potentials[1])
    assert np.abs(np.exp(built - logsumexp(built)) - table).max() < 1e-9


PLATEAU_KINDS = KINDS | {
    "scores": lambda t: Scores(np.log(t)),
    "tensor of scores": lambda t: Scores(torch.tensor(np.log(t))),
}


@pytest.mark.parametrize("kind", PLATEAU_KINDS)
def test_a_plateau_is_not_the_end(kind):
    """Cells far apart in size make the error stand still for hundreds of steps. The table is positive: go on."""
    table, targets = PLATEAU
    result = data_balance(PLATEAU_KINDS[kind](table), targets, tol=1e-9)
    assert (result.converged, result.reason, result.obstruction) == (True, "tolerance", None)
    assert_limit(np.log(table), targets, result)
    assert data_balance(PLATEAU_KINDS[kind](table), targets, steps=1000).errors.max() < 1e-12


@pytest.mark.parametrize("reg", (1e-1, 1e-2, 3e-3, 1e-3))
def test_entropic_transport_converges_or_says_that_it_is_slow(reg):
    logs, targets = transport(reg)
    for given in (Scores(logs), np.exp(logs)):
        result = verdict(given, targets)
        assert result.reason in ("tolerance", "max_steps", "floor")
        assert result.converged == (result.reason == "tolerance")
        assert result.obstruction is None
        assert "no table" not in result.message
        if result.converged:
            assert_limit(logs, targets, result)
    assert reg < 1e-2 or result.converged


@pytest.mark.parametrize("size", (2, 3, 6))
def test_cells_that_must_vanish_are_slow_and_not_impossible(size):
    """A triangle has one table with uniform marginals, the diagonal, at a distance of about 1 / k after k steps."""
    result = verdict(np.tril(np.ones((size, size))), [np.ones(size)] * 2, max_steps=3000)
    assert result.reason in ("max_steps", "tolerance")
    assert result.obstruction is None
    assert np.abs(result.table - np.eye(size) / size).max() < 5e-3
    assert "no table" not in result.message


def verdict(table, targets, **options):
    """The limit; it is said if and only if it was not reached, once and in few words."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = without_nan(data_balance(table, targets, tol=1e-9, **options))
    total = plain(result.marginals[0]).sum()
    assert total == pytest.approx(1, abs=1e-9)
    if not isinstance(result.table, Records):
        masses = np.exp(plain(result.table)) if isinstance(table, Scores) else plain(result.table)
        assert masses.sum() == pytest.approx(1, abs=1e-9)
    assert [w.category for w in said] == [ConvergenceWarning] * (not result.converged)
    assert len(result.message) <= 500
    return result


def supports(ndim, many):
    """Random supports, and targets that may be out of reach and have zeros."""
    for seed in range(many):
        rng = np.random.default_rng(1000 * ndim + seed)
        shape = rng.integers(2, 5 - (ndim > 3), size=ndim)
        table = (rng.random(shape) < (0.55, 0.35, 0.25)[ndim - 2]).astype(float)
        for axis, n in enumerate(shape):
            for value in range(n):
                if not table.take(value, axis).any():
                    table[tuple(value if a == axis else rng.integers(shape[a]) for a in range(ndim))] = 1
        yield table, [rng.multinomial(7, np.ones(n) / n) + 0.0 for n in shape]


def assert_proof(table, targets, proof):
    """Some values of one axis have more target mass than the only values of the other that they meet."""
    goals = [shares_of(t) for t in targets]
    live = table > 0
    for axis, goal in enumerate(goals):
        live = live & np.expand_dims(goal > 0, tuple(a for a in range(table.ndim) if a != axis))
    cells = np.argwhere(live)
    if hasattr(proof, "functions"):
        # functions of the axes: their mean under the targets against their largest sum on a positive cell
        means = sum(np.dot(t, f) / np.sum(t) for t, f in zip(targets, proof.functions, strict=True))
        sums = sum(f[cells[:, a]] for a, f in enumerate(proof.functions))
        assert proof.gap == pytest.approx(means - sums.max()) and proof.gap > 0
        return
    met = set(cells[np.isin(cells[:, proof.axis], proof.values), proof.other])
    assert met <= set(proof.reachable.tolist())
    excess = goals[proof.axis][proof.values].sum() - goals[proof.other][proof.reachable].sum()
    assert proof.excess == pytest.approx(excess, abs=1e-12)
    assert excess > 0


@pytest.mark.parametrize("kind", (np.asarray, sparse.csr_array, torch.tensor))
def test_infeasible_is_said_of_two_axes_if_and_only_if_a_linear_program_says_so(kind):
    verdicts = []
    for table, targets in supports(2, 60):
        verdicts.append(solvable(table > 0, [shares_of(t) for t in targets]))
        result = verdict(kind(table), targets, max_steps=1000)
        assert (result.reason == "infeasible") == (not verdicts[-1])
        if result.reason == "infeasible":
            assert_proof(table, targets, result.obstruction)
    assert 10 < sum(verdicts) < 50


@pytest.mark.parametrize("ndim", (3, 4))
def test_infeasible_is_never_said_of_what_a_linear_program_can_do(ndim):
    proved = 0
    for table, targets in supports(ndim, 30):
        possible = solvable(table > 0, [shares_of(t) for t in targets])
        result = verdict(table, targets, max_steps=300)
        assert result.reason in (
            ("tolerance", "max_steps", "floor") if possible else ("infeasible", "max_steps", "floor")
        )
        if result.reason == "infeasible":
            assert_proof(table, targets, result.obstruction)
            proved += 1
        assert "underflow" not in result.message
    assert proved >= 10


IMPOSSIBLE = {
    "two rows share one column": ([[1, 0, 0], [1, 0, 0], [1, 1, 1]], ([1, 1, 1], [1, 1, 1])),
    "diagonal": (np.eye(3), ([3, 2, 1], [1, 2, 3])),
    "a row against a zero": ([[1, 0], [1, 1]], ([5, 5], [0, 10])),
    "a slice against a zero": ([[[1, 1], [0, 0]], [[1, 1], [1, 1]]], ([5, 5], [0, 10], [5, 5])),
    "two of three axes": (np.eye(3)[..., None] * [1.0, 2.0], ([3, 2, 1], [1, 2, 3], [3, 3])),
    "two of four axes": (np.eye(2)[:, None, :, None] * np.ones((2, 3, 2, 2)), ([4, 2], [2, 2, 2], [1, 5], [3, 3])),
}
IMPOSSIBLE_KINDS = {
    "array": np.asarray,
    "tensor": torch.tensor,
    "records": lambda t: Records(*np.nonzero(t), weights=t[t > 0]),
    "scores": lambda t: Scores(log_of(t).astype(float)),
    "tensor of scores": lambda t: Scores(torch.tensor(t).log()),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
@pytest.mark.parametrize("kind", IMPOSSIBLE_KINDS)
def test_what_is_impossible_is_said_with_its_proof(name, kind):
    table, targets = np.asarray(IMPOSSIBLE[name][0], dtype=float), IMPOSSIBLE[name][1]
    assert not solvable(table > 0, [shares_of(t) for t in targets])
    Warns("infeasible").check(lambda: data_balance(IMPOSSIBLE_KINDS[kind](table), targets))
    assert_proof(table, targets, verdict(IMPOSSIBLE_KINDS[kind](table), targets).obstruction)


def test_a_message_is_short_even_if_a_hundred_thousand_rows_are_to_blame():
    n = 100_000
    heavy, light = np.full(n // 2, 2.0), np.full(n // 2, 1.0)
    table = sparse.dia_array((np.ones((1, n)), [0]), shape=(n, n))
    result = verdict(table, (np.r_[heavy, light], np.r_[light, heavy]))
    assert result.reason == "infeasible"
    assert len(result.obstruction.values) == n // 2
    assert len(repr(result)) <= 500


def test_reprs_are_short():
    big = data_balance(np.ones((300, 400)), (np.ones(300) / 300, np.ones(400) / 400), steps=2)
    for thing in (big, Records(np.arange(5000) % 7), Scores(np.zeros((300, 300)))):
        assert len(repr(thing)) <= 500


# ---- projections, marginals and divergences ---------------------------------------------------


FLAT, HALF = [[1, 1], [1, 3]], np.array([[0.25, 0.25], [0.125, 0.375]])
TENTH = ([0.1, 0.9], None, None)
DISTANCES = [
    *gives(project, 2e-6, of={"project a tensor": (HALF, torch.tensor([[1.0, 1], [1, 3]]), HALVES, 0)}),
    *gives(
        project,
        of={
            "project": (HALF, FLAT, HALVES, 0),
            "project sparse counts": (HALF, sparse.coo_array(np.array(FLAT, np.uint8)), [5, 5], 0),
            "project with a mapping": (loop(FLAT, ([2, 8], None), 1), FLAT, {1: 8, 0: 2}, 0),
            "project onto zero": ([[0, 0], [0.25, 0.75]], FLAT, [0, 1], 0),
            "project three axes": (loop([HALF, HALF], TENTH, 1), [HALF, HALF], [0.1, 0.9], 0),
        },
    ),
    *refuses(
        project,
        of={
            "project onto an empty row": (r"target\[1\].*row 1", [[1, 1], [0, 0]], HALVES, 0),
            "project nan": (r"target\[0\] = nan", TABLE, [np.nan, 0.5], 0),
            "project negative": (r"target\[0\] = -1", TABLE, [-1, 2], 0),
            "project wrong length": ("target", TABLE, [0.2, 0.3, 0.5], 0),
            "project None": ("target", TABLE, None, 0),
            "project a string": ("target", TABLE, "ab", 0),
            "project masked": ("mask", TABLE, masked([1, 2], mask=[0, 1]), 0),
            "project complex": ("complex", TABLE, [1j, 1], 0),
            "project with two axes": ("target", TABLE, [[0.4, 0.6]], 0),
            "project a bad table": (AT + " = nan", put(np.nan), [0.4, 0.6], 0),
        },
    ),
    *gives(
        marginal,
        of={
            "marginal": ([0.4, 0.6], TABLE, 0),
            "marginal of decimals": ([0.4, 0.6], AS_TABLE["decimals"], 0),
            "marginal of bool": ([2 / 3, 1 / 3], [[True, True], [False, True]], 0),
            "marginal of the greatest": (HALVES, ENDS["greatest"], 0),
            "marginal of int8": (HALVES, np.full((2, 2), 127, np.int8), 0),
        },
    ),
    *gives(marginal, 2e-6, of={"marginal of a tensor": ([0.4, 0.6], torch.tensor(TABLE), 0)}),
    *refuses(
        marginal,
        of={
            "marginal of masked": ("mask", masked(TABLE, mask=HIDDEN), 0),
            "marginal of nan": ("nan", put(np.nan), 0),
            "marginal of ragged": ("table", [[1, 2], [3]], 0),
            "marginal of complex": ("complex", np.array(TABLE) + 0j, 0),
            "marginal of None": ("table", None, 0),
        },
    ),
    *(
        case(f"{function.__name__} of {name}", Refuses(telling), function, first, second)
        for function in (kl_divergence, total_variation)
        for name, telling, first, second in [
            ("sums that are not 1", r"sums to 1\.1", [0.5, 0.6], HALVES),
            ("shapes that differ", "shape", HALVES, [0.2, 0.3, 0.5]),
            ("a row and a column", "shape", [[0.5, 0.5]], [[0.5], [0.5]]),
            ("nan", "nan", [0.5, np.nan], HALVES),
            ("inf", "inf", [0.5, np.inf], HALVES),
            ("a negative number", r"-0\.5", [1.5, -0.5], HALVES),
            ("complex numbers", "complex", [0.5j, 0.5], HALVES),
            ("strings", "^[pq]", ["a", "b"], HALVES),
            ("None", "^[pq]", None, HALVES),
            ("ragged lists", "^[pq]", [[0.5], 0.5], HALVES),
            ("masked numbers", "mask", masked(HALVES, mask=[0, 1]), HALVES),
            ("nothing", "^[pq]", [], HALVES),
        ]
    ),
    *gives(
        kl_divergence,
        of={
            "kl": (0.5 * np.log(4 / 3), HALVES, [0.25, 0.75]),
            "kl of fractions": (0.5 * np.log(4 / 3), [Fraction(1, 2)] * 2, [Fraction(1, 4), Fraction(3, 4)]),
            "kl beyond the support": (np.inf, HALVES, [1, 0]),
            "kl of a zero": (np.log(2), [1, 0], HALVES),
            "kl with the smallest": (-np.log(1e-300), [1, 0], [1e-300, 1]),
            "kl of tensors": (0, torch.tensor([0.1, 0.9]), torch.tensor([0.1, 0.9])),
        },
    ),
    *gives(
        total_variation,
        of={"tv": (0.25, HALVES, [0.25, 0.75]), "tv of float32": (0, np.float32([0.1, 0.9]), np.float32([0.1, 0.9]))},
    ),
]


@on(DISTANCES)
def test_projections_marginals_and_divergences(function, given, outcome):
    settle(function, given, outcome)


# ---- estimates ---------------------------------------------------------------------------------


Z = [1.0, 2, 4, 8, 16, 32, 64]
VALUE = SPREAD @ Z
SMALL = ([0, 0, 0, 1], [0, 1, 0, 1]), [1.0, 2, 3, 10]
SHARE = series([1] * 70 + [0] * 30).value_counts(normalize=True)


def mean(columns, outcome=Z, targets=TARGETS, steps=3, **options):
    return estimate(columns, outcome, targets, steps=steps, **options).value


def mean_of_outcome(outcome):
    return mean((X, Y), outcome)


def mean_of_records(weights, steps=3):
    return estimate(Records(X, Y, weights=weights), Z, TARGETS, steps=steps).value


ESTIMATES = [
    *gives(
        mean,
        of={
            "codes": (VALUE, (X, Y)),
            "labels": (VALUE, (AB, UV), Z, (OF_AB, OF_UV)),
            "series": (VALUE, (series(AB), series(UV)), series(Z), (series(OF_AB), series(OF_UV))),
            "labels of two types": (VALUE, (["a" if x == 0 else 1 for x in X], Y), Z, ({1: 0.6, "a": 0.4}, HALVES)),
            "counts of values": (7.6, *SMALL, (SHARE, HALVES), 1),
            "counts as mapping": (7.6, *SMALL, (SHARE.to_dict(), HALVES), 1),
            "one variable": (ALONE @ Z, (X,), Z, [[0.4, 0.6]], 1),
            "no steps": (np.mean(Z), (X, Y), Z, TARGETS, 0),
        },
    ),
    *gives(
        mean_of_outcome,
        of={
            "bool outcome": (SPREAD @ (np.array(Z) > 5), np.array(Z) > 5),
            "decimals": (VALUE, [Decimal(z) for z in Z]),
            "a function of the cell": ((loop(COUNTS) * [[1, 2], [3, 4]]).sum(), [[1, 2], [3, 4]]),
        },
    ),
    *gives(mean_of_records, of={"records": (DESIGNED @ Z, DESIGN)}),
    *gives(mean_of_records, 1e-7, of={"the limit": ((loop(COUNTS, steps=500) / COUNTS)[X, Y] @ Z, None, None)}),
    *refuses(
        mean_of_outcome,
        of={
            "complex outcome": ("complex", np.array(Z) + 1j),
            "strings as outcome": ("outcome", [str(z) for z in Z]),
            "None as outcome": ("outcome", None),
            "None in the outcome": ("outcome", starts(None, Z)),
            "nan in the outcome": (r"outcome\[0\] = nan", starts(np.nan, Z)),
            "inf in the outcome": (r"outcome\[0\] = inf", starts(np.inf, Z)),
            "masked outcome": ("mask", masked(Z, mask=HIDE_FIRST)),
            "NA in the outcome": ("outcome", series(starts(None, Z), dtype="Float64")),
            "outcome too short": ("outcome", Z[:6]),
            "outcome of another shape": ("outcome", np.zeros((3, 3))),
            "ragged outcome": ("outcome", [[1, 2], [3]]),
            "dates as outcome": ("outcome", np.array(range(7), dtype="datetime64[D]")),
        },
    ),
    *refuses(
        mean,
        of={
            "lengths that differ": ("7.*6|6.*7", (X, Y[:6])),
            "a label without target": ("'c'", (starts("c", AB), Y), Z, (OF_AB, HALVES)),
            "nan as label": ("nan|missing", (starts(np.nan, AB), Y), Z, (OF_AB, HALVES)),
            "numerals as labels": ("'?[01]'?", ([str(x) for x in X], Y), Z, ({0: 0.4, 1: 0.6}, HALVES)),
            "totals that differ": ("targets", (X, Y), Z, ([0.4, 0.6], [0.5, 0.6])),
            "targets None": ("targets", (X, Y), Z, None),
            "one target": ("target", (X, Y), Z, [[0.4, 0.6]]),
        },
    ),
    *refuses_option("steps", BAD_COUNTS, lambda v: mean((X, Y), steps=v)),
    *refuses_option("first", BAD_AXES, lambda v: mean((X, Y), first=v)),
    *refuses_option("level", BAD_SHARES | {"None": None}, lambda v: mean((X, Y), level=v)),
]


@on(ESTIMATES)
def test_estimates(function, given, outcome):
    settle(function, given, outcome)


def test_an_estimate_without_some_category_is_the_plain_mean_and_says_which():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = estimate((AB, UV), Z, ({"a": 0.4, "b": 0.5, "z": 0.1}, OF_UV), steps=2)
    assert result.value == pytest.approx(np.mean(Z), rel=1e-15)
    assert result.plain == pytest.approx(np.mean(Z), rel=1e-15)
    assert (result.unseen[0], result.steps) == (("z",), 0)


def test_an_outcome_is_never_joined_by_place_against_its_labels():
    z = series(Z, FRAME.index)
    try:
        value = estimate(Records(COLUMNS), z.iloc[::-1], (OF_AB, OF_UV), steps=3).value
    except ValueError as error:
        assert re.search("index|label", str(error))
    else:
        assert value == pytest.approx(VALUE)


# ---- names of the field ---------------------------------------------------------------------------


TO_EDGE = ([[[1, 1], [0, 1]]], ([0.2, 0.8], HALVES)), ([[[5, 3], [0, 2]]], ([0.2, 0.8], [0.9, 0.1]))
CELLS = np.array([[1.0, -1], [2, 3]])


def many(tables, targets=TARGETS, steps=3):
    return balance_many(tables, targets, steps=steps)


def means(tables, h, steps=3):
    return balanced_means(tables, h, TARGETS, steps=steps)


def step_by_step(table, steps=3):
    return [(loop(table, steps=k) * CELLS).sum() for k in range(steps + 1)]


BATCHES = [
    *gives(
        many,
        of={
            "batch": (KEPT, STACK),
            "batch of int8": (KEPT, STACK.astype(np.int8)),
            "batch as list": (KEPT, STACK.tolist()),
            "batch of 1e-300": (KEPT, STACK * 1e-300),
            "float32 targets": ([loop(TABLE, pair(np.float32))], [TABLE], pair(np.float32)),
        },
    ),
    *gives(
        means,
        of={
            "means": ([step_by_step(TABLE), [(STACK[1] / 4 * CELLS).sum()] * 4, step_by_step(STACK[2])], STACK, CELLS),
            "means of no step": ([step_by_step(TABLE, 0)], [TABLE], CELLS, 0),
        },
    ),
    *refuses(
        many,
        of={
            "masked": ("mask", masked([TABLE], mask=[HIDDEN])),
            "nan": (r"tables?\[0, ?0, ?1\]", [put(np.nan)]),
            "negative": (r"tables?\[0, ?0, ?1\]", [put(-1)]),
            "without mass": (r"tables?\[1\]", [TABLE, np.zeros((2, 2))]),
            "strings": ("table", [[["3", "1"], ["1", "5"]]]),
            "complex": ("complex", np.array([TABLE]) + 0j),
            "ragged": ("table", [TABLE, [[1], [2]]]),
            "one table": ("ax[ei]s", TABLE),
            "totals": ("targets", [TABLE], ([0.4, 0.6], [0.5, 0.6])),
            "targets None": ("targets", [TABLE], None),
        },
    ),
    *refuses(
        means,
        of={
            "means of complex": ("complex", [TABLE], CELLS + 1j),
            "means of nan": (r"h\[0, ?0\] = nan", [TABLE], [[np.nan, 1], [1, 1]]),
            "means of strings": ("^h", [TABLE], [["a", "b"], ["c", "d"]]),
            "means of another shape": ("^h .*shape", [TABLE], np.ones((3, 2))),
            "means of None": ("^h", [TABLE], None),
        },
    ),
    *refuses_option("steps", BAD_COUNTS | {"None": None}, lambda v: balance_many([TABLE], TARGETS, steps=v)),
    *refuses_option("first", BAD_AXES, lambda v: balance_many([TABLE], TARGETS, steps=1, first=v)),
]


@on(BATCHES)
def test_batches(function, given, outcome):
    settle(function, given, outcome)


@pytest.mark.parametrize("tables, targets", TO_EDGE)
@pytest.mark.parametrize("k", (1000, 2000))
def test_batches_that_tend_to_the_edge_stay_finite(tables, targets, k):
    ours = answer(balance_many(tables, targets, steps=k))
    np.testing.assert_allclose(ours[0], loop(tables[0], targets, k), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(soft_balance(tables, targets, 1.0, steps=k), ours, rtol=1e-7, atol=1e-12)
    last = balanced_means(tables, CELLS, targets, steps=k).values[0, -1]
    assert last == pytest.approx((ours * CELLS).sum(), rel=1e-7)


def soft(tables, targets=TARGETS, exponent=0.5, steps=3, accumulate=False):
    return soft_balance(tables, targets, exponent, steps=steps, accumulate=accumulate)


SOFT = [
    *gives(
        soft,
        of={
            f"exponent {e}, {k} steps, {a}": (soft_loop(TABLE, TARGETS, e, k, a), TABLE, TARGETS, e, k, a)
            for e, k, a in product((0.1, 0.5, 1, np.float32(0.5), np.float64(1)), (0, 1, 4), (False, True))
        },
    ),
    *gives(
        soft,
        of={
            "a stack": ([soft_loop(TABLE)] * 2, [TABLE, TABLE]),
            "targets for each": ([soft_loop(TABLE, ([0.3, 0.7], HALVES))], [TABLE], ([[0.3, 0.7]], HALVES)),
            "with a zero": (soft_loop([[3, 0], [1, 5]], ([0, 1], HALVES)), [[3, 0], [1, 5]], ([0, 1], HALVES)),
            "small masses": (soft_loop(TABLE), np.array(TABLE) * 1e-300),
        },
    ),
    *refuses(
        soft,
        of={
            "an empty row": (r"targets\[0\]", [[3, 1], [0, 0]]),
            "totals": ("targets", TABLE, ([0.4, 0.6], [0.5, 0.6])),
            "masked": ("mask", masked(TABLE, mask=HIDDEN)),
            "nan": ("nan", put(np.nan)),
            "negative": ("-1", put(-1)),
            "complex": ("complex", np.array(TABLE) + 0j),
            "ragged": ("table", [[1, 2], [3]]),
            "None": ("table", None),
        },
    ),
    *refuses_option("exponent", BAD_POSITIVES | {"inf": np.inf}, lambda v: soft(TABLE, exponent=v)),
    *refuses_option("steps", BAD_COUNTS | {"None": None}, lambda v: soft(TABLE, steps=v)),
    *refuses_option("first", BAD_AXES, lambda v: soft_balance(TABLE, TARGETS, 0.5, steps=1, first=v)),
]


@on(SOFT)
def test_soft_balance(function, given, outcome):
    settle(function, given, outcome)


S, NAN = torch.tensor(LOGS), torch.tensor([[1.0, np.nan], [0, 1]])
UNIFORM = (HALVES, HALVES)
PLAIN, AIMED = from_scores(LOGS, UNIFORM), from_scores(LOGS)
CODES = 2 * from_scores(LOGS / 0.05, UNIFORM, 6, first=1)
AIMED_CODES = 2 * from_scores(LOGS / 0.5, ([1, 1], [0.3, 0.7]), 4, first=1)
SOFTMAX = np.exp(20 * LOGS) / np.exp(20 * LOGS).sum(axis=1, keepdims=True)
ONE_OF_THREE = np.log1p(2 * np.exp(-3.0))
BIG, NARROW_BIG = random_scores(1e6, 1), random_scores(1e4, 1).astype(np.float32)


def logs(scores, targets=None, steps=3):
    return np.exp(plain(log_balance(scores, steps=steps, targets=targets)))


def loss(scores):
    return balanced_loss(scores, steps=3)


def codes(scores, sweeps=3, epsilon=0.05, targets=None):
    return assignments(scores, sweeps=sweeps, epsilon=epsilon, targets=targets)


TORCH = [
    *gives(
        logs,
        0,
        1e-14,
        of={
            "log_balance": (PLAIN, S),
            "log_balance with targets": (AIMED, S, TARGETS),
            "log_balance with counts": (AIMED, S, ([4, 6], [5, 5])),
            "log_balance with NumPy steps": (PLAIN, S, None, np.int64(3)),
            "log_balance with an empty cell": (from_scores(HARD, (HALVES, [1, 1, 1])), torch.tensor(HARD)),
            "log_balance of a stack": ([PLAIN, PLAIN], torch.stack([S, S])),
        },
    ),
    *gives(logs, 0, 1e-6, of={"log_balance in float32": (AIMED, S.float(), pair(torch.tensor))}),
    *gives(logs, 0, 1e-8, of={"log_balance of size 1e6": (from_scores(BIG, EVEN), torch.tensor(BIG))}),
    *gives(
        logs,
        0,
        2e-3,
        of={"log_balance of size 1e4 in float32": (from_scores(NARROW_BIG, EVEN), torch.tensor(NARROW_BIG))},
    ),
    case("log_balance of an array", Either(near(PLAIN, 1e-14), Refuses("(?i)tensor")), logs, LOGS),
    *refuses(
        logs,
        of={
            "log_balance of nan": ("nan", NAN),
            "log_balance of +inf": ("inf", torch.tensor([[1.0, np.inf], [0, 1]])),
            "log_balance with an empty row": (r"targets\[0\]\[1\]|row", torch.tensor(EDGE)),
            "log_balance with one axis": ("ax[ei]s", S[0]),
            "log_balance of None": ("(?i)scores", None),
            "log_balance of complex": ("complex", S + 0j),
            "log_balance, one target": ("target", S, [HALVES]),
            "log_balance, long target": (r"targets\[0\]", S, ([0.2, 0.3, 0.5], HALVES)),
            "log_balance, negative target": (r"targets\[0\]\[1\]", S, ([2, -1], HALVES)),
            "log_balance, totals": ("targets", S, ([0.4, 0.6], [0.5, 0.6])),
        },
    ),
    *refuses_option("steps", BAD_COUNTS | {"None": None}, lambda v: log_balance(S, steps=v)),
    *refuses_option("first", BAD_AXES, lambda v: log_balance(S, steps=1, first=v)),
    *gives(
        loss,
        0,
        1e-6,
        of={
            "balanced_loss": (ONE_OF_THREE, 3 * torch.eye(3)),
            "balanced_loss of half": (ONE_OF_THREE, 3 * torch.eye(3).half()),
            "balanced_loss of one pair": (0, torch.tensor([[5.0]])),
        },
    ),
    *refuses(
        loss,
        of={
            "balanced_loss, not square": ("square|shape", torch.zeros(2, 3)),
            "balanced_loss, one axis": ("square|shape|ax[ei]s", torch.zeros(3)),
            "balanced_loss, a number": ("square|shape|ax[ei]s", torch.tensor(3.0)),
            "balanced_loss, nan": ("nan", NAN),
            "balanced_loss, no pairs": ("shape|mass|empty|scores|square", torch.zeros(0, 0)),
        },
    ),
    *gives(
        codes,
        0,
        1e-12,
        of={
            "assignments": (CODES, S),
            "assignments without sweeps": (SOFTMAX, S, 0),
            "assignments with targets": (AIMED_CODES, S, 2, 0.5, [3, 7]),
        },
    ),
    case("assignments of an array", Either(near(CODES, 1e-12), Refuses("(?i)tensor")), codes, LOGS),
    case("assignments of no images", Either(Gives(np.zeros((0, 4))), Refuses("scores")), codes, torch.zeros(0, 4)),
    *refuses(
        codes,
        of={
            "assignments of nan": ("nan", NAN),
            "assignments of one axis": ("shape|ax[ei]s", S[0]),
            "assignments of None": ("(?i)scores", None),
            "assignments, long target": ("target", S, 3, 0.05, [1, 1, 1]),
            "assignments, negative target": ("target", S, 3, 0.05, [2, -1]),
        },
    ),
    *refuses_option("sweeps", BAD_COUNTS | {"None": None}, lambda v: assignments(S, sweeps=v)),
    *refuses_option("epsilon", BAD_POSITIVES | {"inf": np.inf}, lambda v: assignments(S, epsilon=v)),
]


@on(TORCH)
def test_losses_and_codes_of_torch(function, given, outcome):
    settle(function, given, outcome)


MATCHES = np.array([[1, 1], [1, 0], [1, 0], [0, 0]])
CAPTIONS = [0.6, 0.2, 0.2, 0.0]
UNCAPPED = [*loop(MATCHES[:3], ([1, 1, 1], [3, 1]), 2).sum(axis=1), 0.0]


def caption_weights(table, cap=1, steps=2):
    return curate(table, cap, steps=steps).weights


CURATED = [
    *gives(
        caption_weights, of={d.__name__: (CAPTIONS, MATCHES.astype(d)) for d in (bool, np.int8, np.uint8, int, float)}
    ),
    *gives(
        caption_weights,
        of={
            **{
                kind: (CAPTIONS, getattr(sparse, f"{kind}_array")(MATCHES))
                for kind in ("coo", "csc", "csr", "lil", "dok")
            },
            "lists": (CAPTIONS, MATCHES.tolist()),
            "a float cap": (CAPTIONS, MATCHES, 1.0),
            "no cap": (UNCAPPED, MATCHES, np.inf),
            "no steps": ([0.5, 0.25, 0.25, 0.0], MATCHES, 1, 0),
        },
    ),
    *refuses(
        caption_weights,
        of={
            "neither 0 nor 1": (r"table\[0, ?1\] = 2", [[1, 2], [1, 0]]),
            "negative": (r"table\[0, ?1\] = -1", [[1, -1], [1, 0]]),
            "nan": ("nan", [[1, np.nan], [1, 0]]),
            "a half": (r"0\.5", [[1, 0.5], [1, 0]]),
            "strings": ("table", [["1", "0"], ["1", "0"]]),
            "captions": ("table", ["a red heart", "a stone"]),
            "None": ("table", None),
            "ragged": ("table", [[1, 0], [1]]),
            "one axis": ("ax[ei]s", [1, 0, 1]),
            "three axes": ("ax[ei]s", np.ones((2, 2, 2))),
            "no match": ("match", np.zeros((2, 2))),
            "complex": ("complex|table", MATCHES + 0j),
            "masked": ("mask", masked(MATCHES, mask=MATCHES == 0)),
        },
    ),
    *refuses_option("cap", BAD_POSITIVES, lambda v: curate(MATCHES, v)),
    *refuses_option("steps", BAD_COUNTS, lambda v: curate(MATCHES, 1, steps=v)),
]


@on(CURATED)
def test_curate(function, given, outcome):
    settle(function, given, outcome)


def test_the_names_of_cases_are_not_repeated():
    groups = [v for v in globals().values() if isinstance(v, list) and v and isinstance(v[0], type(pytest.param()))]
    assert len(groups) > 15
    for group in groups:
        assert len({param.id for param in group}) == len(group)
