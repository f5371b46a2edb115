"""Lists in messages."""

import pytest

from keras_initkit.wording import list_few

pytestmark = pytest.mark.numpy_alone


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
