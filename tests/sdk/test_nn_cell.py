"""Cell: assignment, naming, walking, running, text, copies."""

import copy
import pickle
import re
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapcell import Parameter, ParameterTuple, Tensor, nn
from mapcell.common.initializer import initializer
from mapcell.nn.utils import no_init_parameters


class Dense(nn.Cell):
    """A layer of one's own: ones and zeros."""

    def __init__(self, inputs=2, outputs=2):
        super().__init__()
        self.weight = Parameter(initializer("ones", [outputs, inputs]))
        self.bias = Parameter(initializer("zeros", [outputs]))

    def construct(self, x):
        return x @ self.weight.T + self.bias


class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        self.a = Parameter(Tensor([1.0]), name="given")
        self.b = Parameter(Tensor([1.0]))
        self.sub = Dense()
        self.t = ParameterTuple((Parameter(Tensor([1.0])), Parameter(Tensor([2.0]))))
        self.lst = nn.CellList([Dense(), Dense()])


def names(cell):
    return [p.name for p in cell.get_parameters()]


def paths(cell):
    return [path for path, _ in cell.parameters_and_names()]


# --- Assignment


def test_names_follow_attributes():
    """Unnamed Parameters take the attribute's name, children get prefixes, items of tuples are numbered."""
    net = Net()
    tail = ["sub.weight", "sub.bias", "lst.0.weight", "lst.0.bias", "lst.1.weight", "lst.1.bias"]
    assert paths(net) == ["a", "b", "Parameter$1", "Parameter$2", *tail]
    assert names(net) == ["given", "b", "Parameter$1", "Parameter$2", *tail]
    assert net.exist_names == {"Parameter$1", "Parameter$2"}
    assert isinstance(net.t, ParameterTuple)


def test_an_outer_cell_renames_everything_below():
    """Explicit names too; without auto_prefix none."""

    class Outer(nn.Cell):
        def __init__(self, net, auto_prefix):
            super().__init__(auto_prefix=auto_prefix)
            self.net = net

    assert names(Outer(Net(), False))[:2] == ["given", "b"]
    outer = Outer(Net(), True)
    assert names(outer)[:2] == ["net.a", "net.b"]
    assert names(outer) == paths(outer)


def test_lists_of_parameters_are_registered_like_tuples():
    """The attribute stays a list; one that is registered already is not listed again."""

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.w = Parameter(Tensor([1.0]))
            self.items = [Parameter(Tensor([1.0])), Parameter(Tensor([2.0]), name="x"), self.w]
            self.mixed = [Parameter(Tensor([1.0])), 3]

    net = Net()
    assert paths(net) == ["w", "Parameter$1", "x"]
    assert (type(net.items), len(net.mixed)) == (list, 2)
    with pytest.raises(ValueError):
        net.twice = [Parameter(1.0, name="y"), Parameter(2.0, name="y")]


def test_replacing_keeps_the_position():
    """A Parameter over a Parameter stays where the first was; a Tensor sets its data; None empties the slot."""
    net = Dense()
    net.weight = Parameter(Tensor([3.0]))
    assert names(net) == ["weight", "bias"]
    net.bias = Tensor([5.0, 6.0])
    assert isinstance(net.bias, Parameter)
    assert net.bias.tolist() == [5, 6]
    net.weight = None
    assert net.weight is None
    assert names(net) == ["bias"]
    with pytest.raises(AttributeError):
        net.weight = Tensor([1.0])
    net.weight = Parameter(Tensor([1.0]))
    assert names(net) == ["weight", "bias"]


def test_none_first_then_the_real_thing():
    """A plain attribute gives way to a Parameter or Cell."""

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.w = self.c = self.b = None
            self.w, self.c, self.b = Parameter(1.0), Dense(), nn.Buffer(Tensor([1]))

    assert repr(Net()) == "Net(\n  (c): Dense()\n)"
    assert paths(Net()) == ["w", "c.weight", "c.bias"]
    assert [n for n, _ in Net().named_buffers()] == ["b"]


