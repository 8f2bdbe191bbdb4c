"""no_init_parameters: what it defers, for whom, and until when."""

import threading
import tracemalloc

import numpy as np
import pytest

import mapcell as ms
from mapcell import Parameter, Tensor, nn
from mapcell.common.initializer import initializer
from mapcell.nn.utils import no_init_parameters


def made():
    return Parameter(initializer("ones", [2]))


def test_only_initializers_are_deferred():
    """Tensors, arrays, lists and numbers have their elements at once."""
    with no_init_parameters() as value:
        lazies = [made(), Parameter(initializer(0.5, [2], ms.float16), requires_grad=False)]
        given = initializer(Tensor([1.0]), [1])
        eager = [Parameter(d) for d in (Tensor([1.0]), np.ones(2), [1.0], 1, 2.0, given)]
    assert value is None
    assert [p.has_init for p in lazies] == [True, True]
    assert [p.has_init for p in eager] == [False] * 6


def test_nested_contexts_and_decorator():
    """Leaving the inner context does not end the outer one."""
    with no_init_parameters():
        with no_init_parameters():
            pass
        assert made().has_init
    assert not made().has_init
    assert no_init_parameters()(made)().has_init


def test_an_exception_ends_it():
    """It goes through, and the context is over."""
    with pytest.raises(KeyError), no_init_parameters():
        raise KeyError
    assert not made().has_init


def test_other_threads_are_not_concerned():
    """Only the thread that entered defers."""
    seen = []
    with no_init_parameters():
        thread = threading.Thread(target=lambda: seen.append(made().has_init))
        thread.start()
        thread.join()
    assert seen == [False]


class Layer(nn.Cell):
    def __init__(self, rows, columns):
        super().__init__()
        self.weight = Parameter(initializer("ones", [rows, columns]))

    def construct(self, x):
        return x @ self.weight.T


class Tied(nn.Cell):
    """A parent that uses its child's Parameter without calling the child."""

    def __init__(self):
        super().__init__()
        self.embed = Layer(2, 2)

    def construct(self, x):
        return x @ self.embed.weight


def test_a_billion_parameters_take_no_memory():
    """Building 4 GB of network allocates less than 5 MiB."""
    tracemalloc.start()
    with no_init_parameters():
        net = nn.SequentialCell([Layer(10_000, 10_000) for _ in range(10)])
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(p.size for p in net.get_parameters()) == 10**9
    assert used < 5 * 2**20


def test_a_small_parameter_is_small():
    """Ten thousand lazy Parameters take under 5 MB."""
    tracemalloc.start()
    with no_init_parameters():
        kept = [Parameter(initializer("normal", [4, 4]), name="p") for _ in range(10_000)]
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == 10_000
    assert used < 5_000_000


def test_running_initialises_what_is_used():
    """Called, constructed directly, or tied: every way finds elements; what is not used stays lazy."""
    x = Tensor([[1.0, 1.0]])
    with no_init_parameters():
        called, direct, tied, unused = Layer(2, 2), Layer(2, 2), Tied(), Layer(2, 2)
    assert called(x).tolist() == direct.construct(x).tolist() == tied(x).tolist() == [[2, 2]]
    assert [c.weight.has_init for c in (called, direct, unused)] == [False, False, True]
    with no_init_parameters():
        called.late = Parameter(initializer("ones", [1]))
    assert (called.late + 1).tolist() == [2]


def test_init_parameters_data():
    """All of a network's Parameters are initialised and mapped to themselves; None slots are skipped."""
    with no_init_parameters():
        net = nn.SequentialCell(Layer(2, 2), Layer(2, 3))
    net[0].weight = None
    answer = net.init_parameters_data()
    assert [(k is v, v.has_init) for k, v in answer.items()] == [(True, False)]


def test_definition_order_repeats_eager_values():
    """With one seed, initialising later in order gives what building eagerly gives."""

    def net():
        return nn.SequentialCell(*[nn.CellList([Layer(3, 3)]) for _ in range(2)])

    def normal(cell):
        for p in cell.get_parameters():
            p.set_data(initializer("normal", p.shape))

    ms.set_seed(4)
    eager = net()
    normal(eager)
    ms.set_seed(4)
    with no_init_parameters():
        lazy = net()
    normal(lazy)
    lazy.init_parameters_data()
    for a, b in zip(eager.get_parameters(), lazy.get_parameters(), strict=True):
        assert np.array_equal(a.asnumpy(), b.asnumpy())


def test_state_dicts_end_laziness():
    """load_state_dict keeps what it loaded."""
    with no_init_parameters():
        net = Layer(2, 2)
    net.load_state_dict({"weight": Tensor(np.full((2, 2), 7.0, np.float32))})
    assert not net.weight.has_init
    assert net(Tensor([[1.0, 0.0]])).tolist() == [[7, 7]]
