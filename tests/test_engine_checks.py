"""The checks of what is passed in: each error names the entry, and arguments are never changed."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from balance import Records
from balance._engine import checks
from balance._engine.targets import as_vectors


def test_masses_are_new_floats():
    given = np.array([[1, 2], [3, 4]])
    masses = checks.as_masses(given, "table")
    masses[0, 0] = 7
    assert masses.dtype == np.float64 and given[0, 0] == 1


def test_tables_are_normalized():
    assert checks.as_table([[1, 1], [1, 5]]).tolist() == [[0.125, 0.125], [0.125, 0.625]]


def test_functions_of_one_variable_broadcast():
    table, h = checks.as_law([[1, 1], [1, 1]], [[1], [2]])
    assert h.tolist() == [[1, 1], [2, 2]] and table.sum() == 1


def test_codes_are_of_the_size_of_a_pointer():
    records = Records(np.array([0, 3], dtype=np.uint8), ["a", "b"])
    assert [column.codes.dtype for column in records.columns] == [np.intp, np.intp]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checks.as_masses([1, np.nan], "x"), r"x\[1\] = nan is not a finite number"),
        (lambda: checks.as_masses([[1, -2]], "x"), r"x\[0, 1\] = -2.0 is negative"),
        (lambda: checks.as_masses([0, 0], "x"), "x has no mass"),
        (lambda: checks.as_masses(["a"], "x"), "x has dtype"),
        (lambda: checks.as_masses([1], "x", ndim=2), "x has 1 axes, expected 2"),
        (lambda: checks.as_masses(sparse.eye_array(2), "x"), r"x is sparse: pass a dense array, such as x.toarray\(\)"),
        (lambda: checks.as_table([1, 2]), "table has 1 axes: a table has at least 2"),
        (lambda: checks.as_table([[1e300, 1e-310]]), r"table\[0, 1\] = 1e-310 is lost"),
        (lambda: checks.as_joint(np.ones((2, 2, 2))), "table has 3 axes"),
        (lambda: checks.as_law([[1, 0], [1, 0]], [[1, 1]]), r"column 1 \(axis 1\) has no mass"),
        (lambda: checks.as_probabilities([0.5, 0.6], "p"), "p sums to 1.1, not 1"),
        (lambda: Records([0, -1]), r"column 0\[1\] = -1: codes are >= 0"),
        (lambda: checks.as_values([1, np.inf], (2,), "h"), r"h\[1\] = inf is not a finite number"),
        (lambda: as_vectors(([1, 1], [1, 2]), ([1, 1], [1, 1])), "targets distribute one common total"),
        (lambda: checks.check_axis(True, 2), "axis = True: choose an integer from 0 to 1"),
        (lambda: checks.check_count(1.0, "steps"), "steps = 1.0: pass an integer >= 0"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_preset_is_checked_by_its_names():
    sizes = {"iterations": 6, "batch_size": 1, "checkpoints": 3, "hidden": 1, "output": 1}
    checks.check_preset(SimpleNamespace(**sizes))
    with pytest.raises(ValueError, match="iterations = 7 is no multiple of checkpoints = 3"):
        checks.check_preset(SimpleNamespace(**sizes | {"iterations": 7}))
    with pytest.raises(ValueError, match="hidden = 0: pass an integer >= 1"):
        checks.check_preset(SimpleNamespace(**sizes | {"hidden": 0}))