ASSIGNMENTS = [
    ("weight", 3, TypeError),
    ("weight", [1, 2], TypeError),
    ("weight", Dense(), KeyError),
    ("child", 3, TypeError),
    ("child", Tensor([1.0]), TypeError),
    ("child", Parameter(1.0), KeyError),
    ("buf", 3, TypeError),
    ("buf", Tensor([1.0]), TypeError),
    ("buf", Parameter(1.0), KeyError),
    ("buf", Dense(), KeyError),
    ("construct", Parameter(1.0), KeyError),
    ("cells", Dense(), KeyError),
    ("phase", Parameter(1.0), KeyError),
    ("phase", 3, TypeError),
    ("a.b", Parameter(1.0), KeyError),
    ("a.b", Dense(), KeyError),
]


@pytest.mark.parametrize(("name", "value", "error"), ASSIGNMENTS, ids=range(len(ASSIGNMENTS)))
def test_assignments_that_are_refused(name, value, error):
    """A value of another kind, a name that is taken, a dot."""
    net = Dense()
    net.child = Dense()
    net.register_buffer("buf", Tensor([1.0]))
    with pytest.raises(error):
        setattr(net, name, value)


@pytest.mark.parametrize("value", [Parameter(1.0), Dense(), ParameterTuple([Parameter(1.0)])], ids=type)
def test_before_init(value):
    """What has to be registered cannot be assigned before super().__init__(); anything else can."""

    class Early(nn.Cell):
        def __init__(self):
            self.plain = 3
            self.x = value

    with pytest.raises(AttributeError, match="__init__"):
        Early()


def test_a_child_without_init():
    """A Cell that never called super().__init__() is told so when it becomes a child."""

    class Bare(nn.Cell):
        def __init__(self):
            pass

    with pytest.raises(AttributeError, match="__init__"):
        Dense().child = Bare()


@pytest.mark.parametrize("name", ["_inputs", "_scope", "_phase", "_flags", "_layouts"])
def test_private_names_are_free(name):
    """What a Cell keeps for itself is no network's name."""
    net = nn.Cell()
    for value in (Parameter(1.0), Dense()):
        setattr(net, name, value)
        assert getattr(net, name) is value
        delattr(net, name)
    assert (net.phase, net.get_inputs(), net.get_scope(), net.get_flags()) == ("train", None, None, {})


def test_two_inits_are_one():
    """A second __init__ starts anew, as with two bases that are Cells."""

    class Twice(nn.Cell):
        def __init__(self):
            super().__init__(flags={"fp16": True})
            self.old = ParameterTuple([Parameter(1.0)])
            self.register_forward_hook(print)
            self.set_inputs(1)
            super().__init__()
            self.new = ParameterTuple([Parameter(1.0)])

    net = Twice()
    assert (names(net), net.exist_names, net.get_flags(), net.get_inputs()) == (
        ["Parameter$1"], {"Parameter$1"}, {}, None
    )  # fmt: skip
    assert {name for name in vars(net) if name.startswith("_")} == {
        "_params", "_buffers", "_cells", "_auto_prefix", "_create_time", "_list_names", "_unnamed_items", "_flags"
    }  # fmt: skip


def test_plain_attributes_are_plain():
    """Tensors, lists of Cells, dicts and arrays are not registered."""
    net = Dense()
    net.x, net.cells_list, net.d, net.arr = Tensor([1]), [Dense()], {"a": Dense()}, np.ones(1)
    assert (paths(net), list(net.buffers()), list(net.name_cells())) == (["weight", "bias"], [], [])
    net.cells = 3
    assert paths(net) == ["weight", "bias"]


def test_missing_and_deleted_attributes():
    """Both are AttributeErrors; deleting takes a Parameter, Cell, buffer or attribute away."""
    net = Net()
    net.plain, net.buf = 1, nn.Buffer(Tensor([1]))
    for name in ("a", "sub", "plain", "buf"):
        delattr(net, name)
        with pytest.raises(AttributeError, match=f"The 'Net' object has no attribute '{name}'."):
            getattr(net, name)
        with pytest.raises(AttributeError):
            delattr(net, name)
    assert paths(net)[0] == "b"


# --- insert_*, buffers

INSERT_CHILD = [
    (("new", Dense()), None),
    (("child", Dense()), None),
    (("none", None), None),
    (("x", 3), TypeError),
    ((3, Dense()), TypeError),
    (("a.b", Dense()), KeyError),
    (("", Dense()), KeyError),
    (("weight", Dense()), KeyError),
    (("construct", Dense()), KeyError),
]


