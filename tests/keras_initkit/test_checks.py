"""Checks of arguments: values that pass, and the errors of others."""

import math
import re

import numpy as np
import pytest

from keras_initkit.checks import (
    check_choice,
    check_count,
    check_number,
    is_finite_number,
    is_integer,
    is_number,
    list_few,
)

pytestmark = pytest.mark.numpy_alone


@pytest.mark.parametrize(
    ("value", "integer", "number", "finite"),
    [
        (1, True, True, True),
        (np.int64(-3), True, True, True),
        (0.5, False, True, True),
        (np.float32(2), False, True, True),
        (math.nan, False, True, False),
        (-math.inf, False, True, False),
        (True, False, False, False),
        (np.True_, False, False, False),
        ("1", False, False, False),
        (1j, False, False, False),
        (None, False, False, False),
        (np.ones(1), False, False, False),
    ],
)
def test_kinds_of_numbers(value, integer, number, finite):
    assert (is_integer(value), is_number(value), is_finite_number(value)) == (
        integer,
        number,
        finite,
    )


def test_what_passes_is_returned_as_a_number_of_python():
    assert type(check_count("n", np.int32(1))) is int
    assert check_count("n", 0, least=0) == 0
    assert type(check_number("x", np.float64(0.5), above=0)) is float
    assert check_number("x", 0, least=0, below=1) == 0.0
    assert check_choice("c", "a", ("a", "b")) == "a"


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_count("n", 0), "`n` must be a positive integer. Received: n=0"),
        (
            lambda: check_count("n", True, "the steps", fix="Write `n=1`."),
            "`n` must be a positive integer, the steps. Received: n=True. Write `n=1`.",
        ),
        (
            lambda: check_count("n", -1, least=0),
            "`n` must be an integer of 0 or more. Received: n=-1",
        ),
        (lambda: check_count("n", 1.0), "`n` must be a positive integer. Received: n=1.0"),
        (lambda: check_number("x", "1"), "`x` must be a finite number. Received: x='1'"),
        (
            lambda: check_number("x", 0, "a rate", above=0),
            "`x` must be a finite number above 0, a rate. Received: x=0",
        ),
        (
            lambda: check_number("x", 1, least=0, below=1, fix="Write `x=0.9`."),
            "`x` must be a finite number of 0 or more and below 1. Received: x=1. Write `x=0.9`.",
        ),
        (lambda: check_number("x", math.nan, least=0), "of 0 or more. Received: x=nan"),
        (
            lambda: check_choice("c", "z", ("a", "b"), fix="Leave it out."),
            '`c` must be one of "a", "b". Received: c=\'z\'. Leave it out.',
        ),
        (lambda: check_choice("c", None, ("a",)), '`c` must be one of "a". Received: c=None'),
    ],
)
def test_errors_say_the_rule_the_value_and_the_fix(check, message):
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        check()


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([], {}, ""),
        ("ab", {}, "'a', 'b'"),
        (range(5), {}, "0, 1, 2, 3, 4"),
        (iter(range(6)), {}, "0, 1, 2, 3, 4, …"),
        (["a", "b"], {"most": 1, "write": str}, "a, …"),
    ],
)
def test_the_first_values_are_listed(values, options, expected):
    assert list_few(values, **options) == expected
