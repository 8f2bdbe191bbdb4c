"""Losses of each element or sample, before they are reduced. `reduced` takes their mean or sum."""

from __future__ import annotations

import numpy as np

from .activation import log_softmax
from .half import in_float32
from .promotion import Array, settled

REDUCTIONS = ("none", "mean", "sum")


@in_float32
def reduced(loss: Array, reduction: str) -> Array:
    """`loss` itself ("none"), its "mean" or its "sum". ValueError otherwise."""
    match reduction:
        case "none":
            return loss
        case "mean":
            return settled(np.mean(loss))
        case "sum":
            return settled(np.sum(loss))
        case _:
            raise ValueError(f"'reduction' has to be one of {', '.join(REDUCTIONS)}, not {reduction!r}")


@in_float32
def squared_error(x: Array, target: Array) -> Array:
    """(x - target)^2."""
    return settled(np.square(x - target))


@in_float32
def absolute_error(x: Array, target: Array) -> Array:
    """|x - target|."""
    return settled(np.abs(x - target))


@in_float32
def smooth_l1(x: Array, target: Array, beta: float) -> Array:
    """Half the squared error over beta below `beta`, beyond it the absolute error less beta / 2."""
    error = np.abs(x - target)
    if beta == 0:
        return settled(error)
    near = error * error * np.asarray(0.5 / beta, x.dtype)
    near = error * error * np.asarray(0.5 / beta, x.dtype)
    return settled(np.where(error < beta, near, error - np.asarray(beta / 2, x.dtype)))


@in_float32
def huber(x: Array, target: Array, delta: float) -> Array:
    """Half the squared error up to `delta`, beyond it delta * (error - delta / 2)."""
    error = np.abs(x - target)
    bound = np.asarray(delta, x.dtype)
    return settled(np.where(error <= bound, error * error * np.asarray(0.5, x.dtype), bound * (error - bound / 2)))


@in_float32
def negative_log_likelihood(
    scores: Array, target: Array, weight: Array | None, ignore_index: int, smoothing: float = 0.0
) -> tuple[Array, Array]:
    """-scores at the class `target` (axis 1 of scores), weighted, and the weights; ignored samples have weight 0.

    With `smoothing` every class takes part of the target.
    """
    classes = scores.shape[1]
    known = target != ignore_index
    at = np.where(known, target, 0).astype(np.int64)
    per_class = np.ones(classes, scores.dtype) if weight is None else weight.astype(scores.dtype)
    shape = (1, -1, *(1,) * (scores.ndim - 2))
    weights = np.where(known, per_class[at], np.zeros((), scores.dtype))
    loss = -np.take_along_axis(scores, at[:, None], axis=1)[:, 0] * weights
    if smoothing:
        everywhere = np.where(known, -np.sum(scores * per_class.reshape(shape), axis=1), np.zeros((), scores.dtype))
        part = np.asarray(smoothing / classes, scores.dtype)
        loss = loss * np.asarray(1 - smoothing, scores.dtype) + everywhere * part
    return loss, weights


@in_float32
def class_probabilities(logits: Array, target: Array, weight: Array | None, smoothing: float) -> Array:
    """The cross entropy of each sample with `target` as the classes' probabilities (axis 1)."""
    wanted = target * np.asarray(1 - smoothing, logits.dtype) + np.asarray(smoothing / logits.shape[1], logits.dtype)
    if weight is not None:
        wanted = wanted * weight.reshape(1, -1, *(1,) * (logits.ndim - 2))
    return -settled(np.sum(log_softmax(logits, 1) * wanted, axis=1))


@in_float32
def binary_cross_entropy(x: Array, target: Array, weight: Array | None) -> Array:
    """-(t log x + (1 - t) log(1 - x)) of probabilities, no logarithm below -100."""
    one, floor = np.ones((), x.dtype), np.asarray(-100, x.dtype)
    loss = -(target * np.maximum(np.log(x), floor) + (one - target) * np.maximum(np.log(one - x), floor))
    return settled(loss if weight is None else loss * weight)


@in_float32
def binary_cross_entropy_with_logits(
    x: Array, target: Array, weight: Array | None, positive_weight: Array | None
) -> Array:
    """`binary_cross_entropy` of sigmoid(x), without overflow; `positive_weight` scales the positive part."""
    zero, one = np.zeros((), x.dtype), np.ones((), x.dtype)
    positive, negative = np.logaddexp(zero, -x), np.logaddexp(zero, x)
    scale = one if positive_weight is None else positive_weight
    loss = target * positive * scale + (one - target) * negative
    return settled(loss if weight is None else loss * weight)


