"""The tree that Cells form: what hangs below a Cell, in which order, and under which names.

Order: a Cell's own Parameters first, in the order they were assigned, then its children's, depth first. An object that
is reached twice is listed once, under the first path. A slot that was set to None is skipped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from ..common.parameter import UNNAMED, Parameter, ParameterTuple, check_parameters
from ..common.tensor import Tensor

if TYPE_CHECKING:
    from .cell import Cell

# What a name may start with: letters and digits of any script, then these.
_PREFIX_ENDS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.-"


class CellTree:
    """Children, Parameters and buffers of a Cell, and walking over them."""

    _params: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _cells: dict[str, Any]
    _transient_buffers: AbstractSet[str] = frozenset()
    _param_prefix: str = ""
    # What the names of Parameters below begin with, for children that come later.
    _name_prefix: str = ""
    _unnamed_items: int = 0

    # --- Children

    def name_cells(self) -> OrderedDict[str, Cell]:
        """The children by name, each once."""
        seen: set[int] = set()
        out: OrderedDict[str, Cell] = OrderedDict()
        for name, child in self._cells.items():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                out[name] = child
        return out

    def cells(self) -> Any:
        """The children, each once."""
        return CellTree.name_cells(self).values()

    def cells_and_names(self, cells: set[int] | None = None, name_prefix: str = "") -> Iterator[tuple[str, Cell]]:
        """(path, Cell) of this Cell, whose path is `name_prefix`, and of all below it, parents first."""
        seen: set[int] = set() if cells is None else cells
        if id(self) in seen:
            return
        seen.add(id(self))
        yield name_prefix, self  # type: ignore[misc]
        for name, child in self._cells.items():
            # As in MindSpore an empty container is not listed.
            if child is not None and (child._cells or child._params or child._buffers or child):
                yield from child.cells_and_names(seen, f"{name_prefix}.{name}" if name_prefix else name)

    def get_sub_cell(self, target: str) -> Cell:
        """The Cell at a dotted path below this one; '' is this one. AttributeError when there is none."""
        found: Any = self
        for part in target.split(".") if target else []:
            below = getattr(found, part, None)
            if not isinstance(below, CellTree):
                raise AttributeError(f"{type(found).__name__} has no sub cell {part!r} (of the path {target!r})")
            found = below
        return found  # type: ignore[no-any-return]

    def insert_child_to_cell(self, child_name: str, child_cell: Cell | None) -> None:
        """Adds a child, without renaming its Parameters.

        TypeError unless the name is a str and the child a Cell or None; KeyError for a name that is empty, has a dot or
        belongs to another attribute.
        """
        _check_slot_name(child_name, "child_name")
        if not child_name or "." in child_name:
            raise KeyError(f"insert_child_to_cell: a child cannot be called {child_name!r}")
        cells = self._cells
        if child_name not in cells and self._is_attribute(child_name):
            raise KeyError(f"insert_child_to_cell: {type(self).__name__} already has an attribute {child_name!r}")
        if child_cell is not None and not isinstance(child_cell, CellTree):
            raise TypeError(f"insert_child_to_cell: {child_name!r} has to be a Cell, not {type(child_cell).__name__}")
        cells[child_name] = child_cell

    def _is_attribute(self, name: str) -> bool:
        # Not hasattr(self, name), which for a name that is free raises an error and catches it.
        held = self.__dict__
        return (
            name in held
            or name in held["_params"]
            or name in held["_buffers"]
            or name in held["_cells"]
            or hasattr(type(self), name)
        )

    # --- Parameters

    def parameters_and_names(self, name_prefix: str = "", expand: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(path, Parameter), below too unless `expand` is False."""
        seen: set[int] = set()
        walk = CellTree.cells_and_names(self, name_prefix=name_prefix) if expand else [(name_prefix, self)]
        for path, cell in walk:
            for name, parameter in cell._params.items():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{path}.{name}" if path else name, parameter

    def get_parameters(self, expand: bool = True) -> Iterator[Parameter]:
        """The Parameters, below too unless `expand` is False."""
        for _, parameter in CellTree.parameters_and_names(self, expand=expand):
            yield parameter

    def trainable_params(self, recurse: bool = True) -> list[Parameter]:
        """The Parameters with requires_grad."""
        return [p for p in CellTree.get_parameters(self, recurse) if p.requires_grad]

    def untrainable_params(self, recurse: bool = True) -> list[Parameter]:
        """The Parameters without requires_grad."""
        return [p for p in CellTree.get_parameters(self, recurse) if not p.requires_grad]

    def parameters_dict(self, recurse: bool = True) -> OrderedDict[str, Parameter]:
        """The Parameters by their own names (`param.name`, not the path)."""
        return OrderedDict((p.name, p) for p in CellTree.get_parameters(self, recurse))

    def parameters_broadcast_dict(self, recurse: bool = True) -> OrderedDict[str, Parameter] | None:
        """As `parameters_dict` without the layerwise-parallel ones; None when nothing is left."""
        named = ((p.name, p) for p in CellTree.get_parameters(self, recurse) if not p.layerwise_parallel)
        return OrderedDict(named) or None

    def insert_param_to_cell(
        self, param_name: str, param: Parameter | None, check_name_contain_dot: bool = True
    ) -> None:
        """Adds or replaces a Parameter; an unnamed one takes the name.

        KeyError for a name that is empty, has a dot (unless unchecked) or is another attribute's; TypeError unless the
        name is a str and `param` a Parameter or None; AttributeError before ``Cell.__init__``.
        """
        if not param_name:
            raise KeyError("insert_param_to_cell: 'param_name' is empty")
        _check_slot_name(param_name, "param_name")
        if check_name_contain_dot and "." in param_name:
            raise KeyError(f"insert_param_to_cell: 'param_name' has a dot in it: {param_name!r}")
        params = self.__dict__.get("_params")
        if params is None:
            raise AttributeError("a Parameter was assigned too early: please call Cell.__init__() firstly")
        if param_name not in params and self._is_attribute(param_name):
            raise KeyError(f"insert_param_to_cell: {type(self).__name__} already has an attribute {param_name!r}")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"insert_param_to_cell: {param_name!r} has to be a Parameter, not {type(param).__name__}")
        if param is not None and param._name == UNNAMED:
            param.name = param_name
        params[param_name] = param

    def _insert_parameter_tuple(self, items: ParameterTuple | list[Parameter] | tuple[Parameter, ...]) -> None:
        """Adds each item under its own name; unnamed ones are called Parameter$1, Parameter$2 ..."""
        check_parameters(items)
        for parameter in items:
            if parameter.name == UNNAMED:
                self._unnamed_items += 1
                parameter.name = f"{UNNAMED}${self._unnamed_items}"
            self.exist_names.add(parameter.name)
            self.insert_param_to_cell(parameter.name, parameter, check_name_contain_dot=False)

    @property
    def exist_names(self) -> set[str]:
        """The names of Parameters that were assigned in tuples or lists."""
        names: set[str] = self.__dict__.setdefault("_list_names", set())
        return names

    def init_parameters_data(self, auto_parallel_mode: bool = False) -> dict[Parameter, Parameter]:
        """Initialises whatever is lazy; the answer maps each Parameter to itself."""
        del auto_parallel_mode
        return {p: p.init_data() for p in CellTree.get_parameters(self)}

    # --- Names

    def update_parameters_name(self, prefix: str = "", recurse: bool = True) -> None:
        """Names each Parameter `prefix` + path. TypeError unless a str, ValueError for one that no name starts with."""
        if not isinstance(prefix, str):
            raise TypeError(f"update_parameters_name: 'prefix' has to be a str, not {type(prefix).__name__}")
        if not _starts_names(prefix):
            raise ValueError(f"update_parameters_name: no name can start with {prefix!r}")
        if "_params" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} is not ready yet: please call Cell.__init__() firstly")
        _name_below(self.__dict__, prefix, {id(self)}, recurse)

    def check_names(self) -> None:
        """ValueError when two Parameters have one name."""
        seen: set[str] = set()
        for parameter in CellTree.get_parameters(self):
            if parameter.name in seen:
                raise ValueError(f"the name {parameter.name!r} belongs to two Parameters; rename one of them")
            seen.add(parameter.name)

    def check_names_and_refresh_name(self) -> None:
        """Renames every Parameter to its path if two have one name."""
        names = [p.name for p in parameters_of(self)]
        if len(set(names)) < len(names):
            CellTree.update_parameters_name(self)
            self.check_names()

    def update_cell_prefix(self) -> None:
        """Sets `param_prefix` of every Cell below to its path."""
        for path, cell in CellTree.cells_and_names(self):
            cell._param_prefix = path

    @property
    def param_prefix(self) -> str:
        """The path of this Cell when `update_cell_prefix` was last called on the top one, '' before."""
        return self._param_prefix

    # --- Buffers

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a Tensor that is state but no Parameter; it is in `state_dict` if `persistent`.

        TypeError unless the name is a str and the buffer a Tensor or None; KeyError for a name that is empty, has a dot
        or belongs to another attribute; AttributeError before ``Cell.__init__``.
        """
        if "_buffers" not in self.__dict__:
            raise AttributeError("a buffer was registered too early: please call Cell.__init__() firstly")
        _check_slot_name(name, "name")
        if not name or "." in name:
            raise KeyError(f"register_buffer: a buffer cannot be called {name!r}")
        if name not in self._buffers and hasattr(self, name):
            raise KeyError(f"register_buffer: {type(self).__name__} already has an attribute {name!r}")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"register_buffer: {name!r} has to be a Tensor or None, not {type(tensor).__name__}")
        self._buffers[name] = tensor
        others = self._transient_buffers - {name}
        self.__dict__["_transient_buffers"] = others if persistent else others | {name}

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """(path, buffer), below too unless `recurse` is False; each once unless `remove_duplicate` is False."""
        seen: set[int] = set()
        walk = CellTree.cells_and_names(self, name_prefix=prefix) if recurse else [(prefix, self)]
        for path, cell in walk:
            for name, buffer in cell._buffers.items():
                if buffer is None or (remove_duplicate and id(buffer) in seen):
                    continue
                seen.add(id(buffer))
                yield f"{path}.{name}" if path else name, buffer

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, below too unless `recurse` is False."""
        for _, buffer in CellTree.named_buffers(self, recurse=recurse):
            yield buffer

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path. AttributeError when there is none."""
        path, _, name = target.rpartition(".")
        cell = CellTree.get_sub_cell(self, path)
        buffer = cell._buffers.get(name)
        if buffer is None:
            raise AttributeError(f"{type(cell).__name__} has no buffer {name!r}")
        return buffer


def _starts_names(prefix: str) -> bool:
    # No regular expression: compiling it takes as long as naming a hundred Parameters.
    letters = prefix.rstrip(_PREFIX_ENDS).replace("_", "")
    return not letters or letters.isalnum()


def parameters_of(cell: CellTree) -> list[Parameter]:
    """What `get_parameters` gives, at once, for whoever is about to use every one of them."""
    found: dict[int, Parameter] = {}
    _find_parameters(cell.__dict__, found, {id(cell)})
    return list(found.values())


def _find_parameters(held: dict[str, Any], found: dict[int, Parameter], seen: set[int]) -> None:
    """Adds the Parameters of a Cell, given its dict, and of all below: in their order, each once."""
    for parameter in held["_params"].values():
        if parameter is not None:
            found[id(parameter)] = parameter
    for child in held["_cells"].values():
        if child is not None and id(child) not in seen:
            seen.add(id(child))
            _find_parameters(child.__dict__, found, seen)


def _name_below(held: dict[str, Any], prefix: str, named: set[int], recurse: bool = True) -> None:
    """Names the Parameters of a Cell, given its dict, and of all below, in the order of `cells_and_names`.

    From dict to dict, not from Cell to Cell: a network of many Cells is renamed at each of its levels.
    """
    for name, parameter in held["_params"].items():
        if parameter is not None and id(parameter) not in named:
            named.add(id(parameter))
            parameter.name = prefix + name
    if not recurse:
        return
    held["_name_prefix"] = prefix
    for name, child in held["_cells"].items():
        if child is not None and id(child) not in named:
            below = child.__dict__
            if below["_params"] or below["_cells"] or below["_buffers"] or child:
                named.add(id(child))
                _name_below(below, f"{prefix}{name}.", named)


def _check_slot_name(name: object, argument: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{argument!r} has to be a str, not {type(name).__name__}")
