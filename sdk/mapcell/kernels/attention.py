"""Scaled dot-product attention of several heads. Sequences are (length, batch, width)."""

from __future__ import annotations

from math import sqrt

import numpy as np

from .activation import softmax
from .half import in_float32
from .promotion import Array, settled


def split_heads(x: Array, heads: int) -> Array:
    """(length, batch, width) -> (batch, heads, length, width / heads), a view."""
    length, batch, width = x.shape
    return x.reshape(length, batch, heads, width // heads).transpose(1, 2, 0, 3)


def merge_heads(x: Array) -> Array:
    """(batch, heads, length, width / heads) -> (length, batch, width)."""
    batch, heads, length, width = x.shape
    return x.transpose(2, 0, 1, 3).reshape(length, batch, heads * width)


def additive(mask: Array, dtype: np.dtype[np.float32]) -> Array:
    """A mask to add to the scores: of a bool mask True is hidden (-inf), a floating one is added as it is."""
    if mask.dtype.kind != "b":
        return mask.astype(dtype)
    out = np.zeros(mask.shape, dtype)
    out[mask] = -np.inf
    return out


def joined_mask(
    attention: Array | None, padding: Array | None, batch: int, heads: int, dtype: np.dtype[np.float32]
) -> Array | None:
    """Both masks as one that broadcasts to the scores (batch, heads, length, source).

    `attention` is (length, source) or (batch * heads, length, source), `padding` (batch, source). ValueError otherwise.
    """
    total = None
    if attention is not None:
        if attention.ndim not in (2, 3) or (attention.ndim == 3 and attention.shape[0] != batch * heads):
            raise ValueError(f"attn_mask: expected (L, S) or ({batch * heads}, L, S), not {attention.shape}")
        total = additive(attention, dtype)
        if total.ndim == 3:
            total = total.reshape(batch, heads, *total.shape[1:])
    if padding is not None:
        if padding.ndim != 2 or padding.shape[0] != batch:
            raise ValueError(f"key_padding_mask: expected ({batch}, S), not {padding.shape}")
        hidden = additive(padding, dtype)[:, None, None, :]
        total = hidden if total is None else settled(total + hidden)
    return total


@in_float32
def attend(query: Array, key: Array, value: Array, mask: Array | None) -> tuple[Array, Array]:
    """softmax(query @ key.T / sqrt(width) + mask) @ value, all (batch, heads, length, width), and the softmax."""
    scores = np.matmul(query * np.asarray(1 / sqrt(query.shape[-1]), query.dtype), key.swapaxes(-1, -2))
    if mask is not None:
        scores += mask
    weights = softmax(scores)
    return np.matmul(weights, value), weights
