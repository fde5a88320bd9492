"""docs/lint.md is what the table of checks says."""

from __future__ import annotations

from pathlib import Path

from jettison.engines.tensorrt.lint.page import page
from jettison.engines.tensorrt.lint.table import CHECKS

PAGE = Path(__file__).parents[3] / "docs" / "lint.md"


def test_the_page_is_up_to_date() -> None:
    made = "python -m jettison.engines.tensorrt.lint.page > docs/lint.md"
    assert PAGE.read_text() == page(), f"run: {made}"


def test_codes_are_in_order_and_there_once() -> None:
    codes = [check.code for check in CHECKS]
    assert codes == sorted(set(codes))


def test_what_can_be_mended_says_so() -> None:
    for check in CHECKS:
        assert ("--fix" in check.fix) == (check.mend is not None), check.code
