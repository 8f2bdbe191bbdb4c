"""all-MiniLM-L6-v2 built from Cells: sentences' token ids to embeddings of length 1.

The attributes are named as the checkpoint's tensors are, so that a Parameter's name is its tensor's name. MindSpore
calls the parameters of LayerNorm and Embedding otherwise; RENAME is all there is to translate:

    embeddings.LayerNorm.weight            embeddings.LayerNorm.gamma
    embeddings.LayerNorm.bias              embeddings.LayerNorm.beta
    embeddings.word_embeddings.weight      embeddings.word_embeddings.embedding_table
    encoder.layer.0.attention.self.query.weight            the same

Source: BERT (https://arxiv.org/abs/1810.04805); MiniLM (https://arxiv.org/abs/2002.10957); the pooling of
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from math import sqrt
from pathlib import Path
from typing import Any, Self, cast

import numpy as np

from mapcell import Parameter, Tensor, dtype, nn, ops
from mapcell.common.initializer import initializer

# From the checkpoint's names to the network's, for `bind` and `load_checkpoint`.
RENAME = (
    (r"LayerNorm\.weight$", "LayerNorm.gamma"),
    (r"LayerNorm\.bias$", "LayerNorm.beta"),
    (r"_embeddings\.weight$", "_embeddings.embedding_table"),
)
_MIN_LENGTH = 1e-12


@dataclass(frozen=True, slots=True)
class Config:
    """The sizes of a BERT encoder, named as in its config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float

    @classmethod
    def read(cls, path: Path) -> Self:
        """The sizes in a config.json. KeyError when one is missing."""
        known = json.loads(path.read_text())
        return cls(**{field.name: known[field.name] for field in fields(cls)})


class MiniLM(nn.Cell):
    """The encoder with mean pooling. Build it under `no_init_parameters()` and bind weights with RENAME.

    The pooler is part of the checkpoint, but sentence embeddings do not use it.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config)

    def construct(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings, float32 (sentences, hidden_size), of length 1.

        Both arguments are integers of shape (sentences, tokens); the mask is 1 for tokens and 0 for padding.
        """
        hidden = self.last_hidden_state(input_ids, attention_mask)
        weight = ops.expand_dims(attention_mask.astype(hidden.dtype), -1)
        mean = (hidden * weight).sum(axis=1) / weight.sum(axis=1)
        length = ops.sqrt((mean * mean).sum(axis=-1, keepdims=True))
        return mean / ops.maximum(length, _MIN_LENGTH)

    def last_hidden_state(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The encoder's output, float32 (sentences, tokens, hidden_size). Arguments as `construct`."""
        hidden = self.embeddings(input_ids)
        # Added to the scores of padding, so that its share after softmax is 0.
        least = float(np.finfo(np.float32).min)
        bias = (1.0 - attention_mask.astype(hidden.dtype)) * least
        sentences, tokens = attention_mask.shape
        return cast(Tensor, self.encoder(hidden, bias.reshape(sentences, 1, 1, tokens)))


class Embeddings(nn.Cell):
    """Words, positions and the type of a sentence's first part, added up and normalised."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        positions = (1, config.max_position_embeddings)
        self.position_ids = Parameter(initializer("zeros", positions, dtype.int64), requires_grad=False)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm((config.hidden_size,), epsilon=config.layer_norm_eps)

    def construct(self, input_ids: Tensor) -> Tensor:
        """(sentences, tokens) to (sentences, tokens, hidden_size)."""
        positions = self.position_ids[:, : input_ids.shape[1]]
        total = self.word_embeddings(input_ids) + self.position_embeddings(positions)
        return cast(Tensor, self.LayerNorm(total + self.token_type_embeddings(ops.zeros_like(positions))))


class Encoder(nn.Cell):
    """The layers, one after the other."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layer = nn.CellList([Layer(config) for _ in range(config.num_hidden_layers)])

    def construct(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Hidden states through all layers, in the same shape."""
        for layer in self.layer:
            hidden = layer(hidden, bias)
        return hidden


class Layer(nn.Cell):
    """Attention, then two dense layers, each with a residual connection."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Residual(config.intermediate_size, config)

    def construct(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Hidden states through one layer, in the same shape."""
        attended = self.attention(hidden, bias)
        return cast(Tensor, self.output(self.intermediate(attended), attended))


class Attention(nn.Cell):
    """Self-attention with its projection back."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Residual(config.hidden_size, config)

    def construct(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Hidden states in the same shape."""
        return cast(Tensor, self.output(self.self(hidden, bias), hidden))


class SelfAttention(nn.Cell):
    """Scaled dot products of queries and keys, softmax, and the values weighted by it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.query = nn.Dense(config.hidden_size, config.hidden_size)
        self.key = nn.Dense(config.hidden_size, config.hidden_size)
        self.value = nn.Dense(config.hidden_size, config.hidden_size)
        self.heads = config.num_attention_heads
        self.scale = 1 / sqrt(config.hidden_size // config.num_attention_heads)

    def construct(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """`bias`, (sentences, 1, 1, tokens), is added to the scores. The result has the shape of `hidden`."""
        query, key, value = (self._by_head(f(hidden)) for f in (self.query, self.key, self.value))
        # Scaling the queries is scaling the scores, of which there are many more.
        scores = ops.matmul(query * self.scale, key.transpose(0, 1, 3, 2)) + bias
        mixed = ops.matmul(ops.softmax(scores, -1), value)
        return mixed.transpose(0, 2, 1, 3).reshape(hidden.shape)

    def _by_head(self, x: Tensor) -> Any:
        sentences, tokens, size = x.shape
        return x.reshape(sentences, tokens, self.heads, size // self.heads).transpose(0, 2, 1, 3)


class Intermediate(nn.Cell):
    """The wide dense layer and its activation."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Dense(config.hidden_size, config.intermediate_size)
        self.activation = nn.GELU(approximate=False)

    def construct(self, hidden: Tensor) -> Tensor:
        """(..., hidden_size) to (..., intermediate_size)."""
        return cast(Tensor, self.activation(self.dense(hidden)))


class Residual(nn.Cell):
    """A dense layer whose result is added to what came before, normalised."""

    def __init__(self, size: int, config: Config) -> None:
        super().__init__()
        self.dense = nn.Dense(size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm((config.hidden_size,), epsilon=config.layer_norm_eps)

    def construct(self, hidden: Tensor, before: Tensor) -> Tensor:
        """(..., size) and (..., hidden_size) to (..., hidden_size)."""
        return cast(Tensor, self.LayerNorm(self.dense(hidden) + before))


class Pooler(nn.Cell):
    """BERT's own summary of a text: its first token through a dense layer and tanh."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = nn.Dense(config.hidden_size, config.hidden_size)

    def construct(self, hidden: Tensor) -> Tensor:
        """(sentences, tokens, hidden_size) to (sentences, hidden_size)."""
        return ops.tanh(self.dense(hidden[:, 0]))
