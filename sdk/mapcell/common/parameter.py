"""Parameter: a Tensor with a name, whose elements may come later: from an initializer or from shared weights.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore/mindspore.Parameter.html
"""

from __future__ import annotations

import copy
from contextvars import ContextVar
from typing import Any

import numpy as np

from ..kernels.promotion import Array, cast, is_floating
from ..storage import LazyInit, Storage, array_of, converted, initializer_of, is_pending_init, is_shared
from .initializer import initializer
from .kept import Kept, ParamInfo, anything, bool_, fusion, int_, sequence
from .tensor import Tensor, sharing

# A Parameter that was given no name is called this until a Cell that it is assigned to names it.
UNNAMED = "Parameter"
MAX_NAME = 1024
# Whether Parameters made from initializers leave their elements for later; see nn.utils.no_init_parameters.
deferring_initialisation: ContextVar[bool] = ContextVar("mapcell_deferring_initialisation", default=False)


class Parameter(Tensor):
    """A named Tensor that a network owns.

    Args:
        default_input: Tensor, ndarray, list, int (Int32) or float (Float32); copied, but a read-only Tensor's elements
            are shared. A Tensor from ``initializer`` is initialised at once, or, under no_init_parameters(), when its
            elements are first needed.
        name: up to 1,024 characters; without one the Parameter takes the name of the attribute of the Cell that it is
            assigned to.
        requires_grad, layerwise_parallel, parallel_optimizer: flags that are kept.
        storage_format, device: accepted; `device` is None, "CPU" or "Remote".

    Raises:
        TypeError: `default_input` is of another kind, or a flag is no bool.
        ValueError: it is a bool or has a size of -1, or `name` or `device` is not what it has to be.
        OverflowError: an int outside Int32.
    """

    __slots__ = ("_from_initializer", "_name", "_requires_grad")

    layerwise_parallel = Kept(lambda: False, bool_)
    parallel_optimizer = Kept(lambda: True, bool_)
    parallel_optimizer_comm_recompute = Kept(lambda: False, bool_)
    comm_fusion = Kept(lambda: 1, fusion)
    cache_enable = Kept(lambda: False, bool_)
    cache_shape = Kept(list, sequence)
    key = Kept(lambda: -1, int_)
    unique = Kept(lambda: False, anything)
    sliced = Kept(lambda: False, anything)
    requires_aggr = Kept(lambda: True, anything)
    is_init = Kept(lambda: False, anything)
    init_flag = Kept(lambda: False, anything)
    is_in_parallel = Kept(lambda: False, anything)
    is_param_ps = Kept(lambda: False, anything)
    init_in_server = Kept(lambda: False, anything)
    push_weight_to_server = Kept(lambda: False, anything)
    pull_weight_from_server = Kept(lambda: False, anything)

    def __init__(
        self,
        default_input: Any,
        name: str | None = None,
        requires_grad: bool = True,
        layerwise_parallel: bool = False,
        parallel_optimizer: bool = True,
        storage_format: str = "",
        device: str | None = None,
    ) -> None:
        del storage_format
        if device not in (None, "CPU", "Remote"):
            raise ValueError(f"Parameter: 'device' has to be None, 'CPU' or 'Remote', not {device!r}")
        self._storage = _initial_storage(default_input)
        self._from_initializer = isinstance(default_input, Tensor) and default_input.has_init
        self.name = name
        self.requires_grad = requires_grad
        # The defaults need no entry in the instance's dict, which then is never made.
        if layerwise_parallel is not False:
            self.layerwise_parallel = layerwise_parallel
        if parallel_optimizer is not True:
            self.parallel_optimizer = parallel_optimizer

    @property
    def name(self) -> str:
        """What checkpoints call it. None or blanks make it unnamed; ValueError when set to anything else but a str."""
        return self._name

    @name.setter
    def name(self, value: str | None) -> None:
        if value is not None and not isinstance(value, str):
            raise ValueError(f"Parameter: 'name' has to be a str or None, not {type(value).__name__}")
        stripped = (value or "").strip() or UNNAMED
        if len(stripped) > MAX_NAME:
            raise ValueError(f"Parameter: 'name' may have up to {MAX_NAME} characters, but it has {len(stripped)}")
        self._name = stripped

    @property
    def requires_grad(self) -> bool:
        """Whether training would change it. TypeError unless set to a bool."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        bool_(value, "requires_grad")
        self._requires_grad = value

    @property
    def device(self) -> str:
        """Always "CPU"."""
        return "CPU"

    @property
    def param_info(self) -> ParamInfo:
        """A summary of name and flags."""
        return ParamInfo(
            self._name, self._requires_grad, self.layerwise_parallel, self.parallel_optimizer, self.comm_fusion,
            self.cache_enable, self.shape,
        )  # fmt: skip

    # --- Laziness

    @property
    def is_default_input_init(self) -> bool:
        """Whether it was made from an initializer."""
        return self._from_initializer

    @property
    def init_mode(self) -> Tensor | None:
        """The initializer's Tensor while it has not run, then None."""
        return sharing(self) if self.has_init else None

    @property
    def init_param(self) -> bool:
        """False while its initialisation is skipped."""
        return not self.has_init

    @property
    def inited_param(self) -> Parameter | None:
        """This Parameter once `init_data` initialised it, else None."""
        return self if "_inited" in self.__dict__ else None

    def init_data(self, layout: Any = None, set_sliced: bool = False, *unused: Any) -> Parameter:
        """Runs the initializer if it has not run, and returns self.

        `layout` concerns sharding. TypeError when it is no tuple, ValueError when it has fewer than 3 items; neither
        once initialised.
        """
        del unused
        if not self.has_init:
            return self
        if layout is not None and not isinstance(layout, tuple):
            raise TypeError(f"init_data: 'layout' has to be a tuple, not {type(layout).__name__}")
        if layout is not None and len(layout) < 3:
            raise ValueError(f"init_data: 'layout' has to have at least 3 items, but it has {len(layout)}")
        if set_sliced:
            self.sliced = True
        array_of(self._storage)
        self.__dict__["_inited"] = True
        return self

    # --- Elements

    @property
    def data(self) -> Parameter:
        """This Parameter. Setting it to a Tensor shares that one's elements, shape and dtype."""
        return self

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data: expected a Tensor, not {type(value).__name__}")
        self._storage = value._storage

    def set_data(self, data: Any, slice_shape: bool = False) -> Parameter:
        """Takes the elements of `data`, cast to this dtype, and returns self.

        A Tensor of this dtype is shared, not copied. A number fills all elements. An initializer's Tensor leaves a lazy
        Parameter lazy.

        Raises:
            TypeError: `data` is neither Tensor nor number, or a float for an integer Parameter.
            ValueError: another shape, unless `slice_shape` is True.
        """
        if isinstance(data, int | float):
            self._storage = self._filled(data)
        elif isinstance(data, Tensor):
            if data.shape != self.shape and not slice_shape:
                raise ValueError(
                    f"set_data: Parameter {self._name!r} has the shape {self.shape}, but the data has {data.shape}; "
                    "to change the shape pass slice_shape=True"
                )
            self._storage = self._taken(data)
        else:
            raise TypeError(f"set_data: expected a Tensor or a number, not {type(data).__name__}")
        if slice_shape or "sliced" in self.__dict__:
            self.sliced = slice_shape
        return self

    def _filled(self, number: float) -> Array:
        dtype = self._storage.dtype
        if isinstance(number, float) and not is_floating(dtype) and dtype.kind != "c":
            raise TypeError(f"set_data: a float cannot be converted to the dtype {self.dtype} of {self._name!r}")
        return cast(np.full(self.shape, number), dtype)

    def _taken(self, data: Tensor) -> Storage:
        init = initializer_of(data._storage)
        if init is None or isinstance(data, Parameter):
            return converted(data._storage, data.shape, self._storage.dtype)
        lazy = LazyInit(init, data.shape, self._storage.dtype)
        return lazy if self.has_init else array_of(lazy)

    # --- Copies

    def clone(self, init: Any = "same") -> Parameter:
        """A Parameter of the same name and flags with its own elements: copies, or what `init` gives.

        The clone of a lazy Parameter is lazy. `init` is as in ``initializer``; its errors are raised here too.
        """
        out = self._twin(self._cloned_storage() if isinstance(init, str) and init == "same" else self._inited_by(init))
        out.__dict__.update(copy.copy(self.__dict__))
        return out

    def copy(self) -> Parameter:
        """As ``clone()``."""
        return self.clone()

    def _cloned_storage(self) -> Storage:
        init = initializer_of(self._storage)
        if init is not None:
            return LazyInit(init, self.shape, self._storage.dtype)
        return self._elements.copy()

    def _inited_by(self, init: Any) -> Storage:
        made = initializer(init, self.shape, self.dtype)._storage
        if not is_pending_init(made):
            return cast(array_of(made), self._storage.dtype).copy()
        return made if self.has_init or deferring_initialisation.get() else array_of(made)

    def _twin(self, storage: Storage) -> Parameter:
        out = named_parameter(storage, self._name, self._requires_grad)
        out._from_initializer = self._from_initializer
        return out

    def __copy__(self) -> Parameter:
        return self.clone()

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        out = self._twin(self._elements.copy())
        out.__dict__.update(copy.deepcopy(self.__dict__, memo))
        memo[id(self)] = out
        return out

    def __reduce__(self) -> str | tuple[Any, ...]:
        return (
            _unpickled,
            (self._elements, self._name, self._requires_grad, self._from_initializer),
            self.__dict__ or None,
        )

    def __str__(self) -> str:
        return (
            f"Parameter (name={self._name}, shape={self.shape}, dtype={self.dtype}, "
            f"requires_grad={self._requires_grad})"
        )

    __repr__ = __str__

    # --- Kept for networks that were written for clusters and servers

    def add_pipeline_stage(self, stage: int) -> None:
        """Notes a pipeline stage. TypeError unless an int of at least 0."""
        if isinstance(stage, bool) or not isinstance(stage, int) or stage < 0:
            raise TypeError(f"add_pipeline_stage: the stage has to be an int of at least 0, not {stage!r}")
        self.__dict__.setdefault("_pipeline_stage_list", []).append(stage)

    def set_param_ps(self, init_in_server: bool = False) -> None:
        """Notes that a parameter server would hold it; there is none here."""
        self.is_param_ps, self.init_in_server = True, init_in_server

    def set_param_fl(
        self, push_to_server: bool = False, pull_from_server: bool = False, requires_aggr: bool = True
    ) -> None:
        """Notes how it would travel between worker and server; there is none here."""
        self.push_weight_to_server, self.pull_weight_from_server = push_to_server, pull_from_server
        self.requires_aggr = requires_aggr


