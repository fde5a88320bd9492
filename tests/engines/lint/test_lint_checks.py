"""Each check of the table finds its planted breaker at the right node, and mends it where it says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from breakers import BREAKERS, good

from jettison.core.errors import TargetError
from jettison.core.targets import parse_target
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import runner_of
from jettison.engines.tensorrt.lint.lint import Mended, lint, mend
from jettison.engines.tensorrt.lint.table import CHECKS
from jettison.engines.tensorrt.module import find_module
from jettison.engines.tensorrt.preflight import preflight
from jettison.evaluate.sqnr import sqnr_db
from jettison.graph.save import save_model

ANY = parse_target("tensorrt")
MENDING = [check.code for check in CHECKS if check.mend is not None]
needs_compiler = pytest.mark.skipif(find_module() is None, reason="the extra 'rtx' is not installed")


def opened(code: str) -> ir.Model:
    return ir.from_proto(BREAKERS[code].build())


def mended(code: str) -> Mended:
    return mend(opened(code), ANY)


def answers(model: ir.Model) -> Arrays:
    shape = [size if isinstance(size, int) else 8 for size in model.graph.inputs[0].shape or ()]
    dtype = model.graph.inputs[0].dtype
    assert dtype is not None
    x = np.random.default_rng(5).normal(0, 1, shape).astype(dtype.numpy())
    return runner_of(model, threads=1, optimize=False).run({"x": x})


def test_every_check_has_its_breaker() -> None:
    assert [check.code for check in CHECKS] == list(BREAKERS)


@pytest.mark.parametrize("code", BREAKERS)
def test_a_breaker_is_found_at_its_node(code: str) -> None:
    found = [finding for finding in lint(opened(code), ANY) if finding.code == code]
    assert found, "the check does not see its own breaker"
    assert found[0].node == BREAKERS[code].node
    assert found[0].message.startswith(("expected ", "found "))


@pytest.mark.parametrize("code", BREAKERS)
def test_a_breaker_breaks_no_other_hard_rule(code: str) -> None:
    hard = {finding.code for finding in lint(opened(code), ANY) if finding.severity == "hard"}
    assert hard <= {code}


@pytest.mark.parametrize("code", BREAKERS)
def test_lint_changes_nothing(code: str) -> None:
    model = opened(code)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    lint(model, ANY)
    mend(model, ANY)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("code", MENDING)
def test_what_is_mended_keeps_the_rule_and_is_valid(code: str) -> None:
    result = mended(code)
    assert code in result.codes
    assert [finding.code for finding in result.findings if finding.code == code] == []
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)


@pytest.mark.parametrize("code", MENDING)
def test_mending_again_finds_nothing_to_do(code: str) -> None:
    assert mend(mended(code).model, ANY).codes == ()


@pytest.mark.parametrize("code", [code for code in MENDING if code != "T105"])
def test_a_mended_model_answers_as_before(code: str) -> None:
    """Not T105: the installed ONNX Runtime need not know an opset that TensorRT does not know."""
    figure = sqnr_db(answers(opened(code)), answers(mended(code).model))
    assert figure is not None
    assert figure >= BREAKERS[code].least_db


@pytest.mark.rtx
@needs_compiler
@pytest.mark.parametrize("code", BREAKERS)
def test_the_compiler_says_of_the_breaker_what_the_table_says(code: str, tmp_path: Path) -> None:
    onnx.save(BREAKERS[code].build(), tmp_path / "model.onnx")
    outcome = preflight(tmp_path / "model.onnx", ANY).outcome
    assert (outcome in ("refused", "crashed")) == BREAKERS[code].refused


@pytest.mark.rtx
@needs_compiler
@pytest.mark.parametrize("code", MENDING)
def test_a_mended_model_compiles(code: str, tmp_path: Path) -> None:
    save_model(mended(code).model, tmp_path / "model.onnx")
    report = preflight(tmp_path / "model.onnx", ANY)
    assert (report.outcome, report.refusals) == ("compiles", ())


def test_a_good_model_has_no_findings() -> None:
    assert lint(ir.from_proto(good()), ANY) == ()


def test_nothing_is_mended_in_a_good_model() -> None:
    assert mend(ir.from_proto(good()), ANY).codes == ()


def test_hard_findings_come_first() -> None:
    model = ir.from_proto(BREAKERS["T202"].build())
    model.graph.initializers["s"].const_value = ir.tensor(np.float32(0), name="s")
    severities = [finding.severity for finding in lint(model, ANY)]
    assert severities == sorted(severities)
    assert set(severities) == {"hard", "soft"}


def test_a_target_without_tensorrt_is_refused() -> None:
    with pytest.raises(TargetError, match="lint for target 'cpu': expected a GPU, found a target without"):
        lint(ir.from_proto(good()), parse_target("cpu"))


@pytest.mark.parametrize(("target", "is_found"), [("sm86", True), ("sm89", False), ("tensorrt", True)])
def test_float8_is_for_targets_that_compute_in_it(target: str, is_found: bool) -> None:
    codes = {finding.code for finding in lint(opened("T121"), parse_target(target))}
    assert ("T121" in codes) == is_found
