"""Networks whose parameters are views of shared memory.

MindSpore's names for networks, Tensors and checkpoints, computed with NumPy for inference; and beside them what is
ours: ``attach``, ``bind``, ``safe_open``.
"""

from __future__ import annotations

import sys as _sys

from mapcell_formats.errors import AccessDenied as AccessDenied
from mapcell_formats.errors import BindError as BindError
from mapcell_formats.errors import BudgetExceeded as BudgetExceeded
from mapcell_formats.errors import DaemonUnavailable as DaemonUnavailable
from mapcell_formats.errors import FormatError as FormatError
from mapcell_formats.errors import MapcellError as MapcellError
from mapcell_formats.errors import NotFound as NotFound
from mapcell_formats.errors import ProtocolError as ProtocolError
from mapcell_formats.errors import StagingFailed as StagingFailed
from mapcell_formats.errors import UnsupportedFormat as UnsupportedFormat

from . import context as context
from . import nn as nn
from . import ops as ops
from .attaching import attach as attach
from .binding import bind as bind
from .common import dtype as dtype
from .common.dtype import dtype_to_nptype as dtype_to_nptype
from .common.dtype import dtype_to_pytype as dtype_to_pytype
from .common.dtype import pytype_to_dtype as pytype_to_dtype
from .common.initializer import Initializer as Initializer
from .common.parameter import Parameter as Parameter
from .common.parameter import ParameterTuple as ParameterTuple
from .common.seed import get_seed as get_seed
from .common.seed import set_seed as set_seed
from .common.tensor import Tensor as Tensor
from .common.tensor import from_dlpack as from_dlpack
from .common.tensor import is_tensor as is_tensor
from .common.tensor import tensor as tensor
from .connection import daemon_status as daemon_status
from .connection import disconnect as disconnect
from .context import GRAPH_MODE as GRAPH_MODE
from .context import PYNATIVE_MODE as PYNATIVE_MODE
from .context import JitConfig as JitConfig
from .context import get_context as get_context
from .context import jit as jit
from .context import jit_class as jit_class
from .context import lazy_inline as lazy_inline
from .context import ms_function as ms_function
from .context import reset_auto_parallel_context as reset_auto_parallel_context
from .context import set_auto_parallel_context as set_auto_parallel_context
from .context import set_context as set_context
from .context import set_device as set_device
from .safe_open import safe_open as safe_open
from .train.serialization import ckpt_to_safetensors as ckpt_to_safetensors
from .train.serialization import load_checkpoint as load_checkpoint
from .train.serialization import load_checkpoint_async as load_checkpoint_async
from .train.serialization import load_param_into_net as load_param_into_net
from .train.serialization import load_segmented_checkpoints as load_segmented_checkpoints
from .train.serialization import safetensors_to_ckpt as safetensors_to_ckpt
from .train.serialization import save_checkpoint as save_checkpoint
from .watching import watch as watch
from .weights import Weights as Weights

from_numpy = Tensor.from_numpy

bool_ = dtype.bool_
int8, int16, int32, int64 = dtype.int8, dtype.int16, dtype.int32, dtype.int64
uint8, uint16, uint32, uint64 = dtype.uint8, dtype.uint16, dtype.uint32, dtype.uint64
float16, float32, float64, bfloat16 = dtype.float16, dtype.float32, dtype.float64, dtype.bfloat16
float8_e4m3fn, float8_e5m2 = dtype.float8_e4m3fn, dtype.float8_e5m2
complex64, complex128 = dtype.complex64, dtype.complex128
byte, half, single, double = dtype.byte, dtype.half, dtype.single, dtype.double

# `import mapcell.dtype` names the same module as `mapcell.common.dtype`: a dtype exists once.
_sys.modules[f"{__name__}.dtype"] = dtype
