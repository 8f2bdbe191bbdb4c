"""Networks whose parameters are views of shared memory.

MindSpore's names for networks, Tensors and checkpoints, computed with NumPy for inference; and beside them what is
ours: ``attach``, ``bind``, ``safe_open``.
"""

from __future__ import annotations

import sys as _sys

from . import context as context
from . import nn as nn
from .common import dtype as dtype
from .common.dtype import (
    bfloat16 as bfloat16,
)
from .common.dtype import (
    bool_ as bool_,
)
from .common.dtype import (
    byte as byte,
)
from .common.dtype import (
    complex64 as complex64,
)
from .common.dtype import (
    complex128 as complex128,
)
from .common.dtype import (
    double as double,
)
from .common.dtype import (
    dtype_to_nptype as dtype_to_nptype,
)
from .common.dtype import (
    dtype_to_pytype as dtype_to_pytype,
)
from .common.dtype import (
    float8_e4m3fn as float8_e4m3fn,
)
from .common.dtype import (
    float8_e5m2 as float8_e5m2,
)
from .common.dtype import (
    float16 as float16,
)
from .common.dtype import (
    float32 as float32,
)
from .common.dtype import (
    float64 as float64,
)
from .common.dtype import (
    half as half,
)
from .common.dtype import (
    int8 as int8,
)
from .common.dtype import (
    int16 as int16,
)
from .common.dtype import (
    int32 as int32,
)
from .common.dtype import (
    int64 as int64,
)
from .common.dtype import (
    pytype_to_dtype as pytype_to_dtype,
)
from .common.dtype import (
    single as single,
)
from .common.dtype import (
    uint8 as uint8,
)
from .common.dtype import (
    uint16 as uint16,
)
from .common.dtype import (
    uint32 as uint32,
)
from .common.dtype import (
    uint64 as uint64,
)
from .common.initializer import Initializer as Initializer
from .common.parameter import Parameter as Parameter
from .common.parameter import ParameterTuple as ParameterTuple
from .common.seed import get_seed as get_seed
from .common.seed import set_seed as set_seed
from .common.tensor import Tensor as Tensor
from .common.tensor import from_dlpack as from_dlpack
from .common.tensor import is_tensor as is_tensor
from .common.tensor import tensor as tensor
from .context import GRAPH_MODE as GRAPH_MODE
from .context import PYNATIVE_MODE as PYNATIVE_MODE
from .context import JitConfig as JitConfig
from .context import get_context as get_context
from .context import jit as jit
from .context import lazy_inline as lazy_inline
from .context import reset_auto_parallel_context as reset_auto_parallel_context
from .context import set_auto_parallel_context as set_auto_parallel_context
from .context import set_context as set_context
from .context import set_device as set_device

from_numpy = Tensor.from_numpy

# `import mapcell.dtype` names the same module as `mapcell.common.dtype`: a dtype exists once.
_sys.modules[f"{__name__}.dtype"] = dtype