@in_float32
def kl_divergence(log_x: Array, target: Array) -> Array:
    """target * (log target - log_x), 0 where the target is 0."""
    return np.where(target > 0, target * (np.log(target) - log_x), np.zeros((), log_x.dtype))


@in_float32
def hinge_embedding(x: Array, target: Array, margin: float) -> Array:
    """x where the target is 1, max(0, margin - x) where it is -1."""
    zero = np.zeros((), x.dtype)
    return np.where(target == 1, x, np.where(target == -1, np.maximum(zero, np.asarray(margin, x.dtype) - x), zero))


@in_float32
def margin_ranking(a: Array, b: Array, target: Array, margin: float) -> Array:
    """max(0, -target * (a - b) + margin)."""
    return settled(np.maximum(np.zeros((), a.dtype), -target * (a - b) + np.asarray(margin, a.dtype)))


@in_float32
def soft_margin(x: Array, target: Array) -> Array:
    """log(1 + exp(-target * x))."""
    return settled(np.logaddexp(np.zeros((), x.dtype), -target * x))


@in_float32
def cosine_embedding(a: Array, b: Array, target: Array, margin: float) -> Array:
    """1 - cos(a, b) where the target is 1, max(0, cos(a, b) - margin) where it is -1, over the last axis."""
    tiny = np.asarray(1e-12, a.dtype)
    norms = np.sqrt((np.sum(a * a, -1) + tiny) * (np.sum(b * b, -1) + tiny))
    cosine = np.sum(a * b, -1) / norms
    apart = np.maximum(np.zeros((), a.dtype), cosine - np.asarray(margin, a.dtype))
    return np.where(target == 1, 1 - cosine, np.where(target == -1, apart, np.zeros((), a.dtype)))


@in_float32
def triplet_margin(
    anchor: Array, positive: Array, negative: Array, margin: float, p: float, eps: float, swap: bool
) -> Array:
    """max(0, |anchor - positive| - |anchor - negative| + margin), p-norms over the last axis."""

    def distance(a: Array, b: Array) -> Array:
        return settled(np.linalg.norm(a - b + np.asarray(eps, a.dtype), ord=p, axis=-1))

    far = distance(anchor, negative)
    if swap:
        far = np.minimum(far, distance(positive, negative))
    gap = distance(anchor, positive) - far + np.asarray(margin, anchor.dtype)
    return settled(np.maximum(np.zeros((), anchor.dtype), gap))


@in_float32
def gaussian(x: Array, target: Array, variance: Array, full: bool, eps: float) -> Array:
    """Half of log(variance) + (x - target)^2 / variance, variances at least `eps`; `full` adds log(2 pi) / 2."""
    bounded = np.maximum(variance, np.asarray(eps, x.dtype))
    loss = (np.log(bounded) + np.square(x - target) / bounded) * np.asarray(0.5, x.dtype)
    return settled(loss + np.asarray(0.5 * np.log(2 * np.pi), x.dtype) if full else loss)


@in_float32
def poisson(x: Array, target: Array, log_input: bool, full: bool, eps: float) -> Array:
    """exp(x) - target * x (log_input), else x - target * log(x + eps); `full` adds Stirling's approximation."""
    loss = np.exp(x) - target * x if log_input else x - target * np.log(x + np.asarray(eps, x.dtype))
    if full:
        stirling = target * np.log(target) - target + np.asarray(0.5, x.dtype) * np.log(2 * np.pi * target)
        loss = loss + np.where(target > 1, stirling, np.zeros((), x.dtype))
    return settled(loss.astype(x.dtype))


@in_float32
def focal(logits: Array, target: Array, weight: Array | None, gamma: float) -> Array:
    """-(1 - p)^gamma * log p of the target classes (axis 1), weighted; `target` are classes or their probabilities."""
    log_p = log_softmax(logits, 1)
    scaled = -np.power(1 - np.exp(log_p), np.asarray(gamma, logits.dtype)) * log_p
    if weight is not None:
        scaled = scaled * weight.reshape(1, -1, *(1,) * (logits.ndim - 2))
    if target.shape[1] == 1:
        return np.take_along_axis(scaled, target.astype(np.int64), axis=1)[:, 0]
    return settled(np.mean(scaled * target, axis=1))
