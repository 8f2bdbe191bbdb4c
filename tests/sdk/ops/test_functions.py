"""Operators as functions: what they accept, share, refuse and draw."""

import numpy as np
import pytest

import mapcell as ms
from mapcell import Parameter, Tensor, ops
from mapcell.common.initializer import initializer
from mapcell.common.tensor import unwrap
from mapcell.nn.utils import no_init_parameters

X = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))

# Those that MindSpore's CPU cannot run, by formula.
FORMULAS = [
    ("ops.layer_norm(x, (3,))", lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)),
    ("ops.rms_norm(x, ops.ones(3))[0]", lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)),
    ("ops.embedding(Tensor([1, 0]), x)", lambda x: x[[1, 0]]),
    ("ops.embedding(Tensor([1]), x, max_norm=1.0)", lambda x: x[[1]] / np.linalg.norm(x[1])),
    ("ops.einsum('ij,kj->ik', x, x)", lambda x: x @ x.T),
    ("ops.roll(x, 1)", lambda x: np.roll(x, 1)),
    ("ops.roll(x, (1, 1), (0, 1))", lambda x: np.roll(x, (1, 1), (0, 1))),
    ("ops.take(x, Tensor([5, 0]))", lambda x: x.ravel()[[5, 0]]),
    ("ops.swiglu(x[:, :2])", lambda x: x[:, :1] / (1 + np.exp(-x[:, :1])) * x[:, 1:2]),
    ("ops.round(x / 7, decimals=1)", lambda x: np.round(x / np.float32(7), 1)),
    ("ops.isin(x, Tensor([0.0, 5.0]))", lambda x: np.isin(x, [0, 5])),
    ("ops.expand(x, (2, 2, 3))", lambda x: np.stack([x, x])),
    ("ops.logspace(0, 2, 3)", lambda x: np.array([1, 10, 100], np.float32)),
    ("ops.clip_by_value(x, 1, 2)", lambda x: np.clip(x, 1, 2)),
    ("ops.unbind(x)[1]", lambda x: x[1]),
    ("ops.nonzero(x, as_tuple=True)[1]", lambda x: np.nonzero(x)[1]),
    ("ops.fills(x, 2)", lambda x: np.full_like(x, 2)),
    ("ops.conv_transpose2d(x.reshape(1, 1, 2, 3), ops.ones((1, 1, 1, 1)), stride=2)[0, 0, ::2, ::2]", lambda x: x),
]


@pytest.mark.parametrize(("expression", "formula"), FORMULAS, ids=[e for e, _ in FORMULAS])
def test_formula(expression, formula):
    """What MindSpore's CPU has no kernel for computes here too."""
    got = eval(expression, {"ops": ops, "Tensor": Tensor, "x": X})
    np.testing.assert_allclose(got.asnumpy(), formula(X.asnumpy()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ops.reshape(x, (3, 2)),
        lambda x: ops.transpose(x, (1, 0)),
        lambda x: ops.permute(x, 1, 0),
        lambda x: ops.swapaxes(x, 0, 1),
        lambda x: ops.expand_dims(x, 0),
        lambda x: ops.flatten(x, start_dim=0),
        lambda x: ops.split(x, 1)[0],
        lambda x: ops.chunk(x, 2, 1)[1],
        lambda x: ops.unstack(x)[0],
        lambda x: ops.narrow(x, 1, 0, 2),
        lambda x: ops.slice(x, (0, 1), (1, 2)),
        lambda x: ops.strided_slice(x, (0, 0), (2, 3), (1, 2)),
        lambda x: ops.broadcast_to(x, (4, 2, 3)),
        lambda x: ops.flip(x, (0,)),
        ops.diagonal,
        ops.stop_gradient,
        ops.identity,
        lambda x: ops.depend(x, None),
    ],
)
def test_views_share_the_elements(call):
    """Reading another way copies nothing, so that weights stay where they are shared."""
    assert np.shares_memory(unwrap(call(X)), unwrap(X))


