"""Tensor: one array (or the promise of one) with MindSpore's constructor, rules and methods.

`wrap` and `unwrap` are the way between arrays and Tensors; neither copies.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels import indexing, printing
from ..kernels.promotion import Array, cast
from ..kernels.recorded import Recorded
from ..storage import (
    Storage,
    Unfilled,
    array_of,
    has_elements,
    initializer_of,
    is_pending_init,
)
from .core import TensorCore, numpy_dtype_of, operand, required_operand, sequence_array
from .dtype import Type, check
from .dtype import from_numpy as dtype_of
from .tensor_convert import TensorConvert
from .tensor_math import TensorMath
from .tensor_ops import TensorOps
from .tensor_reduce import TensorReduce
from .tensor_shape import TensorShape, array_index

if TYPE_CHECKING:
    from .initializer import Initializer

READ_ONLY = (
    "this Tensor is read-only: its elements are shared with other processes. "
    'Give it its own with set_data(...), or attach the weights with mode="c" (copy-on-write)'
)


class Tensor(TensorMath, TensorShape, TensorReduce, TensorOps, TensorConvert):
    """A multi-dimensional array of one dtype.

    Args:
        input_data: Tensor, ndarray, number, or (nested) list or tuple of numbers and Tensors; copied. Ints become
            Int64, floats Float32, bools Bool; arrays and NumPy scalars keep their dtype.
        dtype: converts the elements.
        shape, init: without `input_data`, an Initializer and the shape that it is to fill when it is first needed;
            a `shape` without `init` may hold None for sizes not known, and gives a Tensor without data.
        const_arg, device: accepted and stored nowhere; they concern graphs and accelerators.

    Raises:
        TypeError: `input_data` holds no numbers, `dtype` is no mapcell dtype, or arguments that exclude each other.
        ValueError: a ragged list, or a shape that is not one.

    Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore/mindspore.Tensor.html
    """

    __slots__ = ()

    def __init__(
        self,
        input_data: Any = None,
        dtype: Type | None = None,
        shape: int | Sequence[int | None] | None = None,
        init: Initializer | None = None,
        const_arg: bool = False,
        device: str | None = None,
    ) -> None:
        del const_arg, device
        if input_data is None:
            self._storage = _without_data(dtype, shape, init)
        elif init is not None:
            raise TypeError("Tensor: give either 'input_data' or 'init', not both")
        else:
            self._storage = _own_array(input_data, dtype)

    @staticmethod
    def _wrap(array: Array) -> Tensor:
        return wrap(array)

    # --- Laziness

    @property
    def has_init(self) -> bool:
        """Whether an initializer still has to run."""
        return is_pending_init(self._storage)

    @property
    def init(self) -> Any:
        """The Initializer that still has to run, or None."""
        return initializer_of(self._storage)

    def init_data(self, slice_index: int | None = None, shape: Any = None, opt_shard_group: Any = None) -> Tensor:
        """Runs the initializer and returns self. TypeError when none is left to run. The arguments concern sharding."""
        del slice_index, shape, opt_shard_group
        if not self.has_init:
            raise TypeError("init_data: this Tensor has no initializer that has not run yet")
        array_of(self._storage)
        return self

    # --- Elements

    @property
    def _elements(self) -> Array:
        """What is looked at, where `_array` is computed with."""
        return array_of(self._storage)

    def asnumpy(self) -> Array:
        """The elements as an ndarray that shares them with the Tensor; read-only when they are shared weights."""
        return self._elements

    def numpy(self) -> Array:
        """As `asnumpy`."""
        return self._elements

    @classmethod
    def from_numpy(cls, array: Array) -> Tensor:
        """A Tensor that shares the elements of `array`. TypeError unless it is an ndarray of a known type."""
        if not isinstance(array, np.ndarray):
            raise TypeError(f"from_numpy: expected an ndarray, not {type(array).__name__}")
        dtype_of(array.dtype)
        return wrap(array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self._elements
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, **options: Any) -> Any:
        return self._elements.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._elements.__dlpack_device__()

    def item(self, *index: int) -> Any:
        """The element at `index`, or the only one, as a Python number. ValueError when there are several."""
        return self._elements.item(*index)

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self._elements.tolist()

    def get_bytes(self) -> bytes:
        """The elements' bytes, row by row."""
        return self._elements.tobytes()

    def data_ptr(self) -> int:
        """The address of the first element; 0 before there are elements."""
        return int(self._elements.ctypes.data) if has_elements(self._storage) else 0

    @property
    def data(self) -> Tensor:
        """This Tensor."""
        return self

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data: expected a Tensor, not {type(value).__name__}")
        self._storage = value._storage

    def value(self) -> Tensor:
        """A Tensor of the same elements, shared."""
        return sharing(self)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a Tensor without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise TypeError("iteration over a Tensor without axes")
        return (wrap(row) for row in self._array)

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"the truth value of a Tensor of shape {self.shape} is ambiguous; use any() or all()")
        return bool(self._elements.reshape(()))

    def __int__(self) -> int:
        return int(self._only())

    def __float__(self) -> float:
        return float(self._only())

    def __complex__(self) -> complex:
        return complex(self._only())

    def __index__(self) -> int:
        if self._storage.dtype.kind not in "biu":
            raise TypeError(f"only integer Tensors can be an index, not {self.dtype}")
        return int(self._only())

    def _only(self) -> Any:
        if self.size != 1:
            raise ValueError(f"only a Tensor of one element can become a number, this one has the shape {self.shape}")
        return self._elements.item()

    def __contains__(self, item: object) -> bool:
        value = operand(item)
        return value is not None and bool(np.any(self._elements == value))

    # --- Writing in place

    def __setitem__(self, index: Any, value: object) -> None:
        indexing.put(self._writable(), array_index(index), required_operand(value, "a Tensor's element"))

    def assign_value(self, value: Tensor) -> Tensor:
        """Writes the elements of `value` in place, cast to this dtype; returns a Tensor that shares them.

        ValueError when the shapes differ or the elements are read-only.
        """
        array = required_operand(value, "assign_value")
        if np.shape(array) != self.shape:
            raise ValueError(f"assign_value: the shape is {self.shape}, but the value has {np.shape(array)}")
        indexing.put(self._writable(), ..., array)
        return sharing(self)

    def _writable(self) -> Array:
        array = self._array
        if array.flags.writeable:
            return array
        if type(self._storage) is np.ndarray and 0 in array.strides:
            # A broadcast view repeats elements; only a copy can hold different ones.
            self._storage = own = array.copy()
            return own
        raise ValueError(READ_ONLY)

    # --- Copies

    def copy(self) -> Tensor:
        """A Tensor with its own copy of the elements."""
        return wrap(self._array.copy())

    def clone(self) -> Tensor:
        """As `copy`."""
        return self.copy()

    def __copy__(self) -> Tensor:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        out = self.copy() if not isinstance(self._storage, Unfilled) else sharing(self)
        out.__dict__.update(copy.deepcopy(self.__dict__, memo))
        memo[id(self)] = out
        return out

    def __reduce__(self) -> str | tuple[Any, ...]:
        if isinstance(self._storage, Unfilled):
            return _unfilled, (self.shape, self.dtype)
        return wrap, (self._elements,), self.__dict__ or None

    # --- Text

    def __str__(self) -> str:
        if isinstance(self._storage, Unfilled):
            return "<uninitialized>"
        return str(self._elements) if has_elements(self._storage) else "<uninitialized>"

    def __repr__(self) -> str:
        return f"Tensor(shape={list(self.shape)}, dtype={self.dtype}, value={self._value_text()})"

    def _value_text(self) -> str:
        if has_elements(self._storage):
            return printing.value_text(self._elements)
        return "\n<uninitialized>" if self.has_init else "\n"

    def __format__(self, spec: str) -> str:
        return format(self._only(), spec) if spec and not self.shape else format(str(self), spec)


