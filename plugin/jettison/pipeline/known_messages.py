"""The literal table of messages of Triton and TensorRT that have one cause, each with where it was seen.

Patterns are regular expressions, looked for in each line. Groups with names may be used in the cause and the
fix. The first pattern that matches a line explains it, so that special ones stand before general ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Speaker = Literal["triton", "tensorrt", "onnxruntime"]
_TRITON, _RTX = "seen in tritonserver 2.51", "seen in tensorrt_rtx 1.7.1"
_SERVER = "https://github.com/triton-inference-server/server/issues"
_TENSORRT = "https://github.com/NVIDIA/TensorRT/issues"


@dataclass(frozen=True)
class Known:
    """One message.

    Args:
        name: A short name, for scripts.
        speaker: Whose message it is.
        pattern: What a line of it holds.
        cause: What is wrong.
        fix: What to do, with the command where there is one.
        source: Where the message and its cause were seen.
        is_echo: Whether it only follows from another one, and is told where it stands alone.
    """

    name: str
    speaker: Speaker
    pattern: str
    cause: str
    fix: str
    source: str
    is_echo: bool = False


_REBUILD = "Build the plan again with the TensorRT of the image that serves it, on the GPU that will run it"
_PUBLISH = "jettison publish MODEL --repository DIR --name NAME"
_LINT = "Run: jettison lint MODEL --fix MENDED.onnx"

KNOWN: tuple[Known, ...] = (
    # Plans that do not fit where they are loaded.
    Known(
        "plan-version", "tensorrt",
        r"engine plan file is not compatible with this version of TensorRT, expecting library version "
        r"(?P<here>[\d.]+) got (?P<plan>[\d.]+)",
        "the plan was built by TensorRT {plan}, and this is {here}: they must be equal",
        _REBUILD, f"{_SERVER}/5812",
    ),
    Known(
        "plan-version-tag", "tensorrt",
        r"Version tag does not match",
        "the plan was built by another version of TensorRT, as another image or pip has it",
        _REBUILD, f"{_SERVER}/7613",
    ),
    Known(
        "plan-device", "tensorrt",
        r"engine plan file is generated on an incompatible device, expecting compute (?P<here>[\d.]+) got "
        r"compute (?P<plan>[\d.]+)",
        "the plan was built for compute capability {plan}, and this GPU has {here}",
        f"{_REBUILD}; for a mixed fleet list one plan for each capability in cc_model_filenames",
        f"{_TENSORRT}/564",
    ),
    Known(
        "plan-batch", "triton",
        r"configuration specified max-batch (?P<asked>\d+) but TensorRT engine *only supports max-batch ?=? ?"
        r"(?P<given>\d+)",
        "config.pbtxt allows batches of {asked}, and the plan's profile only {given}",
        "Set max_batch_size to what the plan has (0 where its batch is fixed), or build it for larger ones",
        f"{_SERVER}/7056",
    ),
    Known(
        "plan-profile", "tensorrt",
        r"does not satisfy any optimization profile|exceed min ~ max range at index",
        "a request has a shape outside of the range that the plan was built for",
        "Build the plan with a profile that covers it, or let the client send shapes inside of it",
        "https://github.com/NVIDIA/TensorRT-LLM/issues/1332",
    ),
    Known(
        "plan-broken", "triton",
        r"unable to load plan file|unable to create TensorRT engine|Engine deserialization failed",
        "TensorRT does not read the plan; the line before says why: a version, a GPU, or a file cut short",
        _REBUILD, f"{_SERVER}/7613", is_echo=True,
    ),
    # What TensorRT's parser and builder refuse.
    Known(
        "zero-point", "tensorrt",
        r"shiftIsAllZeros|Non-zero zero point is not supported",
        "a zero point that is not 0: the file was quantized for CPUs, and TensorRT's integers are symmetric",
        f"{_LINT} (checks T113, T114), or quantize with --target tensorrt", _RTX,
    ),
    Known(
        "unsigned", "tensorrt",
        r"with UINT8 zero_point only on DLA",
        "UINT8 is read as INT8, so that numbers above 127 mean others: the plan will answer wrongly",
        f"{_LINT} (check T114)", _RTX,
    ),
    Known(
        "element-type", "tensorrt",
        r"Found unsupported datatype \((?P<code>\d+)\) when importing initializer: (?P<tensor>\S+)",
        "the stored tensor {tensor} has ONNX's element type {code}, which TensorRT does not read",
        f"{_LINT} (check T111)", _RTX,
    ),
    Known(
        "integer-bias", "tensorrt",
        r"input has type Int32 but must have type|For zero_point with type int32",
        "a bias is stored as INT32 behind a DequantizeLinear, which TensorRT refuses",
        f"{_LINT} (check T110), or keep the bias in float: QuantizeBias=False in ONNX Runtime", _RTX,
    ),
    Known(
        "scale", "tensorrt",
        r"[Ss]cale coefficients must all be positive|scaleAllPositive",
        "a scale that is 0, negative or no number, often of a dead channel",
        f"{_LINT} (check T115)", _RTX,
    ),
    Known(
        "quantized-constant", "tensorrt",
        r"Quantized constant .*is only allowed before DQ",
        "a single number is stored as an integer where no weight is read",
        f"{_LINT} (check T112)", _RTX,
    ),
    Known(
        "types-of-target", "tensorrt",
        r"Cannot compile for target\(s\) (?P<target>\w+).*HW-specific datatypes: (?P<dtype>\w+)",
        "{target} has no arithmetic for {dtype}",
        "Choose another format for this GPU: FP8 begins with sm89, FP4 with sm100", _RTX,
    ),
    Known(
        "profile-contradiction", "tensorrt",
        r"contradictory IOptimizationProfile",
        "dimensions of one name (`?` among them) have different ranges",
        f"{_LINT} (check T106), or give such dimensions one range in --shapes", _RTX,
    ),
    Known(
        "profile-missing", "tensorrt",
        r"[Nn]etwork has dynamic or shape inputs, but no optimization profile has been defined",
        "an input has open dimensions, and no range for them was given",
        "Give one: --shapes NAME=MIN,OPT,MAX", f"{_TENSORRT}/4204",
    ),
    Known(
        "plugin", "tensorrt",
        r"Plugin not found|plugin creator version \d+ was not found|getPluginCreator could not find plugin",
        "the model has an operator that TensorRT lacks, and no plugin for it is loaded",
        "Run: jettison lint MODEL, which names the node; leave it out of the export, or load the plugin",
        _RTX,
    ),
    Known(
        "dynamic-quantization", "tensorrt",
        r"In function check(?P<operator>DynamicQuantizeLinear|MatMulInteger|ConvInteger|QLinear\w+)",
        "the model has {operator}: quantized dynamically, or in the operator form; TensorRT has neither",
        "Serve it with the ONNX Runtime backend on the CPU, or quantize anew: {{quantize: full}}", _RTX,
    ),
    # Memory and the machine.
    Known(
        "gpu-memory", "tensorrt",
        r"CUDA_ERROR_OUT_OF_MEMORY|cudaMalloc.*out of memory|CUDA error: out of memory|OutOfMemory",
        "the GPU's memory is full; a hitless reload holds the old and the new version together",
        "Serve fewer instances, a smaller maximum batch, or unload other models first",
        "CUDA's driver_types.h, cudaErrorMemoryAllocation",
    ),
    Known(
        "driver", "triton",
        r"CUDA driver version is insufficient|cudaErrorInsufficientDriver",
        "the driver is older than the CUDA of this image, or there is no GPU here",
        "Bring the driver that the image's release notes ask for; without a GPU this line means nothing",
        _TRITON, is_echo=True,
    ),
    Known(
        "shared-memory", "triton",
        r"Unable to initialize shared memory key",
        "the shared memory of the container is too small: each instance of a Python backend takes 64 MiB",
        "Start the container with --shm-size=1g; in Kubernetes mount an emptyDir of medium Memory there",
        f"{_SERVER}/6195",
    ),
    Known(
        "port", "triton",
        r"Address already in use|already in use by other",
        "another process listens on this port",
        "End that process, or start with other ports: jettison serve --http-port N --grpc-port N", _TRITON,
    ),
    # The repository.
    Known(
        "folder-name", "triton",
        r"unexpected directory name '(?P<folder>[^']*)' for model '(?P<model>[^']*)'",
        "the folder is called {folder}, and its config.pbtxt names the model {model}",
        "Rename the folder or the model: they must be equal", _TRITON,
    ),
    Known(
        "stray-folder", "triton",
        r"Poll failed for model directory '(?P<folder>[^']*)': failed to open text file for read",
        "the folder {folder} in the repository has no config.pbtxt; hidden folders count as models too",
        f"Move it out of the repository, or publish the model: {_PUBLISH}", _TRITON,
    ),
    Known(
        "config-field", "triton",
        r'has no field named "(?P<field>[^"]*)"',
        "config.pbtxt has the field {field}, which this Triton does not know",
        "Correct the name, or serve with a version that has the field; the message gives the place", _TRITON,
    ),
    Known(
        "config-text", "triton",
        r"Error parsing text-format inference\.ModelConfig: (?P<place>\d+:\d+): (?P<why>.*)",
        "config.pbtxt cannot be read at line and column {place}: {why}",
        "Correct it there, or let jettison publish write the configuration", _TRITON,
    ),
    Known(
        "config-unread", "triton",
        r"failed to read text proto from",
        "config.pbtxt cannot be read; the line before says where",
        "Correct it, or let jettison publish write the configuration", _TRITON, is_echo=True,
    ),
    Known(
        "version-missing", "triton",
        r"version (?P<version>\d+) is specified for model '(?P<model>[^']*)', but the version directory",
        "the version policy of {model} names version {version}, and there is no such folder",
        f"Bring the folder back, or publish again: {_PUBLISH}", _TRITON,
    ),
    Known(
        "no-version", "triton",
        r"at least one version must be available under the version policy of model '(?P<model>[^']*)'",
        "{model} has no folder of a version that its policy allows",
        f"Publish one: {_PUBLISH}", _TRITON, is_echo=True,
    ),
    Known(
        "backend", "triton",
        r"unable to find backend library for backend '(?P<backend>[^']*)'",
        "this server has no backend {backend}: it is misspelt, or the image comes without it",
        "Correct `backend` in config.pbtxt, or serve with an image that has it (the full -py3 one)", _TRITON,
    ),
    Known(
        "model-missing", "onnxruntime",
        r"NO_SUCHFILE|Load model .* failed\. File doesn't exist",
        "the version folder has no model file of that name",
        "Put it there, or name it in default_model_filename; publish again: jettison publish", _TRITON,
    ),
    Known(
        "model-torn", "onnxruntime",
        r"INVALID_PROTOBUF|Protobuf parsing failed",
        "the model file is no ONNX, or was cut short as it was copied",
        "Copy it again whole, and publish with jettison publish, which checks the digest", _TRITON,
    ),
    Known(
        "model-opset", "onnxruntime",
        r"ONNX Runtime only \*guarantees\* support for models stamped with official released onnx opset|"
        r"Unsupported model IR version",
        "the model is newer than the ONNX Runtime of this server",
        "Export at opset 20 and IR 10, or serve with a newer image", "ONNX Runtime, core/graph/model.cc",
    ),
    Known(
        "shape-of-request", "triton",
        r"unexpected shape for input '(?P<input>[^']*)' for model '(?P<model>[^']*)'\. "
        r"Expected (?P<dims>\[[^\]]*\]), got (?P<found>\[[^\]]*\])",
        "a client sends {input} of {model} as {found}, and the configuration has {dims}",
        "Correct the client; with max_batch_size above 0 the first axis is the batch",
        "https://github.com/ultralytics/ultralytics/issues/21444",
    ),
    Known(
        "dims-of-config", "triton",
        r"tensor '(?P<tensor>[^']*)': the model expects .*\(shape (?P<found>\[[^\]]*\])\) but the model "
        r"configuration specifies .*\(shape (?P<dims>\[[^\]]*\])\)",
        "config.pbtxt gives {tensor} the shape {dims}, and the model has {found}",
        "Correct the dims, or let jettison publish write the configuration", f"{_SERVER}/4194",
    ),
    Known(
        "batch-of-request", "triton",
        r"inference request batch-size must be <= (?P<most>\d+) for",
        "a client sends more samples than {most}, the model's max_batch_size",
        "Send smaller batches, or publish with a larger maximum", f"{_SERVER}/6165",
    ),
    Known(
        "model-failed", "triton",
        r"failed to load '(?P<model>[^']*)' version (?P<version>\d+): (?P<why>.{1,300})",
        "version {version} of {model} did not load: {why}",
        "Mend that model, or take it out: jettison check REPOSITORY says what is known to be wrong with it",
        _TRITON, is_echo=True,
    ),
    Known(
        "all-models", "triton",
        r"failed to load all models",
        "some model did not load, and the server ends; the lines before say which and why",
        "Mend that model, or take it out; --exit-on-error=false lets the others serve", _TRITON, is_echo=True,
    ),
)  # fmt: skip
