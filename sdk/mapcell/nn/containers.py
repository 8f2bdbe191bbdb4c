"""Cells in order and Cells by name: SequentialCell, CellList, CellDict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from .cell import Cell


def _require_cell(value: object, who: str) -> Cell:
    if not isinstance(value, Cell):
        raise TypeError(f"{who}: the items have to be Cells, not {type(value).__name__}")
    return value


def _position(index: object, length: int, who: str) -> int:
    """`index` from the start. TypeError unless an int, IndexError out of range."""
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"{who}: the index has to be an int or a slice, not {type(index).__name__}")
    if not -length <= index < length:
        raise IndexError(f"{who}: the index {index} is outside [{-length}, {length})")
    return index % length


class _Ordered(Cell):
    """What the two ordered containers share. Children are called by position, and Parameters follow."""

    def _items(self) -> list[Cell]:
        return list(self._cells.values())

    def _replace_all(self, cells: Iterable[Cell]) -> None:
        self._cells = OrderedDict((str(i), cell) for i, cell in enumerate(cells))
        self._rename(self._cells)

    def _rename(self, cells: Mapping[str, Cell]) -> None:
        if self._auto_prefix:
            for name, cell in cells.items():
                cell.update_parameters_name(f"{self._name_prefix}{name}.")

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._cells.values())

    def __delitem__(self, index: int | slice) -> None:
        items = self._items()
        if not isinstance(index, slice):
            index = _position(index, len(items), type(self).__name__)
        del items[index]
        self._replace_all(items)

    def __setitem__(self, index: int, cell: Cell) -> None:
        position = _position(index, len(self), type(self).__name__)
        name = list(self._cells)[position]
        self._cells[name] = _require_cell(cell, type(self).__name__)
        self._rename({name: cell})

    def append(self, cell: Cell) -> Self:
        """Adds a Cell at the end. TypeError unless it is one."""
        name = str(len(self._cells))
        self._cells[name] = _require_cell(cell, type(self).__name__)
        self._rename({name: cell})
        return self

    def set_grad(self, requires_grad: bool = True) -> None:  # type: ignore[override]
        """Keeps the flag `requires_grad` here and on the children."""
        self.requires_grad = requires_grad
        for cell in self._cells.values():
            cell.set_grad(requires_grad)


class SequentialCell(_Ordered):
    """Runs its Cells one after another, each on the output of the one before; without any it passes its input on.

    Args:
        args: Cells, or one list of Cells, or one OrderedDict of names and Cells.

    TypeError for anything else.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            self._cells = OrderedDict((name, _require_cell(cell, "SequentialCell")) for name, cell in args[0].items())
        else:
            cells = args[0] if len(args) == 1 and isinstance(args[0], list) else args
            self._cells = OrderedDict((str(i), _require_cell(c, "SequentialCell")) for i, c in enumerate(cells))
        self._rename(self._cells)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            # The part keeps the names that its Cells have in the whole.
            part = type(self)()
            part._cells = OrderedDict(list(self._cells.items())[index])
            return part
        return self._items()[_position(index, len(self), "SequentialCell")]

    def construct(self, x: Any) -> Any:
        """Shape in: what the first Cell takes. Shape out: what the last one gives."""
        for cell in self._cells.values():
            x = cell(x)
        return x