def wrap(array: Array) -> Tensor:
    """A Tensor around `array`, which it shares. NumPy scalars and subclasses of ndarray become plain arrays."""
    tensor = Tensor.__new__(Tensor)
    tensor._storage = array if type(array) is np.ndarray or isinstance(array, Recorded) else np.asarray(array)
    return tensor


def unwrap(tensor: TensorCore) -> Array:
    """The elements of a Tensor or Parameter, initialised or bound first if they were not; no copy."""
    storage = tensor._storage
    return storage if type(storage) is np.ndarray else storage.operand()  # type: ignore[union-attr]


def is_recorded(value: object) -> bool:
    """Whether `value` is a Tensor that a gradient is being computed through."""
    return isinstance(value, TensorCore) and isinstance(value._storage, Recorded)


def detached(tensor: Tensor) -> Tensor:
    """`tensor`, or a Tensor of the same elements that no gradient is computed through."""
    return wrap(array_of(tensor._storage)) if isinstance(tensor._storage, Recorded) else tensor


def from_storage(storage: Storage) -> Tensor:
    """A Tensor on a storage, which need not have elements yet."""
    tensor = Tensor.__new__(Tensor)
    tensor._storage = storage
    return tensor


def sharing(tensor: TensorCore) -> Tensor:
    """A new Tensor on the storage of `tensor`."""
    return from_storage(tensor._storage)


