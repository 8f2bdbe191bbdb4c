"""Cells: the base class, its containers, and the layers."""

from __future__ import annotations

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        ".": "utils",
        ".activation": (
            "CELU ELU FastGelu GELU get_activation GLU Hardtanh HShrink HSigmoid HSwish LeakyReLU LogSigmoid "
            "LogSoftmax Mish PReLU ReLU ReLU6 RReLU SeLU Sigmoid SiLU Softmax Softmax2d Softmin SoftShrink Softsign "
            "Tanh Tanhshrink Threshold"
        ),
        ".attention": "MultiheadAttention",
        ".basic": (
            "ChannelShuffle ClipByNorm Dropout Dropout1d Dropout2d Dropout3d Flatten Identity L1Regularizer Moments "
            "Norm OneHot PixelShuffle PixelUnshuffle Range ReduceLogSumExp Roll Tril Triu Unflatten Upsample"
        ),
        ".buffer": "Buffer",
        ".cell": "Cell",
        ".containers": "CellDict CellList SequentialCell",
        ".conv": "Conv1d Conv1dTranspose Conv2d Conv2dTranspose Conv3d Conv3dTranspose",
        ".dense": "BiDense Dense MatMul",
        ".embedding": "Embedding EmbeddingExt EmbeddingLookup",
        ".loss": (
            "BCELoss BCEWithLogitsLoss CosineEmbeddingLoss CrossEntropyLoss DiceLoss FocalLoss GaussianNLLLoss "
            "HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss LossBase MAELoss MarginRankingLoss MSELoss "
            "MultiLabelSoftMarginLoss NLLLoss PoissonNLLLoss RMSELoss SmoothL1Loss SoftMarginLoss "
            "SoftmaxCrossEntropyWithLogits TripletMarginLoss"
        ),
        ".normalization": (
            "BatchNorm1d BatchNorm2d BatchNorm3d GroupNorm InstanceNorm1d InstanceNorm2d InstanceNorm3d LayerNorm LRN "
            "RMSNorm SyncBatchNorm"
        ),
        ".padding": (
            "ConstantPad1d ConstantPad2d ConstantPad3d Pad ReflectionPad1d ReflectionPad2d ReflectionPad3d "
            "ReplicationPad1d ReplicationPad2d ReplicationPad3d ZeroPad2d"
        ),
        ".pooling": (
            "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d "
            "AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d LPPool1d LPPool2d MaxPool1d MaxPool2d MaxPool3d"
        ),
        ".recurrent": "GRU GRUCell LSTM LSTMCell RNN RNNCell",
        ".transformer": (
            "Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder TransformerEncoderLayer"
        ),
    },
)
