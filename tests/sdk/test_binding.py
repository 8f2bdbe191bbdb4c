"""bind: every Parameter to its tensor, nothing read, all or nothing."""

import copy
import tracemalloc

import numpy as np
import pytest

import mapcell as ms
from mapcell import Parameter, Tensor, nn
from mapcell.common.initializer import initializer
from mapcell.nn.utils import no_init_parameters


class Dense(nn.Cell):
    def __init__(self, inputs=2, outputs=3, dtype=ms.float32):
        super().__init__()
        self.weight = Parameter(initializer("ones", [outputs, inputs], dtype))
        self.bias = Parameter(initializer("zeros", [outputs], dtype))

    def construct(self, x):
        return x @ self.weight.T + self.bias


def network(**kwargs):
    with no_init_parameters():
        return nn.SequentialCell(Dense(**kwargs), Dense(3, 2))


def arrays():
    return {p.name: np.full(p.shape, i, np.float32) for i, p in enumerate(network().get_parameters(), 1)}


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "w.ckpt"
    ms.save_checkpoint({name: Tensor(a) for name, a in arrays().items()}, path)
    with ms.attach(path, daemon="never") as attached:
        yield attached


def test_binding_touches_nothing(weights):
    """Views are made at first use, read-only, of the attached memory."""
    net = network()
    assert ms.bind(net, weights) == ([], [])
    assert weights.statistics().viewed == 0
    assert [p.has_init for p in net.get_parameters()] == [False] * 4
    assert net[0].weight.asnumpy() is not None
    assert weights.statistics().viewed == 1
    assert not net[0].weight.asnumpy().flags.writeable
    assert net(Tensor([[1.0, 1.0]])).tolist() == [[40, 40]]
    with pytest.raises(ValueError, match="set_data"):
        net[0].weight[0, 0] = 1


def test_copy_on_write_can_be_written(tmp_path):
    """With mode="c" a write stays in this process."""
    ms.save_checkpoint(
        {"weight": Tensor(np.ones((3, 2), np.float32)), "bias": Tensor(np.ones(3, np.float32))}, tmp_path / "c"
    )
    nets = [Dense(), Dense()]
    for net in nets:
        ms.bind(net, ms.attach(tmp_path / "c.ckpt", mode="c", daemon="never"))
    nets[0].bias[0] = 9
    assert [net.bias.tolist() for net in nets] == [[9, 1, 1], [1, 1, 1]]


def test_deep_copies_own_their_elements(weights):
    """A copied network can be written to."""
    net = network()
    ms.bind(net, weights)
    made = copy.deepcopy(net)
    made[0].bias[0] = 9
    assert (made[0].bias.tolist(), net[0].bias.tolist()) == ([9, 2, 2], [2, 2, 2])


def test_any_mapping_of_arrays():
    """A plain dict of arrays binds as well, shared."""
    net, values = network(), arrays()
    ms.bind(net, values)
    assert np.shares_memory(net[0].weight.asnumpy(), values["0.weight"])


def test_names_come_before_paths():
    """A tensor belongs to the Parameter of that name, else to the one at that path."""
    net = nn.Cell()
    net.a, net.b = Parameter(Tensor([0.0]), name="b"), Parameter(Tensor([0.0]), name="x")
    ms.bind(net, {"b": np.ones(1, np.float32), "x": np.full(1, 2, np.float32)})
    assert (net.a.tolist(), net.b.tolist()) == ([1], [2])
    twice = nn.Cell()
    twice.a, twice.b = Parameter(Tensor([0.0]), name="n"), Parameter(Tensor([0.0]), name="n")
    ms.bind(twice, {"a": np.ones(1, np.float32), "b": np.full(1, 2, np.float32)})
    assert (twice.a.tolist(), twice.b.tolist()) == ([1], [2])


RENAMES = [
    ({"prefix": "model."}, {f"model.{n}": a for n, a in arrays().items()}),
    ({"rename": lambda n: n.replace("layer", "")}, {f"layer{n}": a for n, a in arrays().items()}),
    ({"rename": [("^layers_", ""), ("_", ".")]}, {f"layers_{n.replace('.', '_')}": a for n, a in arrays().items()}),
    (
        {"rename": {"w": "0.weight", "extra": None}},
        {("w" if n == "0.weight" else n): a for n, a in arrays().items()} | {"extra": np.ones(1)},
    ),
    ({"prefix": "m.", "rename": lambda n: n[1:]}, {f"m.x{n}": a for n, a in arrays().items()} | {"other": np.ones(1)}),
]


@pytest.mark.parametrize(("arguments", "values"), RENAMES, ids=range(len(RENAMES)))
def test_prefix_and_rename(arguments, values):
    """The prefix chooses and is cut off, then names are mapped; None leaves a tensor out."""
    net = network()
    assert ms.bind(net, values, **arguments) == ([], [])
    assert [p.asnumpy().flat[0] for p in net.get_parameters()] == [1, 2, 3, 4]


def test_every_fault_at_once():
    """Missing with near names, unexpected, shapes and dtypes; nothing was bound."""
    net, values = network(), arrays()
    values["0.wieght"] = values.pop("0.weight")
    values["0.bias"] = np.ones(7, np.float32)
    values["1.weight"] = values["1.weight"].astype(np.float16)
    with pytest.raises(ms.BindError) as caught:
        ms.bind(net, values)
    text = str(caught.value)
    for part in (
        "1 missing: '0.weight'",
        "did you mean '0.wieght'",
        "1 unexpected: '0.wieght'",
        "(7,)",
        "float16",
        "dtype=",
    ):
        assert part in text
    assert all(p.has_init for p in net.get_parameters())


def test_not_strict():
    """Missing and unexpected names are returned, dtypes are converted; shapes still have to fit."""
    net, values = network(), arrays()
    values["zz"] = values.pop("0.bias")
    values["0.weight"] = values["0.weight"].astype(np.float64)
    assert ms.bind(net, values, strict=False) == (["0.bias"], ["zz"])
    assert (net[0].weight.tolist()[0], net[0].weight.dtype, net[0].bias.has_init) == ([1, 1], ms.float32, True)
    values["0.weight"] = np.ones((7, 7), np.float32)
    with pytest.raises(ms.BindError):
        ms.bind(net, values, strict=False)


def test_two_tensors_for_one_parameter():
    """A rename that makes two names one is a fault."""
    with pytest.raises(ms.BindError, match="both mean"):
        ms.bind(network(), arrays() | {"w": np.ones((3, 2), np.float32)}, rename={"w": "0.weight"})


def test_argument_types():
    """A Cell, and a rename that is one."""
    with pytest.raises(TypeError):
        ms.bind(3, {})
    with pytest.raises(TypeError):
        ms.bind(network(), {}, rename=3)


def test_ties_are_bound_once():
    """A Parameter that occurs twice needs one tensor."""
    net = network()
    net[1].tied = net[0].weight
    assert ms.bind(net, arrays()) == ([], [])


def test_binding_many_is_light(tmp_path):
    """Binding 2,000 tensors owns less than 400 bytes for each."""
    net = nn.Cell()
    with no_init_parameters():
        for i in range(2000):
            net.insert_param_to_cell(f"p{i}", Parameter(initializer("ones", [64])))
    ms.save_checkpoint({f"p{i}": Tensor(np.ones(64, np.float32)) for i in range(2000)}, tmp_path / "many")
    weights = ms.attach(tmp_path / "many.ckpt", daemon="never")
    tracemalloc.start()
    ms.bind(net, weights)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 2000 * 400
