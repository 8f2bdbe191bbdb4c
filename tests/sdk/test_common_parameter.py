"""Parameter and ParameterTuple."""

import copy
import pickle
import threading

import numpy as np
import pytest

import mapcell as ms
from mapcell import Parameter, ParameterTuple, Tensor
from mapcell.common.initializer import initializer
from mapcell.common.parameter import named_parameter
from mapcell.nn.utils import no_init_parameters
from mapcell.storage import SharedView
from mapcell_formats.manifest import TensorEntry
from support.lending import Lent


def parameter(values=(1.0, 2.0), dtype=np.float32, **kwargs):
    return Parameter(Tensor(np.array(values, dtype)), **{"name": "p"} | kwargs)


def lazy(kind="ones", shape=(2, 3), **kwargs):
    with no_init_parameters():
        return Parameter(initializer(kind, list(shape)), **{"name": "q"} | kwargs)


def shared(values=(1.0, 2.0)):
    array = np.array(values, np.float32)
    array.flags.writeable = False
    return named_parameter(SharedView(Lent(w=array), TensorEntry("w", "F32", array.shape, 0, 0, array.nbytes)), "w")


DEFAULTS = [
    (1, (), "Int32"),
    (2.5, (), "Float32"),
    ([1, 2, 3], (3,), "Int64"),
    ([1.0, 2.0], (2,), "Float32"),
    ([True], (1,), "Bool"),
    ([], (0,), "Float32"),
    (np.ones(2, np.float16), (2,), "Float16"),
    (np.ones((0, 3)), (0, 3), "Float64"),
    (Tensor([1]), (1,), "Int64"),
    (initializer("ones", [2], ms.float16), (2,), "Float16"),
]


@pytest.mark.parametrize(("default", "shape", "dtype"), DEFAULTS, ids=range(len(DEFAULTS)))
def test_what_it_is_made_from(default, shape, dtype):
    """Shape and dtype of each kind of default."""
    made = Parameter(default, name="p")
    assert (made.shape, str(made.dtype), made.has_init) == (shape, dtype, False)
    assert isinstance(made, Tensor)
    assert type(made).__name__ == "Parameter"


REFUSED = [
    ((True,), {}, ValueError),
    ((None,), {}, TypeError),
    (("zeros",), {}, TypeError),
    ((np.int32(3),), {}, TypeError),
    ((np.float64(3),), {}, TypeError),
    (((1, 2),), {}, TypeError),
    ((1j,), {}, TypeError),
    (({},), {}, TypeError),
    ((2**31,), {}, OverflowError),
    ((Tensor(shape=[2, None], dtype=ms.float32),), {}, ValueError),
    ((), {}, TypeError),
    ((1.0,), {"nothing": 1}, TypeError),
    ((1.0,), {"name": 3}, ValueError),
    ((1.0,), {"name": ("a",)}, ValueError),
    ((1.0,), {"name": "x" * 1025}, ValueError),
    ((1.0,), {"requires_grad": 1}, TypeError),
    ((1.0,), {"layerwise_parallel": 0}, TypeError),
    ((1.0,), {"parallel_optimizer": None}, TypeError),
    ((1.0,), {"device": "GPU"}, ValueError),
]


@pytest.mark.parametrize(("args", "kwargs", "error"), REFUSED, ids=range(len(REFUSED)))
def test_what_it_refuses(args, kwargs, error):
    """Each wrong argument has its kind of error."""
    with pytest.raises(error):
        Parameter(*args, **kwargs)


def test_positional_arguments():
    """All may be given by position."""
    made = Parameter(1.0, "n", False, True, False)
    assert (made.name, made.requires_grad, made.layerwise_parallel, made.parallel_optimizer) == (
        "n",
        False,
        True,
        False,
    )


@pytest.mark.parametrize(
    ("given", "name"), [(" a b ", "a b"), ("a.b", "a.b"), ("", "Parameter"), ("  ", "Parameter"), (None, "Parameter")]
)
def test_names(given, name):
    """Names are stripped; without one it is called Parameter."""
    assert Parameter(1.0, name=given).name == name
    assert len(Parameter(1.0, name="x" * 1024).name) == 1024


def test_text():
    """str and repr are one line without values."""
    text = "Parameter (name=p, shape=(2,), dtype=Float32, requires_grad=True)"
    assert str(parameter()) == repr(parameter()) == text


