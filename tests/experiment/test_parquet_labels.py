"""Labels in Parquet: with pyarrow as from CSV, without it an error that names the extra."""

from __future__ import annotations

import sys

import pytest

from jettison.core.errors import InputError, MissingError
from jettison.experiment.label_file import Label, read_labels


def test_parquet_is_read_as_csv_is(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"request": ["r1", "r2"], "label": [3, 4], "image": [b"x", b"y"]})
    parquet.write_table(table, tmp_path / "l.parquet")
    assert read_labels(tmp_path / "l.parquet") == {"r1": Label("label", "3"), "r2": Label("label", "4")}


def test_a_torn_parquet_file_is_told(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "l.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(InputError, match="no whole Parquet file"):
        read_labels(tmp_path / "l.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "l.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingError, match=r"it is Parquet, and .*\[parquet\].*or save it as CSV"):
        read_labels(tmp_path / "l.parquet")
