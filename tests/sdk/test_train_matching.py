"""load_param_into_net: what goes where, and all or nothing."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mapcell as ms
from mapcell import Parameter, Tensor, nn
from mapcell.common.initializer import initializer
from mapcell.nn.utils import no_init_parameters


class Dense(nn.Cell):
    def __init__(self, inputs=2, outputs=3, dtype=ms.float32):
        super().__init__()
        self.weight = Parameter(initializer("ones", [outputs, inputs], dtype))
        self.bias = Parameter(initializer("zeros", [outputs], dtype))


class Wrap(nn.Cell):
    def __init__(self, name, cell):
        super().__init__()
        setattr(self, name, cell)


def holding(**shapes):
    """A Cell with one Float32 Parameter of zeros for each name ("a__b" for "a.b") and shape."""
    cell = nn.Cell()
    for name, shape in shapes.items():
        cell.insert_param_to_cell(name, Parameter(Tensor(np.zeros(shape, np.float32)), name=name.replace("__", ".")))
    return cell


def checkpoint_of(**shapes):
    """A dict as load_checkpoint returns it; each tensor is filled with its position from 1."""
    return {
        name.replace("__", "."): Parameter(Tensor(np.full(shape, i, np.float32)), name=name)
        for i, (name, shape) in enumerate(shapes.items(), 1)
    }


def taken(cell):
    """The first element of each Parameter."""
    return [int(p.asnumpy().reshape(-1)[0]) for p in cell.get_parameters()]


def test_equal_dtypes_share():
    """The net's Parameter aliases the dict's, keeps its name and flags, and is no longer lazy."""
    source = {
        "weight": Parameter(Tensor(np.full((3, 2), 5, np.float32))),
        "bias": Parameter(Tensor(np.ones(3, np.float32))),
    }
    with no_init_parameters():
        net, other = Dense(), Dense()
    net.weight.requires_grad = False
    for each in (net, other):
        assert ms.load_param_into_net(each, source) == ([], [])
    source["weight"][0, 0] = 9
    assert (net.weight.tolist()[0], other.weight.tolist()[0]) == ([9, 5], [9, 5])
    assert (net.weight.has_init, net.weight.requires_grad, net.weight.name) == (False, False, "weight")


def test_what_is_returned():
    """Net names that were not loaded, and keys that were not used; strings are passed over."""
    missing, unused = ms.load_param_into_net(holding(a=1, b=1), checkpoint_of(a=1, zz=1) | {"s": "text", "b": "text"})
    assert (missing, unused) == (["b"], ["zz", "s", "b"])
    assert ms.load_param_into_net(holding(accu_grads__x=1), {}) == ([], [])


PREFIXES = [
    # The net's names and shapes, the checkpoint's, what is taken, what is missing.
    ({"weight": 1, "bias": 1}, {"net__weight": 1, "net__bias": 1}, [1, 2], []),
    ({"weight": 1, "bias": 1}, {"a__weight": 1, "b__bias": 1}, [1, 2], []),
    ({"weight": 1}, {"xweight": 1}, [0], ["weight"]),
    ({"a": 1, "weight": 1}, {"a": 1, "sub__weight": 1}, [1, 2], []),
    ({"weight": 2}, {"a__weight": 3, "b__weight": 2}, [2], []),
    ({"weight": 1, "bias": 2}, {"n__weight": 1, "n__bias": 3}, [1, 0], ["bias"]),
    ({"sub__a": 1}, {"a": 1}, [0], ["sub.a"]),
    ({"fc__weight": 1}, {"net__deep__fc__weight": 1}, [1], []),
]


@pytest.mark.parametrize(("own", "checkpoint", "values", "missing"), PREFIXES, ids=range(len(PREFIXES)))
def test_prefixes(own, checkpoint, values, missing):
    """Missing names are sought behind a prefix that ends in a dot, never onto another shape; the keys stay unused."""
    net, source = holding(**own), checkpoint_of(**checkpoint)
    answer = ms.load_param_into_net(net, source)
    assert taken(net) == values
    assert answer == (missing, [key for key in source if key not in own])


def test_strict_seeks_no_prefix():
    """Nor does it raise for what is missing."""
    net = holding(weight=1)
    assert ms.load_param_into_net(net, checkpoint_of(net__weight=1), strict_load=True) == (["weight"], ["net.weight"])
    assert taken(net) == [0]


FLOATS = (ms.float16, ms.float32, ms.float64, ms.bfloat16)
INTS = (ms.int8, ms.int16, ms.int32, ms.int64)
CASTS = (
    [(a, b, True) for a in FLOATS for b in FLOATS]
    + [(a, b, True) for a in INTS for b in INTS]
    + [(ms.float32, ms.int32, False), (ms.int32, ms.float32, False), (ms.bool_, ms.int8, False)]
    + [(ms.uint8, ms.int8, False), (ms.uint8, ms.uint16, False), (ms.uint8, ms.uint8, True), (ms.bool_, ms.bool_, True)]
)


@pytest.mark.parametrize(("source", "target", "fits"), CASTS, ids=[f"{a}-{b}" for a, b, _ in CASTS])
def test_dtypes(source, target, fits):
    """Floats convert among each other and signed ints too; strict converts nothing."""

    def pair():
        net = nn.Cell()
        net.p = Parameter(Tensor([0, 0], target))
        return net, {"p": Parameter(Tensor([1, 1], source))}

    net, values = pair()
    if fits:
        ms.load_param_into_net(net, values)
        assert (net.p.asnumpy().astype(int).tolist(), net.p.dtype) == ([1, 1], target)
    else:
        with pytest.raises(RuntimeError, match="same type"):
            ms.load_param_into_net(net, values)
    if source is not target:
        net, values = pair()
        with pytest.raises(RuntimeError, match="same type"):
            ms.load_param_into_net(net, values, strict_load=True)


SHAPES = [
    ((2, 3), (2, 3), True),
    ((2, 3, 1, 1), (2, 3), True),
    ((1,), (), True),
    ((), (1,), False),
    ((2, 3), (2, 3, 1), False),
    ((6,), (2, 3), False),
    ((3, 2), (2, 3), False),
    ((2, 3, 2), (2, 3), False),
]


@pytest.mark.parametrize(("source", "target", "fits"), SHAPES, ids=str)
def test_shapes(source, target, fits):
    """Equal ones, or ones behind; the net's shape stays."""
    net = holding(p=target)
    if not fits:
        with pytest.raises(RuntimeError, match="same shape"):
            ms.load_param_into_net(net, checkpoint_of(p=source))
        return
    ms.load_param_into_net(net, checkpoint_of(p=source))
    assert (net.p.shape, taken(net)) == (target, [1])


