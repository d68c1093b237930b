"""Records: what they accept, and how they are printed."""

import pytest

from balance import Records


@pytest.mark.parametrize(
    "codes, weights, message",
    [
        ([[0, 1]], None, "1 variables"),
        ([[0, 1], [0]], None, "2, 1 records"),
        ([[0, 1], [0, -1]], None, r"codes\[1\]\[1\] = -1: codes are >= 0"),
        ([[0, 1], ["a", "b"]], None, r"codes\[1\] has dtype .*return_inverse"),
        ([[0.0, 1], [0, 1]], None, r"codes\[0\] has dtype float64"),
        ([[], []], None, r"codes\[0\] has shape \(0,\)"),
        ([[0, 1], [0, 1]], [1], "weights has length 1, the variables have 2 records"),
        ([[0, 1], [0, 1]], [1, -1], r"weights\[1\] = -1.0 is negative"),
        ([[0, 1], [0, 1]], [0, 0], "weights has no mass"),
    ],
)
def test_bad_records(codes, weights, message):
    with pytest.raises(ValueError, match=message):
        Records(*codes, weights=weights)


def test_records_are_printed_in_short():
    assert repr(Records([0, 1, 1], [0, 0, 1])) == "Records(3 records of 2 variables)"
