"""Prometheus' text form: what is written is read again, and what others write is read too."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from jettison.verdict_service.exposition import Family, exposition, samples

labels = st.dictionaries(
    st.from_regex(r"[a-z][a-z_]{0,5}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], include_characters="\n"), max_size=8),
    max_size=3,
)


@given(labels, st.floats() | st.integers(0, 2**53))
def test_what_is_written_is_read_again(given, value):
    (found,) = samples(exposition([Family("ab_x", "gauge", "text", [(given, value)])]), "ab_")
    assert (found.name, found.labels) == ("ab_x", given)
    read = float(found.value)
    assert read == value or (math.isnan(read) and math.isnan(value))


def test_lines_of_other_metrics_and_forms_are_passed_over():
    text = '# HELP ab_x a\n# TYPE ab_x gauge\nother 1\nab_x{a="b"} 3 1700000000\nab_y\nab_z{ 4\n'
    assert [(one.name, one.labels, one.value) for one in samples(text, "ab_")] == [("ab_x", {"a": "b"}, "3")]
