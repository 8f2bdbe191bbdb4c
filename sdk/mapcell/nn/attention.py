"""Multi-head attention.

Source: https://www.mindspore.cn/docs/en/master/api_python/nn/mindspore.nn.MultiheadAttention.html
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..common.dtype import Type, float32
from ..common.initialised import initialised
from ..common.initializer import XavierNormal
from ..common.tensor import Tensor, unwrap, wrap
from ..kernels import attention as kernel
from ..kernels.linear import dense
from ..kernels.promotion import Array
from .cell import Cell
from .checks import positive
from .dense import Dense


class MultiheadAttention(Cell):
    """query (L, N, E), key (S, N, kdim), value (S, N, vdim) -> output (L, N, E) and weights (N, L, S).

    With `batch_first` N comes first; without a batch N is left out everywhere.

    Args:
        dropout: in training, the share of the weights that is zeroed.
        add_bias_kv, add_zero_attn: one more key and value for all: learnt, or zeros.
        kdim, vdim: widths of key and value if not E; then there are three projections instead of one.

    Raises:
        ValueError: `num_heads` does not divide `embed_dim`; at the call shapes that do not fit.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        has_bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: Type = float32,
    ) -> None:
        super().__init__()
        self.embed_dim = positive(embed_dim, "embed_dim", "MultiheadAttention")
        self.num_heads = positive(num_heads, "num_heads", "MultiheadAttention")
        if embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: {num_heads} heads do not divide 'embed_dim' {embed_dim}")
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.dropout, self.batch_first, self.add_zero_attn = dropout, batch_first, add_zero_attn
        self._make_parameters(has_bias, add_bias_kv, dtype)
        self.out_proj = Dense(embed_dim, embed_dim, has_bias=has_bias, dtype=dtype)

    def _make_parameters(self, has_bias: bool, add_bias_kv: bool, dtype: Type) -> None:
        e = self.embed_dim
        self._same_width = self.kdim == e and self.vdim == e
        shapes = {"q_proj_weight": [e, e], "k_proj_weight": [e, self.kdim], "v_proj_weight": [e, self.vdim]}
        if self._same_width:
            shapes = {"in_proj_weight": [3 * e, e]}
        for name, shape in shapes.items():
            setattr(self, name, initialised("xavier_uniform", shape, dtype, name=name))
        self.in_proj_bias = self.bias_k = self.bias_v = None
        if has_bias:
            self.in_proj_bias = initialised("zeros", [3 * e], dtype, name="in_proj_bias")
        if add_bias_kv:
            self.bias_k = initialised(XavierNormal(), [1, 1, e], dtype, name="bias_k")
            self.bias_v = initialised(XavierNormal(), [1, 1, e], dtype, name="bias_v")

    def _projections(self) -> list[tuple[Array, Array | None]]:
        """A weight and a bias for query, key and value; parts of the joint ones are views."""
        e = self.embed_dim
        if self._same_width:
            joint = unwrap(self.in_proj_weight)
            weights = [joint[i * e : (i + 1) * e] for i in range(3)]
        else:
            weights = [unwrap(w) for w in (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)]
        if self.in_proj_bias is None:
            return [(weight, None) for weight in weights]
        bias = unwrap(self.in_proj_bias)
        return [(weight, bias[i * e : (i + 1) * e]) for i, weight in enumerate(weights)]

    def _projected(self, query: Array, key: Array, value: Array) -> list[Array]:
        if self._same_width and query is key and key is value:
            bias = None if self.in_proj_bias is None else unwrap(self.in_proj_bias)
            return list(np.split(dense(query, unwrap(self.in_proj_weight), bias), 3, axis=-1))
        pairs = zip((query, key, value), self._projections(), strict=True)
        return [dense(x, *projection) for x, projection in pairs]

    def _extended(self, x: Array, bias: Tensor | None) -> Array:
        parts, row = [x], (1, *x.shape[1:])
        if bias is not None:
            parts.append(np.broadcast_to(unwrap(bias), row))
        if self.add_zero_attn:
            parts.append(np.zeros(row, x.dtype))
        return x if len(parts) == 1 else np.concatenate(parts)

    def _mask(self, attention: Any, padding: Any, batch: int, source: int, dtype: Any) -> Array | None:
        masks = [None if m is None else unwrap(m) for m in (attention, padding)]
        more = source - next((m.shape[-1] for m in masks if m is not None), source)
        wider = [None if m is None else np.pad(m, [(0, 0)] * (m.ndim - 1) + [(0, more)]) for m in masks]
        return kernel.joined_mask(wider[0], wider[1], batch, self.num_heads, dtype)

    def construct(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
    ) -> Any:
        """Of Bool masks, (N, S) and (L, S) or (N * heads, L, S), True hides; floating ones are added to the scores.

        Returns (output, weights), the weights averaged over the heads unless told not to, or (output,).
        """
        batched = query.ndim == 3
        sequences = self._sequences((query, key, value), batched)
        if not batched and key_padding_mask is not None:
            key_padding_mask = key_padding_mask.expand_dims(0)
        q, k, v = self._projected(*sequences)
        k, v = self._extended(k, self.bias_k), self._extended(v, self.bias_v)
        mask = self._mask(attn_mask, key_padding_mask, q.shape[1], k.shape[0], q.dtype)
        parts = [kernel.split_heads(x, self.num_heads) for x in (q, k, v)]
        attended, weights = self._attend(parts[0], parts[1], parts[2], mask)
        out = self._restored(self.out_proj(wrap(kernel.merge_heads(attended))), batched)
        if not need_weights:
            return (out,)
        shown = weights.mean(axis=1) if average_attn_weights else weights
        return out, wrap(shown if batched else shown[0])

    def _attend(self, q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, Array]:
        attended, weights = kernel.attend(q, k, v, mask)
        if self.training and self.dropout:
            weights = unwrap(ops.dropout(wrap(weights), self.dropout))
            attended = np.matmul(weights, v)
        return attended, weights

    def _sequences(self, tensors: tuple[Tensor, ...], batched: bool) -> list[Array]:
        widths = (self.embed_dim, self.kdim, self.vdim)
        for tensor, width in zip(tensors, widths, strict=True):
            if tensor.ndim != 2 + batched or tensor.shape[-1] != width:
                raise ValueError(
                    f"MultiheadAttention: expected {2 + batched} axes, the last one of {width}, not {tensor.shape}"
                )
        arrays = [unwrap(tensor) for tensor in tensors]
        same = arrays[0] is arrays[1] is arrays[2]
        if batched and not self.batch_first:
            return arrays
        turned = [x.swapaxes(0, 1) if batched else x[:, None] for x in arrays]
        return [turned[0]] * 3 if same else turned

    def _restored(self, out: Tensor, batched: bool) -> Tensor:
        if not batched:
            return out.squeeze(1)
        return out.swapaxes(0, 1) if self.batch_first else out