@pytest.mark.parametrize(("arguments", "error"), INSERT_CHILD, ids=range(len(INSERT_CHILD)))
def test_insert_child_to_cell(arguments, error):
    """Adds without renaming, replaces, allows None."""
    net = Dense()
    net.child = Dense()
    if error:
        with pytest.raises(error):
            net.insert_child_to_cell(*arguments)
        return
    net.insert_child_to_cell(*arguments)
    assert getattr(net, arguments[0]) is arguments[1]
    assert f"({arguments[0]}): " in repr(net)
    if arguments[1] is not None:
        assert names(arguments[1]) == ["weight", "bias"]


INSERT_PARAM = [
    (("new", Parameter(1.0)), None),
    (("weight", Parameter(1.0, name="w")), None),
    (("none", None), None),
    (("a.b", Parameter(1.0)), KeyError),
    (("a.b", Parameter(1.0), False), None),
    (("", Parameter(1.0)), KeyError),
    ((None, Parameter(1.0)), KeyError),
    ((3, Parameter(1.0)), TypeError),
    (("x", 3), TypeError),
    (("x", Tensor([1.0])), TypeError),
    (("child", Parameter(1.0)), KeyError),
]


@pytest.mark.parametrize(("arguments", "error"), INSERT_PARAM, ids=range(len(INSERT_PARAM)))
def test_insert_param_to_cell(arguments, error):
    """Adds or replaces; an unnamed one takes the name."""
    net = Dense()
    net.child = Dense()
    if error:
        with pytest.raises(error):
            net.insert_param_to_cell(*arguments)
        return
    net.insert_param_to_cell(*arguments)
    held = net._params[arguments[0]]
    assert held is arguments[1]
    assert held is None or held.name in (arguments[0], "w")


BUFFERS = [
    (("new", Tensor([1])), None),
    (("none", None), None),
    (("buf", Tensor([2])), None),
    ((3, Tensor([1])), TypeError),
    (("a.b", Tensor([1])), KeyError),
    (("", Tensor([1])), KeyError),
    (("weight", Tensor([1])), KeyError),
    (("x", 3), TypeError),
    (("x", np.ones(1)), TypeError),
]


@pytest.mark.parametrize(("arguments", "error"), BUFFERS, ids=range(len(BUFFERS)))
def test_register_buffer(arguments, error):
    """Names are checked; Tensors and None are taken; a second one replaces."""
    net = Dense()
    net.register_buffer("buf", Tensor([1]))
    if error:
        with pytest.raises(error):
            net.register_buffer(*arguments)
        return
    net.register_buffer(*arguments)
    assert getattr(net, arguments[0]) is arguments[1]


def test_buffers_of_a_tree():
    """Order, paths, prefix, recurse, duplicates, None."""

    class Inner(nn.Cell):
        def __init__(self, shared):
            super().__init__()
            self.buffer_b = nn.Buffer(Tensor([1, 2, 3]))
            self.again = shared

    class Outer(nn.Cell):
        def __init__(self):
            super().__init__()
            self.buffer_a = nn.Buffer(Tensor([4, 5, 6]), persistent=False)
            self.inner = Inner(self.buffer_a)
            self.register_buffer("nothing", None)

    net = Outer()
    assert [n for n, _ in net.named_buffers()] == ["buffer_a", "inner.buffer_b"]
    assert [n for n, _ in net.named_buffers(remove_duplicate=False)][-1] == "inner.again"
    assert [n for n, _ in net.named_buffers("p", recurse=False)] == ["p.buffer_a"]
    assert [str(b) for b in net.buffers()] == ["[4 5 6]", "[1 2 3]"]
    assert net.get_buffer("inner.buffer_b").tolist() == [1, 2, 3]
    for missing in ("nope", "inner.nope", "nope.buffer_b", "nothing"):
        with pytest.raises(AttributeError):
            net.get_buffer(missing)
    net.buffer_a = None
    assert [n for n, _ in net.named_buffers()] == ["inner.buffer_b", "inner.again"]
    for data, error in ((None, ValueError), ([1], TypeError)):
        with pytest.raises(error):
            nn.Buffer(data)


# --- Walking


