"""Tensors, Parameters, dtypes and initializers."""

from __future__ import annotations

from ..context import JitConfig as JitConfig
from ..context import jit as jit
from ..context import jit_class as jit_class
from ..context import lazy_inline as lazy_inline
from ..context import ms_function as ms_function
from . import dtype as dtype
from . import initializer as initializer
from . import parameter as parameter
from .parameter import Parameter as Parameter
from .parameter import ParameterTuple as ParameterTuple
from .seed import get_seed as get_seed
from .seed import set_seed as set_seed
from .tensor import Tensor as Tensor
from .tensor import tensor as tensor