ATTRIBUTES = [
    ("requires_grad", True, False, 1, TypeError),
    ("layerwise_parallel", False, True, 1, TypeError),
    ("parallel_optimizer", True, False, 1, TypeError),
    ("parallel_optimizer_comm_recompute", False, True, 1, TypeError),
    ("comm_fusion", 1, 0, 1.5, TypeError),
    ("comm_fusion", 1, 3, -1, ValueError),
    ("cache_enable", False, True, 1, TypeError),
    ("cache_shape", [], (1, 2), 1, TypeError),
    ("key", -1, 3, "a", TypeError),
    ("name", "p", "z", 3, ValueError),
]


@pytest.mark.parametrize(("name", "default", "fine", "wrong", "error"), ATTRIBUTES)
def test_checked_attributes(name, default, fine, wrong, error):
    """Defaults, values that are taken, and errors."""
    made = parameter()
    assert getattr(made, name) == default
    setattr(made, name, fine)
    assert getattr(made, name) == fine
    with pytest.raises(error):
        setattr(made, name, wrong)


def test_free_attributes():
    """Flags that take anything, and attributes of one's own."""
    made = parameter()
    values = [made.unique, made.sliced, made.requires_aggr, made.is_init, made.init_flag, made.is_in_parallel]
    assert values == [False, False, True, False, False, False]
    made.unique = made.my_tag = "x"
    assert (made.unique, made.my_tag) == ("x", "x")
    assert (made.init_mode, made.init, made.inited_param, made.device) == (None, None, None, "CPU")
    assert (made.is_default_input_init, Parameter(initializer("ones", [1])).is_default_input_init) == (False, True)
    with pytest.raises(AttributeError):
        made.inited_param = 1
    info = made.param_info
    assert (info.name, info.requires_grad, info.parameter_shape) == ("p", True, (2,))


def test_data_is_the_parameter():
    """Reading gives itself; setting shares another Tensor's elements."""
    made, other = parameter(), Tensor([1, 2, 3])
    assert made.data is made
    made.data = other
    other[0] = 9
    assert (made.shape, str(made.dtype), made.tolist()) == ((3,), "Int64", [9, 2, 3])
    with pytest.raises(TypeError):
        made.data = [1]


SET_DATA = [
    (Tensor([3.0, 4.0]), [3, 4]),
    (Tensor(np.array([1.5, 2.5], np.float16)), [1.5, 2.5]),
    (Tensor(np.array([1, 2])), [1, 2]),
    (Tensor([True, False]), [1, 0]),
    (Tensor(np.array([1e300, 1])), [np.inf, 1]),
    (7, [7, 7]),
    (2.5, [2.5, 2.5]),
    (True, [1, 1]),
    (initializer("ones", [2]), [1, 1]),
    (Parameter([5.0, 6.0], name="o"), [5, 6]),
]


@pytest.mark.parametrize(("data", "expected"), SET_DATA, ids=range(len(SET_DATA)))
def test_set_data(data, expected):
    """Anything is cast to the Parameter's dtype, which stays."""
    made = parameter()
    assert made.set_data(data) is made
    assert (made.tolist(), str(made.dtype), made.name, made.has_init) == (expected, "Float32", "p", False)


@pytest.mark.parametrize(
    ("data", "error"),
    [(np.ones(2), TypeError), ([1.0, 2.0], TypeError), (None, TypeError), (Tensor([1.0]), ValueError)],
    ids=range(4),
)
def test_set_data_refuses(data, error):
    """Only Tensors and numbers, and only of the same shape."""
    with pytest.raises(error):
        parameter().set_data(data)


def test_set_data_details():
    """slice_shape changes the shape, floats do not go into ints as numbers, equal dtypes share."""
    made = parameter()
    made.set_data(Tensor([1.0, 2.0, 3.0]), slice_shape=True)
    assert (made.shape, made.sliced) == ((3,), True)
    with pytest.raises(TypeError):
        parameter((1, 2), np.int32).set_data(1.5)
    source = Tensor([1.0, 2.0])
    taken = parameter().set_data(source)
    source[0] = 9
    assert taken.tolist() == [9, 2]


@pytest.mark.parametrize(
    ("init", "expected"),
    [("same", [1, 2]), ("zeros", [0, 0]), (3, [3, 3]), (2.5, [2.5, 2.5]), (Tensor([5, 6]), [5, 6])],
    ids=range(5),
)
def test_clone(init, expected):
    """Own elements, the same name and flags."""
    made = parameter(requires_grad=False)
    made.comm_fusion = 4
    clone = made.clone(init)
    made[0] = 99
    assert clone.tolist() == expected
    assert (clone.name, clone.requires_grad, clone.comm_fusion, str(clone.dtype)) == ("p", False, 4, "Float32")