def named_parameter(storage: Storage, name: str, requires_grad: bool = True) -> Parameter:
    """A Parameter on a storage, for callers that have checked the name: nothing is copied or touched."""
    out = Parameter.__new__(Parameter)
    out._storage = storage
    out._name = name
    out._requires_grad = requires_grad
    out._from_initializer = False
    return out


def _unpickled(array: Array, name: str, requires_grad: bool, from_initializer: bool) -> Parameter:
    out = named_parameter(array, name, requires_grad)
    out._from_initializer = from_initializer
    return out


def _initial_storage(data: Any) -> Storage:
    if isinstance(data, Tensor):
        return _storage_of_tensor(data)
    if isinstance(data, bool):
        raise ValueError("Parameter: the data cannot be a bool; give a Tensor of one, Tensor(True)")
    if isinstance(data, np.generic | tuple | complex) or not isinstance(data, int | float | np.ndarray | list):
        raise TypeError(
            "Parameter: 'default_input' has to be a Tensor, int, float, numpy.ndarray or list, "
            f"not {type(data).__name__}"
        )
    if isinstance(data, int):
        return _int32(data)
    return Tensor(data)._storage


def _int32(value: int) -> Array:
    if not -(2**31) <= value < 2**31:
        raise OverflowError(f"Parameter: {value} does not fit Int32; give a Tensor of Int64, Tensor({value})")
    return np.array(value, np.int32)


