"""Every rule, by itself and inside of operators and layers, against finite differences in Float64."""

import numpy as np
import pytest

import mapcell as ms
from mapcell import Tensor, nn, ops
from mapcell.autograd import functions, gradients, kernels, ufuncs
from mapcell.autograd.tape import Rules, Tape
from mapcell.autograd.traced import Traced

STEP = 1e-6


def values(*shape, low=0.3, high=1.7, seed=0):
    """Numbers that differ, within the domain of every function."""
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape)


def both(*shape, seed=0):
    """Numbers of both signs, none within a step of 0."""
    return values(*shape, seed=seed) * np.where(np.random.default_rng([seed + 7, *shape]).random(shape) < 0.5, -1, 1)


def numeric(function, arrays, weights):
    """The gradient of sum(weights * function(*arrays)) by central differences, for each array."""
    found = []
    for k, array in enumerate(arrays):
        gradient = np.zeros_like(array)
        for i in np.ndindex(array.shape):
            ends = []
            for sign in (1, -1):
                moved = [a.copy() for a in arrays]
                moved[k][i] += sign * STEP
                ends.append(np.sum(weights * function(*(Tensor(a) for a in moved)).asnumpy()))
            gradient[i] = (ends[0] - ends[1]) / (2 * STEP)
        found.append(gradient)
    return found


def check(function, *arrays, tolerance=2e-6):
    """The gradients by all arguments agree with differences, for a result weighted at random."""
    result = function(*(Tensor(a) for a in arrays))
    weights = values(*result.shape, seed=3)
    found = ops.GradOperation(get_all=True, sens_param=True)(function)(*(Tensor(a) for a in arrays), Tensor(weights))
    for gradient, expected in zip(found, numeric(function, arrays, weights), strict=True):
        np.testing.assert_allclose(gradient.asnumpy(), expected, rtol=tolerance, atol=tolerance)


# --- Operators of one Tensor, by name, and the numbers that they are tried on

UNARY = {
    both: "abs neg square exp exp2 expm1 sin cos tanh sinh cosh atan asinh erf erfc sigmoid relu relu6 gelu fast_gelu "
    "silu mish softsign softplus elu celu selu leaky_relu hardtanh logsigmoid tanhshrink softmax log_softmax "
    "hardshrink softshrink hardswish hardsigmoid positive deg2rad rad2deg",
    values: "log log2 log10 log1p sqrt rsqrt reciprocal sqrt square tan",
    lambda *shape: values(*shape, high=0.8): "asin acos atanh logit",
    lambda *shape: values(*shape, low=1.2, high=2.5): "acosh",
}


@pytest.mark.parametrize(("numbers", "name"), [(f, n) for f, names in UNARY.items() for n in names.split()])
def test_unary(numbers, name):
    """Elementwise operators and activations."""
    check(getattr(ops, name), numbers(2, 3))


# --- Operators of several Tensors, and those with options

