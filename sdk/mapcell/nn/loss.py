"""Losses as layers. `reduction` is "mean", "sum" or "none" (ValueError otherwise).

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.nn.html
"""

from __future__ import annotations

from .. import ops
from ..common.tensor import Tensor, unwrap, wrap
from ..kernels import loss as kernel
from .activation import LogSoftmax
from .cell import Cell
from .checks import option


class LossBase(Cell):
    """What losses share. A subclass computes the loss of each element and gives it to `get_loss`."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = option(reduction, "reduction", type(self).__name__, kernel.REDUCTIONS)

    def get_loss(self, x: Tensor, weights: float | Tensor = 1.0) -> Tensor:
        """`x` times `weights`, reduced."""
        return wrap(kernel.reduced(unwrap(x * weights), self.reduction))

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has to define construct")


class MSELoss(LossBase):
    """The squared error."""

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return ops.mse_loss(logits, labels, self.reduction)


class L1Loss(LossBase):
    """The absolute error."""

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return ops.l1_loss(logits, labels, self.reduction)


class SmoothL1Loss(LossBase):
    """The squared error over 2 beta below `beta`, the absolute error less beta / 2 beyond."""

    def __init__(self, beta: float = 1.0, reduction: str = "none") -> None:
        super().__init__(reduction)
        self.beta = beta

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return ops.smooth_l1_loss(logits, labels, self.beta, self.reduction)


class HuberLoss(LossBase):
    """Half the squared error up to `delta`, linear beyond."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return ops.huber_loss(logits, labels, self.reduction, self.delta)


class CrossEntropyLoss(LossBase):
    """The cross entropy of logits (N, C, ...) with classes (N, ...) or their probabilities (N, C, ...)."""

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        self.weight, self.ignore_index, self.label_smoothing = weight, ignore_index, label_smoothing

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return ops.cross_entropy(logits, labels, self.weight, self.ignore_index, self.reduction, self.label_smoothing)


class NLLLoss(LossBase):
    """Minus the log-probabilities (N, C, ...) of the classes (N, ...)."""

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight, self.ignore_index = weight, ignore_index

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return ops.nll_loss(logits, labels, self.weight, self.ignore_index, self.reduction)


class BCELoss(LossBase):
    """The cross entropy of probabilities with labels within [0, 1]."""

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = weight

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return ops.binary_cross_entropy(logits, labels, self.weight, self.reduction)


class BCEWithLogitsLoss(LossBase):
    """`BCELoss` of the sigmoid; `pos_weight` scales its positive part."""

    def __init__(self, reduction: str = "mean", weight: Tensor | None = None, pos_weight: Tensor | None = None) -> None:
        super().__init__(reduction)
        self.weight, self.pos_weight = weight, pos_weight

    def construct(self, input: Tensor, target: Tensor) -> Tensor:
        return ops.binary_cross_entropy_with_logits(input, target, self.weight, self.pos_weight, self.reduction)


