"""Shards: `.npz` files streamed row by row, and what is refused before it can do harm."""

import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.core.errors import SamplesError
from jettison.core.shards import ROWS_AT_ONCE, read_shard, read_shards, shard_paths


def member(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array)
    return buffer.getvalue()


def archive(path: Path, members: dict[str, bytes], *, deflated: bool = False) -> Path:
    kind = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def joined(path: Path) -> dict[str, np.ndarray]:
    pieces = list(read_shard(path))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def refused(path: Path) -> str:
    with pytest.raises(SamplesError) as caught:
        list(read_shard(path))
    assert str(caught.value).startswith(f"samples {path}: ")
    return str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
@pytest.mark.parametrize("rows", [1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 200])
def test_arrays_come_back_side_by_side_in_pieces(tmp_path: Path, save, rows: int) -> None:
    rng = np.random.default_rng(0)
    image, ids = rng.normal(size=(rows, 3, 4)).astype(np.float32), rng.integers(0, 9, rows)
    path = tmp_path / "samples.npz"
    save(path, image=image, ids=ids)
    pieces = list(read_shard(path))
    assert all(len(piece["image"]) == len(piece["ids"]) <= ROWS_AT_ONCE for piece in pieces)
    found = joined(path)
    np.testing.assert_array_equal(found["image"], image)
    np.testing.assert_array_equal(found["ids"], ids)
    assert pieces[0]["image"].flags.writeable


