"""Examples of a model whose inputs are not known: shapes, rows, and axes in which samples differ."""

from __future__ import annotations

import numpy as np
import pytest

from jettison.core.errors import SamplesError
from jettison.sources.examples import LARGEST_BATCH, Examples, examples_of, load_rows


def write(folder, *batches):
    folder.mkdir(exist_ok=True)
    for index, arrays in enumerate(batches):
        np.savez(folder / f"{index}.npz", **arrays)
    return str(folder)


def images(rows, *size):
    return {"image": np.random.default_rng(0).standard_normal((rows, *size)).astype(np.float32)}


def test_few_rows_of_the_first_shape_are_kept_without_labels(tmp_path):
    found = examples_of(write(tmp_path, images(100, 4, 4) | {"labels": np.zeros(100, np.int64)}))
    assert [{name: array.shape for name, array in rows.items()} for rows in found.rows] == [
        {"image": (LARGEST_BATCH, 4, 4)}
    ]
    assert found.varying == {}


def test_rows_are_gathered_from_several_batches(tmp_path):
    one = images(1, 4)
    found = examples_of(write(tmp_path, one, one, one, one))
    assert found.rows[0]["image"].shape == (LARGEST_BATCH, 4)


def test_the_second_shape_is_the_one_that_differs_most(tmp_path):
    found = examples_of(write(tmp_path, images(2, 8, 8), images(2, 6, 8), images(2, 6, 5)))
    assert [rows["image"].shape[1:] for rows in found.rows] == [(8, 8), (6, 5)]
    assert found.varying == {"image": (1, 2)}


def test_an_axis_varies_even_where_the_kept_rows_do_not_show_it(tmp_path):
    found = examples_of(write(tmp_path, images(2, 8, 8, 1), images(2, 6, 5, 1), images(2, 8, 8, 3)))
    assert found.varying == {"image": (1, 2, 3)}


def test_rows_survive_a_file(tmp_path):
    given = ({"file": np.arange(3), "a.b": np.ones((3, 2))}, {"file": np.arange(2), "a.b": np.ones((2, 1))})
    Examples("here", given, {}).save(tmp_path / "rows.npz")
    found = load_rows(tmp_path / "rows.npz")
    assert [{name: array.tolist() for name, array in rows.items()} for rows in found] == [
        {name: array.tolist() for name, array in rows.items()} for rows in given
    ]


def test_digest_depends_on_rows_and_on_what_varies(tmp_path):
    same = [examples_of(write(tmp_path / name, images(5, 4))).digest for name in "ab"]
    more = examples_of(write(tmp_path / "c", images(5, 4), images(5, 6))).digest
    assert same[0] == same[1] != more


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], "the folder holds no .npz file"),
        ([{"x": np.zeros((0, 3), np.float32)}], "it holds no sample"),
        ([{"x": np.array(["a", "b"])}], "'x' is expected as numbers, found <U1"),
        (
            [images(2, 3), {"picture": np.zeros((2, 3), np.float32)}],
            "expected arrays ['image'], found ['picture']",
        ),
        ([images(2, 3), images(2, 3, 3)], "'image': expected 2 dimensions (?x?), found 2x3x3"),
        ([{"x": np.array([[1.0], [np.nan]])}], "'x' holds NaN or infinity"),
    ],
)
def test_samples_of_no_use_are_told(tmp_path, batches, words):
    with pytest.raises(SamplesError) as caught:
        examples_of(write(tmp_path, *batches))
    assert words in str(caught.value)