def _storage_of_tensor(data: Tensor) -> Storage:
    if min(data.shape, default=0) < 0:
        raise ValueError(f"Parameter: all sizes of the shape have to be known, but it is {data.shape}")
    storage = data._storage
    init = initializer_of(storage)
    if init is not None:
        # Its own storage, so that two Parameters from one initializer are independent.
        lazy = LazyInit(init, storage.shape, storage.dtype)
        return lazy if deferring_initialisation.get() else array_of(lazy)
    if is_shared(storage):
        return storage
    array = array_of(storage)
    return array.copy() if array.flags.writeable else array


class ParameterTuple(tuple[Parameter, ...]):
    """A tuple of Parameters whose names differ. Unnamed ones may occur any number of times.

    Raises:
        TypeError: not an iterable of Parameters.
        ValueError: two Parameters of one name.
    """

    __slots__ = ()

    def __new__(cls, iterable: Any) -> ParameterTuple:
        items = tuple(iterable)
        check_parameters(items)
        return super().__new__(cls, items)

    def clone(self, prefix: str, init: Any = "same") -> ParameterTuple:
        """Clones named ``prefix.name``; `init` as in `Parameter.clone`.

        TypeError unless `prefix` is a str; ValueError unless it starts with a letter, digit or underscore and goes on
        with these and dots, or when the tuple holds one Parameter twice.
        """
        check_prefix(prefix)
        clones = [parameter.clone(init) for parameter in self]
        for number, clone in enumerate(clones, 1):
            clone.name = f"{prefix}.{clone.name}" if clone.name != UNNAMED else f"{prefix}.{UNNAMED}${number}"
        return ParameterTuple(clones)


def check_parameters(items: tuple[Any, ...] | list[Any]) -> None:
    """TypeError unless all are Parameters, ValueError when two have one name."""
    by_name: dict[str, Parameter] = {}
    for item in items:
        if not isinstance(item, Parameter):
            raise TypeError(f"ParameterTuple: expected Parameters, not {type(item).__name__}")
        if item.name != UNNAMED and by_name.setdefault(item.name, item) is not item:
            raise ValueError(f"ParameterTuple: its name '{item.name}' already exists; rename one of the two")


def check_prefix(prefix: object) -> None:
    """TypeError unless a str, ValueError unless it can start a Parameter's name."""
    import re

    if not isinstance(prefix, str):
        raise TypeError(f"clone: 'prefix' has to be a str, not {type(prefix).__name__}")
    if not re.fullmatch(r"\w+[0-9a-zA-Z_.]*", prefix):
        raise ValueError(f"clone: 'prefix' has to be a name such as 'copy' or 'a.b', not {prefix!r}")