@pytest.mark.parametrize(
    ("init", "error"), [("nope", ValueError), (None, TypeError), ([1], TypeError), (Tensor([1.0]), ValueError)]
)
def test_clone_refuses(init, error):
    """The errors of initializer."""
    with pytest.raises(error):
        parameter().clone(init)


def test_arithmetic_gives_tensors():
    """Neither operators nor indexing give Parameters, and += rebinds."""
    made = before = parameter()
    for result in (made + 1, made[0], made * made, -made, made.sum(), made.T, made.value()):
        assert type(result) is Tensor
    made += 1
    assert type(made) is Tensor
    assert before.tolist() == [1, 2]
    before[0] = 7
    assert before.tolist() == [7, 2]


# --- Laziness


def touch(expression):
    return eval(expression, {"q": lazy(), "np": np})


@pytest.mark.parametrize(
    "expression",
    [
        "q.asnumpy().tolist()", "q.numpy().tolist()", "np.asarray(q).tolist()", "(q + 0).tolist()", "q.tolist()",
        "q.value().tolist()", "[r.tolist() for r in q]", "q.astype(q.dtype).tolist()", "(q * q).tolist()",
        "q.copy().tolist()", "q.reshape(2, 3).tolist()", "q.data.tolist()", "q.init_data().tolist()",
        "np.frombuffer(q.get_bytes(), np.float32).reshape(2, 3).tolist()",
    ],
)  # fmt: skip
def test_every_access_initialises(expression):
    """No access to a lazy Parameter sees anything but its initial elements."""
    assert touch(expression) == [[1, 1, 1], [1, 1, 1]]


def test_what_needs_no_elements_leaves_it_lazy():
    """Shape, dtype, names, text, hash."""
    q = lazy()
    seen = (q.shape, str(q.dtype), q.size, q.nbytes, q.itemsize, q.ndim, len(q), q.strides, q.is_contiguous())
    assert seen == ((2, 3), "Float32", 6, 24, 4, 2, 2, (12, 4), True)
    assert "uninit" not in repr(q)
    assert hash(q) == hash(q)
    assert (q.data_ptr(), q.is_default_input_init, q.init_param) == (0, True, False)
    assert type(q.init).__name__ == "One"
    assert "<uninitialized>" in repr(q.init_mode)
    assert "<uninitialized>" in repr(q.value())
    assert q.has_init


def test_init_data():
    """It returns the Parameter; the layout is looked at only while lazy."""
    with pytest.raises(TypeError):
        lazy().init_data(layout=[1, 2, 3])
    with pytest.raises(ValueError):
        lazy().init_data(layout=(1, 2))
    q = lazy()
    assert q.init_data(layout=(1, 2, 3), set_sliced=True) is q
    assert (q.has_init, q.init, q.init_mode, q.sliced) == (False, None, None, True)
    assert q.inited_param is q
    assert q.init_data(layout="ignored") is q


def test_writing_ends_laziness():
    """set_data, assign_value, item assignment and set_dtype each keep what they were given."""
    assert lazy().set_data(Tensor(np.zeros((2, 3)))).tolist() == [[0] * 3] * 2
    q = lazy()
    q.assign_value(Tensor(np.full((2, 3), 4.0)))
    assert (q.tolist()[0], q.has_init) == ([4, 4, 4], False)
    q = lazy()
    q[0, 0] = 9
    assert q.tolist() == [[9, 1, 1], [1, 1, 1]]
    q = lazy()
    q.set_dtype(ms.float16)
    assert (q.has_init, str(q.dtype), q.asnumpy().dtype) == (True, "Float16", np.float16)


def test_a_new_initializer_leaves_it_lazy():
    """set_data with an initializer's Tensor replaces the initializer."""
    q = lazy()
    q.set_data(initializer("zeros", [2, 3]))
    assert (q.has_init, q.tolist()) == (True, [[0] * 3] * 2)
    assert not parameter().set_data(initializer("zeros", [2])).has_init


def test_lazy_clones_are_independent():
    """Cloning neither initialises nor disturbs the original."""
    q = lazy("normal")
    same, ones = q.clone(), q.clone("ones")
    assert (q.has_init, same.has_init, ones.has_init) == (True, True, True)
    assert ones.tolist() == [[1] * 3] * 2
    same[0, 0] = 5
    assert q.has_init
    assert q.asnumpy()[0, 0] != 5


