"""Layers that look rows up in a table.

Source: https://www.mindspore.cn/docs/en/master/api_python/nn/mindspore.nn.Embedding.html
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..common.dtype import Type, float32
from ..common.initializer import Initializer, Normal, initializer
from ..common.parameter import Parameter
from ..common.tensor import Tensor, unwrap, wrap
from ..kernels.promotion import Array
from .cell import Cell
from .checks import boolean, integer, positive


class _WithZeros(Initializer):
    """Another initializer's values, but zeros in one row."""

    def __init__(self, initializer: Initializer, row: int) -> None:
        super().__init__(initializer=initializer, row=row)
        self._inner, self._row = initializer, row

    def _initialize(self, arr: Array) -> None:
        self._inner(arr)
        arr[self._row] = 0


def _zeroed(table: Tensor, row: int) -> Tensor:
    """`table` with zeros in one row; it stays without elements if it has none yet."""
    if table.has_init:
        return initializer(_WithZeros(table.init, row), table.shape, table.dtype)
    values: Array = unwrap(table).copy()
    values[row] = 0
    return wrap(values)


def _padding(index: int | None, rows: int, who: str) -> int | None:
    if index is not None and not 0 <= integer(index, "padding_idx", who) < rows:
        raise ValueError(f"{who}: 'padding_idx' has to be within [0, {rows}), but it is {index}")
    return index


class Embedding(Cell):
    """The rows of `embedding_table` (vocab_size, embedding_size) at integer ids (...): (..., embedding_size).

    Args:
        use_one_hot: kept; rows are always looked up.
        embedding_table: as `init` of `initializer`.
        dtype: shown only: like MindSpore's, the table is Float32 unless `embedding_table` is a Tensor.
        padding_idx: the row that starts as zeros.

    Raises:
        TypeError: sizes that are no ints; at the call ids that are no integers.
        ValueError: sizes below 1, `padding_idx` outside the table.
        RuntimeError: at the call an id outside the table; negative ones count from its end.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        use_one_hot: bool = False,
        embedding_table: Any = "normal",
        dtype: Type = float32,
        padding_idx: int | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size = positive(vocab_size, "vocab_size", "Embedding")
        self.embedding_size = positive(embedding_size, "embedding_size", "Embedding")
        self.use_one_hot = boolean(use_one_hot, "use_one_hot", "Embedding")
        self.dtype = dtype
        self.padding_idx = _padding(padding_idx, vocab_size, "Embedding")
        table = initializer(embedding_table, [vocab_size, embedding_size])
        if padding_idx is not None:
            table = _zeroed(table, padding_idx)
        self.embedding_table = Parameter(table, name="embedding_table")

    def construct(self, ids: Tensor) -> Tensor:
        return ops.embedding(ids, self.embedding_table)

    def extend_repr(self) -> str:
        return (
            f"vocab_size={self.vocab_size}, embedding_size={self.embedding_size}, use_one_hot={self.use_one_hot}, "
            f"embedding_table={self.embedding_table}, dtype={self.dtype}, padding_idx={self.padding_idx}"
        )


class EmbeddingExt(Cell):
    """The rows of `weight` (num_embeddings, embedding_dim) at integer ids (...): (..., embedding_dim).

    `max_norm` scales down rows whose `norm_type`-norm is larger. The other arguments concern training. Errors as in
    Embedding.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        dtype: Type | None = None,
    ) -> None:
        super().__init__()
        del scale_grad_by_freq, sparse
        self.num_embeddings = positive(num_embeddings, "num_embeddings", "EmbeddingExt")
        self.embedding_dim = positive(embedding_dim, "embedding_dim", "EmbeddingExt")
        self.padding_idx = _padding(padding_idx, num_embeddings, "EmbeddingExt")
        self.max_norm, self.norm_type = max_norm, norm_type
        init = Normal(1.0) if _weight is None else _weight
        table = initializer(init, [num_embeddings, embedding_dim], dtype or float32)
        if padding_idx is not None and _weight is None:
            table = _zeroed(table, padding_idx)
        self.weight = Parameter(table, name="weight", requires_grad=not _freeze)

    def construct(self, input: Tensor) -> Tensor:
        return ops.embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type)


class EmbeddingLookup(Cell):
    """The rows of `embedding_table` (vocab_size, embedding_size) at integer ids (...): (..., embedding_size).

    `max_norm` scales down rows whose 2-norm is larger. `target` and `slice_mode` concern clusters. Errors as Embedding.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        param_init: Any = "normal",
        target: str = "CPU",
        slice_mode: str = "batch_slice",
        manual_shapes: Any = None,
        max_norm: float | None = None,
        sparse: bool = True,
        dtype: Type = float32,
    ) -> None:
        super().__init__()
        del manual_shapes, sparse
        self.vocab_size = positive(vocab_size, "vocab_size", "EmbeddingLookup")
        self.embedding_size = positive(embedding_size, "embedding_size", "EmbeddingLookup")
        if target not in ("CPU", "DEVICE"):
            raise ValueError(f"EmbeddingLookup: 'target' has to be 'CPU' or 'DEVICE', not {target!r}")
        self.target, self.slice_mode, self.max_norm = target, slice_mode, max_norm
        table = initializer(param_init, [vocab_size, embedding_size], dtype)
        self.embedding_table = Parameter(table, name="embedding_table")

    def construct(self, indices: Tensor) -> Tensor:
        rows = ops.embedding(indices, self.embedding_table)
        if self.max_norm is None:
            return rows
        norms = np.sqrt(np.sum(np.square(unwrap(rows)), axis=-1, keepdims=True))
        scale = np.asarray(self.max_norm / np.maximum(norms, self.max_norm))
        return wrap((unwrap(rows) * scale).astype(rows.dtype.numpy))
