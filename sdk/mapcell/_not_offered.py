"""Names of MindSpore's that are left out on purpose, so that asking for one says why and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping

from mapcell_formats.errors import NotOffered

_WHY: Mapping[str, str] = {
    "training": (
        "it trains, and this is for inference. Train with MindSpore and load the checkpoint here; for "
        "gradients alone there are mapcell.grad, mapcell.value_and_grad and ops.GradOperation"
    ),
    "transforms": (
        "of the transforms of functions only gradients are here: mapcell.grad, mapcell.value_and_grad and "
        "ops.GradOperation"
    ),
    "graphs": (
        "it compiles or stores graphs, and everything here is eager. Leave it out, or keep that part in MindSpore"
    ),
    "clusters": (
        "it divides the work between hosts or devices, and here each process runs the whole network. Start "
        "one process for each replica: they share the weights"
    ),
    "devices": "it steers an accelerator or its profiler, and everything here runs on the CPU. Leave it out",
    "sparse": "sparse Tensors are not here. Use dense ones",
    "subsets": "it is another spelling of what is in mapcell, mapcell.nn, mapcell.ops and Tensor. Use these",
}

_NAMES: Mapping[str, Mapping[str, str]] = {
    "mapcell": {
        "training": "Callback DatasetHelper FixedLossScaleManager LossMonitor Model TimeMonitor amp data_sink dataset",
        "transforms": "jvp vjp vmap",
        "graphs": "convert_model export load load_mindir parse_print rewrite save_mindir set_recursion_limit",
        "clusters": (
            "Layout build_searched_strategy communication load_distributed_checkpoint merge_sliced_parameter "
            "parallel restore_group_info_list set_algo_parameters shard"
        ),
        "devices": "Profiler hal profiler run_check runtime set_offload_context",
        "sparse": "COOTensor CSRTensor RowTensor SparseTensor",
        "subsets": "mint numpy scipy",
    },
    "mapcell.nn": {
        "training": (
            "Adagrad Adam AdamWeightDecay AdaptiveLR CosineDecayLR DynamicLossScaleUpdateCell ExponentialDecayLR "
            "FTRL ForwardValueAndGrad Lamb LARS LazyAdam Momentum Optimizer PolynomialDecayLR ProximalAdagrad "
            "RMSProp SGD TrainOneStepCell TrainOneStepWithLossScaleCell WarmUpLR WithEvalCell WithGradCell "
            "WithLossCell exponential_decay_lr learning_rate_schedule piecewise_constant_lr warmup_lr"
        ),
        "graphs": "GraphCell",
        "clusters": "DistributedGradReducer GetNextSingleOp MicroBatchInterleaved PipelineCell",
    },
    "mapcell.ops": {
        "training": "Adam ApplyMomentum SGD clip_by_global_norm clip_by_norm",
        "transforms": "HyperMap Jvp Map MultitypeFuncGraph Vjp derivative jacfwd jacrev jet jvp vjp vmap",
        "graphs": "Custom ImageSummary InsertGradientOf HistogramSummary HookBackward ScalarSummary TensorSummary",
        "clusters": "AllGather AllReduce AllToAll Broadcast NeighborExchange Receive Reduce ReduceScatter Send",
    },
}


def error_for(package: str, name: str) -> Exception:
    """NotOffered, an AttributeError, with its reason when the name is MindSpore's; else a plain AttributeError."""
    for why, names in _NAMES.get(package, {}).items():
        if name in names.split():
            return NotOffered(f"{package}.{name} is not offered: {_WHY[why]}")
    return AttributeError(f"module {package!r} has no attribute {name!r}")