X, Y, ROW, CUBE, SQUARE = both(2, 3), both(2, 3, seed=1), both(3, seed=2), both(2, 3, 4), both(3, 3)
P = values(2, 3)
IMAGE, WEIGHT, BIAS = both(2, 4, 5, 6), both(6, 2, 3, 2, seed=4), both(6, seed=5)
INDEX = Tensor(np.array([[0, 2, 2], [1, 0, 1]]))
CLASSES = Tensor(np.array([2, 0]))
OPERATORS = {
    "x + y": (lambda x, y: x + y, X, Y),
    "x - row": (lambda x, y: x - y, X, ROW),
    "row - x": (lambda x, y: x - y, ROW, X),
    "x * cube": (lambda x, y: x * y, X[:, :, None], CUBE),
    "x / y": (lambda x, y: x / y, X, Y),
    "2 - x, 3 / x": (lambda x: (2 - x) * (3 / x), X),
    "x + x": (lambda x: x + x * x, X),
    "x ** 3": (lambda x: x**3, X),
    "x ** 0": (lambda x: x**0 + x, X),
    "p ** x": (lambda p, x: p**x, P, X),
    "x % p": (ops.floor_mod, X, values(2, 3, low=2.1, high=2.9)),
    "maximum": (ops.maximum, X, Y),
    "minimum": (ops.minimum, X, ROW),
    "atan2": (ops.atan2, X, Y),
    "hypot": (ops.hypot, X, Y),
    "logaddexp": (ops.logaddexp, X, Y),
    "logaddexp2": (ops.logaddexp2, X, Y),
    "xlogy": (ops.xlogy, X, P),
    "lerp": (lambda x, y: ops.lerp(x, y, 0.3), X, Y),
    "addcmul": (lambda x, y, p: ops.addcmul(x, y, p, 2.0), X, Y, P),
    "addcdiv": (lambda x, y, p: ops.addcdiv(x, y, p, 2.0), X, Y, P),
    "clamp": (lambda x: ops.clamp(x, -0.9, 0.8), X),
    "prelu": (ops.prelu, both(2, 3, 2), values(3)),
    "glu": (ops.glu, both(2, 4)),
    "swiglu": (ops.swiglu, both(2, 4)),
    "gelu tanh": (lambda x: ops.gelu(x, approximate="tanh"), X),
    "softmax axis 0": (lambda x: ops.softmax(x, 0), X),
    "threshold": (lambda x: ops.threshold(x, 0.1, 20.0), X),
    "where": (lambda x, y: ops.where(INDEX > 0, x, y), X, ROW),
    "masked_fill": (lambda x: ops.masked_fill(x, INDEX > 0, 2.0), X),
    "matmul": (ops.matmul, X, SQUARE),
    "matmul vector": (ops.matmul, X, ROW),
    "vector matmul": (ops.matmul, both(2), X),
    "vector vector": (ops.matmul, ROW, both(3, seed=9)),
    "matmul broadcast": (ops.matmul, CUBE, both(4, 2)),
    "matmul batches": (ops.matmul, both(2, 1, 3, 4), both(5, 4, 2)),
    "@": (lambda x, y: x @ y, X, SQUARE),
    "bmm": (ops.bmm, CUBE, both(2, 4, 2)),
    "BatchMatMul transposed": (ops.BatchMatMul(transpose_a=True, transpose_b=True), both(2, 4, 3), both(2, 5, 4)),
    "dense": (ops.dense, CUBE, both(5, 4), both(5)),
    "dense, no bias": (ops.dense, X, both(5, 3)),
    "addmm": (lambda c, a, b: ops.addmm(c, a, b, beta=0.5, alpha=2.0), X, both(2, 4), both(4, 3)),
    "einsum": (lambda x, y: ops.einsum("ab,cb->ca", x, y), X, both(4, 3)),
    "einsum with axes unnamed": (lambda x, y: ops.einsum("...a,ab->...b", x, y), CUBE, both(4, 2)),
    "einsum sums": (lambda x, y: ops.einsum("ab,cd->bd", x, y), X, both(4, 2)),
    "outer": (ops.outer, both(2), ROW),
    "tensor_dot": (lambda x, y: ops.tensor_dot(x, y, ((1,), (0,))), CUBE, SQUARE),
    "cosine_similarity": (ops.cosine_similarity, X, Y),
    "bidense": (ops.bidense, both(2, 3), both(2, 4), both(2, 3, 4), both(2)),
    "sum": (ops.sum, X),
    "sum axis": (lambda x: ops.sum(x, 1), CUBE),
    "sum axes kept": (lambda x: ops.sum(x, (0, 2), True), CUBE),
    "mean": (lambda x: ops.mean(x, (1, 2)), CUBE),
    "prod": (lambda x: ops.prod(x, 1), X),
    "prod with a zero": (ops.prod, np.array([[2.0, 0.0, 3.0]])),
    "prod of axes": (lambda x: x.prod((0, 2)), CUBE),
    "amax": (lambda x: ops.amax(x, 1), X),
    "amin kept": (lambda x: ops.amin(x, 0, True), X),
    "max": (lambda x: ops.max(x, 1)[0], X),
    "min of all": (lambda x: ops.min(x)[0], X),
    "var": (lambda x: ops.var(x, 1), X),
    "std": (lambda x: ops.std(x, 0, 1), SQUARE),
    "logsumexp": (lambda x: ops.logsumexp(x, 1), X),
    "norm": (ops.norm, X),
    "norm axis": (lambda x: ops.norm(x, dim=1), X),
    "norm of order 1": (lambda x: ops.norm(x, 1, 1), X),
    "cumsum": (lambda x: ops.cumsum(x, 1), X),
    "trace": (lambda x: x.diagonal().sum(), SQUARE),
    "reshape": (lambda x: ops.reshape(x, (3, -1)), X),
    "transpose": (lambda x: ops.transpose(x, (2, 0, 1)), CUBE),
    "swapaxes": (lambda x: x.swapaxes(0, 2), CUBE),
    "moveaxis": (lambda x: x.moveaxis(0, 2), CUBE),
    ".T": (lambda x: x.T, CUBE),
    "at least so many axes": (lambda x: ops.atleast_3d(x) + ops.atleast_2d(x[0])[..., None], X),
    "expand_dims, squeeze": (lambda x: ops.squeeze(ops.expand_dims(x, 1) * 2, 1), X),
    "flatten": (ops.flatten, CUBE),
    "broadcast_to": (lambda x: ops.broadcast_to(x, (4, 2, 3)), X),
    "tile": (lambda x: ops.tile(x, (2, 1, 3)), X),
    "repeat_interleave": (lambda x: ops.repeat_interleave(x, 2, 1), X),
    "flip": (lambda x: ops.flip(x, (0, 1)), X),
    "roll": (lambda x: ops.roll(x, (1, 2), (0, 1)), X),
    "pad": (lambda x: ops.pad(x, (1, 2, 0, 1)), X),
    "diagonal": (lambda x: ops.diagonal(x, 1, 0, 2), CUBE),
    "tril": (ops.tril, SQUARE),
    "concat": (lambda x, y: ops.concat((x, y, x), 1), X, Y),
    "concat kinds": (lambda x: ops.concat((x, Tensor(np.ones((1, 3)))), 0), X),
    "stack": (lambda x, y: ops.stack((x, y), 1), X, Y),
    "hstack, vstack": (lambda x, y: ops.hstack((x, y)).sum() * ops.vstack((x, y)), X, Y),
    "split": (lambda x: ops.split(x, 2, 1)[1] * ops.split(x, 2, 1)[0][:, :1], X),
    "chunk": (lambda x: ops.chunk(x, 2, 2)[1], CUBE),
    "unbind": (lambda x: ops.unbind(x, 1)[2] * ops.unbind(x, 1)[0], X),
    "tensor_split": (lambda x: ops.tensor_split(x, 2, 1)[0], X),
    "for row in x": (lambda x: sum(row * row.sum() for row in x), X),
    "x[1]": (lambda x: x[1], X),
    "x[:, ::2]": (lambda x: x[:, ::2], CUBE),
    "x[..., None, -1]": (lambda x: x[..., None, -1], CUBE),
    "x[INDEX]": (lambda x: x[INDEX], SQUARE),
    "x[x > 0]": (lambda x: x[Tensor(X > 0)], X),
    "narrow": (lambda x: ops.narrow(x, 1, 1, 2), X),
    "gather": (lambda x: ops.gather(x, INDEX, 1), CUBE),
    "gather of batches": (lambda x: ops.gather(x, INDEX, 1, 1), CUBE),
    "gather_elements": (lambda x: ops.gather_elements(x, 1, INDEX), X),
    "gather_elements, fewer": (lambda x: ops.gather_elements(x, 0, INDEX), SQUARE),
    "index_select": (lambda x: ops.index_select(x, 1, CLASSES), X),
    "embedding": (lambda w: ops.embedding(INDEX, w), SQUARE),
    "take": (lambda x: x.take(INDEX), X),
    "topk": (lambda x: ops.topk(x, 2)[0], X),
    "sort": (lambda x: ops.sort(x, 1)[0], X),
    "layer_norm": (lambda x, g, b: ops.layer_norm(x, (4,), g, b), CUBE, both(4), both(4, seed=1)),
    "layer_norm of two axes": (lambda x, g, b: ops.layer_norm(x, (3, 4), g, b), CUBE, both(3, 4), both(3, 4, seed=1)),
    "rms_norm": (lambda x, g: ops.rms_norm(x, g)[0], CUBE, both(4)),
    "group_norm": (lambda x, g, b: ops.group_norm(x, 2, g, b), both(2, 4, 3), both(4), both(4, seed=1)),
    "batch_norm": (
        ops.batch_norm, both(2, 3, 2), both(3), values(3), both(3, seed=2), ROW
    ),
    "l2_normalize": (lambda x: ops.l2_normalize(x, 1), X),
    "conv2d": (lambda x, w, b: ops.conv2d(x, w, b, pad_mode="same", groups=2), IMAGE, WEIGHT, BIAS),
    "conv2d strided": (
        lambda x, w: ops.conv2d(x, w, stride=(2, 3), pad_mode="pad", padding=(1, 2), dilation=(1, 2), groups=2),
        IMAGE, WEIGHT,
    ),
    "conv1d": (ops.conv1d, both(1, 2, 6), both(3, 2, 3)),
    "conv3d": (ops.conv3d, both(1, 1, 3, 3, 3), both(2, 1, 2, 2, 2)),
    "conv_transpose2d": (
        lambda x, w, b: ops.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2),
        both(1, 4, 3, 2), both(4, 1, 3, 3), both(2),
    ),
    "unfold": (lambda x: ops.unfold(x, 2, 1, 1, 2), both(1, 2, 4, 3)),
    "fold": (lambda x: ops.fold(x, (3, 3), 2), both(1, 8, 4)),
    "max_pool2d": (lambda x: ops.max_pool2d(x, 3, 2, 1), IMAGE),
    "max_pool2d with positions": (lambda x: ops.max_pool2d(x, 2, return_indices=True)[0], IMAGE),
    "avg_pool2d": (lambda x: ops.avg_pool2d(x, 3, 2, 1, count_include_pad=False), IMAGE),
    "avg_pool1d": (lambda x: ops.avg_pool1d(x, 2, 1), both(2, 3, 5)),
    "adaptive_avg_pool2d": (lambda x: ops.adaptive_avg_pool2d(x, (3, None)), both(1, 2, 5, 4)),
    "adaptive_max_pool2d": (lambda x: ops.adaptive_max_pool2d(x, (2, 3)), both(1, 2, 5, 4)),
    "lp_pool1d": (lambda x: ops.lp_pool1d(x, 2.0, 2), values(1, 2, 4)),
    "mse_loss": (ops.mse_loss, X, Y),
    "l1_loss": (ops.l1_loss, X, Y),
    "smooth_l1_loss": (lambda x, y: ops.smooth_l1_loss(x, y, 0.7), X, Y),
    "huber_loss": (ops.huber_loss, X, Y),
    "cross_entropy": (lambda x: ops.cross_entropy(x, CLASSES), X),
    "cross_entropy, smooth": (lambda x, w: ops.cross_entropy(x, CLASSES, w, label_smoothing=0.1), X, P[0]),
    "cross_entropy, probabilities": (ops.cross_entropy, X, P),
    "nll_loss": (lambda x: ops.nll_loss(x, CLASSES), X),
    "binary_cross_entropy": (ops.binary_cross_entropy, values(2, 3, low=0.1, high=0.9), values(2, 3, high=0.9)),
    "binary_cross_entropy_with_logits": (ops.binary_cross_entropy_with_logits, X, P),
    "kl_div": (ops.kl_div, X, P),
    "cosine_embedding_loss": (lambda x, y: ops.cosine_embedding_loss(x, y, Tensor([1, -1]), 0.1), X, Y),
    "triplet_margin_loss": (lambda x, y, z: ops.triplet_margin_loss(x, y, z, 9.0), X, Y, P),
    "stop_gradient": (lambda x: x * ops.depend(x, 1), X),
    "cast": (lambda x: ops.cast(x, ms.float64) * x, X),
    "contiguous": (lambda x: x.T.contiguous() * 2, X),
    "interpolate": (lambda x: ops.interpolate(x, (3, 7), mode="bilinear"), both(1, 2, 2, 3)),
    "to another float": (lambda x: x.astype(ms.float64) * 2, X),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name):
    """Operators, indexing, layers' functions and losses."""
    check(*OPERATORS[name])


