"""Tensors, Parameters, dtypes and initializers."""

from __future__ import annotations

from . import dtype as dtype
from .tensor import Tensor as Tensor
from .tensor import tensor as tensor
