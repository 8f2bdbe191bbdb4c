"""The operators as classes: one line each, naming the function that computes and the options with their defaults.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.primitive.html
"""

from __future__ import annotations

from ..common.dtype import int32
from . import activation, adapters, create, linear, loss, math, normalization, other, pool, reduce, selection, shapes
from .primitive import of

# --- Elementwise

Abs = of("Abs", math.abs)
ACos = of("ACos", math.acos)
Acosh = of("Acosh", math.acosh)
Add = of("Add", math.add)
AddN = of("AddN", math.addn)
Asin = of("Asin", math.asin)
Asinh = of("Asinh", math.asinh)
Atan = of("Atan", math.atan)
Atan2 = of("Atan2", math.atan2)
Atanh = of("Atanh", math.atanh)
BitwiseAnd = of("BitwiseAnd", math.bitwise_and)
BitwiseOr = of("BitwiseOr", math.bitwise_or)
BitwiseXor = of("BitwiseXor", math.bitwise_xor)
Ceil = of("Ceil", math.ceil)
Cos = of("Cos", math.cos)
Cosh = of("Cosh", math.cosh)
Div = of("Div", math.div)
DivNoNan = of("DivNoNan", math.xdivy)
Equal = of("Equal", math.equal)
Erf = of("Erf", math.erf)
Erfc = of("Erfc", math.erfc)
Exp = of("Exp", math.exp)
Expm1 = of("Expm1", math.expm1)
Floor = of("Floor", math.floor)
FloorDiv = of("FloorDiv", math.floor_div)
FloorMod = of("FloorMod", math.floor_mod)
Greater = of("Greater", math.greater)
GreaterEqual = of("GreaterEqual", math.greater_equal)
Hypot = of("Hypot", math.hypot)
Inv = of("Inv", math.reciprocal)
Invert = of("Invert", math.invert)
IsFinite = of("IsFinite", math.isfinite)
IsInf = of("IsInf", math.isinf)
IsNan = of("IsNan", math.isnan)
Lerp = of("Lerp", math.lerp)
Less = of("Less", math.less)
LessEqual = of("LessEqual", math.less_equal)
Log = of("Log", math.log)
Log1p = of("Log1p", math.log1p)
LogicalAnd = of("LogicalAnd", math.logical_and)
LogicalNot = of("LogicalNot", math.logical_not)
LogicalOr = of("LogicalOr", math.logical_or)
LogicalXor = of("LogicalXor", math.logical_xor)
Maximum = of("Maximum", math.maximum)
Minimum = of("Minimum", math.minimum)
Mod = of("Mod", math.fmod)
Mul = of("Mul", math.mul)
Neg = of("Neg", math.neg)
NotEqual = of("NotEqual", math.not_equal)
Pow = of("Pow", math.pow)
RealDiv = of("RealDiv", math.true_divide)
Reciprocal = of("Reciprocal", math.reciprocal)
Rint = of("Rint", math.round)
Round = of("Round", math.round)
Rsqrt = of("Rsqrt", math.rsqrt)
Sign = of("Sign", math.sign)
Sin = of("Sin", math.sin)
Sinh = of("Sinh", math.sinh)
Sqrt = of("Sqrt", math.sqrt)
Square = of("Square", math.square)
SquaredDifference = of("SquaredDifference", adapters.squared_difference)
Sub = of("Sub", math.sub)
Tan = of("Tan", math.tan)
Trunc = of("Trunc", math.trunc)
Xdivy = of("Xdivy", math.xdivy)
Xlogy = of("Xlogy", math.xlogy)

# --- Activation

CeLU = of("CeLU", activation.celu, alpha=1.0)
Elu = of("Elu", activation.elu, alpha=1.0)
FastGeLU = FastGelu = of("FastGeLU", activation.fast_gelu)
GeLU = Gelu = of("GeLU", activation.gelu, approximate="tanh")
HShrink = of("HShrink", activation.hardshrink, lambd=0.5)
HSigmoid = of("HSigmoid", activation.hardsigmoid)
HSwish = of("HSwish", activation.hardswish)
LogSoftmax = of("LogSoftmax", activation.log_softmax, axis=-1)
Mish = of("Mish", activation.mish)
PReLU = of("PReLU", activation.prelu)
ReLU = of("ReLU", activation.relu)
ReLU6 = of("ReLU6", activation.relu6)
SeLU = of("SeLU", activation.selu)
Sigmoid = of("Sigmoid", math.sigmoid)
SiLU = of("SiLU", activation.silu)
Softmax = of("Softmax", activation.softmax, axis=-1)
Softplus = of("Softplus", activation.softplus)
SoftShrink = of("SoftShrink", activation.softshrink, lambd=0.5)
Softsign = of("Softsign", activation.softsign)
Tanh = of("Tanh", math.tanh)

