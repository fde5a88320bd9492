"""What a preflight tells, as values: the outcome, the refused nodes, the layers and their precision."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

from jettison.engines.tensorrt.shapes import ShapeRange

Outcome = Literal["compiles", "refused", "crashed", "unavailable", "timeout"]


class RefusedNode(BaseModel):
    """One reason of a refusal, with the ONNX node where the compiler names one.

    `code` is the parser's (`INVALID_NODE`), `BUILDER` for what only the build found, or `TARGET` where
    the compiler cannot compile for that GPU at all. A node without a name is given as `node 3`.
    """

    model_config = ConfigDict(frozen=True)

    code: str
    description: str
    node: str | None = None
    operator: str | None = None


class LayerPrecision(BaseModel):
    """One layer of the compiled engine with the element types of its tensors.

    Types are names of `core.dtypes` where that table knows them. `constants` are weights and other
    constants that are no scalars. `onnx_nodes` are the ONNX nodes that were fused into the layer.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    onnx_nodes: tuple[str, ...] = ()


class MemoryEstimate(BaseModel):
    """The compiler's own estimate of GPU memory at the largest shapes: for planning, not measured."""

    model_config = ConfigDict(frozen=True)

    activation_bytes: int | None = None
    weights_bytes: int | None = None


class Bisection(BaseModel):
    """The smallest part of a graph that does not compile.

    Args:
        nodes: Names of the ONNX nodes that break it together.
        pairs: Nodes of the Q/DQ pairs among them: what quantization brought.
        is_smallest: Whether each of the nodes is needed; False where the trials ran out before.
        leave_out: The pass of a recipe that makes such pairs, and how it leaves them out.
        trials: Smaller models that the compiler was asked about.
    """

    model_config = ConfigDict(frozen=True)

    nodes: tuple[str, ...]
    pairs: tuple[str, ...] = ()
    is_smallest: bool
    leave_out: str | None = None
    trials: int


class AuditedLayer(BaseModel):
    """An ONNX node with a quantized input that the compiled engine computes in float, and why.

    `computed_in` is the element type of its arithmetic, as the compiler lists it.
    """

    model_config = ConfigDict(frozen=True)

    node: str
    operator: str
    computed_in: str
    reason: str


class PreflightReport(BaseModel):
    """What TensorRT's compiler said about one model and one target.

    `compiled_for` is the GPU that was really compiled for; `nearest` says that it only stands in for the
    target. Shares are of the multiply-accumulates (MACs) of Conv, Gemm and MatMul, from 0 to 1: None
    where no MACs were given or no layer could be matched. `mac_shares` is by element type of the
    arithmetic, and `unknown` for nodes that the layer list does not name. `sparse_layers` counts the layers
    whose weights are 2:4 throughout, and `sparse_weights` says whether sparse kernels were allowed for them.
    `fallbacks` are quantized nodes that are computed in float all the same. `bisection` is the smallest part
    that does not compile, where that was asked for.
    """

    model_config = ConfigDict(frozen=True)

    target: str
    compiled_for: str
    nearest: bool
    module: str | None
    version: str | None
    outcome: Outcome
    refusals: tuple[RefusedNode, ...] = ()
    warnings: tuple[str, ...] = ()
    shapes: tuple[ShapeRange, ...] = ()
    layers: tuple[LayerPrecision, ...] = ()
    int8_mac_share: float | None = None
    low_precision_mac_share: float | None = None
    mac_shares: dict[str, float] = {}
    memory: MemoryEstimate | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    sparse_layers: int = 0
    sparse_weights: bool | None = None
    fallbacks: tuple[AuditedLayer, ...] = ()
    bisection: Bisection | None = None

    @property
    def fp8_mac_share(self) -> float | None:
        """The share of MACs that run in FP8, as `int8_mac_share`; None where that is."""
        if self.int8_mac_share is None:
            return None
        return sum(share for dtype, share in self.mac_shares.items() if dtype.startswith("float8"))

    @computed_field  # type: ignore[prop-decorator]  # mypy issue 14461
    @property
    def compiles(self) -> bool | None:
        """Whether it compiles; None where there is no answer, as after a crash or a timeout."""
        return {"compiles": True, "refused": False}.get(self.outcome)