class KLDivLoss(Cell):
    """labels * (log labels - logits); `reduction` may also be "batchmean"."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = option(reduction, "reduction", "KLDivLoss", (*kernel.REDUCTIONS, "batchmean"))

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return ops.kl_div(logits, labels, self.reduction)


class SoftmaxCrossEntropyWithLogits(LossBase):
    """The cross entropy of rows of logits with probabilities, or (sparse) with classes."""

    def __init__(self, sparse: bool = False, reduction: str = "none") -> None:
        super().__init__(reduction)
        self.sparse = sparse

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.sparse:
            return ops.cross_entropy(logits, labels, reduction=self.reduction)
        return self.get_loss(ops.cross_entropy(logits, labels, reduction="none"))


class CosineEmbeddingLoss(LossBase):
    """1 - cos where the label is 1, max(0, cos - margin) where it is -1."""

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def construct(self, logits_x1: Tensor, logits_x2: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        return ops.cosine_embedding_loss(logits_x1, logits_x2, labels, self.margin, self.reduction)


class MAELoss(LossBase):
    """The absolute error."""

    def construct(self, logits: Tensor, label: Tensor) -> Tensor:
        return ops.l1_loss(logits, label, self.reduction)


class RMSELoss(LossBase):
    """The root of the mean squared error."""

    def __init__(self) -> None:
        super().__init__()
        self.MSELoss = MSELoss()

    def construct(self, logits: Tensor, label: Tensor) -> Tensor:
        return ops.sqrt(self.MSELoss(logits, label))


class DiceLoss(LossBase):
    """1 - 2 * sum(logits * label) / (sum of both squares + smooth)."""

    def __init__(self, smooth: float = 1e-5) -> None:
        super().__init__()
        self.smooth = smooth

    def construct(self, logits: Tensor, label: Tensor) -> Tensor:
        shared = ops.sum(logits * label)
        total = ops.sum(logits * logits) + ops.sum(label * label) + self.smooth
        return 1 - (shared * 2 + self.smooth) / total


class FocalLoss(LossBase):
    """-(1 - p)^gamma * log p of the classes (N, 1, ...) in logits (N, C, ...); labels may be probabilities."""

    def __init__(self, weight: Tensor | None = None, gamma: float = 2.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight, self.gamma = weight, gamma
        self.logsoftmax = LogSoftmax(1)

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = None if self.weight is None else unwrap(self.weight)
        flat = (*logits.shape[:2], -1)
        classes = labels.reshape(labels.shape[0], labels.shape[1], -1)
        x, target = unwrap(logits.reshape(flat)), unwrap(classes)
        if logits.ndim == 2:
            x, target = x[..., 0], target[..., 0]
        return wrap(kernel.reduced(kernel.focal(x, target, weight, self.gamma), self.reduction))


class MultiLabelSoftMarginLoss(LossBase):
    """The mean over the classes of the binary cross entropy of the sigmoid."""

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = weight

    def construct(self, x: Tensor, target: Tensor) -> Tensor:
        return ops.multilabel_soft_margin_loss(x, target, self.weight, self.reduction)


class MarginRankingLoss(LossBase):
    """max(0, -target * (input1 - input2) + margin)."""

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def construct(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:  # type: ignore[override]
        return ops.margin_ranking_loss(input1, input2, target, self.margin, self.reduction)


class HingeEmbeddingLoss(LossBase):
    """logits where the label is 1, max(0, margin - logits) where it is -1."""

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return ops.hinge_embedding_loss(logits, labels, self.margin, self.reduction)


class SoftMarginLoss(LossBase):
    """log(1 + exp(-labels * logits))."""

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return ops.soft_margin_loss(logits, labels, self.reduction)


class TripletMarginLoss(LossBase):
    """max(0, |x - positive| - |x - negative| + margin) with p-norms over the last axis."""

    def __init__(
        self, p: float = 2, swap: bool = False, eps: float = 1e-6, reduction: str = "mean", margin: float = 1.0
    ) -> None:
        super().__init__(reduction)
        self.p, self.swap, self.eps, self.margin = p, swap, eps, margin

    def construct(  # type: ignore[override]
        self, x: Tensor, positive: Tensor, negative: Tensor, margin: float | Tensor = 1.0
    ) -> Tensor:
        return ops.triplet_margin_loss(
            x, positive, negative, float(margin), self.p, self.eps, self.swap, self.reduction
        )


class GaussianNLLLoss(LossBase):
    """The likelihood of labels under normal distributions of mean `logits` and variance `var`."""

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full, self.eps = full, eps

    def construct(self, logits: Tensor, labels: Tensor, var: Tensor) -> Tensor:  # type: ignore[override]
        return ops.gaussian_nll_loss(logits, labels, var, self.full, self.eps, self.reduction)


class PoissonNLLLoss(LossBase):
    """The likelihood of `target` under Poisson distributions of mean exp(input), or (log_input=False) input."""

    def __init__(self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.log_input, self.full, self.eps = log_input, full, eps

    def construct(self, input: Tensor, target: Tensor) -> Tensor:
        loss = kernel.poisson(unwrap(input), unwrap(target), self.log_input, self.full, self.eps)
        return wrap(kernel.reduced(loss, self.reduction))