def test_deepcopy_and_pickle_of_a_lazy_one_are_initialised():
    """A copy has the original's elements."""
    q = lazy("normal", layerwise_parallel=True)
    for made in (copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert np.array_equal(made.asnumpy(), q.asnumpy())
        assert (made.name, made.layerwise_parallel, made.has_init) == ("q", True, False)


def test_two_parameters_of_one_initializer_are_independent():
    """Each draws its own elements."""
    tensor = initializer("normal", [4])
    with no_init_parameters():
        a, b = Parameter(tensor), Parameter(tensor)
    assert not np.array_equal(a.asnumpy(), b.asnumpy())


def test_eager_outside_the_context():
    """Without no_init_parameters an initializer runs at once."""
    made = Parameter(initializer("ones", [2]))
    assert (made.has_init, made.init_mode) == (False, None)


def test_threads_get_the_same_elements():
    """First use from many threads initialises once."""
    q = lazy("normal", (1000,))
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(q.asnumpy())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(array is seen[0] for array in seen)


# --- Sharing


def test_shared_parameters_are_read_only():
    """A write says what to do; set_data gives the Parameter its own elements."""
    p = shared()
    for write in (lambda: p.__setitem__(0, 1.0), lambda: p.assign_value(Tensor([1.0, 2.0]))):
        with pytest.raises(ValueError, match="set_data"):
            write()
    with pytest.raises(ValueError, match="read-only"):
        p.asnumpy()[0] = 1
    p.set_data(Tensor([5.0, 6.0]))
    p[0] = 7
    assert p.tolist() == [7, 6]


def test_copies_of_shared_parameters_are_their_own():
    """clone, deepcopy and pickle can be written to."""
    p = shared()
    for made in (p.clone(), copy.copy(p), copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        made[0] = 9
        assert made.tolist() == [9, 2]
    assert p.tolist() == [1, 2]


def test_a_parameter_of_a_shared_one_shares():
    """Parameter(p) of shared elements copies nothing."""
    p = shared()
    again = Parameter(p, name="again")
    assert np.shares_memory(again.asnumpy(), p.asnumpy())
    assert again.name == "again"


def test_servers_and_pipelines_are_only_noted():
    """Flags of documents of several versions are kept."""
    p = parameter()
    p.add_pipeline_stage(0)
    p.set_param_ps(init_in_server=True)
    p.set_param_fl(push_to_server=True)
    assert (p.is_param_ps, p.init_in_server, p.push_weight_to_server) == (True, True, True)
    for stage in (-1, 1.5, True):
        with pytest.raises(TypeError):
            p.add_pipeline_stage(stage)


# --- ParameterTuple


def test_tuple_of_parameters():
    """A tuple from any iterable; slices are plain tuples; unnamed ones do not clash."""
    a, b = parameter(name="a"), parameter(name="b")
    made = ParameterTuple(p for p in (a, b, a))
    assert (len(made), made[2] is a, type(made[:1])) == (3, True, tuple)
    assert len(ParameterTuple([Parameter(1.0), Parameter(2.0)])) == 2
    assert len(ParameterTuple(())) == 0


@pytest.mark.parametrize(
    ("items", "error"),
    [
        ((1, 2), TypeError),
        ((Tensor([1.0]),), TypeError),
        (3, TypeError),
        (parameter(), TypeError),
        ([parameter(), parameter()], ValueError),
    ],
    ids=range(5),
)
def test_tuple_refuses(items, error):
    """Only Parameters, and no two of one name."""
    with pytest.raises(error):
        ParameterTuple(items)


def test_tuple_clone():
    """Clones are named prefix.name and have their own elements."""
    made = ParameterTuple([parameter(name="a"), Parameter(1.0), Parameter(2.0)])
    clones = made.clone("x.y", init="zeros")
    assert [c.name for c in clones] == ["x.y.a", "x.y.Parameter$2", "x.y.Parameter$3"]
    assert isinstance(clones, ParameterTuple)
    assert clones[0].tolist() == [0, 0]
    assert repr(ParameterTuple([parameter()])) == f"({parameter()},)"


@pytest.mark.parametrize(
    ("prefix", "error"), [("", ValueError), (" ", ValueError), ("a b", ValueError), (3, TypeError), (".a", ValueError)]
)
def test_tuple_clone_refuses(prefix, error):
    """A prefix is something that a name can start with."""
    with pytest.raises(error):
        ParameterTuple([parameter()]).clone(prefix)


def test_a_tuple_with_one_parameter_twice_cannot_be_cloned():
    """The clones' names would clash."""
    p = parameter()
    with pytest.raises(ValueError):
        ParameterTuple([p, p]).clone("c")
