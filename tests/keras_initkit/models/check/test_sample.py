"""The data that a check takes, in all forms that `fit` takes."""

import keras
import numpy as np
import pytest

from keras_initkit.models.check.sample import draw_sample

pytestmark = pytest.mark.backends("tensorflow", "jax", "torch")

X, Y = np.arange(40.0).reshape(20, 2), np.arange(20)


def test_rows_of_arrays_are_taken_evenly():
    sample = draw_sample(X, Y, None, 5)
    x, y, weight = sample.batch
    np.testing.assert_array_equal(y, [0, 4, 9, 14, 19])
    np.testing.assert_array_equal(x, X[y])
    assert weight is None
    assert x.dtype == keras.config.floatx()
    np.testing.assert_array_equal(sample.rows[1], Y)
    large = draw_sample(np.zeros((100, 1 << 16)), np.arange(100), np.ones(100), 200)
    assert [len(part) for part in large.batch] == [100, 100, 100]
    assert [len(part) for part in large.rows] == [8, 100, 100]


def test_structures_and_arrays_of_libraries():
    x = {"a": X, "b": (keras.ops.convert_to_tensor(X), Y.tolist())}
    sample = draw_sample(x, [Y, np.array(list("ab") * 10)], None, 4)
    assert sample.batch[0]["b"][0].shape == (4, 2)
    assert sample.batch[0]["b"][1].shape == (4,)
    assert [part.shape for part in sample.batch[1]] == [(4,), (4,)]


def test_tables_and_files(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": Y, "b": Y + 0.5})
    sample = draw_sample(frame, frame["a"], None, 4)
    np.testing.assert_array_equal(sample.batch[0][:, 1], [0.5, 6.5, 12.5, 19.5])
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = X
        np.testing.assert_array_equal(draw_sample(file["x"], None, None, 2).batch[0], X[[0, 19]])


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[index : index + 2], Y[index : index + 2], np.ones(2)


def test_streams():
    for stream in (Batches(), iter([Batches()[i] for i in range(3)])):
        sample = draw_sample(stream, None, None, 32)
        np.testing.assert_array_equal(sample.batch[1], [0, 1])
        np.testing.assert_array_equal(sample.rows[1], [0, 1, 1, 2, 2, 3])
        assert sample.rows[2].shape == (6,)
    # Of other lengths each: the first ones only. Lists are batches, too, as of a DataLoader.
    sample = draw_sample(([np.zeros((2, n)), np.zeros(2)] for n in (3, 4)), None, None, 32)
    assert [sample.rows[0].shape, sample.rows[1].shape] == [(2, 3), (4,)]


def test_datasets_of_tensorflow():
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices(({"a": X}, Y)).batch(4).repeat()
    sample = draw_sample(data, None, None, 32)
    assert (sample.batch[0]["a"].shape, sample.rows[1].shape) == ((4, 2), (32,))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (Batches(), Y, r"`y` must come in the batches of `x`.*a Batches.*Yield tuples"),
        (X, Y[:5], r"same number of rows.*Received: arrays of 5, 20 rows"),
        (X[:0], Y[:0], r"at least one.*arrays of 0 rows"),
        (iter(()), None, r"at least one batch.*make a new one"),
    ],
)
def test_data_that_are_refused(x, y, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        draw_sample(x, y, None, 4)
