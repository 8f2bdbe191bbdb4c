"""What a Cell is told about training, graphs, clusters and servers: checked and kept, for networks that say it.

Nothing here changes what a Cell computes, but `set_train`, which layers such as Dropout and BatchNorm ask.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

from ..log import warn
from .cell_precision import CellPrecision
from .cell_tree import CellTree

if TYPE_CHECKING:
    from ..common.parameter import Parameter

_RECOMPUTE = frozenset({"mp_comm_recompute", "parallel_optimizer_comm_recompute", "recompute_slice_activation"})


class CellFlags(CellPrecision):
    """Flags of a Cell."""

    # Called what no network calls its own: a default of the class would hide a Parameter or a Cell of that name.
    _kept_phase: str = "train"
    _kept_inputs: Any = None
    _pipeline_stage: int = 0
    _bprop_debug: bool = False
    _jit_config: Any = None
    _kept_scope: str | None = None
    training: bool
    requires_grad: bool
    cell_type: Any

    def add_flags(self, **flags: Any) -> Self:
        """Sets attributes and remembers them for `get_flags`; fp16, bf16 or fp32=True set what `to_float` sets."""
        self.get_flags().update(flags)
        self._set_precision_flags(flags)
        for name, value in flags.items():
            self.__dict__[name] = value
        return self

    def add_flags_recursive(self, **flags: Any) -> Self:
        """`add_flags` on this Cell and all below."""
        for cell in self._all_cells():
            cell.add_flags(**flags)
        return self

    def get_flags(self) -> dict[str, Any]:
        """The flags added so far."""
        flags: dict[str, Any] = self.__dict__.setdefault("_flags", {})
        return flags

    def _all_cells(self) -> Iterator[Any]:
        return (cell for _, cell in CellTree.cells_and_names(self))

    # --- Training

    def set_train(self, mode: bool = True) -> Self:
        """Sets `training` on this Cell and all below, and `phase` on this one."""
        for cell in self._all_cells():
            cell.training = mode
        self._kept_phase = "train" if mode else "predict"
        return self

    def set_grad(self, requires_grad: bool = True) -> Self:
        """Keeps the flag `requires_grad`."""
        self.requires_grad = requires_grad
        return self

    @property
    def phase(self) -> str:
        """The phase's name. TypeError unless set to a str."""
        return self._kept_phase

    @phase.setter
    def phase(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"'phase' has to be a str, not {type(value).__name__}")
        self._kept_phase = value

    @property
    def bprop_debug(self) -> bool:
        """Whether a custom bprop is to be debugged. TypeError unless set to a bool."""
        return self._bprop_debug

    @bprop_debug.setter
    def bprop_debug(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"'bprop_debug' has to be a bool, not {type(value).__name__}")
        self._bprop_debug = value

    def recompute(self, **kwargs: Any) -> None:
        """Checks its arguments; nothing is recomputed. ValueError for an unknown one, TypeError unless bools."""
        for name, value in kwargs.items():
            if name not in _RECOMPUTE:
                raise ValueError(f"recompute: unknown argument {name!r}; known: {', '.join(sorted(_RECOMPUTE))}")
            if not isinstance(value, bool):
                raise TypeError(f"recompute: {name!r} has to be a bool, not {type(value).__name__}")

    def set_boost(self, boost_type: str) -> Self:
        """Keeps the flag. ValueError unless "less_bn"."""
        if boost_type != "less_bn":
            raise ValueError(f"set_boost: the type is 'less_bn', not {boost_type!r}")
        return self.add_flags_recursive(less_bn=True)

    # --- Graphs

    def set_inputs(self, *inputs: Any, **kwargs: Any) -> None:
        """Keeps the inputs that a graph would be compiled for.

        ValueError for both kinds at once; TypeError for inputs by name when `construct` takes ``*args``.
        """
        if inputs and kwargs:
            raise ValueError("set_inputs: give the inputs either by position or by name")
        if kwargs:
            self._check_input_names(kwargs)
        self._kept_inputs = kwargs or inputs

    def _check_input_names(self, kwargs: dict[str, Any]) -> None:
        parameters = inspect.signature(self.construct).parameters  # type: ignore[attr-defined]
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
            raise TypeError("set_inputs: inputs by name need a construct without *args and **kwargs")
        for name in kwargs:
            if name not in parameters:
                raise ValueError(f"set_inputs: construct has no argument {name!r}")

    def get_inputs(self) -> Any:
        """The inputs kept by `set_inputs`, or None."""
        return self._kept_inputs

    def set_jit_config(self, jit_config: Any) -> None:
        """Keeps a JitConfig; a second one is ignored with a warning in the log."""
        if self._jit_config is not None:
            warn("set_jit_config: the first JitConfig stays")
            return
        self._jit_config = jit_config

    @property
    def jit_config_dict(self) -> dict[str, Any]:
        """What the JitConfig says."""
        return dict(getattr(self._jit_config, "jit_config_dict", {}))

    @property
    def compile_cache(self) -> frozenset[str]:
        """No graph was ever compiled."""
        return frozenset()

    @property
    def phase_cache(self) -> dict[str, str]:
        """No graph was ever compiled."""
        return {}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: everything is eager."""

    def compile_and_run(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the Cell."""
        return self(*args, **kwargs)  # type: ignore[operator]

    def run_construct(self, cast_inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls `construct`."""
        return self.construct(*cast_inputs, **kwargs)  # type: ignore[attr-defined]

    def generate_scope(self) -> None:
        """Gives each Cell below a scope made of its path."""
        for path, cell in CellTree.cells_and_names(self):
            if path:
                cell._kept_scope = f"Default/{path.replace('.', '/')}-{type(cell).__name__}"

    def get_scope(self) -> str | None:
        """The scope after `generate_scope`, else None."""
        return self._kept_scope

    def offload(self, backward_prefetch: str | int = "Auto") -> None:
        """Checks its argument; nothing is offloaded. ValueError unless "Auto" or an int of at least 0."""
        if isinstance(backward_prefetch, str) and backward_prefetch != "Auto":
            raise ValueError(f"offload: 'backward_prefetch' is 'Auto' or an int, not {backward_prefetch!r}")
        if isinstance(backward_prefetch, bool) or not isinstance(backward_prefetch, str | int):
            raise TypeError(f"offload: 'backward_prefetch' is 'Auto' or an int, not {backward_prefetch!r}")
        if isinstance(backward_prefetch, int) and backward_prefetch < 0:
            raise ValueError(f"offload: 'backward_prefetch' has to be at least 0, but it is {backward_prefetch}")

    def update_cell_type(self, cell_type: Any) -> None:
        """Keeps `cell_type`."""
        self.cell_type = cell_type

    # --- Clusters and servers

    def set_comm_fusion(self, fusion_type: int, recurse: bool = True) -> Self:
        """Sets `comm_fusion` of the trainable Parameters. TypeError unless an int, ValueError when negative."""
        for parameter in self.trainable_params(recurse):
            parameter.comm_fusion = fusion_type
        return self

    def set_broadcast_flag(self, mode: bool = True) -> Self:
        """Keeps the flag `broadcast_flag` on this Cell and all below."""
        return self.add_flags_recursive(broadcast_flag=mode)

    @property
    def pipeline_stage(self) -> int:
        """A pipeline stage, 0 unless set. TypeError unless set to an int, ValueError when negative."""
        return self._pipeline_stage

    @pipeline_stage.setter
    def pipeline_stage(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"'pipeline_stage' has to be an int, not {type(value).__name__}")
        if value < 0:
            raise ValueError(f"'pipeline_stage' has to be at least 0, but it is {value}")
        self._pipeline_stage = value
        for parameter in self.trainable_params():
            parameter.add_pipeline_stage(value)

    @property
    def parameter_layout_dict(self) -> dict[Any, Any]:
        """Layouts of Parameters, kept. TypeError unless set to a dict."""
        layouts: dict[Any, Any] = self.__dict__.setdefault("_layouts", {})
        return layouts

    @parameter_layout_dict.setter
    def parameter_layout_dict(self, value: dict[Any, Any]) -> None:
        if not isinstance(value, dict):
            raise TypeError(f"'parameter_layout_dict' has to be a dict, not {type(value).__name__}")
        self.__dict__["_layouts"] = value

    def shard(
        self,
        in_strategy: Any,
        out_strategy: Any = None,
        parameter_plan: Any = None,
        device: str = "Ascend",
        level: int = 0,
    ) -> Callable[..., Any]:
        """A function that calls this Cell: one process has nothing to divide."""
        del in_strategy, out_strategy, parameter_plan, device, level
        call: Callable[..., Any] = self.__call__  # type: ignore[operator]
        return call

    def set_data_parallel(self) -> None:
        """Does nothing: there is one process."""

    def place(self, role: str, rank_id: int) -> None:
        """Does nothing: there is one process."""

    def infer_param_pipeline_stage(self) -> list[Parameter]:
        """The trainable Parameters: all belong to the only stage."""
        return self.trainable_params()

    def set_param_ps(self, recurse: bool = True, init_in_server: bool = False) -> None:
        """Notes on the Parameters that a parameter server would hold them; there is none."""
        for parameter in self.trainable_params(recurse):
            parameter.set_param_ps(init_in_server)

    def flatten_weights(self, fusion_size: int = 0) -> None:
        """Does nothing: shared weights lie together already. ValueError for a negative size, TypeError for no int."""
        if isinstance(fusion_size, bool) or not isinstance(fusion_size, int):
            raise TypeError(f"flatten_weights: 'fusion_size' has to be an int, not {type(fusion_size).__name__}")
        if fusion_size < 0:
            raise ValueError(f"flatten_weights: 'fusion_size' has to be at least 0, but it is {fusion_size}")

    def remove_redundant_parameters(self) -> None:
        """Does nothing: there is one process."""