class CellList(_Ordered):
    """Holds Cells in a list; it cannot be called.

    Args:
        args: one list of Cells, or Cells, or nothing.
        auto_prefix: as in Cell.

    TypeError for anything else.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(kwargs.get("auto_prefix", True))
        one_list = len(args) == 1 and (isinstance(args[0], CellList) or not isinstance(args[0], Cell))
        self.extend(args[0] if one_list else list(args))

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            part = type(self)(auto_prefix=False)
            part._cells = OrderedDict((str(i), cell) for i, cell in enumerate(self._items()[index]))
            return part
        return self._items()[_position(index, len(self), "CellList")]

    def __iadd__(self, cells: Any) -> Self:
        return self.extend(cells)

    def __contains__(self, cell: object) -> bool:
        return any(held is cell for held in self._cells.values())

    def __reversed__(self) -> Iterator[Cell]:
        return reversed(self._items())

    def extend(self, cells: Any) -> Self:
        """Adds Cells at the end. TypeError unless a list or CellList of Cells; then none is added."""
        if not isinstance(cells, list | CellList):
            raise TypeError(f"CellList: expected a list of Cells, not {type(cells).__name__}")
        for cell in [_require_cell(c, "CellList") for c in cells]:
            self.append(cell)
        return self

    def insert(self, index: int, cell: Cell) -> None:
        """Puts a Cell before position `index`, which may be the length. TypeError unless a Cell."""
        _require_cell(cell, "CellList")
        length = len(self)
        position = length if index == length else _position(index, length, "CellList")
        items = self._items()
        items.insert(position, cell)
        self._replace_all(items)

    def construct(self, *inputs: Any) -> Any:
        """NotImplementedError: a list of Cells computes nothing."""
        raise NotImplementedError("a CellList cannot be called; call the Cells in it")


class CellDict(Cell):
    """Holds Cells by name; it cannot be called.

    Args:
        cells: a mapping or an iterable of (name, Cell), or another CellDict. Names are not empty and have no dot.

    TypeError for items that are no Cells or names that are no str, KeyError for names that cannot be an attribute's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(kwargs.get("auto_prefix", True))
        if len(args) > 1:
            raise TypeError(f"CellDict: expected one dict of Cells, got {len(args)} arguments")
        if args and args[0] is not None:
            self.update(args[0])

    def __getitem__(self, key: str) -> Cell:
        return self._cells[key]  # type: ignore[no-any-return]

    def __setitem__(self, key: str, cell: Cell) -> None:
        if not isinstance(key, str):
            raise TypeError(f"CellDict: a name has to be a str, not {type(key).__name__}")
        _require_cell(cell, "CellDict")
        if not key or "." in key or (key not in self._cells and hasattr(self, key)):
            raise KeyError(f"CellDict: a Cell cannot be called {key!r}")
        self._cells[key] = cell
        if self._auto_prefix:
            cell.update_parameters_name(f"{self._name_prefix}{key}.")

    def __delitem__(self, key: str) -> None:
        del self._cells[key]

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __contains__(self, key: object) -> bool:
        return key in self._cells

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._cells.keys()

    def values(self) -> Iterable[Cell]:
        """The Cells."""
        return self._cells.values()

    def items(self) -> Iterable[tuple[str, Cell]]:
        """(name, Cell)."""
        return self._cells.items()

    def pop(self, key: str) -> Cell:
        """Takes a Cell out. KeyError when there is none of that name."""
        return self._cells.pop(key)  # type: ignore[no-any-return]

    def clear(self) -> None:
        """Takes all Cells out."""
        self._cells.clear()

    def update(self, cells: Any) -> None:
        """Adds or replaces Cells. TypeError unless a mapping, a CellDict or an iterable of pairs."""
        if isinstance(cells, Mapping | CellDict):
            pairs = list(cells.items())
        elif isinstance(cells, Iterable):
            pairs = [_pair(item) for item in cells]
        else:
            raise TypeError(f"CellDict: expected a dict of Cells, not {type(cells).__name__}")
        for key, cell in pairs:
            self[key] = cell

    def construct(self, *inputs: Any) -> Any:
        """NotImplementedError: a dict of Cells computes nothing."""
        raise NotImplementedError("a CellDict cannot be called; call the Cells in it")


def _pair(item: Any) -> tuple[str, Cell]:
    if not isinstance(item, list | tuple):
        raise TypeError(f"CellDict: expected pairs of a name and a Cell, not {type(item).__name__}")
    if len(item) != 2:
        raise ValueError(f"CellDict: expected pairs of a name and a Cell, not {len(item)} items")
    return item[0], item[1]