def test_walks_over_cells():
    """Pre-order, each object once under its first path, None and empty containers left out."""
    net = Net()
    net.same, net.none, net.empty = net.sub, Dense(), nn.CellList()
    net.none = None
    assert [path for path, _ in net.cells_and_names()] == ["", "sub", "lst", "lst.0", "lst.1"]
    assert [path for path, _ in net.cells_and_names(name_prefix="x")][:2] == ["x", "x.sub"]
    assert list(net.name_cells()) == ["sub", "lst", "empty"]
    assert isinstance(net.name_cells(), OrderedDict)
    assert type(net.cells()).__name__ == "odict_values"
    assert net.get_sub_cell("lst.1") is net.lst[1]
    assert net.get_sub_cell("") is net
    for missing in ("nope", "lst.9", "a", "sub.weight"):
        with pytest.raises(AttributeError):
            net.get_sub_cell(missing)


def test_shared_parameters_are_listed_once():
    """Under the first path; a shared child keeps the name of its last assignment."""

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.a, self.b = Dense(), Dense()
            self.b.weight = self.a.weight

    assert paths(Net()) == ["a.weight", "a.bias", "b.bias"]
    net, child = nn.Cell(), Dense()
    net.a = net.b = child
    assert paths(net) == ["a.weight", "a.bias"]
    assert names(net) == ["b.weight", "b.bias"]


def test_lists_and_dicts_of_parameters():
    """Trainable and not, by name, without children."""
    net = Net()
    net.sub.bias.requires_grad = False
    net.sub.weight.layerwise_parallel = True
    assert [p.name for p in net.untrainable_params()] == ["sub.bias"]
    assert [p.name for p in net.trainable_params(recurse=False)] == ["given", "b", "Parameter$1", "Parameter$2"]
    assert list(net.parameters_dict())[:2] == ["given", "b"]
    assert "sub.weight" not in net.parameters_broadcast_dict()
    assert nn.Cell().parameters_broadcast_dict() is None
    assert [p.name for p in net.get_parameters(expand=False)][-1] == "Parameter$2"
    assert [path for path, _ in net.sub.parameters_and_names("x.y")] == ["x.y.weight", "x.y.bias"]


@given(st.text(alphabet="aZ0_.- é²中/$\n"))
def test_what_names_start_with(prefix):
    """Letters, digits and underscores of any script, then ASCII's with dots and dashes, as in MindSpore."""
    net = Dense()
    if re.fullmatch(r"\w*[0-9a-zA-Z_.-]*", prefix):
        net.update_parameters_name(prefix)
        assert names(net) == [f"{prefix}weight", f"{prefix}bias"]
    else:
        with pytest.raises(ValueError, match="no name can start"):
            net.update_parameters_name(prefix)


def test_update_parameters_name():
    """Prefix plus path, never accumulated; a bad prefix is refused."""
    net = Net()
    net.update_parameters_name("x_")
    net.update_parameters_name("pre.")
    assert names(net) == [f"pre.{path}" for path in paths(net)]
    net.update_parameters_name("y.", recurse=False)
    assert names(net)[:5] == ["y.a", "y.b", "y.Parameter$1", "y.Parameter$2", "pre.sub.weight"]
    for prefix, error in ((3, TypeError), ("a b", ValueError)):
        with pytest.raises(error):
            net.update_parameters_name(prefix)


def test_equal_names_are_refreshed_at_the_first_call():
    """check_names refuses them, a call renames all to their paths."""

    class Twice(nn.Cell):
        def __init__(self):
            super().__init__()
            self.a, self.b = Parameter(1.0, name="n"), Parameter(2.0, name="n")

        def construct(self, x):
            return x

    net = Twice()
    with pytest.raises(ValueError):
        net.check_names()
    net(1)
    assert names(net) == ["a", "b"]
    net.check_names()


def test_cell_prefix():
    """update_cell_prefix tells every Cell its path."""
    net = Net()
    assert net.lst[0].param_prefix == ""
    net.update_cell_prefix()
    assert (net.param_prefix, net.lst[0].param_prefix) == ("", "lst.0")


def test_apply():
    """Children first, this one last, shared children once."""
    net = Net()
    net.again = net.sub
    seen = []
    assert net.apply(lambda cell: seen.append(type(cell).__name__)) is net
    assert seen == ["Dense", "Dense", "Dense", "CellList", "Net"]
    with pytest.raises(TypeError):
        net.apply(3)


# --- Running


