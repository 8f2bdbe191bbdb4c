"""state_dict and load_state_dict."""

from collections import OrderedDict

import numpy as np
import pytest

from mapcell import Parameter, Tensor, nn
from mapcell.common.parameter import named_parameter
from mapcell.storage import SharedView
from mapcell_formats.manifest import TensorEntry
from support.lending import Lent


class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        self.register_buffer("buf", Tensor([1.0, 2.0]))
        self.register_buffer("tmp", Tensor([3.0]), persistent=False)
        self.register_buffer("none", None)
        self.w = Parameter(Tensor([1.0, 2.0]))
        self.seq = nn.SequentialCell(Inner(), Inner())


class Inner(nn.Cell):
    def __init__(self):
        super().__init__()
        self.p = Parameter(Tensor(np.zeros((2, 2), np.float32)))

    def construct(self, x):
        return x


def test_keys_order_and_identity():
    """Own Parameters, own persistent buffers, then children; the values are the objects themselves."""
    net = Net()
    state = net.state_dict()
    assert list(state) == ["w", "buf", "seq.0.p", "seq.1.p"]
    assert state["w"] is net.w
    assert state["buf"] is net.buf
    assert list(state._metadata) == ["", "seq", "seq.0", "seq.1"]
    assert next(iter(net.state_dict(prefix="x."))) == "x.w"
    assert repr(Inner().state_dict()) == (
        "OrderedDict([('p', Parameter (name=p, shape=(2, 2), dtype=Float32, requires_grad=True))])"
    )


def test_shared_parameters_come_under_each_path():
    """Unlike parameters_and_names nothing is left out."""
    net = Net()
    net.seq[1].p = net.seq[0].p
    assert list(net.state_dict())[-2:] == ["seq.0.p", "seq.1.p"]


def test_destination_and_arguments():
    """A dict is filled and returned; other arguments are checked; positions are deprecated."""
    mine = {"old": 1}
    assert Net().state_dict(destination=mine) is mine
    assert list(mine)[:2] == ["old", "w"]
    for bad in ({"destination": 3}, {"prefix": 3}, {"keep_vars": 3}):
        with pytest.raises(TypeError):
            Net().state_dict(**bad)
    with pytest.warns(FutureWarning):
        assert next(iter(Net().state_dict(OrderedDict(), "x."))) == "x.w"


def test_round_trip_copies_and_converts():
    """Values are copied, in the network's dtype."""
    a, b = Net(), Net()
    a.w.set_data(Tensor([7.0, 8.0]))
    a.buf[0] = 9
    answer = b.load_state_dict(a.state_dict())
    assert repr(answer) == str(answer) == "<All keys matched successfully>"
    assert (b.w.tolist(), b.buf.tolist()) == ([7, 8], [9, 2])
    a.w[0] = 0
    assert b.w.tolist() == [7, 8]
    state = a.state_dict()
    state["w"] = Tensor(np.array([1.5, 2.5], np.float64))
    b.load_state_dict(state)
    assert (b.w.tolist(), str(b.w.dtype)) == ([1.5, 2.5], "Float32")


def test_strict_and_not():
    """Both lists are filled either way; strict raises, after loading what fits."""
    net, state = Net(), Net().state_dict()
    del state["seq.0.p"]
    state["w"], state["zz"], state["seq.zz"] = Tensor([5.0, 5.0]), Tensor([1.0]), Tensor([1.0])
    answer = net.load_state_dict(state, strict=False)
    assert repr(answer) == "_IncompatibleKeys(missing_keys=['seq.0.p'], unexpected_keys=['zz', 'seq.zz'])"
    net.w.set_data(Tensor([0.0, 0.0]))
    with pytest.raises(RuntimeError, match=r"Net:\n\tMissing.*'seq.0.p'(.|\n)*Unexpected.*'zz', 'seq.zz'"):
        net.load_state_dict(state)
    assert net.w.tolist() == [5, 5]


@pytest.mark.parametrize("value", [Tensor([1.0]), np.zeros(2), 3, None], ids=str)
def test_values_that_do_not_fit_raise_even_when_not_strict(value):
    """Another shape, or no Tensor."""
    net = Net()
    with pytest.raises(RuntimeError, match="w"):
        net.load_state_dict(net.state_dict() | {"w": value}, strict=False)


def test_only_mappings():
    """Anything else is a TypeError."""
    with pytest.raises(TypeError):
        Net().load_state_dict([("w", Tensor([1.0, 2.0]))])


def test_a_key_for_an_empty_slot():
    """A slot that is None expects no value."""
    net = Inner()
    net.p = None
    assert net.load_state_dict({"p": Tensor([1.0])}, strict=False).unexpected_keys == ["p"]


def test_shared_weights_are_not_copied():
    """A value of attached weights stays a view."""
    array = np.ones((2, 2), np.float32)
    array.flags.writeable = False
    view = named_parameter(SharedView(Lent(p=array), TensorEntry("p", "F32", (2, 2), 0, 0, 16)), "p")
    net = Inner()
    net.load_state_dict({"p": view})
    assert np.shares_memory(net.p.asnumpy(), array)


def test_extra_state():
    """Overridden get_extra_state and set_extra_state take part; the base methods refuse."""

    class Extra(nn.Cell):
        got = None

        def get_extra_state(self):
            return {"n": 1}

        def set_extra_state(self, state):
            self.got = state

    cell = Extra()
    assert cell.state_dict() == {"_extra_state": {"n": 1}}
    cell.load_state_dict({"_extra_state": {"n": 2}})
    assert cell.got == {"n": 2}
    assert cell.load_state_dict({}, strict=False).missing_keys == ["_extra_state"]
    assert Inner().load_state_dict({"_extra_state": 1}, strict=False).unexpected_keys == ["_extra_state"]
    for call in (Inner().get_extra_state, lambda: Inner().set_extra_state(1)):
        with pytest.raises(RuntimeError):
            call()


def test_state_hooks():
    """Each of the four runs with its arguments; post hooks have to return None."""
    net, log = Inner(), []
    handles = [
        net.register_state_dict_pre_hook(lambda cell, prefix, keep: cell._params.update(extra=Parameter(1.0))),
        net.register_state_dict_post_hook(lambda cell, state, prefix, meta: state.__delitem__("p")),
        net.register_load_state_dict_pre_hook(
            lambda cell, state, prefix, meta, strict, missing, unexpected, errors: log.append((prefix, strict))
        ),
        net.register_load_state_dict_post_hook(lambda cell, keys: keys.missing_keys.clear()),
    ]
    assert list(net.state_dict()) == ["extra"]
    assert net.load_state_dict({}) == ([], [])
    assert log == [("", True)]
    for handle in handles:
        handle.remove()
    net.register_state_dict_post_hook(lambda *a: 1)
    with pytest.raises(RuntimeError):
        net.state_dict()
    net.register_load_state_dict_post_hook(lambda *a: 1)
    with pytest.raises(RuntimeError):
        net.load_state_dict({}, strict=False)
    for register in ("state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post"):
        with pytest.raises(TypeError):
            getattr(net, f"register_{register}_hook")(3)
