"""BERT's encoder in plain NumPy and float64: an oracle that shares no code with mapcell's layers.

Source: BERT, https://arxiv.org/abs/1810.04805, with mean pooling as sentence-transformers does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Array = NDArray[np.float64]
HEADS = 12
LAYERS = 6
EPSILON = 1e-12


def embeddings(weights: Mapping[str, NDArray[Any]], ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Array:
    """Sentence embeddings (sentences, hidden) of length 1."""
    hidden = last_hidden_state(weights, ids, mask)
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return np.asarray(mean / np.linalg.norm(mean, axis=-1, keepdims=True))


def last_hidden_state(weights: Mapping[str, NDArray[Any]], ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Array:
    """The encoder's output (sentences, tokens, hidden)."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: ids.shape[1]] + w["embeddings.token_type_embeddings.weight"][0]
    x = _normalised(w, "embeddings.LayerNorm", x)
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        attended = _dense(w, f"{at}.attention.output.dense", _attention(w, f"{at}.attention.self", x, mask))
        x = _normalised(w, f"{at}.attention.output.LayerNorm", attended + x)
        wide = _dense(w, f"{at}.intermediate.dense", x)
        wide = wide * (1 + erf(wide / np.sqrt(2))) / 2
        x = _normalised(w, f"{at}.output.LayerNorm", _dense(w, f"{at}.output.dense", wide) + x)
    return x


def _dense(w: Mapping[str, Array], name: str, x: Array) -> Array:
    return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])


def _normalised(w: Mapping[str, Array], name: str, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return np.asarray(centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"])


def _attention(w: Mapping[str, Array], name: str, x: Array, mask: NDArray[np.int64]) -> Array:
    parts = (_dense(w, f"{name}.{part}", x).reshape(*x.shape[:2], HEADS, -1) for part in ("query", "key", "value"))
    q, k, v = (part.swapaxes(1, 2) for part in parts)
    scores = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1])
    scores = np.where(mask[:, None, None, :] == 1, scores, -np.inf)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    return np.asarray((share @ v).swapaxes(1, 2).reshape(x.shape))
