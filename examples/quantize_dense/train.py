"""Makes the example: data by a rule and a seed, a Keras network trained on them, samples for the recipe.

    python examples/quantize_dense/train.py [--hidden 1000] [--output FOLDER]

All of it goes into the folder `.data` with a copy of the recipe, so that the files here stay as they are.
It needs the extra `keras`.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).parent
FEATURES = 20
SEED = 20
ROWS = {"train": 8000, "calibration": 256, "evaluation": 1000}
EPOCHS = 15

Floats = npt.NDArray[np.float32]


def draw(rows: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Features, float32 (rows, 20), and labels, float32 (rows, 1): 1 where a bent rule with noise says so.

    The rule is the sign of a . x + |b . x| - 0.8 + noise for fixed directions a and b of length 1, which no
    straight line through the features follows.
    """
    directions = np.random.default_rng(SEED).standard_normal((2, FEATURES))
    straight, bent = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    features = rng.standard_normal((rows, FEATURES))
    score = features @ straight + np.abs(features @ bent) - 0.8 + 0.2 * rng.standard_normal(rows)
    return features.astype(np.float32), (score > 0).astype(np.float32)[:, None]


def make(folder: Path, *, hidden: int) -> float:
    """Train, write all that a run needs into the folder, and say in which share of samples it is right."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    keras.utils.set_random_seed(SEED)
    rng = np.random.default_rng(SEED + 1)
    sets = {name: draw(rows, rng) for name, rows in ROWS.items()}
    network = keras.Sequential(
        [
            keras.Input((FEATURES,), name="features"),
            keras.layers.Dense(hidden, activation="relu", name="hidden"),
            keras.layers.Dense(1, activation="sigmoid", name="probability"),
        ]
    )
    network.compile(optimizer=keras.optimizers.Adam(0.02), loss="binary_crossentropy")
    network.fit(*sets["train"], batch_size=128, epochs=EPOCHS, verbose=0)
    if folder.resolve() != HERE.resolve():
        shutil.copy(HERE / "recipe.yaml", folder)
    network.save(folder / "dense.keras")
    np.savez_compressed(folder / "calibration.npz", features=sets["calibration"][0])
    features, labels = sets["evaluation"]
    np.savez_compressed(folder / "evaluation.npz", features=features, labels=labels)
    return float(((network.predict(features, verbose=0) > 0.5) == (labels > 0.5)).mean())


def main() -> None:
    """Read the options, train, and print how good it is."""
    options = argparse.ArgumentParser(description="Train the example's network.")
    options.add_argument("--hidden", type=int, default=10, help="neurons of the hidden layer")
    options.add_argument("--output", type=Path, default=HERE / ".data", help="where the files go")
    given = options.parse_args()
    print(
        f"right in {make(given.output, hidden=given.hidden):.2%} of {ROWS['evaluation']} evaluation samples"
    )


if __name__ == "__main__":
    main()
