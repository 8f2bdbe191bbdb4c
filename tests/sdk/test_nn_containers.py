"""SequentialCell, CellList, CellDict."""

from collections import OrderedDict

import pytest

from mapcell import Parameter, Tensor, nn


class Add(nn.Cell):
    """Adds its number."""

    def __init__(self, n=1.0):
        super().__init__()
        self.n = Parameter(Tensor([n]))

    def construct(self, x):
        return x + self.n


class Net(nn.Cell):
    def __init__(self, container):
        super().__init__()
        self.c = container


def names(cell):
    return [p.name for p in cell.get_parameters()]


def test_sequential_from_each_kind():
    """Cells, one list, an OrderedDict with names, nothing."""
    for cell in (nn.SequentialCell(Add(), Add(2.0)), nn.SequentialCell([Add(), Add(2.0)])):
        assert names(cell) == ["0.n", "1.n"]
        assert cell(Tensor([0.0])).tolist() == [3]
    named = nn.SequentialCell(OrderedDict(a=Add(), b=Add()))
    assert (names(named), list(named.name_cells())) == (["a.n", "b.n"], ["a", "b"])
    assert nn.SequentialCell()(5) == 5
    assert not nn.SequentialCell()
    with pytest.raises(TypeError):
        nn.SequentialCell(Add())(1, 2)


@pytest.mark.parametrize(
    "given", [(3,), ((Add(),),), ({"a": Add()},), ([Add(), 3],), (Add(), len), (OrderedDict(a=3),)]
)
def test_sequential_refuses(given):
    """Anything but Cells is a TypeError."""
    with pytest.raises(TypeError):
        nn.SequentialCell(*given)


def test_sequential_indexing():
    """Positions, negative ones, slices that keep their names; deleting renumbers."""
    cell = nn.SequentialCell([Add(float(i)) for i in range(4)])
    assert cell[0] is cell[-4]
    part = cell[1:3]
    assert (type(part).__name__, list(part.name_cells()), len(part)) == ("SequentialCell", ["1", "2"], 2)
    for index, error in ((9, IndexError), ("a", TypeError), (1.0, TypeError), (True, TypeError)):
        with pytest.raises(error):
            cell[index]
    cell[1] = Add(9.0)
    assert names(cell)[1] == "1.n"
    with pytest.raises(TypeError):
        cell[1] = 3
    del cell[0]
    assert (names(cell), [float(c.n[0]) for c in cell]) == (["0.n", "1.n", "2.n"], [9, 2, 3])
    del cell[1:]
    assert len(cell) == 1
    assert cell.append(Add()) is cell
    assert names(cell) == ["0.n", "1.n"]
    with pytest.raises(TypeError):
        cell.append(3)


def test_list_methods():
    """append, extend, insert, +=, del, in, reversed."""
    a, b, c, d = (Add() for _ in range(4))
    assert [len(nn.CellList(*given)) for given in ((), ([],), (a,), (a, b), (nn.CellList([a, b]),))] == [0, 0, 1, 2, 2]
    cells = nn.CellList([a])
    assert cells.append(c) is cells
    cells.insert(1, b)
    cells += [d]
    assert [x is y for x, y in zip(cells, (a, b, c, d), strict=True)] == [True] * 4
    assert names(cells) == ["0.n", "1.n", "2.n", "3.n"]
    assert next(iter(reversed(cells))) is d
    assert (a in cells, Add() in cells, cells[-1] is d, len(cells[1:3])) == (True, False, True, 2)
    assert names(cells)[1] == "1.n"
    del cells[0]
    assert (names(cells), cells[0] is b) == (["0.n", "1.n", "2.n"], True)
    cells.insert(len(cells), a)
    assert cells[-1] is a


@pytest.mark.parametrize(
    "act",
    [
        lambda c: c.append(3),
        lambda c: c.insert(0, 3),
        lambda c: c.extend(3),
        lambda c: c.extend([Add(), 3]),
        lambda c: c.__setitem__(0, 3),
        lambda c: c["a"],
        lambda c: c.extend((Add(),)),
        lambda c: nn.CellList([1]),
        lambda c: nn.CellList((Add(),)),
        lambda c: nn.CellList(3),
    ],
)
def test_list_refuses(act):
    """Anything but Cells is a TypeError, and nothing is added."""
    cells = nn.CellList([Add()])
    with pytest.raises(TypeError):
        act(cells)
    assert len(cells) == 1


def test_list_cannot_be_called_or_indexed_outside():
    """A CellList is no network, and positions end."""
    cells = nn.CellList([Add()])
    with pytest.raises(NotImplementedError):
        cells(1)
    for index in (1, -2):
        with pytest.raises(IndexError):
            cells[index]
        with pytest.raises(IndexError):
            del cells[index]
    with pytest.raises(IndexError):
        cells.insert(5, Add())
    assert not nn.CellList()


def test_names_inside_a_network():
    """Whatever is done to a container that has a place in a network, names follow paths."""
    net = Net(nn.CellList([Add()]))
    outer = Net(net)
    net.c.append(Add())
    net.c.insert(0, Add())
    del net.c[1]
    assert names(outer) == ["c.c.0.n", "c.c.1.n"]
    plain = nn.CellList([Add()], auto_prefix=False)
    plain.append(Add())
    assert names(plain) == ["n", "n"]


def test_set_grad_of_containers():
    """It sets the flag on the children too."""
    cells = nn.SequentialCell(Add())
    cells.set_grad(True)
    assert (cells.requires_grad, cells[0].requires_grad) == (True, True)


def test_dict():
    """A dict's methods; names are prefixes."""
    cells = nn.CellDict({"a": Add(), "b": Add()})
    assert (list(cells), list(cells.keys()), len(cells), "a" in cells) == (["a", "b"], ["a", "b"], 2, True)
    assert names(cells) == ["a.n", "b.n"]
    cells.update([("c", Add())])
    cells.update(nn.CellDict(OrderedDict(d=Add())))
    assert [k for k, _ in cells.items()] == ["a", "b", "c", "d"]
    popped = cells.pop("a")
    assert (isinstance(popped, Add), len(list(cells.values()))) == (True, 3)
    del cells["b"]
    assert list(Net(cells).c) == ["c", "d"]
    cells["e"] = Add()
    assert names(cells)[-1] == "c.e.n"
    cells.clear()
    assert len(cells) == 0


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda: nn.CellDict({"a": 3}), TypeError),
        (lambda: nn.CellDict(3), TypeError),
        (lambda: nn.CellDict([3]), TypeError),
        (lambda: nn.CellDict([("a", Add(), 1)]), ValueError),
        (lambda: nn.CellDict({3: Add()}), TypeError),
        (lambda: nn.CellDict({"a.b": Add()}), KeyError),
        (lambda: nn.CellDict({"": Add()}), KeyError),
        (lambda: nn.CellDict({"keys": Add()}), KeyError),
        (lambda: nn.CellDict()["a"], KeyError),
        (lambda: nn.CellDict().pop("a"), KeyError),
        (lambda: nn.CellDict({}, {}), TypeError),
        (lambda: nn.CellDict()(1), NotImplementedError),
    ],
)
def test_dict_refuses(act, error):
    """Values that are no Cells, names that cannot be an attribute's, keys that are not there."""
    with pytest.raises(error):
        act()
