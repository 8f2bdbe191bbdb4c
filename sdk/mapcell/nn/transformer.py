"""Transformer layers and stacks of them.

Sequences are (length, batch, d_model), or (batch, length, d_model) with `batch_first`. Of Bool masks True hides.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.nn.html
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from .. import ops
from ..common.dtype import Type, float32
from ..common.initializer import initializer
from ..common.tensor import Tensor
from .activation import GELU, ReLU
from .attention import MultiheadAttention
from .basic import Dropout
from .cell import Cell
from .containers import CellList
from .dense import Dense
from .normalization import LayerNorm

Activation = str | Cell | Callable[..., Any]


def _activation(value: Activation, who: str) -> Any:
    """ValueError unless "relu", "gelu" (by the error function), a ReLU, a GELU, or a function."""
    if isinstance(value, str):
        if value not in ("relu", "gelu"):
            raise ValueError(f"{who}: 'activation' has to be 'relu' or 'gelu', not {value!r}")
        return ops.relu if value == "relu" else ops.gelu
    if isinstance(value, Cell) and not isinstance(value, ReLU | GELU):
        raise ValueError(f"{who}: 'activation' has to be nn.ReLU or nn.GELU, not {value!r}")
    if not callable(value):
        raise ValueError(f"{who}: 'activation' has to be a str, a Cell or a function, not {type(value).__name__}")
    return value


class TransformerEncoderLayer(Cell):
    """Self-attention and two dense layers, each added to its input and normalised, before it with `norm_first`.

    Shapes stay as they are. ValueError for another activation, or heads that do not divide `d_model`.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        dtype: Type = float32,
    ) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first, dtype=dtype)
        self.dense1 = Dense(d_model, dim_feedforward, dtype=dtype)
        self.dropout = Dropout(p=dropout)
        self.dense2 = Dense(dim_feedforward, d_model, dtype=dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm((d_model,), epsilon=layer_norm_eps, dtype=dtype)
        self.norm2 = LayerNorm((d_model,), epsilon=layer_norm_eps, dtype=dtype)
        self.dropout1 = Dropout(p=dropout)
        self.dropout2 = Dropout(p=dropout)
        self.activation = _activation(activation, "TransformerEncoderLayer")

    def construct(
        self, src: Tensor, src_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None
    ) -> Tensor:
        if self.norm_first:
            x = src + self._attention(self.norm1(src), src_mask, src_key_padding_mask)
            return x + self._feed_forward(self.norm2(x))
        x = self.norm1(src + self._attention(src, src_mask, src_key_padding_mask))
        return self.norm2(x + self._feed_forward(x))  # type: ignore[no-any-return]

    def _attention(self, x: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor:
        out = self.self_attn(x, x, x, attn_mask=mask, key_padding_mask=padding, need_weights=False)[0]
        return self.dropout1(out)  # type: ignore[no-any-return]

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.activation(self.dense1(x)))
        return self.dropout2(self.dense2(hidden))  # type: ignore[no-any-return]


class TransformerDecoderLayer(Cell):
    """Self-attention, attention to `memory` and two dense layers, each added to its input and normalised.

    Shapes stay as they are. ValueError for another activation, or heads that do not divide `d_model`.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        dtype: Type = float32,
    ) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first, dtype=dtype)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first, dtype=dtype)
        self.dense1 = Dense(d_model, dim_feedforward, dtype=dtype)
        self.dropout = Dropout(p=dropout)
        self.dense2 = Dense(dim_feedforward, d_model, dtype=dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm((d_model,), epsilon=layer_norm_eps, dtype=dtype)
        self.norm2 = LayerNorm((d_model,), epsilon=layer_norm_eps, dtype=dtype)
        self.norm3 = LayerNorm((d_model,), epsilon=layer_norm_eps, dtype=dtype)
        self.dropout1 = Dropout(p=dropout)
        self.dropout2 = Dropout(p=dropout)
        self.dropout3 = Dropout(p=dropout)
        self.activation = _activation(activation, "TransformerDecoderLayer")

    def construct(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        own, other = (tgt_mask, tgt_key_padding_mask), (memory_mask, memory_key_padding_mask)
        if self.norm_first:
            x = tgt + self._own_attention(self.norm1(tgt), *own)
            x = x + self._memory_attention(self.norm2(x), memory, *other)
            return x + self._feed_forward(self.norm3(x))
        x = self.norm1(tgt + self._own_attention(tgt, *own))
        x = self.norm2(x + self._memory_attention(x, memory, *other))
        return self.norm3(x + self._feed_forward(x))  # type: ignore[no-any-return]

    def _own_attention(self, x: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor:
        out = self.self_attn(x, x, x, attn_mask=mask, key_padding_mask=padding, need_weights=False)[0]
        return self.dropout1(out)  # type: ignore[no-any-return]

    def _memory_attention(self, x: Tensor, memory: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor:
        attention = self.multihead_attn(x, memory, memory, attn_mask=mask, key_padding_mask=padding, need_weights=False)
        return self.dropout2(attention[0])  # type: ignore[no-any-return]

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.activation(self.dense1(x)))
        return self.dropout3(self.dense2(hidden))  # type: ignore[no-any-return]


def _copies(layer: Cell, count: int) -> CellList:
    """`count` copies; Parameters that have no elements yet stay without."""
    copies = []
    for _ in range(count):
        memo: dict[int, Any] = {id(parameter): parameter.clone() for parameter in layer.get_parameters()}
        copies.append(copy.deepcopy(layer, memo))
    return CellList(copies)


class TransformerEncoder(Cell):
    """`num_layers` copies of `encoder_layer` one after another, and `norm` at the end if given."""

    def __init__(self, encoder_layer: Cell, num_layers: int, norm: Cell | None = None) -> None:
        super().__init__()
        self.layers = _copies(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def construct(
        self, src: Tensor, src_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None
    ) -> Tensor:
        out = src
        for layer in self.layers:
            out = layer(out, src_mask, src_key_padding_mask)
        return out if self.norm is None else self.norm(out)


class TransformerDecoder(Cell):
    """`num_layers` copies of `decoder_layer` one after another, and `norm` at the end if given."""

    def __init__(self, decoder_layer: Cell, num_layers: int, norm: Cell | None = None) -> None:
        super().__init__()
        self.layers = _copies(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def construct(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        out = tgt
        for layer in self.layers:
            out = layer(out, memory, *masks)
        return out if self.norm is None else self.norm(out)


class Transformer(Cell):
    """An encoder and a decoder: src (S, N, d_model), tgt (T, N, d_model) -> (T, N, d_model).

    ValueError for widths other than `d_model` or different batches.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        custom_encoder: Cell | None = None,
        custom_decoder: Cell | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        dtype: Type = float32,
    ) -> None:
        super().__init__()
        shared = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, dtype)
        if custom_encoder is None:
            norm = LayerNorm((d_model,), epsilon=layer_norm_eps, dtype=dtype)
            custom_encoder = TransformerEncoder(TransformerEncoderLayer(*shared), num_encoder_layers, norm)
        if custom_decoder is None:
            norm = LayerNorm((d_model,), epsilon=layer_norm_eps, dtype=dtype)
            custom_decoder = TransformerDecoder(TransformerDecoderLayer(*shared), num_decoder_layers, norm)
        self.encoder, self.decoder = custom_encoder, custom_decoder
        for parameter in self.get_parameters():
            if parameter.ndim > 1:
                parameter.set_data(initializer("xavier_normal", parameter.shape, parameter.dtype))
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first

    def construct(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        batch = 0 if self.batch_first else 1
        if src.ndim == 3 and tgt.ndim == 3 and src.shape[batch] != tgt.shape[batch]:
            raise ValueError(f"Transformer: the batches of 'src' {src.shape} and 'tgt' {tgt.shape} differ")
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise ValueError(
                f"Transformer: 'src' and 'tgt' have to be {self.d_model} wide, not {src.shape}, {tgt.shape}"
            )
        memory = self.encoder(src, src_mask, src_key_padding_mask)
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        return self.decoder(tgt, memory, *masks)  # type: ignore[no-any-return]