def test_all_or_nothing():
    """Every fault is listed, and nothing was changed."""
    net = holding(a=1, b=2, c=1)
    values = checkpoint_of(a=1, b=3) | {"c": Parameter(Tensor([1]))}
    with pytest.raises(RuntimeError) as caught:
        ms.load_param_into_net(net, values)
    assert "'b'" in str(caught.value)
    assert "'c'" in str(caught.value)
    assert taken(net) == [0, 0, 0]


@pytest.mark.parametrize(
    "arguments",
    [
        (3, {}),
        (nn.Cell(), 3),
        (nn.Cell(), [("a", Parameter(1.0))]),
        (nn.Cell(), {"a": 3}),
        (nn.Cell(), {"a": Tensor([1.0])}),
        (nn.Cell(), {"a": np.ones(1)}),
        (nn.Cell(), {3: Parameter(1.0)}),
        (nn.Cell(), {}, "yes"),
        (nn.Cell(), {}, 1),
        (nn.Cell(), {}, False, True),
        (nn.Cell(), {}, False, "no"),
    ],
    ids=range(11),
)
def test_argument_types(arguments):
    """All of these are TypeErrors."""
    with pytest.raises(TypeError):
        ms.load_param_into_net(*arguments)


def test_ties_and_equal_names():
    """A tied Parameter is loaded once; two of one name both are."""
    net = nn.Cell()
    net.a, net.b = Parameter(Tensor([0.0]), name="n"), Parameter(Tensor([0.0]), name="n")
    assert ms.load_param_into_net(net, checkpoint_of(n=1)) == ([], [])
    assert taken(net) == [1, 1]


def test_the_log_names_what_is_missing_and_what_is_near(caplog):
    """One warning with the names and those that resemble them."""
    with caplog.at_level(logging.WARNING, "mapcell"):
        ms.load_param_into_net(holding(encoder__weight=1), checkpoint_of(encoder__wieght=1))
    assert "encoder.weight" in caplog.text
    assert "did you mean 'encoder.wieght'" in caplog.text


def test_many_parameters_behind_a_prefix_are_found_quickly():
    """Ten thousand names behind one prefix take a walk over each, not over every pair."""
    net = holding(**{f"w{i}__weight": 1 for i in range(3000)})
    source = {f"net.w{i}.weight": Parameter(Tensor([1.0])) for i in range(3000)}
    assert ms.load_param_into_net(net, source)[0] == []


def test_wrapped_networks():
    """What was saved from a wrapper loads into the bare network, not the other way round."""
    wrapped = Wrap("backbone", Dense())
    values = {p.name: p for p in wrapped.get_parameters()}
    assert ms.load_param_into_net(Dense(), values) == ([], ["backbone.weight", "backbone.bias"])
    bare = {p.name: p for p in Dense().get_parameters()}
    assert ms.load_param_into_net(Wrap("backbone", Dense()), bare)[0] == ["backbone.weight", "backbone.bias"]


WORDS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join)


def naive(own, keys):
    """What is loaded from which key, straight from the rule."""
    found = {name: name for name in own if name in keys}
    tried = set()
    for name in own:
        for key in keys:
            prefix = key[: -len(name)]
            if name in found or not key.endswith("." + name) or prefix in tried:
                continue
            tried.add(prefix)
            found |= {n: prefix + n for n in own if n not in found and prefix + n in keys}
    return found


@given(st.lists(WORDS, unique=True, max_size=5), st.lists(WORDS, unique=True, max_size=8))
def test_prefixes_against_the_rule_spelled_out(own, keys):
    """Any names of the network and of the checkpoint."""
    net = nn.Cell()
    for name in own:
        net.insert_param_to_cell(name, Parameter(Tensor([0.0]), name=name), check_name_contain_dot=False)
    source = {key: Parameter(Tensor([float(i)])) for i, key in enumerate(keys, 1)}
    missing, unused = ms.load_param_into_net(net, source)
    expected = naive(own, keys)
    assert missing == [name for name in own if name not in expected]
    assert unused == [key for key in keys if key not in own]
    assert taken(net) == [keys.index(expected[name]) + 1 if name in expected else 0 for name in own]
