"""Tensors, Parameters, dtypes and initializers."""

from __future__ import annotations

from . import dtype as dtype
from .parameter import Parameter as Parameter
from .parameter import ParameterTuple as ParameterTuple
from .seed import get_seed as get_seed
from .seed import set_seed as set_seed
from .tensor import Tensor as Tensor
from .tensor import tensor as tensor
