"""Flags that Cells keep for training, graphs, clusters and servers."""

import pytest

import mapcell as ms
from mapcell import Parameter, Tensor, nn


class Leaf(nn.Cell):
    def construct(self, x):
        return x


class Net(nn.Cell):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.p = Parameter(Tensor([1.0]))
        self.child = nn.SequentialCell(Leaf())

    def construct(self, x, y=1):
        return x


def test_flags():
    """Attributes that get_flags remembers; recursive ones reach every descendant."""
    net = Net(flags={"a": 1})
    assert net.add_flags(b=2) is net
    assert (net.a, net.b, net.get_flags()) == (1, 2, {"a": 1, "b": 2})
    assert net.add_flags_recursive(c=3) is net
    assert net.child[0].get_flags() == {"c": 3}
    assert nn.Cell().get_flags() == {}


def test_training():
    """training is set below, phase on the Cell itself, the value kept as given."""
    net = Net()
    assert (net.training, net.phase) == (False, "train")
    assert net.set_train(3) is net
    assert (net.training, net.child[0].training, net.phase) == (3, 3, "train")
    net.set_train(False)
    assert (net.child.training, net.phase, net.child.phase) == (False, "predict", "train")
    assert net.set_grad() is net
    assert (net.requires_grad, net.child.requires_grad) == (True, False)


PROPERTIES = [
    ("phase", "mine", 3, TypeError),
    ("bprop_debug", True, 1, TypeError),
    ("pipeline_stage", 2, True, TypeError),
    ("pipeline_stage", 2, -1, ValueError),
    ("parameter_layout_dict", {"a": 1}, [1], TypeError),
]


@pytest.mark.parametrize(("name", "fine", "wrong", "error"), PROPERTIES)
def test_checked_properties(name, fine, wrong, error):
    """What fits is kept, what does not is refused."""
    net = Net()
    setattr(net, name, fine)
    assert getattr(net, name) == fine
    with pytest.raises(error):
        setattr(net, name, wrong)


def test_inputs():
    """By position or by name, never both; names have to be construct's."""
    net, tensor = Net(), Tensor(shape=[3, None], dtype=ms.float32)
    assert net.get_inputs() is None
    net.set_inputs(tensor)
    assert str(net.get_inputs()) == "(Tensor(shape=[3, -1], dtype=Float32, value=\n),)"
    net.set_inputs(x=tensor)
    assert net.get_inputs() == {"x": tensor}
    with pytest.raises(ValueError):
        net.set_inputs(tensor, x=tensor)
    with pytest.raises(ValueError):
        net.set_inputs(z=tensor)
    with pytest.raises(TypeError):
        nn.Cell().set_inputs(x=tensor)


def test_jit_config():
    """The first one stays."""
    net = Net()
    net.set_jit_config(ms.JitConfig(jit_level="O1"))
    net.set_jit_config(ms.JitConfig())
    assert net.jit_config_dict["jit_level"] == "O1"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda n: n.recompute(nothing=True), ValueError),
        (lambda n: n.recompute(mp_comm_recompute=3), TypeError),
        (lambda n: n.set_boost("other"), ValueError),
        (lambda n: n.offload("No"), ValueError),
        (lambda n: n.offload(-1), ValueError),
        (lambda n: n.offload(1.5), TypeError),
        (lambda n: n.flatten_weights(-1), ValueError),
        (lambda n: n.flatten_weights("a"), TypeError),
        (lambda n: n.set_comm_fusion(-1), ValueError),
        (lambda n: n.set_comm_fusion(1.5), TypeError),
    ],
)
def test_arguments_are_checked(call, error):
    """Even of what does nothing here."""
    with pytest.raises(error):
        call(Net())


def test_what_one_process_makes_of_the_rest():
    """No-ops return what MindSpore's methods return."""
    net = Net()
    nothing = [
        net.recompute(mp_comm_recompute=False), net.offload(), net.offload(3), net.set_data_parallel(),
        net.place("MS_WORKER", 0), net.flatten_weights(), net.remove_redundant_parameters(), net.compile(1),
        net.set_param_ps(), net.generate_scope(),
    ]  # fmt: skip
    assert nothing == [None] * 10
    assert net.set_boost("less_bn").get_flags() == {"less_bn": True}
    assert net.set_broadcast_flag() is net
    assert net.child[0].broadcast_flag is True
    assert net.set_comm_fusion(4).p.comm_fusion == 4
    assert net.infer_param_pipeline_stage() == [net.p]
    assert net.compile_and_run(5) == net.run_construct((5,), {}) == net.shard(((1,),))(5) == 5
    assert (net.get_scope(), net.child[0].get_scope()) == (None, "Default/child/0-Leaf")
    assert net.p.is_param_ps
    net.update_cell_type("second-order")
    assert net.cell_type == "second-order"


def test_a_sharded_cell_can_be_assigned():
    """What shard returns is a function, so nothing is registered twice."""
    net = Net()
    net.sharded = net.child.shard(((1,),))
    assert list(net.name_cells()) == ["child"]
    assert net.sharded(3) == 3