def seeded(make):
    """A layer whose Parameters are Float64 numbers of both signs, the running variances positive."""
    cell = make()
    for number, (name, parameter) in enumerate(cell.parameters_and_names()):
        numbers = values if name.endswith("variance") else both
        parameter.set_dtype(ms.float64)
        parameter.set_data(Tensor(numbers(*parameter.shape, seed=number)))
    return cell


LAYERS = {
    "Dense": (lambda: nn.Dense(3, 2, activation="tanh"), (2, 3)),
    "Conv2d": (lambda: nn.Conv2d(2, 4, 3, stride=2, has_bias=True, group=2), (1, 2, 4, 5)),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 3, has_bias=True), (1, 2, 4)),
    "Conv2dTranspose": (lambda: nn.Conv2dTranspose(2, 2, 3, stride=2, has_bias=True), (1, 2, 2, 3)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(2), (2, 2, 2, 2)),
    "BatchNorm1d in training": (lambda: nn.BatchNorm1d(3).set_train(), (4, 3)),
    "LayerNorm": (lambda: nn.LayerNorm((3,)), (2, 3)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (2, 4, 2, 2)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(2), (2, 2, 2, 3)),
    "PReLU": (lambda: nn.PReLU(3), (2, 3)),
    "LSTM": (lambda: nn.LSTM(3, 2), (3, 2, 3)),
    "GRU": (lambda: nn.GRU(3, 2), (3, 2, 3)),
    "RNN": (lambda: nn.RNN(3, 2), (3, 2, 3)),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 5, 0.0), (3, 2, 4)),
    "two layers": (lambda: nn.SequentialCell(nn.Dense(3, 4), nn.GELU(), nn.Dense(4, 2)), (2, 3)),
}