# --- Matrices

BatchMatMul = of("BatchMatMul", adapters.batch_matmul, transpose_a=False, transpose_b=False)
Cdist = of("Cdist", linear.cdist, p=2.0)
Cross = of("Cross", linear.cross, dim=None)
Dense = of("Dense", linear.dense)
Einsum = of("Einsum", adapters.einsum, equation="")
MatMul = of("MatMul", adapters.matmul, transpose_a=False, transpose_b=False)
Ger = of("Ger", linear.outer)

# --- Reductions

ArgMaxWithValue = of("ArgMaxWithValue", adapters.arg_max_with_value, axis=0, keep_dims=False)
ArgMinWithValue = of("ArgMinWithValue", adapters.arg_min_with_value, axis=0, keep_dims=False)
Argmax = of("Argmax", adapters.argmax, axis=-1, output_type=int32)
Argmin = of("Argmin", adapters.argmin, axis=-1, output_type=int32)
CumProd = of("CumProd", adapters.cum_prod, exclusive=False, reverse=False)
CumSum = of("CumSum", adapters.cum_sum, exclusive=False, reverse=False)
Cummax = of("Cummax", reduce.cummax, axis=0)
Cummin = of("Cummin", reduce.cummin, axis=0)
ReduceAll = of("ReduceAll", adapters.reduce_all, keep_dims=False)
ReduceAny = of("ReduceAny", adapters.reduce_any, keep_dims=False)
ReduceMax = of("ReduceMax", adapters.reduce_max, keep_dims=False)
ReduceMean = of("ReduceMean", adapters.reduce_mean, keep_dims=False)
ReduceMin = of("ReduceMin", adapters.reduce_min, keep_dims=False)
ReduceProd = of("ReduceProd", adapters.reduce_prod, keep_dims=False)
ReduceSum = of("ReduceSum", adapters.reduce_sum, keep_dims=False, skip_mode=False)

# --- Shapes

BroadcastTo = of("BroadcastTo", shapes.broadcast_to, shape=())
Concat = of("Concat", shapes.concat, axis=0)
Diag = of("Diag", shapes.diag)
DiagPart = of("DiagPart", shapes.diagonal)
ExpandDims = of("ExpandDims", shapes.expand_dims)
Flatten = of("Flatten", shapes.flatten)
Meshgrid = of("Meshgrid", adapters.meshgrid, indexing="xy")
Rank = of("Rank", shapes.rank)
Reshape = of("Reshape", shapes.reshape)
ReverseV2 = of("ReverseV2", shapes.flip, dims=())
Roll = of("Roll", shapes.roll, shifts=0, dims=None)
Shape = of("Shape", shapes.shape)
Size = of("Size", shapes.size)
Slice = of("Slice", shapes.slice)
Split = of("Split", adapters.split, axis=0, output_num=1)
Squeeze = of("Squeeze", adapters.squeeze, axis=())
Stack = of("Stack", shapes.stack, axis=0)
StridedSlice = of(
    "StridedSlice",
    shapes.strided_slice,
    begin_mask=0,
    end_mask=0,
    ellipsis_mask=0,
    new_axis_mask=0,
    shrink_axis_mask=0,
)
Tile = of("Tile", shapes.tile)
Transpose = of("Transpose", shapes.transpose)
Unstack = of("Unstack", adapters.unstack, axis=0, num=None)

# --- Selection

Gather = of("Gather", selection.gather, batch_dims=0)
GatherD = of("GatherD", selection.gather_elements)
GatherNd = of("GatherNd", selection.gather_nd)
MaskedFill = of("MaskedFill", selection.masked_fill)
MaskedSelect = of("MaskedSelect", selection.masked_select)
NonZero = of("NonZero", selection.nonzero)
OneHot = of("OneHot", selection.one_hot, axis=-1)
ScatterNd = of("ScatterNd", selection.scatter_nd)
SearchSorted = of("SearchSorted", selection.searchsorted)
Select = of("Select", selection.select)
Sort = of("Sort", selection.sort, axis=-1, descending=False)
TensorScatterAdd = of("TensorScatterAdd", selection.tensor_scatter_add)
TensorScatterUpdate = of("TensorScatterUpdate", selection.tensor_scatter_update)
TopK = of("TopK", adapters.topk, sorted=True)
Tril = of("Tril", selection.tril, diagonal=0)
Triu = of("Triu", selection.triu, diagonal=0)
Unique = of("Unique", selection.unique)

# --- Making and passing on

