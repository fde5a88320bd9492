"""What the project itself writes for TensorRT has no hard findings, and neither has what it starts from."""

from __future__ import annotations

import pytest
from zoo_cases import zoo_result

from jettison.compress.passes import Refusal
from jettison.compress.quantization.cast import CastFloat16
from jettison.compress.quantization.float8 import QuantizeFloat8
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.compress.quantization.weight_only import QuantizeInt4
from jettison.core.targets import parse_target
from jettison.engines.tensorrt.lint.finding import Finding
from jettison.engines.tensorrt.lint.lint import lint, mend
from zoo.session import cleaned, opened
from zoo.table import ZOO

SM89 = parse_target("sm89")
STEPS = {
    "full": QuantizeFull(),
    "attention": QuantizeFull(attention="int8"),
    "float8": QuantizeFloat8(),
    "int4": QuantizeInt4(),
    "float16": CastFloat16(),
}
UNNAMED = {"question_mark_dimensions"}
"""Models whose source has several dimensions named `?`, which cleaning names."""


def hard(findings: tuple[Finding, ...]) -> list[str]:
    return [f"{finding.code} {finding.node}" for finding in findings if finding.severity == "hard"]


@pytest.mark.parametrize("name", ZOO)
def test_a_float_model_has_no_hard_finding(name: str) -> None:
    assert hard(lint(cleaned(name), SM89)) == []
    assert hard(lint(opened(name), SM89)) == (["T106 None"] if name in UNNAMED else [])


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("step", STEPS)
def test_a_variant_has_no_hard_finding_and_nothing_to_mend(name: str, step: str) -> None:
    found = zoo_result(name, "sm89", STEPS[step])
    if isinstance(found, Refusal):
        assert found.reasons
        return
    assert hard(lint(found.model, SM89)) == []
    assert mend(found.model, SM89).codes == ()