@pytest.mark.parametrize(
    "spelling", [{"axis": 1, "keepdims": True}, {"dim": 1, "keepdim": True}, {"dim": 1, "keep_dims": True}]
)
@pytest.mark.parametrize(
    "name", ["mean", "sum", "prod", "amax", "amin", "max", "min", "all", "any", "var", "std", "norm"]
)
def test_reductions_take_every_spelling(name, spelling):
    """Functions and methods spell axes differently in MindSpore; here each takes all."""
    got = getattr(ops, name)(X, **spelling)
    first = got[0] if isinstance(got, tuple) else got
    assert first.shape == (2, 1)


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("ops.softmax(np.ones(3))", TypeError),
        ("ops.matmul(x, [1.0, 2.0, 3.0])", TypeError),
        ("ops.add(x, 'a')", TypeError),
        ("ops.concat(x)", TypeError),
        ("ops.concat([x, 1])", TypeError),
        ("ops.concat([])", ValueError),
        ("ops.stack([x, x[0]])", ValueError),
        ("ops.reshape(x, (2.0, 3))", TypeError),
        ("ops.transpose(x, (0, 0))", ValueError),
        ("ops.split(x, 0)", ValueError),
        ("ops.chunk(x, 0)", ValueError),
        ("ops.softmax(x, 5)", ValueError),
        ("ops.gelu(x, 'erf')", ValueError),
        ("ops.topk(x, 4)", ValueError),
        ("ops.matmul(x, x)", ValueError),
        ("ops.matmul(x, ops.ones((3, 1), ms.float16))", TypeError),
        ("ops.bmm(x, ops.ones((2, 1)))", ValueError),
        ("ops.gather(x, Tensor([2]), 0)", RuntimeError),
        ("ops.embedding(Tensor([0.5]), x)", TypeError),
        ("ops.one_hot(Tensor([0]), 2, 1, 0.5)", TypeError),
        ("ops.masked_fill(x, x, 0.0)", TypeError),
        ("ops.arange(0, 1, 0)", ValueError),
        ("ops.zeros(-1)", ValueError),
        ("ops.zeros((2, 1.0))", TypeError),
        ("ops.zeros(2, 'float32')", TypeError),
        ("ops.cast(x, np.float32)", TypeError),
        ("ops.meshgrid(x[0], indexing='yx')", ValueError),
        ("ops.searchsorted(x, x, side='up')", ValueError),
        ("ops.dropout(x, 1.5)", ValueError),
        ("ops.group_norm(x, 2)", ValueError),
        ("ops.layer_norm(x, (2,))", ValueError),
        ("ops.rms_norm(x, ops.ones(2))", ValueError),
        ("ops.bias_add(x, ops.ones(2))", ValueError),
        ("ops.conv2d(x, x)", ValueError),
        ("ops.max_pool2d(ops.ones((1, 1, 4, 4)), 2, padding=2)", ValueError),
        ("ops.interpolate(ops.ones((1, 1, 4)), size=2, mode='bilinear')", ValueError),
        ("ops.interpolate(ops.ones((1, 1, 4)))", ValueError),
        ("ops.interpolate(ops.ones((1, 1, 4)), size=2, align_corners=True)", ValueError),
        ("ops.pad(x, (1, 1), 'reflect', 2)", ValueError),
        ("ops.mse_loss(x, x, 'median')", ValueError),
        ("ops.huber_loss(x, x, delta=0)", ValueError),
        ("ops.assign(x, ops.ones(2))", ValueError),
        ("ops.assign(3, x)", TypeError),
        ("ops.multinomial(Tensor([1.0, 0.0]), 2, False)", ValueError),
        ("ops.qr(x, 'raw')", ValueError),
        ("ops.dot(x[0], x[0])", ValueError),
    ],
)
def test_errors(expression, error):
    """Wrong kinds are a TypeError, wrong values and shapes a ValueError, positions outside a RuntimeError."""
    with pytest.raises(error):
        eval(expression, {"ops": ops, "Tensor": Tensor, "ms": ms, "np": np, "x": X.copy()})


def test_lazy_parameters_are_initialised_by_the_operator_that_reads_them():
    """No operator computes with a Parameter that has no elements yet."""
    with no_init_parameters():
        weight = Parameter(initializer("ones", (3, 3)), name="w")
    assert weight.has_init
    assert ops.matmul(X, weight).asnumpy().tolist() == [[3, 3, 3], [12, 12, 12]]
    assert not weight.has_init


def test_assign_writes_in_place():
    """Whoever shares the Parameter's elements sees them, also the Tensor that comes back."""
    parameter = Parameter(Tensor(np.zeros(2, np.float32)), name="p")
    shared = parameter.asnumpy()
    assert np.shares_memory(ops.assign(parameter, Tensor([1.0, 2.0])).asnumpy(), shared)
    ops.assign_add(parameter, 1)
    ops.assign_sub(parameter, Tensor([0.5, 0.5]))
    assert shared.tolist() == [1.5, 2.5]


def test_seeds_repeat_random_numbers():
    """set_seed makes every drawing operator repeat itself, with the right shapes and ranges."""

    def draw():
        ms.set_seed(5)
        return [
            ops.rand(2, 3), ops.randn(4), ops.randint(0, 9, (5,)), ops.randperm(6), ops.standard_normal((2,)),
            ops.uniform((3,), Tensor(1.0), Tensor(2.0)), ops.normal((2,), 1.0, 0.1), ops.bernoulli(X, 0.5),
            ops.multinomial(Tensor([0.5, 0.5]), 8), ops.dropout(X), ops.dropout2d(ops.ones((2, 3, 2, 2))),
            ops.rrelu(-X), ops.gumbel_softmax(X, hard=True), ops.rand_like(X), ops.randn_like(X),
        ]  # fmt: skip

    for first, second in zip(draw(), draw(), strict=True):
        np.testing.assert_array_equal(first.asnumpy(), second.asnumpy())


def test_dropout_keeps_the_mean_and_drops_whole_channels():
    """What is kept is scaled up; outside training the input itself comes back."""
    ms.set_seed(0)
    x = ops.ones((64, 64))
    dropped = ops.dropout(x, 0.25).asnumpy()
    assert set(np.unique(dropped).tolist()) == {0.0, np.float32(1 / 0.75)}
    assert 0.2 < (dropped == 0).mean() < 0.3
    channels = ops.dropout2d(ops.ones((8, 8, 2, 2)), 0.5).asnumpy().reshape(64, 4)
    assert ((channels == channels[:, :1]).all(axis=1)).all()
    assert ops.dropout(x, 0.25, training=False) is x


def test_multinomial_without_replacement_draws_each_once():
    """And never a position of weight 0."""
    drawn = ops.multinomial(Tensor([0.2, 0.0, 0.3, 0.5]), 3, False).asnumpy()
    assert sorted(drawn.tolist()) == [0, 2, 3]


def test_every_public_operator_says_what_it_does():
    """Functions and classes of `ops` have docstrings."""
    public = [getattr(ops, name) for name in dir(ops) if not name.startswith("_")]
    undocumented = [f.__name__ for f in public if callable(f) and not f.__doc__]
    assert undocumented == []
