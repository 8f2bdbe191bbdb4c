"""Cell: what every network and layer is.

Assigning to an attribute sorts the value: Parameters, Cells and buffers are registered, everything else is plain. The
parts: cell_tree walks, hooks run around a call, cell_state saves and loads, cell_precision casts, cell_flags keeps.

Source: https://www.mindspore.cn/docs/en/master/api_python/nn/mindspore.nn.Cell.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Self

from ..common.parameter import Parameter, ParameterTuple
from ..common.tensor import Tensor
from .cell_flags import CellFlags
from .cell_precision import in_running_precision
from .cell_state import CellState
from .cell_tree import CellTree
from .hooks import CellHooks

# Most of what a Cell is given: settings, which are no Parameters, Cells or buffers.
_PLAIN = frozenset((int, bool, float, str, type(None)))
# What a Cell has only once it differs from what its class says.
_RARE = (
    "_transient_buffers", "_list_names", "_unnamed_items", "_param_prefix", "_name_prefix", "_names_checked", "_flags",
    "_precision", "_kept_phase", "_kept_inputs", "_kept_scope", "_jit_config", "_pipeline_stage", "_bprop_debug",
    "_layouts", "_hooked", "_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip


class Cell(CellFlags, CellState, CellHooks):
    """Base of all networks: override `construct`, and call the Cell.

    Args:
        auto_prefix: whether Parameters of a Cell that is assigned to an attribute take that attribute's name as prefix.
        flags: flags for `add_flags`.

    Raises:
        AttributeError: an attribute that is not there; a Parameter or Cell assigned before ``super().__init__()``.
        KeyError: a Parameter or Cell under the name of a method, or of each other.
        TypeError: another value where a Parameter, Cell or buffer is (None is accepted).
    """

    _auto_prefix: bool
    _names_checked = False
    _create_time: int

    def __init__(self, auto_prefix: bool = True, flags: dict[str, Any] | None = None) -> None:
        # Straight into the dict: __setattr__ sorts values into these very slots. What few Cells change is the class's.
        held = self.__dict__
        if "_params" in held:
            # Two bases that are Cells call it twice, and the second call starts anew.
            for name in _RARE:
                held.pop(name, None)
        held["_params"], held["_buffers"], held["_cells"] = {}, {}, {}
        held["_auto_prefix"] = auto_prefix
        held["_create_time"] = time.time_ns()
        held["training"] = held["requires_grad"] = False
        held["cell_type"] = None
        if hasattr(type(self), "bprop"):
            held["_hooked"] = True
        if flags:
            self.add_flags(**flags)

    @property
    def cls_name(self) -> str:
        """The name of the class."""
        return type(self).__name__

    @property
    def create_time(self) -> int:
        """When the Cell was made, in nanoseconds since 1970."""
        return self._create_time

    # --- Running

    def construct(self, *args: Any, **kwargs: Any) -> Any:
        """What the Cell computes. Override it. AttributeError when called without having been."""
        raise AttributeError(f"the method 'construct' is not defined by {type(self).__name__}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the pre-hooks, `construct` and the hooks. Arguments go through as they are."""
        if not self._names_checked:
            self.check_names_and_refresh_name()
            self._names_checked = True
        if self._precision is None and not self._hooked:
            return self.construct(*args, **kwargs)
        return self._run_with_hooks(self._run_construct, args, kwargs)

    def _run_construct(self, *args: Any, **kwargs: Any) -> Any:
        return self._run_in_precision(self.construct, args, kwargs)

    def _own_parameters(self) -> Iterable[Parameter]:
        return self.get_parameters()

    def apply(self, fn: Callable[[Cell], object]) -> Self:
        """Calls `fn` with every Cell below, children before parents, and with this one last."""
        seen: set[int] = set()

        def visit(cell: Cell) -> None:
            if id(cell) in seen:
                return
            seen.add(id(cell))
            for child in CellTree.name_cells(cell).values():
                visit(child)
            fn(cell)

        visit(self)
        return self

    # --- Attributes

    def __getattr__(self, name: str) -> Any:
        # Reached only for what is no ordinary attribute; before __init__ there is no slot either.
        state = self.__dict__
        if "_params" in state:
            if name in state["_params"]:
                return in_running_precision(state["_params"][name])
            if name in state["_buffers"]:
                return state["_buffers"][name]
            if name in state["_cells"]:
                return state["_cells"][name]
        raise AttributeError(f"The '{type(self).__name__}' object has no attribute '{name}'.")

    def __setattr__(self, name: str, value: Any) -> None:
        held = self.__dict__
        if (
            type(value) in _PLAIN
            and "_params" in held
            and not (name in held["_params"] or name in held["_cells"] or name in held["_buffers"])
        ):
            object.__setattr__(self, name, value)
        elif isinstance(value, Parameter):
            self._set_parameter(name, value)
        elif isinstance(value, ParameterTuple):
            self._require_init(name)
            self._insert_parameter_tuple(value)
            object.__setattr__(self, name, value)
        elif isinstance(value, Cell):
            self._set_cell(name, value)
        elif "_params" in held:
            self._set_other(name, value)
        else:
            object.__setattr__(self, name, value)

    def _require_init(self, name: str) -> None:
        if "_params" not in self.__dict__:
            raise AttributeError(f"{name!r} was assigned too early: please call Cell.__init__() firstly")

    def _set_parameter(self, name: str, value: Parameter) -> None:
        self._require_init(name)
        held = self.__dict__
        if name in held["_cells"] or name in held["_buffers"]:
            raise KeyError(
                f"{name!r} is a Cell or buffer of {type(self).__name__}; delete it before giving a Parameter"
            )
        held.pop(name, None)
        self.insert_param_to_cell(name, value)

    def _set_cell(self, name: str, value: Cell) -> None:
        self._require_init(name)
        held = self.__dict__
        if name in held["_params"] or name in held["_buffers"]:
            raise KeyError(
                f"{name!r} is a Parameter or buffer of {type(self).__name__}; delete it before giving a Cell"
            )
        held.pop(name, None)
        self.insert_child_to_cell(name, value)
        if held["_auto_prefix"]:
            value.update_parameters_name(f"{name}.")

    def _set_other(self, name: str, value: Any) -> None:
        if name in self._params:
            self._set_in_parameter(name, value)
        elif name in self._cells:
            _require_none(name, value, "Sub cell")
            self._cells[name] = None
        elif name in self._buffers and not _is_buffer(value):
            _require_none(name, value, "Buffer")
            self._buffers[name] = None
        elif _is_buffer(value):
            self.__dict__.pop(name, None)
            self.register_buffer(name, value, value.__dict__["persistent"])
        else:
            if isinstance(value, list | tuple) and value and all(isinstance(v, Parameter) for v in value):
                self._register_items(value)
            object.__setattr__(self, name, value)

    def _set_in_parameter(self, name: str, value: Any) -> None:
        held = self._params[name]
        if isinstance(value, Tensor):
            if held is None:
                raise AttributeError(f"Parameter {name!r} is None; assign a Parameter before giving it data")
            held.set_data(value)
        else:
            _require_none(name, value, "Parameter")
            self._params[name] = None

    def _register_items(self, items: Any) -> None:
        """A plain list registers what nothing else here is called, so that it never breaks an assignment."""
        taken = [p for p in items if p.name in self._params or not hasattr(self, p.name)]
        self._insert_parameter_tuple(taken)

    def __delattr__(self, name: str) -> None:
        for held in ("_params", "_buffers", "_cells"):
            if name in self.__dict__.get(held, ()):
                del self.__dict__[held][name]
                return
        if name not in self.__dict__:
            raise AttributeError(f"The '{type(self).__name__}' object has no attribute '{name}'.")
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._params, *self._buffers, *self._cells})

    # --- Text

    def extend_repr(self) -> str:
        """What `repr` shows between the brackets. Override it."""
        return ""

    def __repr__(self) -> str:
        extra = self.extend_repr()
        lines = extra.split("\n") if extra else []
        lines += [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self._cells.items()]
        if not self._cells and len(lines) <= 1:
            return f"{type(self).__name__}({extra})"
        return f"{type(self).__name__}(\n" + "".join(f"  {line}\n" for line in lines) + ")"


def _require_none(name: str, value: object, what: str) -> None:
    if value is not None:
        raise TypeError(f"{what} {name!r} already exists; it cannot become a {type(value).__name__}")


def _is_buffer(value: object) -> bool:
    return isinstance(value, Tensor) and "_is_buffer" in value.__dict__