def test_calls_pass_arguments_as_they_are():
    """Positional, keyword and default; Python's own TypeError for what does not fit."""

    class Cell(nn.Cell):
        def construct(self, x, y=2, *, k=1):
            return x * y + k

    cell = Cell()
    assert (cell(3), cell(3, 3), cell(3, y=4, k=2)) == (7, 10, 14)
    with pytest.raises(TypeError):
        cell()
    with pytest.raises(AttributeError, match="construct"):
        nn.Cell()(1)


def test_lazy_networks_run():
    """A network built under no_init_parameters initialises what it uses."""
    with no_init_parameters():
        net = nn.SequentialCell(Dense(), Dense())
    assert net(Tensor([[1.0, 1.0]])).tolist() == [[4, 4]]


# --- Text

REPRS = [
    (nn.Cell, "Cell()"),
    (Net, "Net(\n  (sub): Dense()\n  (lst): CellList(\n    (0): Dense()\n    (1): Dense()\n  )\n)"),
    (lambda: nn.SequentialCell(Dense()), "SequentialCell(\n  (0): Dense()\n)"),
]


@pytest.mark.parametrize(("make", "text"), REPRS, ids=range(len(REPRS)))
def test_repr_of_trees(make, text):
    """Children are indented; Parameters are not shown."""
    assert repr(make()) == str(make()) == text


def test_extend_repr():
    """One line goes inline, several or with children each on their own."""

    class One(nn.Cell):
        def extend_repr(self):
            return "a=1, b=2"

    class Two(nn.Cell):
        def extend_repr(self):
            return "a=1\nb=2"

    assert repr(One()) == "One(a=1, b=2)"
    assert repr(Two()) == "Two(\n  a=1\n  b=2\n)"
    one = One()
    one.c = Two()
    assert repr(one) == "One(\n  a=1, b=2\n  (c): Two(\n    a=1\n    b=2\n  )\n)"


def test_identity():
    """Cells hash and compare by identity, and know their class and age."""
    a, b = Dense(), Dense()
    assert (a == a, a == b, len({a, b, a})) == (True, False, 2)
    assert bool(a)
    assert a.cls_name == "Dense"
    assert isinstance(a.create_time, int)


# --- Copies


def test_deepcopy_keeps_ties_and_names():
    """New Parameters of equal values; what was one object stays one; lazy ones are initialised."""

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.a, self.b = Dense(), Dense()
            self.b.weight = self.a.weight

    with no_init_parameters():
        net = Net()
    made = copy.deepcopy(net)
    assert made.a.weight is made.b.weight
    assert names(made) == names(net)
    made.a.weight[0, 0] = 9
    assert net.a.weight.tolist() == [[1, 1], [1, 1]]
    assert made.b.weight.tolist() == [[9, 1], [1, 1]]


def test_copy_shares_children_and_parameters():
    """A shallow copy has the same slots."""
    net = Net()
    made = copy.copy(net)
    assert made.sub is net.sub
    assert made._params is net._params


def test_pickle():
    """A network goes through pickle, with its names and values."""
    net = pickle.loads(pickle.dumps(nn.SequentialCell(Dense(), Dense())))
    assert names(net) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert net(Tensor([[1.0, 1.0]])).tolist() == [[4, 4]]


NAMES = st.sampled_from(["a", "b", "c"])
TREES = st.recursive(
    st.dictionaries(NAMES, st.just(None), max_size=3),
    lambda below: st.dictionaries(NAMES, st.one_of(st.just(None), below), max_size=3),
    max_leaves=8,
)


def grown(tree):
    """A Cell with a Parameter for each None and a child for each dict."""
    cell = nn.Cell()
    for name, below in tree.items():
        setattr(cell, name, Parameter(Tensor([1.0])) if below is None else grown(below))
    return cell


def leaves(tree, prefix=""):
    """Paths in the order of parameters_and_names: own ones first, then depth first."""
    own = [prefix + name for name, below in tree.items() if below is None]
    return own + [p for name, below in tree.items() if below is not None for p in leaves(below, f"{prefix}{name}.")]


@given(TREES)
def test_names_are_paths_in_any_tree(tree):
    """Whatever the shape of a network, its Parameters are named by their paths, in order."""
    cell = grown(tree)
    assert paths(cell) == names(cell) == list(cell.state_dict()) == leaves(tree)
    assert [p for p, _ in copy.deepcopy(cell).parameters_and_names()] == leaves(tree)
