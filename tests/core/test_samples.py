"""Samples: the same numbers however they are split, checked as a whole before any work."""

import itertools
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.core.dtypes import of_name
from jettison.core.errors import SamplesError
from jettison.core.samples import (
    Batch,
    Samples,
    batch_of,
    checked,
    first,
    load_function,
    names_function,
    open_samples,
    samples_of,
    shared,
    split,
)
from jettison.core.tensors import Dimension, TensorSpec


def spec(name: str = "image", *shape: Dimension, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=of_name(dtype), shape=shape or ("n", 3))


def rows(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start * 3, (start + count) * 3, dtype=np.float32).reshape(count, 3)


def memory(count: int, *, labels: bool = False) -> Samples:
    found = np.arange(count) if labels else None
    return samples_of({"image": rows(count)}, labels=found, specs=[spec()])


def pieces(array: np.ndarray, cuts: list[int]) -> list[np.ndarray]:
    return np.split(array, sorted(min(cut, len(array)) for cut in cuts))


def all_rows(samples: Samples, size: int = 7) -> np.ndarray:
    return np.concatenate([batch.inputs["image"] for batch in samples.batches(size)])


def refused(source: object, *specs: TensorSpec) -> str:
    wanted = specs or (spec(),)
    with pytest.raises(SamplesError) as caught:
        samples_of(source, specs=wanted) if isinstance(source, dict) else open_samples(str(source), wanted)
    return f"{caught.value.detail}. {caught.value.fix}"


@given(count=st.integers(1, 200), cuts=st.lists(st.integers(0, 200), max_size=5), size=st.integers(1, 80))
def test_no_split_into_shards_changes_the_samples_their_digest_or_their_batches(
    count: int, cuts: list[int], size: int
) -> None:
    array, labels = rows(count), np.arange(count)
    parts = [Batch({"image": a}, b) for a, b in zip(pieces(array, cuts), pieces(labels, cuts), strict=True)]
    whole = samples_of({"image": array}, labels=labels, specs=[spec()])
    found = checked(lambda: iter(parts), source="parts", specs=[spec()])
    assert (found.count, found.has_labels, found.sha256) == (count, True, whole.sha256)
    batches = list(found.batches(size))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert 1 <= len(batches[-1]) <= size
    np.testing.assert_array_equal(np.concatenate([batch.inputs["image"] for batch in batches]), array)
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in batches]), labels)


@pytest.mark.parametrize(
    "change",
    [{"image": rows(5)[::-1]}, {"image": rows(5) + 1}, {"image": rows(4)}],
    ids=["order", "values", "count"],
)
def test_other_samples_have_another_digest(change: dict[str, np.ndarray]) -> None:
    assert samples_of(change, specs=[spec()]).sha256 != memory(5).sha256


def test_labels_are_part_of_the_digest() -> None:
    other = samples_of({"image": rows(5)}, labels=np.arange(5) + 1, specs=[spec()])
    assert len({memory(5).sha256, memory(5, labels=True).sha256, other.sha256}) == 3


