"""What all layers have in common: laziness, read-only weights, copies, other precisions."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest

import mapcell as ms
from mapcell import Tensor, nn, ops
from mapcell.common.tensor import wrap
from mapcell.nn.utils import no_init_parameters


def floats(*shape):
    """Standard normal float32 numbers."""
    return Tensor(np.random.RandomState(0).standard_normal(shape).astype(np.float32))


IDS = Tensor(np.array([[0, 3], [2, 1]], np.int32))
# How a layer is made, and what it is called with.
LAYERS = {
    "Dense": (lambda: nn.Dense(4, 3, activation="gelu"), lambda: (floats(2, 4),)),
    "BiDense": (lambda: nn.BiDense(3, 4, 2), lambda: (floats(2, 3), floats(2, 4))),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 3, has_bias=True), lambda: (floats(1, 2, 6),)),
    "Conv2d": (lambda: nn.Conv2d(2, 4, 3, group=2, has_bias=True), lambda: (floats(1, 2, 5, 5),)),
    "Conv3d": (lambda: nn.Conv3d(1, 2, 2), lambda: (floats(1, 1, 3, 3, 3),)),
    "Conv1dTranspose": (lambda: nn.Conv1dTranspose(2, 3, 3), lambda: (floats(1, 2, 6),)),
    "Conv2dTranspose": (lambda: nn.Conv2dTranspose(2, 3, 3, 2), lambda: (floats(1, 2, 4, 4),)),
    "Conv3dTranspose": (lambda: nn.Conv3dTranspose(1, 2, 2, 2), lambda: (floats(1, 1, 2, 2, 2),)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), lambda: (floats(2, 3),)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), lambda: (floats(2, 3, 4, 4),)),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(3), lambda: (floats(2, 3, 2, 2, 2),)),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(3), lambda: (floats(2, 3, 4, 4),)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(3), lambda: (floats(2, 3, 4, 4),)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), lambda: (floats(2, 4, 3),)),
    "LayerNorm": (lambda: nn.LayerNorm((4,)), lambda: (floats(2, 4),)),
    "RMSNorm": (lambda: nn.RMSNorm(4), lambda: (floats(2, 4),)),
    "Embedding": (lambda: nn.Embedding(4, 3), lambda: (IDS,)),
    "Embedding with padding": (lambda: nn.Embedding(4, 3, padding_idx=1), lambda: (IDS,)),
    "EmbeddingExt": (lambda: nn.EmbeddingExt(4, 3, max_norm=1.0), lambda: (IDS,)),
    "EmbeddingLookup": (lambda: nn.EmbeddingLookup(4, 3), lambda: (IDS,)),
    "LSTM": (lambda: nn.LSTM(4, 3, 2, bidirectional=True), lambda: (floats(5, 2, 4),)),
    "GRU": (lambda: nn.GRU(4, 3), lambda: (floats(5, 2, 4),)),
    "RNN": (lambda: nn.RNN(4, 3), lambda: (floats(5, 2, 4),)),
    "LSTMCell": (lambda: nn.LSTMCell(4, 3), lambda: (floats(2, 4), (floats(2, 3), floats(2, 3)))),
    "GRUCell": (lambda: nn.GRUCell(4, 3), lambda: (floats(2, 4), floats(2, 3))),
    "RNNCell": (lambda: nn.RNNCell(4, 3), lambda: (floats(2, 4), floats(2, 3))),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True), lambda: (floats(3, 2, 4),) * 3),
    "TransformerEncoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2),
        lambda: (floats(3, 2, 4),),
    ),
    "Transformer": (lambda: nn.Transformer(4, 2, 1, 1, 8), lambda: (floats(3, 2, 4), floats(2, 2, 4))),
}
BY_NAME = pytest.mark.parametrize("name", LAYERS)


def flat(result):
    """The arrays of a result, without the tuples around them."""
    return [a for part in result for a in flat(part)] if isinstance(result, tuple) else [result.asnumpy()]


def made(name):
    """A layer for inference and its inputs."""
    make, inputs = LAYERS[name]
    return make().set_train(False), inputs()


@BY_NAME
def test_nothing_is_allocated_without_initialisation(name):
    """Under no_init_parameters() every Parameter stays without elements, also of copied layers and padded tables."""
    with no_init_parameters():
        layer = LAYERS[name][0]()
    parameters = list(layer.get_parameters())
    assert parameters
    assert all(p.has_init for p in parameters)


@BY_NAME
def test_lazy_layers_compute_what_eager_ones_do(name):
    """With the same values in their Parameters."""
    eager, inputs = made(name)
    with no_init_parameters():
        lazy = LAYERS[name][0]().set_train(False)
    lazy.load_state_dict(eager.state_dict())
    for got, want in zip(flat(lazy(*inputs)), flat(eager(*inputs)), strict=True):
        np.testing.assert_array_equal(got, want)


@BY_NAME
def test_weights_may_be_read_only(name):
    """As shared ones are; a layer for inference writes neither to them nor to its inputs."""
    layer, inputs = made(name)
    want = flat(layer(*inputs))
    for parameter in layer.get_parameters():
        array = parameter.asnumpy().copy()
        array.flags.writeable = False
        parameter.set_data(wrap(array))
    for tensor in inputs:
        if isinstance(tensor, Tensor):
            tensor.asnumpy().flags.writeable = False
    for got, expected in zip(flat(layer(*inputs)), want, strict=True):
        np.testing.assert_array_equal(got, expected)


@BY_NAME
def test_copies_and_pickles_compute_the_same(name):
    """And own their elements."""
    layer, inputs = made(name)
    want = flat(layer(*inputs))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        for got, expected in zip(flat(twin(*inputs)), want, strict=True):
            np.testing.assert_array_equal(got, expected)
        first, other = next(iter(layer.get_parameters())), next(iter(twin.get_parameters()))
        assert not np.shares_memory(first.asnumpy(), other.asnumpy())


@BY_NAME
def test_to_float_computes_in_float16(name):
    """Floating results are float16, near the float32 ones; the Parameters keep their type."""
    layer, inputs = made(name)
    want = flat(layer(*inputs))
    for got, expected in zip(flat(layer.to_float(ms.float16)(*inputs)), want, strict=True):
        assert got.dtype == np.float16
        np.testing.assert_allclose(got, expected, rtol=2e-2, atol=2e-2)
    assert {str(p.dtype) for p in layer.get_parameters()} == {"Float32"}


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (lambda: nn.Dense(512, 1024, has_bias=False), (1, 512)),
        (lambda: nn.Conv2d(128, 512, 3), (1, 128, 1, 1)),
        (lambda: nn.Conv1d(256, 512, 3), (1, 256, 1)),
        (lambda: nn.Conv2dTranspose(512, 128, 3), (1, 512, 1, 1)),
        (lambda: nn.LSTM(256, 256), (1, 1, 256)),
        (lambda: nn.GRU(256, 512), (1, 1, 256)),
        (lambda: nn.MultiheadAttention(256, 4), (1, 1, 256)),
    ],
    ids=["Dense", "Conv2d", "Conv1d", "Conv2dTranspose", "LSTM", "GRU", "MultiheadAttention"],
)
def test_no_weight_is_copied_on_its_way_through_a_layer(make, x):
    """What a call allocates at its peak is far below the size of the weights."""
    layer, x = make().set_train(False), floats(*x)
    inputs = (x, x, x) if isinstance(layer, nn.MultiheadAttention) else (x,)
    layer(*inputs)
    tracemalloc.start()
    layer(*inputs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < sum(p.nbytes for p in layer.get_parameters()) / 8


def test_every_layer_says_what_it_does():
    """Public classes have docstrings of their own."""
    public = [getattr(nn, name) for name in dir(nn) if not name.startswith("_")]
    undocumented = [c.__name__ for c in public if isinstance(c, type) and "__doc__" not in vars(c)]
    assert undocumented == []


def test_a_network_of_many_layers():
    """LeNet-5 in miniature, from images to probabilities that add up to 1."""
    net = nn.SequentialCell(
        nn.Conv2d(1, 2, 3, pad_mode="valid"), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten(),
        nn.Dense(2 * 3 * 3, 5), nn.Dropout(p=0.5), nn.Softmax(),
    ).set_train(False)  # fmt: skip
    out = net(floats(3, 1, 8, 8))
    assert out.shape == (3, 5)
    np.testing.assert_allclose(ops.sum(out, 1).asnumpy(), 1, rtol=1e-6)
