"""Networks whose parameters are views of shared memory.

MindSpore's names for networks, Tensors and checkpoints, computed with NumPy for inference; and beside them what is
ours: ``attach``, ``bind``, ``safe_open``.
"""

from __future__ import annotations

from ._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "mapcell_formats.errors": (
            "AccessDenied BindError BudgetExceeded DaemonUnavailable DeviceFailed DeviceMemoryExceeded "
            "DeviceUnavailable FormatError GradientUnavailable MapcellError NotFound NotOffered ProtocolError "
            "StagingFailed UnsupportedFormat"
        ),
        ".": "autograd common context nn ops train",
        "._version": "__version__",
        ".attaching": "attach",
        ".autograd": "get_grad grad value_and_grad",
        ".binding": "bind",
        ".common": "dtype",
        ".common.dtype": (
            "bfloat16 bool_ byte complex128 complex64 double dtype_to_nptype dtype_to_pytype float16 float32 float64 "
            "float8_e4m3fn float8_e5m2 half int16 int32 int64 int8 pytype_to_dtype single uint16 uint32 uint64 uint8"
        ),
        ".common.initializer": "Initializer",
        ".common.parameter": "Parameter ParameterTuple",
        ".common.seed": "get_seed set_seed",
        ".common.tensor": "from_dlpack from_numpy is_tensor Tensor tensor",
        ".connection": "daemon_status disconnect",
        ".context": (
            "constexpr get_auto_parallel_context get_context GRAPH_MODE jit jit_class JitConfig lazy_inline "
            "ms_function mutable no_inline ParallelMode PYNATIVE_MODE recompute reset_auto_parallel_context "
            "set_auto_parallel_context set_context set_device"
        ),
        ".tensor_file": "safe_open",
        ".train.converting": "ckpt_to_safetensors load_segmented_checkpoints safetensors_to_ckpt",
        ".train.loading": "load_checkpoint load_checkpoint_async",
        ".train.matching": "load_param_into_net",
        ".train.saving": "save_checkpoint",
        ".watching": "watch",
        ".weights": "Weights",
    },
)