Assign = of("Assign", other.assign)
AssignAdd = of("AssignAdd", other.assign_add)
AssignSub = of("AssignSub", other.assign_sub)
Cast = of("Cast", create.cast)
DType = of("DType", shapes.dtype)
Depend = of("Depend", other.depend)
Eye = of("Eye", create.eye)
Fill = of("Fill", create.fill)
Identity = of("Identity", other.identity)
LinSpace = of("LinSpace", create.linspace)
NPUAllocFloatStatus = of("NPUAllocFloatStatus", adapters.float_status)
NPUClearFloatStatus = of("NPUClearFloatStatus", adapters.float_status)
NPUGetFloatStatus = of("NPUGetFloatStatus", adapters.float_status)
Ones = of("Ones", create.ones)
OnesLike = of("OnesLike", create.ones_like)
Print = of("Print", other.print_)
Range = of("Range", create.range, maxlen=1_000_000)
ScalarToTensor = of("ScalarToTensor", create.scalar_to_tensor)
StandardNormal = of("StandardNormal", create.standard_normal, seed=0)
StopGradient = of("StopGradient", other.stop_gradient)
TupleToArray = of("TupleToArray", create.tuple_to_array)
Zeros = of("Zeros", create.zeros)
ZerosLike = of("ZerosLike", create.zeros_like)

# --- Convolution, pooling, normalisation, images

AdaptiveAvgPool2D = of("AdaptiveAvgPool2D", pool.adaptive_avg_pool2d, output_size=None)
AvgPool = of("AvgPool", adapters.avg_pool, kernel_size=1, strides=1, pad_mode="VALID", data_format="NCHW")
BatchNorm = of("BatchNorm", adapters.batch_norm, is_training=False, epsilon=1e-5, momentum=0.1, data_format="NCHW")
BiasAdd = of("BiasAdd", adapters.bias_add, data_format="NCHW")
_CONV = {"mode": 1, "pad_mode": "valid", "pad": 0, "stride": 1, "dilation": 1, "group": 1}
Conv2D = of("Conv2D", adapters.conv2d, out_channel=0, kernel_size=1, **_CONV, data_format="NCHW")
Conv3D = of("Conv3D", adapters.conv3d, out_channel=0, kernel_size=1, **_CONV, data_format="NCDHW")
DepthToSpace = of("DepthToSpace", adapters.depth_to_space, block_size=1)
Dropout = of("Dropout", adapters.dropout, keep_prob=0.5, Seed0=0, Seed1=0)
L2Normalize = of("L2Normalize", normalization.l2_normalize, axis=0, epsilon=1e-4)
LayerNorm = of("LayerNorm", adapters.layer_norm, begin_norm_axis=1, begin_params_axis=1, epsilon=1e-7)
LRN = of("LRN", normalization.lrn, depth_radius=5, bias=1.0, alpha=1.0, beta=0.5, norm_region="ACROSS_CHANNELS")
MaxPool = of("MaxPool", adapters.max_pool, kernel_size=1, strides=1, pad_mode="valid", data_format="NCHW")
MirrorPad = of("MirrorPad", adapters.mirror_pad, mode="REFLECT")
Pad = of("Pad", adapters.pad, paddings=())
PadV3 = of("PadV3", adapters.pad_v3, mode="constant", paddings_contiguous=True)
ResizeBilinearV2 = of("ResizeBilinearV2", adapters.resize_bilinear, align_corners=False, half_pixel_centers=False)
ResizeNearestNeighbor = of(
    "ResizeNearestNeighbor", adapters.resize_nearest, size=(), align_corners=False, half_pixel_centers=False
)
RmsNorm = of("RmsNorm", normalization.rms_norm, epsilon=1e-6)
SpaceToDepth = of("SpaceToDepth", adapters.space_to_depth, block_size=1)

# --- Losses

BinaryCrossEntropy = of("BinaryCrossEntropy", loss.binary_cross_entropy, reduction="mean")
KLDivLoss = of("KLDivLoss", loss.kl_div, reduction="mean")
L2Loss = of("L2Loss", adapters.l2_loss)
NLLLoss = of("NLLLoss", adapters.nll_loss, reduction="mean", ignore_index=-100)
SmoothL1Loss = of("SmoothL1Loss", loss.smooth_l1_loss, beta=1.0, reduction="none")
SoftmaxCrossEntropyWithLogits = of("SoftmaxCrossEntropyWithLogits", adapters.softmax_cross_entropy)
SparseSoftmaxCrossEntropyWithLogits = of(
    "SparseSoftmaxCrossEntropyWithLogits", adapters.sparse_softmax_cross_entropy, is_grad=False
)