@given(
    dtype=st.sampled_from(["<f4", ">f4", "<f2", "<i8", "|u1", "|b1", "<U5"]),
    shape=st.lists(st.integers(0, 3), max_size=2),
    rows=st.integers(1, 5),
)
def test_any_plain_array_is_read_as_numpy_wrote_it(
    tmp_path_factory, dtype: str, shape: list[int], rows: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "samples.npz"
    array = np.arange(rows * int(np.prod(shape, dtype=int))).reshape(rows, *shape).astype(dtype)
    np.savez(path, array=array)
    (piece,) = read_shard(path)
    np.testing.assert_array_equal(piece["array"], array)
    assert piece["array"].dtype == array.dtype


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_both_versions_of_the_header_are_read(tmp_path: Path, version: tuple[int, int]) -> None:
    array, buffer = np.arange(6, dtype=np.float32).reshape(3, 2), io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    path = archive(tmp_path / "samples.npz", {"image.npy": buffer.getvalue()})
    np.testing.assert_array_equal(joined(path)["image"], array)


def test_a_large_array_never_stands_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez_compressed(path, image=np.zeros((2048, 4096), np.float32))
    tracemalloc.start()
    count = sum(len(piece["image"]) for piece in read_shard(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2048
    assert peak < 8 << 20, "the array has 32 MiB, one piece of 64 rows has 1 MiB"


def test_shards_are_opened_one_after_the_other(tmp_path: Path) -> None:
    good, broken = tmp_path / "1.npz", tmp_path / "2.npz"
    np.savez(good, image=np.zeros((2, 3)))
    broken.write_bytes(b"no zip")
    pieces = read_shards([good, broken])
    assert len(next(pieces)["image"]) == 2
    with pytest.raises(SamplesError, match=r"samples .*2\.npz: not a readable \.npz file"):
        next(pieces)


def test_a_folder_gives_its_shards_in_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.npz", "a.npz", "notes.txt"):
        (tmp_path / name).touch()
    assert shard_paths(tmp_path) == (tmp_path / "a.npz", tmp_path / "b.npz")
    assert shard_paths(tmp_path / "b.npz") == (tmp_path / "b.npz",)


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SamplesError) as caught:
        shard_paths(tmp_path)
    assert (
        str(caught.value) == f"samples {tmp_path}: the folder holds no .npz file. Write shards as .npz there"
    )


def test_columns_first_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = archive(tmp_path / "f.npz", {"image.npy": member(np.asfortranarray(np.ones((3, 2))))})
    assert "'image' is stored column by column; save it after numpy.ascontiguousarray" in refused(path)


class Malicious:
    """A pickle that writes a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_pickled_objects_are_refused_and_never_loaded(tmp_path: Path, save) -> None:
    trap, path = tmp_path / "trap", tmp_path / "samples.npz"
    save(path, image=np.array([Malicious(trap)], dtype=object))
    assert "'image' holds pickled objects, which are never loaded" in refused(path)
    assert not trap.exists()
    with np.load(path, allow_pickle=True) as stored:
        stored["image"]
    assert trap.exists(), "the trap would have shut"


def test_objects_inside_a_structure_are_refused_as_well(tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "samples.npz"
    np.savez(path, image=np.array([(Malicious(trap),)], dtype=[("field", object)]))
    assert "never loaded" in refused(path)
    assert not trap.exists()


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.save(tmp_path / "samples.npy", np.ones(3))
    (tmp_path / "samples.npy").rename(path)
    assert refused(path).endswith(
        "not a readable .npz file (File is not a zip file). Write it with numpy.savez"
    )


def test_another_file_in_the_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "samples.npz", {"image.npy": member(np.ones((2, 3))), "README": b"hello there"})
    assert "not a readable .npz file (the magic string is not correct" in refused(path)


@pytest.mark.parametrize("deflated", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_archive_is_refused(tmp_path: Path, share: float, deflated: bool) -> None:
    content = member(np.random.default_rng(0).normal(size=(100, 8)))
    path = archive(tmp_path / "samples.npz", {"image.npy": content}, deflated=deflated)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "not a readable .npz file (File is not a zip file)" in refused(path)


@pytest.mark.parametrize(("deflated", "told"), [(False, "Bad CRC-32"), (True, "while decompressing data")])
def test_damaged_contents_are_refused(tmp_path: Path, deflated: bool, told: str) -> None:
    path = archive(tmp_path / "samples.npz", {"image.npy": member(np.arange(999))}, deflated=deflated)
    damaged = bytearray(path.read_bytes())
    damaged[300:320] = b"\xff" * 20
    path.write_bytes(damaged)
    assert told in refused(path)


def with_header(old: bytes, new: bytes) -> bytes:
    """Ten rows of four numbers under a header of the same length in which `old` is replaced."""
    content = member(np.ones((10, 4), np.float32))
    start = content.index(old)
    end = content.index(b"\n")
    return (
        content[:start] + (new + content[start + len(old) : end].rstrip()).ljust(end - start) + content[end:]
    )


@pytest.mark.parametrize(
    "shape", ["(50, 4)", "(1000000000000, 4)", "(10, 1000000000000)", "(1, 4611686018427387904, 4)"]
)
def test_a_header_that_promises_more_than_the_file_holds_is_refused(tmp_path: Path, shape: str) -> None:
    """The last one has 2**64 elements, none of which a 64-bit product would see."""
    path = archive(tmp_path / "samples.npz", {"image.npy": with_header(b"(10, 4)", shape.encode())})
    assert "'image' is shorter than its header says" in refused(path)


def test_an_array_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "samples.npz", {"image.npy": with_header(b"(10, 4)", b"(11, 4)")})
    assert "'image' ends early" in refused(path)


@pytest.mark.parametrize("header", [b"(10, 4", b"(9**9, 4)", b"{(10)", b"\xff\xfe(", b"(10, -4)"])
def test_a_header_that_is_no_header_is_refused(tmp_path: Path, header: bytes) -> None:
    path = archive(tmp_path / "samples.npz", {"image.npy": with_header(b"(10, 4)", header)})
    assert "not a readable .npz file" in refused(path)


def test_an_archive_with_a_password_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "samples.npz", {"image.npy": member(np.ones((2, 3)))})
    content = bytearray(path.read_bytes())
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(start) + offset] |= 1
    path.write_bytes(content)
    assert "password required" in refused(path)


def test_arrays_of_unequal_length_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, image=np.ones((3, 2)), labels=np.ones(4))
    assert refused(path).endswith(
        "the arrays differ in their number of samples: {'image': 3, 'labels': 4}. Give one row each"
    )


def test_a_single_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, image=np.float32(3))
    assert "'image' is a single number, not one row a sample" in refused(path)


def test_an_archive_without_arrays_gives_nothing(tmp_path: Path) -> None:
    assert list(read_shard(archive(tmp_path / "samples.npz", {}))) == []
