"""The BERT encoder of all-MiniLM-L6-v2 in plain torch, so that exporting it needs no model library.

One module per part, named so that the published weights fit after their prefixes are dropped.
Source: Devlin et al. 2018, https://arxiv.org/abs/1810.04805; Vaswani et al. 2017,
https://arxiv.org/abs/1706.03762, equation 1.
"""

# mypy: allow-subclassing-any

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Added to the scores of padding. BERT's own value, unlike float32's minimum, exists in float16 too.
# Source: google-research/bert, modeling.py, attention_layer.
MASKED = -10000.0


@dataclass(frozen=True)
class BertConfig:
    """Sizes of an encoder; the defaults are those of all-MiniLM-L6-v2's `config.json`."""

    vocabulary: int = 30522
    positions: int = 512
    token_types: int = 2
    width: int = 384
    inner_width: int = 1536
    heads: int = 12
    layers: int = 6
    epsilon: float = 1e-12


class SentenceEncoder(nn.Module):
    """From token ids to one vector of length 1 per sentence: encoder, mean over tokens, normalisation."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The embedding: float32, (batch, width).

        Args:
            input_ids: int64, (batch, length).
            attention_mask: int64, (batch, length); 1 for tokens, 0 for padding.
        """
        mask = attention_mask.to(torch.float32)
        penalty = ((1.0 - mask) * MASKED)[:, None, None, :]
        hidden = self.embeddings(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, penalty)
        weights = mask[:, :, None]
        mean = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=1)


class Embeddings(nn.Module):
    """Word, position and token type; a single sentence has token type 0 everywhere."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocabulary, config.width)
        self.position_embeddings = nn.Embedding(config.positions, config.width)
        self.token_type_embeddings = nn.Embedding(config.token_types, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.epsilon)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Float32, (batch, length, width)."""
        positions = self.position_embeddings.weight + self.token_type_embeddings.weight[0]
        words: Tensor = self.word_embeddings(input_ids)
        hidden: Tensor = self.norm(words + positions[: input_ids.shape[1]])
        return hidden


class Layer(nn.Module):
    """Attention and a two-layer network, each added to its input and normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.epsilon)
        self.intermediate = nn.Linear(config.width, config.inner_width)
        self.output = nn.Linear(config.inner_width, config.width)
        self.output_norm = nn.LayerNorm(config.width, eps=config.epsilon)

    def forward(self, hidden: Tensor, penalty: Tensor) -> Tensor:
        """Float32, (batch, length, width)."""
        hidden = self.attention_norm(hidden + self.attention(hidden, penalty))
        inner = nn.functional.gelu(self.intermediate(hidden))
        result: Tensor = self.output_norm(hidden + self.output(inner))
        return result


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d) + penalty) V, over heads of width d."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.head_width = config.width // config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.dense = nn.Linear(config.width, config.width)

    def forward(self, hidden: Tensor, penalty: Tensor) -> Tensor:
        """Float32, (batch, length, width)."""
        query, key, value = (self._split(part(hidden)) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_width) + penalty
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        result: Tensor = self.dense(mixed)
        return result

    def _split(self, hidden: Tensor) -> Tensor:
        return hidden.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)


def weights_from_published(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names of `SentenceEncoder`; BERT's pooler, which it lacks, is left out."""
    return {
        _own_name(name): tensor
        for name, tensor in published.items()
        if not name.startswith("pooler.") and name != "embeddings.position_ids"
    }


def _own_name(published: str) -> str:
    name = published.replace("encoder.layer.", "layers.")
    for old, new in (
        ("embeddings.LayerNorm.", "embeddings.norm."),
        ("attention.output.LayerNorm.", "attention_norm."),
        ("attention.output.dense.", "attention.dense."),
        ("attention.self.", "attention."),
        ("output.LayerNorm.", "output_norm."),
        ("intermediate.dense.", "intermediate."),
        ("output.dense.", "output."),
    ):
        if old in name:
            return name.replace(old, new)
    return name