def first(output):
    """What a recurrent layer gives beside its last state."""
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    """Layers, by their input and by all their trainable Parameters."""
    make, shape = LAYERS[name]
    cell = seeded(make)
    weights = cell.trainable_params()
    arrays = [both(*shape, seed=20), *(w.asnumpy().copy() for w in weights)]

    def function(x, *numbers):
        before = [w.asnumpy() for w in weights]
        for weight, number in zip(weights, numbers, strict=True):
            weight.set_data(number)
        out = cell(x)
        for weight, number in zip(weights, before, strict=True):
            weight.set_data(Tensor(number))
        return first(out)

    sens = values(*function(*map(Tensor, arrays)).shape, seed=3)
    operation = ops.GradOperation(get_all=True, get_by_list=True, sens_param=True)
    inputs, by_weight = operation(lambda x: first(cell(x)), weights)(Tensor(arrays[0]), Tensor(sens))
    for gradient, expected in zip((*inputs, *by_weight), numeric(function, arrays, sens), strict=True):
        np.testing.assert_allclose(gradient.asnumpy(), expected, rtol=5e-6, atol=5e-6)


def test_every_rule_is_tried():
    """No rule is left out of the tables above."""
    used = set()

    class Noting(dict):
        def get(self, key, default=None):
            used.add(key)
            return super().get(key, default)

    before = gradients._RULES
    gradients._RULES = Rules(Noting(ufuncs.RULES), Noting(functions.RULES), Noting(kernels.RULES))
    try:
        for function, *arrays in OPERATORS.values():
            ops.GradOperation()(function)(*map(Tensor, arrays))
        for numbers, names in UNARY.items():
            for name in names.split():
                ops.GradOperation()(getattr(ops, name))(Tensor(numbers(2, 3)))
        for make, shape in LAYERS.values():
            ops.GradOperation()(seeded(make))(Tensor(both(*shape)))
    finally:
        gradients._RULES = before
    assert set(ufuncs.DERIVATIVES) | {"matmul", "multiply.outer"} <= used
    assert set(kernels.RULES) <= used
    assert set(functions.RULES) - used <= {*functions.CONSTANT, np.amax, np.amin}


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda x: ops.cummax(x, 0)[0], "maximum.accumulate"),
        (ops.erfinv, "erfinv"),
        (lambda x: ops.svd(x, compute_uv=False), "svd"),
        (lambda x: ops.einsum("aa->a", x), "einsum"),
        (lambda x: ops.pad(x, (1, 1), mode="reflect"), "mode 'reflect'"),
        (lambda x: ops.index_add(x, Tensor([0]), x[:1], 0), "index_add"),
        (lambda x: ops.norm(x, 3), "order 3"),
    ],
)
def test_no_rule(call, named):
    """What has no rule says which operator that is, and what to do."""
    with pytest.raises(ms.GradientUnavailable, match="stop_gradient") as info:
        ops.GradOperation()(call)(Tensor(values(2, 2)))
    assert named in str(info.value)


def test_writing_in_place_is_refused():
    """Elements that a gradient goes through are not overwritten."""

    def function(x):
        x[0] = 1.0
        return x

    with pytest.raises(ms.GradientUnavailable, match="writing in place"):
        ops.GradOperation()(function)(Tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    "ask",
    [
        np.asarray,
        lambda t: t.tobytes(),
        lambda t: np.exp(t, out=np.empty(2)),
        lambda t: np.empty((1, 2)).__setitem__(0, t),
    ],
)
def test_nothing_leaves_unrecorded(ask):
    """What would take the elements out of the record raises instead of losing a gradient."""
    traced = Traced(np.ones(2), Tape(gradients._RULES))
    with pytest.raises(ms.GradientUnavailable):
        ask(traced)
