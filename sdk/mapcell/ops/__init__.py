"""Operators: functions on Tensors, and the same as classes that networks keep as members.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".activation": (
            "celu elu fast_gelu gelu glu gumbel_softmax hardshrink hardsigmoid hardswish hardtanh leaky_relu "
            "log_softmax logsigmoid mish prelu relu relu6 rrelu selu silu soft_shrink softmax softmin softplus "
            "softshrink softsign swiglu tanhshrink threshold"
        ),
        ".": "composite functional operations primitive",
        "..autograd": "get_grad grad GradOperation value_and_grad",
        ".conv": "bias_add conv1d conv2d conv3d conv3d_transpose conv_transpose2d fold unfold",
        ".create": (
            "arange bernoulli cast eye fill fills full full_like linspace logspace multinomial normal ones ones_like "
            "rand rand_like randint randn randn_like randperm range scalar_to_tensor standard_normal tril_indices "
            "triu_indices tuple_to_array type_as uniform zeros zeros_like"
        ),
        ".linear": (
            "addbmm addmm addmv addr baddbmm batch_dot bidense bmm cdist cholesky cosine_similarity cross dense det "
            "dot einsum ger inner inverse kron matmul matrix_determinant matrix_inverse matrix_power mm mv outer pinv "
            "qr svd tensor_dot vecdot"
        ),
        ".loss": (
            "binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy "
            "gaussian_nll_loss hinge_embedding_loss huber_loss kl_div l1_loss margin_ranking_loss mse_loss "
            "multilabel_soft_margin_loss nll_loss smooth_l1_loss soft_margin_loss triplet_margin_loss"
        ),
        ".math": (
            "abs absolute accumulate_n acos acosh add addcdiv addcmul addn arccos arccosh arcsin arcsinh arctan "
            "arctan2 arctanh asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or "
            "bitwise_right_shift bitwise_xor ceil clamp clip clip_by_value copysign cos cosh deg2rad digamma div "
            "divide eq equal erf erfc erfinv exp exp2 expm1 float_power floor floor_div floor_divide floor_mod "
            "floordiv floormod fmax fmin fmod frac gcd ge greater greater_equal gt heaviside hypot inv invert isclose "
            "isfinite isinf isnan isneginf isposinf isreal lcm ldexp le lerp less less_equal lgamma log log10 log1p "
            "log2 logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit lt maximum minimum mul "
            "multiply nan_to_num ne neg negative nextafter not_equal positive pow pows rad2deg reciprocal remainder "
            "round rsqrt sgn sigmoid sign signbit sin sinc sinh sqrt square sub subtract tan tanh tensor_add "
            "tensor_div tensor_exp tensor_expm1 tensor_floordiv tensor_ge tensor_gt tensor_le tensor_lt tensor_mod "
            "tensor_mul tensor_pow tensor_sub true_divide trunc xdivy xlogy"
        ),
        ".normalization": (
            "batch_norm dropout dropout1d dropout2d dropout3d group_norm l2_normalize layer_norm lrn rms_norm"
        ),
        ".other": (
            "assign assign_add assign_sub deepcopy depend identity is_complex is_floating_point is_nonzero is_tensor "
            "print_ stop_gradient"
        ),
        ".pool": (
            "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
            "adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d max_pool2d max_pool3d"
        ),
        ".primitive": "constexpr Primitive",
        ".primitives": (
            "Abs ACos Acosh AdaptiveAvgPool2D Add AddN Argmax ArgMaxWithValue Argmin ArgMinWithValue Asin Asinh "
            "Assign AssignAdd AssignSub Atan Atan2 Atanh AvgPool BatchMatMul BatchNorm BiasAdd BinaryCrossEntropy "
            "BitwiseAnd BitwiseOr BitwiseXor BroadcastTo Cast Cdist Ceil CeLU Concat Conv2D Conv3D Cos Cosh Cross "
            "Cummax Cummin CumProd CumSum Dense Depend DepthToSpace Diag DiagPart Div DivNoNan Dropout DType Einsum "
            "Elu Equal Erf Erfc Exp ExpandDims Expm1 Eye FastGeLU FastGelu Fill Flatten Floor FloorDiv FloorMod "
            "Gather GatherD GatherNd GeLU Gelu Ger Greater GreaterEqual HShrink HSigmoid HSwish Hypot Identity Inv "
            "Invert IsFinite IsInf IsNan KLDivLoss L2Loss L2Normalize LayerNorm Lerp Less LessEqual LinSpace Log "
            "Log1p LogicalAnd LogicalNot LogicalOr LogicalXor LogSoftmax LRN MaskedFill MaskedSelect MatMul Maximum "
            "MaxPool Meshgrid Minimum MirrorPad Mish Mod Mul Neg NLLLoss NonZero NotEqual NPUAllocFloatStatus "
            "NPUClearFloatStatus NPUGetFloatStatus OneHot Ones OnesLike Pad PadV3 Pow PReLU Print Range Rank RealDiv "
            "Reciprocal ReduceAll ReduceAny ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReLU ReLU6 Reshape "
            "ResizeBilinearV2 ResizeNearestNeighbor ReverseV2 Rint RmsNorm Roll Round Rsqrt ScalarToTensor ScatterNd "
            "SearchSorted Select SeLU Shape Sigmoid Sign SiLU Sin Sinh Size Slice SmoothL1Loss Softmax "
            "SoftmaxCrossEntropyWithLogits Softplus SoftShrink Softsign Sort SpaceToDepth "
            "SparseSoftmaxCrossEntropyWithLogits Split Sqrt Square SquaredDifference Squeeze Stack StandardNormal "
            "StopGradient StridedSlice Sub Tan Tanh TensorScatterAdd TensorScatterUpdate Tile TopK Transpose Tril "
            "Triu Trunc TupleToArray Unique Unstack Xdivy Xlogy Zeros ZerosLike"
        ),
        ".reduce": (
            "all amax amin aminmax any argmax argmin count_nonzero cummax cummin cumprod cumsum diff logcumsumexp "
            "logsumexp max mean median min nanmean nansum norm prod reduce_max reduce_mean reduce_min reduce_sum std "
            "std_mean sum trapz var var_mean"
        ),
        ".resize": "channel_shuffle interpolate pad pixel_shuffle pixel_unshuffle upsample",
        ".selection": (
            "argsort argwhere bincount bucketize embedding gather gather_d gather_elements gather_nd index_add "
            "index_fill index_select isin masked_fill masked_select msort nonzero one_hot scatter scatter_nd "
            "searchsorted select sequence_mask sort take tensor_scatter_add tensor_scatter_div "
            "tensor_scatter_elements tensor_scatter_max tensor_scatter_min tensor_scatter_mul tensor_scatter_sub "
            "tensor_scatter_update top_k topk tril triu unique unique_consecutive unsorted_segment_sum where"
        ),
        ".shapes": (
            "atleast_1d atleast_2d atleast_3d broadcast_to cat chunk column_stack concat diag diag_embed diagonal "
            "dsplit dstack dtype expand expand_as expand_dims flatten flip fliplr flipud hsplit hstack meshgrid "
            "moveaxis movedim narrow numel permute rank ravel repeat_elements repeat_interleave reshape reverse roll "
            "rot90 row_stack shape size slice split squeeze stack strided_slice swapaxes swapdims t tensor_split tile "
            "trace transpose unbind unsqueeze unstack view_as vsplit vstack"
        ),
    },
)