def test_samples_can_be_read_again(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", image=rows(70))
    samples = open_samples(tmp_path / "samples.npz", [spec()])
    np.testing.assert_array_equal(all_rows(samples), all_rows(samples))


def test_a_folder_of_shards_is_read_in_order_of_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", image=rows(3, start=5), labels=[6, 7, 8])
    np.savez_compressed(tmp_path / "a.npz", image=rows(5), labels=[1, 2, 3, 4, 5])
    samples = open_samples(tmp_path, [spec()])
    np.testing.assert_array_equal(all_rows(samples), rows(8))
    (batch,) = samples.batches(8)
    assert batch.labels is not None
    assert (samples.count, samples.has_labels, list(batch.labels)) == (8, True, [1, 2, 3, 4, 5, 6, 7, 8])


def test_rows_of_an_open_dimension_may_differ_and_never_share_a_batch() -> None:
    tokens = spec("tokens", "n", "length")
    shapes = [(2, 4), (3, 4), (2, 6), (1, 4)]
    parts = [Batch({"tokens": np.zeros(shape, np.float32)}) for shape in shapes]
    samples = checked(lambda: iter(parts), source="parts", specs=[tokens])
    assert samples.count == 8
    found = [batch.inputs["tokens"].shape for batch in samples.batches(4)]
    assert found == [(4, 4), (1, 4), (2, 6), (1, 4)]


class Module:
    """A module of the user's, on the path for one test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.syspath_prepend(folder)

    def write(self, name: str, text: str) -> None:
        (self.folder / f"{name}.py").write_text(f"import numpy as np\n{text}\n")
        sys.modules.pop(name, None)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    return Module(tmp_path, monkeypatch)


def test_a_function_may_yield_the_samples(module: Module) -> None:
    given = "{'image': np.full((2, 3), i, 'f4'), 'labels': [i, i]}"
    module.write("own_samples_1", f"def yields():\n    for i in range(3):\n        yield {given}")
    samples = open_samples("own_samples_1:yields", [spec()])
    assert (samples.count, samples.has_labels, samples.source) == (6, True, "own_samples_1:yields")
    assert [list(batch.labels) for batch in samples.batches(3)] == [[0, 0, 1], [1, 2, 2]]


def test_a_function_that_fails_is_told_with_its_words(module: Module) -> None:
    module.write("own_samples_2", "def fails():\n    yield {}['image']")
    assert "the function failed with KeyError: 'image'" in refused("own_samples_2:fails")
    module.write("own_samples_3", "def broken(:")
    assert "invalid syntax" in refused("own_samples_3:broken")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("missing", "NameError: name 'missing' is not defined"),
        ("raise RuntimeError('no camera')", "RuntimeError: no camera"),
        (
            "open('/nowhere/images')",
            "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/images'",
        ),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("raise Exception('its own')", "Exception: its own"),
    ],
)
def test_whatever_a_function_or_its_module_raises_is_an_error_of_it(
    module: Module, code: str, words: str
) -> None:
    module.write("own_samples_4", f"def fails():\n    {code}\n    yield")
    assert refused("own_samples_4:fails") == f"the function failed with {words}. Correct it"
    module.write("own_samples_5", code)
    assert refused("own_samples_5:fails") == f"its module failed with {words}. Correct it"
    with pytest.raises(SamplesError, match="function 'own_samples_5:fails'"):
        load_function("own_samples_5:fails")


def test_what_jettison_says_of_the_arrays_of_a_function_is_told_as_it_is(module: Module) -> None:
    module.write("own_samples_6", "def yields():\n    yield {'labels': [1]}")
    assert refused("own_samples_6:yields") == "found only ['labels']. Add the model's inputs by name"


@pytest.mark.parametrize("source", ["data:1/cal", "./data:1", "a:b:c", "C:/cal", ":f", "a-b:f"])
def test_a_path_with_a_colon_is_no_function(source: str) -> None:
    assert not names_function(source)
    assert names_function("package.module:function")
    assert refused(source).startswith("there is no such file or folder")


def test_text_has_a_digest_by_its_words() -> None:
    texts = [np.array([words], dtype=np.object_) for words in ("a b", "a b", "a c")]
    digests = [samples_of({"t": text}, specs=[spec("t", "n", dtype="string")]).sha256 for text in texts]
    assert digests[0] == digests[1] != digests[2]


def test_a_module_or_function_that_is_not_there_is_told(module: Module) -> None:
    module.write("own_samples_2", "value = 3")
    fix = "Install its package, set PYTHONPATH to its folder, or correct the name"
    assert refused("no_such_module_x:f") == f"No module named 'no_such_module_x'. {fix}"
    assert refused("own_samples_2:f") == f"module 'own_samples_2' has no attribute 'f'. {fix}"
    assert refused("own_samples_2:value") == f"'value' is no function. {fix}"
    with pytest.raises(SamplesError, match="function 'no_such_module_x:f'"):
        load_function("no_such_module_x:f")


def test_a_source_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "missing.npz"
    assert refused(path) == (
        "there is no such file or folder. Give an .npz file, a folder of them, or package.module:function"
    )


@pytest.mark.parametrize("make", [Path, str])
def test_an_empty_folder_is_told(tmp_path: Path, make: type) -> None:
    with pytest.raises(SamplesError) as caught:
        open_samples(make(tmp_path), [spec()])
    assert (
        f"{caught.value.detail}. {caught.value.fix}"
        == "the folder holds no .npz file. Write shards as .npz there"
    )


NAMES = "Name the arrays after the model's inputs (and `labels`)"
SHAPE = "Give samples in the model's shape, samples on the first axis"
REPAIR = "Remove or repair those samples"
BAD = "'image' holds NaN or infinity: expected finite numbers"


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"picture": rows(2)}, f"expected arrays ['image'], found ['picture']. {NAMES}"),
        ({"image": rows(2), "x": rows(2)}, f"expected arrays ['image'], found ['image', 'x']. {NAMES}"),
        (
            {"image": rows(2).astype(np.float64)},
            "'image' is expected as float32, found float64. Convert it with .astype('float32')",
        ),
        ({"image": np.ones((2, 4), np.float32)}, f"'image': expected shape ?x3, found 2x4. {SHAPE}"),
        ({"image": np.ones(3, np.float32)}, f"'image': expected 2 dimensions (?x3), found 3. {SHAPE}"),
        ({"image": np.float32(1)}, f"'image': expected 2 dimensions (?x3), found scalar. {SHAPE}"),
        ({"image": rows(2) * np.nan}, f"{BAD}, found nan in sample 0, counted from 0. {REPAIR}"),
        ({"image": rows(2) - np.inf}, f"{BAD}, found -inf in sample 0, counted from 0. {REPAIR}"),
        ({"image": rows(0)}, "it holds no sample. Give at least one sample"),
    ],
    ids=["names", "more names", "dtype", "shape", "rank", "scalar", "NaN", "infinity", "none"],
)
def test_samples_that_do_not_fit_are_told_before_any_work(arrays: dict[str, np.ndarray], told: str) -> None:
    assert refused({name: np.asarray(array) for name, array in arrays.items()}) == told


@pytest.mark.parametrize("place", [0, 63, 64, 199])
def test_one_bad_number_anywhere_is_found(place: int) -> None:
    array = rows(200)
    array[place:, 1] = np.nan
    assert refused({"image": array}) == f"{BAD}, found nan in sample {place}, counted from 0. {REPAIR}"


@pytest.mark.parametrize(
    ("number", "place"), [(2, "row 2 of a.npz"), (3, "row 0 of b.npz"), (9, "row 6 of b.npz")]
)
def test_a_bad_number_is_told_with_its_shard_and_row(tmp_path: Path, number: int, place: str) -> None:
    array = rows(10)
    array[number, 2] = np.inf
    np.savez(tmp_path / "a.npz", image=array[:3])
    np.savez(tmp_path / "b.npz", image=array[3:])
    told = f"{BAD}, found inf in sample {number} ({place}), counted from 0. {REPAIR}"
    assert refused(tmp_path) == told


def test_integers_need_not_be_finite_numbers() -> None:
    ids = spec("ids", "n", dtype="int64")
    assert samples_of({"ids": np.arange(3)}, specs=[ids]).count == 3


@pytest.mark.parametrize(("images", "kernels"), [(3, 4), (64, 128), (128, 64), (1, 65)])
def test_inputs_of_unequal_length_are_told_at_any_length(images: int, kernels: int) -> None:
    told = refused({"image": rows(images), "kernel": rows(kernels)}, spec(), spec("kernel"))
    assert told == (
        f"the arrays differ in their number of samples: {{'image': {images}, 'kernel': {kernels}}}. "
        "Give one row per sample"
    )


def test_labels_of_another_length_are_told() -> None:
    with pytest.raises(SamplesError, match=r"number of samples: \{'image': 64, 'labels': 100\}"):
        samples_of({"image": rows(64)}, labels=np.arange(100), specs=[spec()])


def test_labels_on_some_shards_only_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=rows(3), labels=[1, 2, 3])
    np.savez(tmp_path / "b.npz", image=rows(4))
    assert refused(tmp_path) == "3 of 7 samples have labels. Give labels for all samples or none"


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"picture": rows(2)}, "expected arrays ['image'], found ['picture']"),
        ({"image": rows(2).astype(np.float64)}, "'image' is expected as float32, found float64"),
        ({"image": np.ones((2, 4), np.float32)}, "'image': expected shape ?x3, found 2x4"),
        ({"labels": [1, 2]}, "found only ['labels']. Add the model's inputs by name"),
    ],
    ids=["names", "dtype", "shape", "labels only"],
)
def test_every_shard_is_checked_for_itself(tmp_path: Path, second: dict[str, np.ndarray], told: str) -> None:
    np.savez(tmp_path / "a.npz", image=rows(3))
    np.savez(tmp_path / "b.npz", **second)
    assert told in refused(tmp_path)


def test_labels_of_another_kind_in_a_later_shard_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=rows(3), labels=[1, 2, 3])
    np.savez(tmp_path / "b.npz", image=rows(4), labels=[0.5, 1.0, 1.5, 2.0])
    assert refused(tmp_path) == (
        "labels are int64 at first and float64 from sample 3 (row 0 of b.npz), counted from 0. "
        "Give all labels as one element type"
    )


def test_labels_of_another_shape_in_a_later_shard_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=rows(3), labels=np.arange(3))
    np.savez(tmp_path / "b.npz", image=rows(2, start=3), labels=np.zeros((2, 1), np.int64))
    assert refused(tmp_path) == (
        "labels are of shape scalar at first and of shape 1 from sample 3 (row 0 of b.npz), counted from 0. "
        "Give all labels in one shape"
    )


def test_labels_may_follow_the_shape_of_samples_that_share_no_batch() -> None:
    parts = [Batch({"image": np.zeros((2, n), np.float32)}, np.zeros((2, n))) for n in (4, 6)]
    samples = checked(lambda: iter(parts), source="parts", specs=[spec("image", "n", "length")])
    assert [len(batch) for batch in samples.batches(4)] == [2, 2]


def test_one_label_for_all_samples_is_told(module: Module) -> None:
    module.write("own_samples_4", "def one():\n    yield {'image': np.ones((2, 3), 'f4'), 'labels': 3}")
    assert refused("own_samples_4:one") == "labels are a single value, 3. Give one row per sample"


def test_extremes_of_labels_are_known_with_the_first_sample_of_each() -> None:
    labels = np.array([3, 1, 7, 1, 7] + [5] * 200 + [-2, 9, -2, 9])
    facts = samples_of({"image": rows(209)}, labels=labels, specs=[spec()]).labels
    assert facts is not None
    assert (facts.lowest, facts.highest, facts.example, facts.row_shape) == ((-2, 205), (9, 206), "3", ())
    assert memory(5).labels is None


def test_labels_that_are_no_class_numbers_have_no_extremes_but_a_first_bad_sample() -> None:
    shares = np.full((90, 4), 0.25)
    shares[[70, 80], 1] = np.nan
    facts = samples_of({"image": rows(90)}, labels=shares, specs=[spec()]).labels
    assert facts is not None
    assert (facts.lowest, facts.highest, facts.example, facts.not_finite) == (None, None, "", 70)
    words = samples_of({"image": rows(2)}, labels=np.array(["cat", "dog"]), specs=[spec()]).labels
    assert words is not None
    assert (words.lowest, words.example, words.not_finite) == (None, "'cat'", None)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=90), st.lists(st.integers(0, 9), min_size=1, max_size=90)
)
def test_shared_counts_the_samples_that_the_others_have_too(some: list[int], others: list[int]) -> None:
    pool = rows(10)
    first_set, second_set = (samples_of({"image": pool[chosen]}, specs=[spec()]) for chosen in (some, others))
    assert shared(first_set, second_set) == sum(number in others for number in some)


def test_shared_samples_are_equal_in_every_input_and_shape_whatever_their_labels() -> None:
    specs = [spec(), spec("gain", "n")]
    gain = np.arange(5, dtype=np.float32)
    base = samples_of({"image": rows(5), "gain": gain}, specs=specs)
    labelled = samples_of({"image": rows(5), "gain": gain}, labels=np.arange(5), specs=specs)
    other = samples_of({"image": rows(5), "gain": gain + np.float32([0, 0, 0, 1, 1])}, specs=specs)
    assert (shared(base, labelled), shared(other, base)) == (5, 3)
    tokens = [spec("tokens", "n", "length")]
    flat, tall = (
        samples_of({"tokens": np.zeros(shape, np.float32)}, specs=tokens) for shape in [(1, 4), (2, 2)]
    )
    assert shared(flat, tall) == 0


def test_halves_of_a_set_share_nothing_and_both_all_with_the_whole() -> None:
    whole = memory(51)
    one, other = split(whole, 0.5, seed=3)
    assert (shared(one, other), shared(one, whole), shared(other, whole)) == (0, one.count, other.count)


def test_the_digest_of_text_labels_does_not_depend_on_the_split() -> None:
    words = np.array(["a", "b", "c"], dtype=np.object_)
    parts = [Batch({"image": rows(1, start=place)}, words[place : place + 1]) for place in range(3)]
    split_up = checked(lambda: iter(parts), source="parts", specs=[spec()])
    assert split_up.sha256 == samples_of({"image": rows(3)}, labels=words, specs=[spec()]).sha256


def test_a_damaged_shard_is_told_before_any_work(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=rows(3))
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    assert refused(tmp_path).startswith("not a readable .npz file (File is not a zip file)")


def test_labels_are_set_apart_from_the_inputs() -> None:
    batch = batch_of({"image": rows(2), "labels": [4, 5]})
    assert list(batch.inputs) == ["image"]
    assert isinstance(batch.labels, np.ndarray)
    assert len(batch) == 2


@given(count=st.integers(2, 100), share=st.floats(0.05, 0.95), seed=st.integers(0, 99))
def test_a_split_is_disjoint_complete_and_the_same_each_time(count: int, share: float, seed: int) -> None:
    samples = memory(count, labels=True)
    if round(count * share) in (0, count):
        with pytest.raises(SamplesError, match=f"{count} samples are too few to split. Give more samples"):
            split(samples, share, seed=seed)
        return
    parts = split(samples, share, seed=seed)
    labels = [np.concatenate([batch.labels for batch in part.batches(9)]) for part in parts]
    assert sorted(itertools.chain(*labels)) == list(range(count))
    assert [part.count for part in parts] == [len(found) for found in labels]
    assert parts[0].count == round(count * share)
    for part, found in zip(parts, labels, strict=True):
        np.testing.assert_array_equal(all_rows(part), rows(count)[found])
        assert part.has_labels
    again = split(samples, share, seed=seed)
    assert [part.sha256 for part in again] == [part.sha256 for part in parts]
    assert len({samples.sha256, *(part.sha256 for part in parts)}) == 3


def test_another_seed_is_another_split() -> None:
    one, other = (split(memory(100), 0.5, seed=seed)[0] for seed in (1, 2))
    assert one.sha256 != other.sha256
    assert not np.array_equal(all_rows(one), all_rows(other))


def test_the_first_samples_are_the_first_and_never_more_than_there_are() -> None:
    samples = memory(10)
    np.testing.assert_array_equal(all_rows(first(samples, 4)), rows(4))
    assert first(samples, 10) is first(samples, 99) is samples
    assert first(samples, 4).sha256 != samples.sha256
    assert first(samples, 4).source == "arrays in memory (first 4)"


class Counted:
    """A source of single samples that counts how many were asked for."""

    def __init__(self, count: int) -> None:
        self.count, self.given = count, 0

    def read(self) -> Iterator[Batch]:
        for index in range(self.count):
            self.given += 1
            yield Batch({"image": rows(1, start=index)})


def test_a_part_reads_no_further_than_its_last_sample() -> None:
    source = Counted(100)
    samples = checked(source.read, source="counted", specs=[spec()])
    assert source.given == 100
    source.given = 0
    part = first(samples, 5)
    assert source.given == 0
    assert len(all_rows(part)) == 5
    assert source.given == 5


def test_batches_are_read_one_at_a_time() -> None:
    source = Counted(100)
    batches = checked(source.read, source="counted", specs=[spec()]).batches(4)
    source.given = 0
    for expected in (4, 8, 12):
        next(batches)
        assert source.given == expected


def test_checking_needs_memory_for_a_few_rows_only() -> None:
    array = np.zeros((2048, 4096), np.float32)
    tracemalloc.start()
    samples_of({"image": array}, specs=[spec("image", "n", 4096)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20, "a mask over all of the 32 MiB would take 8 MiB"
