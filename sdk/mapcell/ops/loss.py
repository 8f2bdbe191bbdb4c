"""Losses. `reduction` is "none", "mean" or "sum" (ValueError otherwise).

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

import numpy as np

from ..common.tensor import Tensor, wrap
from ..kernels import activation
from ..kernels import loss as kernel
from ..kernels.promotion import Array, settled
from ._call import arrays, maybe


def _paired(a: Tensor, b: Tensor, who: str) -> tuple[Array, Array]:
    x, y = arrays((a, b), who)
    return x, y


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The squared error."""
    return wrap(kernel.reduced(kernel.squared_error(*_paired(input, target, "mse_loss")), reduction))


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The absolute error."""
    return wrap(kernel.reduced(kernel.absolute_error(*_paired(input, target, "l1_loss")), reduction))


def smooth_l1_loss(input: Tensor, target: Tensor, beta: float = 1.0, reduction: str = "none") -> Tensor:
    """The squared error over 2 beta below `beta`, the absolute error less beta / 2 beyond. ValueError for beta < 0."""
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: 'beta' must not be negative, but it is {beta}")
    return wrap(kernel.reduced(kernel.smooth_l1(*_paired(input, target, "smooth_l1_loss"), beta), reduction))


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Half the squared error up to `delta`, linear beyond. ValueError unless delta > 0."""
    if delta <= 0:
        raise ValueError(f"huber_loss: 'delta' has to be positive, but it is {delta}")
    return wrap(kernel.reduced(kernel.huber(*_paired(input, target, "huber_loss"), delta), reduction))


def _reduced_by_weight(loss: Array, weights: Array, reduction: str) -> Tensor:
    if reduction == "mean":
        return wrap(settled(np.sum(loss) / np.sum(weights)).astype(loss.dtype))
    return wrap(kernel.reduced(loss, reduction))


def _likelihood(
    scores: Array, target: Array, weight: Array | None, ignore: int, reduction: str, smoothing: float
) -> Tensor:
    if scores.ndim == 1:
        scores, target = scores[None], target.reshape(1)
    loss, weights = kernel.negative_log_likelihood(scores, target, weight, ignore, smoothing)
    return _reduced_by_weight(loss, weights, reduction)


def nll_loss(
    inputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Minus the log-probability (axis 1 of `inputs`) of the class `target`; the mean is over the classes' weights."""
    x, t = _paired(inputs, target, "nll_loss")
    return _likelihood(x, t, maybe(weight, "nll_loss"), ignore_index, reduction, label_smoothing)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """`nll_loss` of log_softmax(input, 1); a floating `target` of the same shape holds the classes' probabilities."""
    x, t = _paired(input, target, "cross_entropy")
    w = maybe(weight, "cross_entropy")
    if t.dtype.kind not in "iu":
        loss = kernel.class_probabilities(x, t, w, label_smoothing)
        return wrap(kernel.reduced(loss, reduction))
    log_p = activation.log_softmax(x, 1 if x.ndim > 1 else 0)
    return _likelihood(log_p, t, w, ignore_index, reduction, label_smoothing)


def binary_cross_entropy(
    logits: Tensor, labels: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """The cross entropy of probabilities with labels within [0, 1]."""
    x, t = _paired(logits, labels, "binary_cross_entropy")
    return wrap(kernel.reduced(kernel.binary_cross_entropy(x, t, maybe(weight, "binary_cross_entropy")), reduction))


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(input); `pos_weight` scales its positive part."""
    who = "binary_cross_entropy_with_logits"
    x, t = _paired(input, target, who)
    loss = kernel.binary_cross_entropy_with_logits(x, t, maybe(weight, who), maybe(pos_weight, who))
    return wrap(kernel.reduced(loss, reduction))


def kl_div(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """labels * (log labels - logits); "batchmean" divides the sum by the first axis."""
    loss = kernel.kl_divergence(*_paired(logits, labels, "kl_div"))
    if reduction == "batchmean":
        return wrap(settled(np.sum(loss) / loss.shape[0]).astype(loss.dtype))
    return wrap(kernel.reduced(loss, reduction))


def hinge_embedding_loss(inputs: Tensor, targets: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """inputs where the target is 1, max(0, margin - inputs) where it is -1."""
    loss = kernel.hinge_embedding(*_paired(inputs, targets, "hinge_embedding_loss"), margin)
    return wrap(kernel.reduced(loss, reduction))


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """max(0, -target * (input1 - input2) + margin)."""
    a, b, t = arrays((input1, input2, target), "margin_ranking_loss")
    return wrap(kernel.reduced(kernel.margin_ranking(a, b, t, margin), reduction))


def soft_margin_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target * input))."""
    return wrap(kernel.reduced(kernel.soft_margin(*_paired(input, target, "soft_margin_loss")), reduction))


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """The mean over the classes (last axis) of the binary cross entropy of sigmoid(input)."""
    who = "multilabel_soft_margin_loss"
    x, t = _paired(input, target, who)
    loss = kernel.binary_cross_entropy_with_logits(x, t, maybe(weight, who), None)
    return wrap(kernel.reduced(settled(loss.mean(axis=-1)), reduction))


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1. ValueError unless -1 <= margin <= 1."""
    if not -1 <= margin <= 1:
        raise ValueError(f"cosine_embedding_loss: 'margin' has to be within [-1, 1], but it is {margin}")
    a, b, t = arrays((input1, input2, target), "cosine_embedding_loss")
    return wrap(kernel.reduced(kernel.cosine_embedding(a, b, t, margin), reduction))


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-06,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """max(0, |anchor - positive| - |anchor - negative| + margin) with p-norms over the last axis."""
    a, b, c = arrays((anchor, positive, negative), "triplet_margin_loss")
    return wrap(kernel.reduced(kernel.triplet_margin(a, b, c, float(margin), p, eps, swap), reduction))


def gaussian_nll_loss(
    x: Tensor, target: Tensor, var: Tensor, full: bool = False, eps: float = 1e-06, reduction: str = "mean"
) -> Tensor:
    """The likelihood of `target` under normal distributions of mean `x` and variance `var`. ValueError for var < 0."""
    a, t, v = arrays((x, target, var), "gaussian_nll_loss")
    if np.any(v < 0):
        raise ValueError("gaussian_nll_loss: 'var' must not be negative")
    return wrap(kernel.reduced(kernel.gaussian(a, t, v, full, eps), reduction))