def tensor(
    input_data: Any = None,
    dtype: Type | None = None,
    shape: int | Sequence[int | None] | None = None,
    init: Initializer | None = None,
    const_arg: bool = False,
) -> Tensor:
    """``Tensor(...)`` with the same arguments."""
    return Tensor(input_data, dtype, shape, init, const_arg)


def from_dlpack(source: Any) -> Tensor:
    """A Tensor that shares the elements of an object with ``__dlpack__``. BufferError as NumPy raises it."""
    return wrap(np.from_dlpack(source))


def from_numpy(array: Array) -> Tensor:
    """A Tensor that shares the elements of `array`. TypeError unless it is an ndarray of a known type."""
    return Tensor.from_numpy(array)


def is_tensor(obj: object) -> bool:
    """Whether `obj` is a Tensor (Parameters are)."""
    return isinstance(obj, Tensor)


def _unfilled(shape: tuple[int, ...], dtype: Type) -> Tensor:
    return from_storage(Unfilled(shape, dtype.numpy))


def _own_array(data: Any, dtype: Type | None) -> Storage:
    wanted = numpy_dtype_of(dtype)
    array = _array_from(data)
    if wanted is None or array.dtype == wanted:
        return array
    return cast(array, wanted)


def _array_from(data: Any) -> Array:
    """A fresh array of `data`. TypeError for what is no number."""
    if isinstance(data, TensorCore):
        return array_of(data._storage).copy()
    if isinstance(data, np.ndarray | np.generic):
        array = np.array(data, order="C", subok=False)
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("="))
        dtype_of(array.dtype)
        return array
    if isinstance(data, bool | int | complex):
        return np.array(data)
    if isinstance(data, float):
        return np.array(data, np.float32)
    if isinstance(data, list | tuple):
        return sequence_array(data)
    raise TypeError(
        "Tensor: 'input_data' has to be a Tensor, an ndarray, a number, or a list or tuple of these, "
        f"not {type(data).__name__}"
    )


def _without_data(dtype: Type | None, shape: Any, init: Any) -> Storage:
    if shape is None or dtype is None:
        raise TypeError("Tensor: give 'input_data', or 'shape' and 'dtype' (and 'init', to have elements)")
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    wanted = check(dtype, "Tensor").numpy
    if init is None:
        return Unfilled(tuple(-1 if n is None else n for n in sizes), wanted)
    from .initializer import initializer

    return initializer(init, sizes, dtype)._storage
