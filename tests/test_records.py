"""Records: what they accept, what they keep, and how they are printed."""

import numpy as np
import pytest

from balance import Records, data_balance


@pytest.mark.parametrize(
    "codes, weights, message",
    [
        ([], None, "there is no variable"),
        ([[0, 1], [0]], None, "2, 1 records"),
        ([[0, 1], [0, -1]], None, r"column 1\[1\] = -1: codes are >= 0"),
        ([[0.0, float("nan")], [0, 1]], None, r"column 0\[1\] = nan is missing: drop such records"),
        ([[[0, 1]], [0, 1]], None, r"column 0\[0\] is a list: labels are strings, numbers or tuples"),
        ([np.eye(2, dtype=int), [0, 1]], None, r"column 0 has shape \(2, 2\): pass one value per record"),
        ([[], []], None, "column 0 is empty: pass one value per record"),
        ([[0, 1], [0, 1]], [1], r"weights has shape \(1,\), the variables have 2 records"),
        ([[0, 1], [0, 1]], [1, -1], r"weights\[1\] = -1.0 is negative"),
        ([[0, 1], [0, 1]], [0, 0], "weights has no mass"),
    ],
)
def test_bad_records(codes, weights, message):
    with pytest.raises(ValueError, match=message):
        Records(*codes, weights=weights)


def test_one_variable_is_a_stratified_sample():
    result = data_balance(Records(["a", "b", "b", "b"]), [{"a": 3, "b": 1}], steps=1)
    assert result.table.weights == pytest.approx([3 / 4, 1 / 12, 1 / 12, 1 / 12], rel=1e-12)
    assert result.weights == pytest.approx([3, 1 / 3, 1 / 3, 1 / 3], rel=1e-12)
    # (sum w)^2 / sum w^2
    assert result.effective_sample_size == pytest.approx(1 / (9 / 16 + 3 / 144), rel=1e-12)


def test_labels_and_codes_agree():
    x, y, weights = ["b", "a", "b", "c"], [1.5, 0.5, 0.5, 1.5], [1, 2, 3, 4]
    labelled = Records(x, y, weights=weights)
    coded = Records([1, 0, 1, 2], [1, 0, 0, 1], weights=weights)
    one = data_balance(labelled, ({"c": 3, "a": 1, "b": 2}, {1.5: 2, 0.5: 4}), steps=3)
    other = data_balance(coded, ([1, 2, 3], [4, 2]), steps=3)
    assert one.table.weights == pytest.approx(other.table.weights, rel=1e-13)
    with pytest.raises(ValueError, match=r"targets\[0\] has no labels, the variable on axis 0 has: pass a mapping"):
        data_balance(labelled, ([1, 2, 3], {1.5: 2, 0.5: 4}), steps=1)


def test_a_target_that_no_record_has_is_unseen_unless_it_is_zero():
    records = Records(["a", "b"])
    assert data_balance(records, [{"a": 1, "b": 1, "c": 0}], steps=1).converged
    with pytest.raises(ValueError, match=r"targets\[0\]\['c'\] = 0\.333333, but slice 'c'"):
        data_balance(records, [{"a": 1, "b": 1, "c": 1}], steps=1)
    with pytest.raises(ValueError, match="record 1 has the value 'b' on axis 0, which has no target"):
        data_balance(records, [{"a": 1}], steps=1)


def test_records_are_printed_in_short():
    assert repr(Records([0, 1, 1], [0, 0, 1])) == "Records(3 records of 2 variables)"
