"""MindSpore's older generator of normal numbers: with it the numbers printed in its documentation come out again.

A variant of Philox4x32-10. Per tensor the key is the global seed and the counter (0, 0, tensor seed, 0): 32-bit words.
One draw is ten rounds and yields four words; the counter, incremented, and the key go on from there, never reset.
Tensors of more than 16 elements are made of 16 chunks, each with a counter of its own; they advance in lockstep here.

Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, for the original; the differences were
recovered from the numbers that MindSpore r1.5 documents.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels.promotion import Array

_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLY_0, _MULTIPLY_2 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEP = 0x9E3779B9
_ROUNDS = 10
_CHUNKS = 16
_SMALLEST = np.float32(1e-7)
# The generator's own idea of a full turn.
_TURN = np.float32(2 * 3.14)

Words = list[Array]


def standard_normal(count: int, seed: int, tensor_seed: int) -> Array:
    """`count` normal numbers as float32, those of tensor number `tensor_seed` (from 1) after ``set_seed(seed)``."""
    lengths = _chunk_lengths(count)
    counters = _counters(lengths, tensor_seed)
    draws = -(-max(lengths) // 4)
    words = np.stack(_draw_all(counters, seed, draws))
    normal = _box_muller(words).transpose(2, 0, 1).reshape(len(lengths), -1)
    return np.concatenate([chunk[:length] for chunk, length in zip(normal, lengths, strict=True)])


def _chunk_lengths(count: int) -> list[int]:
    if count <= _CHUNKS:
        return [count]
    each = count // _CHUNKS
    return [each] * (_CHUNKS - 1) + [count - each * (_CHUNKS - 1)]


def _counters(lengths: list[int], tensor_seed: int) -> Words:
    start = np.array([(length * i + 3) // 4 if i else 0 for i, length in enumerate(lengths)], np.uint64)
    zeros = np.zeros_like(start)
    return [start & _MASK, start >> _SHIFT, zeros + np.uint64(tensor_seed & 0xFFFFFFFF), zeros]


def _draw_all(counter: Words, seed: int, draws: int) -> list[Any]:
    key, out = seed & 0xFFFFFFFF, []
    for _ in range(draws):
        for _ in range(_ROUNDS):
            counter = _round(counter, np.uint64(key))
            key = (key + _KEY_STEP) & 0xFFFFFFFF
        counter = _increment(counter)
        out.append(np.stack(counter))
    return out


def _round(c: Words, key: np.uint64) -> Words:
    first, second = c[0] * _MULTIPLY_0, c[2] * _MULTIPLY_2
    return [(second >> _SHIFT) ^ c[1] ^ key, second & _MASK, (first >> _SHIFT) ^ c[3] ^ key, first & _MASK]


def _increment(c: Words) -> Words:
    out: Words = []
    carry: Array = np.ones(c[0].shape, np.uint64)
    for word in c:
        total = word + carry
        out.append(total & _MASK)
        carry = total >> _SHIFT
    return out


def _box_muller(words: Array) -> Array:
    """Words (draws, 4, chunks) to as many normal numbers."""
    mantissa = (words & np.uint64(0x7FFFFF)).astype(np.uint32)
    uniform = np.maximum((mantissa | np.uint32(0x3F800000)).view(np.float32) - np.float32(1), _SMALLEST)
    radius = np.sqrt(np.float32(-2) * np.log(uniform[:, 0::2]))
    angle = _TURN * uniform[:, 1::2]
    pairs = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=2)
    return pairs.reshape(words.shape)
