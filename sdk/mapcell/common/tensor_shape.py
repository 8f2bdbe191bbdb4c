"""Tensor's methods that rearrange, join, cut and index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels import indexing, shape
from ..kernels.promotion import settled
from .core import TensorCore, required_operand

if TYPE_CHECKING:
    from .tensor import Tensor

IntOrInts = int | Sequence[int]


def array_index(index: Any) -> Any:
    """An index with its Tensors, at any depth, replaced by arrays."""
    if isinstance(index, TensorCore):
        return index._array
    if isinstance(index, tuple):
        return tuple(array_index(i) for i in index)
    if isinstance(index, slice):
        return slice(*(_slice_end(end) for end in (index.start, index.stop, index.step)))
    if isinstance(index, list):
        return [array_index(i) for i in index]
    return index


def _slice_end(end: Any) -> Any:
    return int(end._array) if isinstance(end, TensorCore) else end


class TensorShape(TensorCore):
    """Results are views wherever NumPy has one."""

    __slots__ = ()

    def _wrap_all(self, arrays: Sequence[Any]) -> tuple[Tensor, ...]:
        return tuple(self._wrap(a) for a in arrays)

    def __getitem__(self, index: Any) -> Tensor:
        return self._wrap(indexing.get(self._array, array_index(index)))

    def reshape(self, *shape_: IntOrInts) -> Tensor:
        """The elements in another shape; -1 is filled in. ValueError when it does not fit."""
        return self._wrap(shape.reshape(self._array, shape.as_shape(*_plain_ints(shape_))))

    def view(self, *shape_: IntOrInts) -> Tensor:
        """As `reshape`."""
        return self.reshape(*shape_)

    def reshape_as(self, other: Tensor) -> Tensor:
        """The elements in the shape of `other`."""
        return self.reshape(other.shape)

    view_as = reshape_as

    def ravel(self) -> Tensor:
        """All elements in one axis."""
        return self.reshape(-1)

    def flatten(self, order: str = "C", *, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Joins the axes from `start_dim` to `end_dim`, read row by row ("C") or column by column ("F")."""
        if isinstance(order, int):
            order, start_dim = "C", order
        if order not in ("C", "F"):
            raise ValueError(f"flatten: 'order' is 'C' or 'F', not {order!r}")
        array = self._array if order == "C" else self._array.T
        return self._wrap(shape.flatten(array, start_dim, end_dim))

    def transpose(self, *axes: IntOrInts) -> Tensor:
        """Permuted axes; given two ints, these two swapped; given none, all reversed."""
        if len(axes) == 2 and all(isinstance(a, int) for a in axes):
            return self._wrap(shape.swapaxes(self._array, *axes))  # type: ignore[arg-type]
        return self.permute(*axes) if axes and axes[0] is not None else self.T

    def permute(self, *axis: IntOrInts) -> Tensor:
        """The axes in the order given."""
        return self._wrap(shape.transpose(self._array, shape.as_shape(*axis)))

    @property
    def T(self) -> Tensor:
        """The axes reversed."""
        return self._wrap(self._array.T)

    @property
    def mT(self) -> Tensor:
        """The last two axes swapped."""
        return self._wrap(shape.swapaxes(self._array, -1, -2))

    @property
    def H(self) -> Tensor:
        """The conjugate transpose of a matrix."""
        return self._wrap(np.conjugate(self._array).T)

    def real(self) -> Tensor:
        """The real parts."""
        return self._wrap(np.real(self._array))

    def imag(self) -> Tensor:
        """The imaginary parts; zeros of real elements."""
        return self._wrap(np.imag(self._array))

    def conj(self) -> Tensor:
        """The complex conjugate."""
        return self._wrap(np.conjugate(self._array))

    def adjoint(self) -> Tensor:
        """The complex conjugate with the last two axes swapped."""
        return self._wrap(shape.swapaxes(np.conjugate(self._array), -1, -2))

    def t(self) -> Tensor:
        """The transpose of a matrix; a vector as it is. ValueError for higher ranks."""
        if self._array.ndim > 2:
            raise ValueError(f"t: expected at most 2 axes, got {self._array.ndim}")
        return self.T

    def swapaxes(self, axis0: int, axis1: int) -> Tensor:
        """Two axes swapped."""
        return self._wrap(shape.swapaxes(self._array, axis0, axis1))

    swapdims = swapaxes

    def moveaxis(self, source: IntOrInts, destination: IntOrInts) -> Tensor:
        """Axes moved to new positions, the others in their order."""
        return self._wrap(shape.moveaxis(self._array, source, destination))

    movedim = moveaxis

    def expand_dims(self, axis: int) -> Tensor:
        """With an axis of size 1 at `axis`."""
        return self._wrap(shape.expand_dims(self._array, axis))

    def unsqueeze(self, dim: int) -> Tensor:
        """With an axis of size 1 at `dim`."""
        return self.expand_dims(dim)

    def squeeze(self, axis: IntOrInts | None = None, *, dim: IntOrInts | None = None) -> Tensor:
        """Without axes of size 1. ValueError when an axis named is larger."""
        return self._wrap(shape.squeeze(self._array, axis if dim is None else dim))

    def broadcast_to(self, *size: IntOrInts) -> Tensor:
        """Repeated along axes of size 1 to `size`; -1 keeps a size."""
        return self._wrap(shape.broadcast_to(self._array, shape.as_shape(*_plain_ints(size))))

    expand = broadcast_to

    def expand_as(self, other: Tensor) -> Tensor:
        """Repeated to the shape of `other`."""
        return self.broadcast_to(other.shape)

    def tile(self, *reps: IntOrInts) -> Tensor:
        """Copies of the whole side by side."""
        return self._wrap(shape.tile(self._array, shape.as_shape(*reps)))

    def repeat(self, repeats: IntOrInts, axis: int | None = None) -> Tensor:
        """Each element `repeats` times along `axis`, of the flattened Tensor when None."""
        return self._wrap(shape.repeat(self._array, repeats, axis))

    def repeat_interleave(self, repeats: IntOrInts | Tensor, dim: int | None = None, axis: int | None = None) -> Tensor:
        """Each element `repeats` times along `dim`."""
        counts = repeats._array if isinstance(repeats, TensorCore) else repeats
        return self._wrap(shape.repeat(self._array, counts, dim if dim is not None else axis))  # type: ignore[arg-type]

    def split(self, split_size_or_sections: IntOrInts, axis: int = 0, *, dim: int | None = None) -> tuple[Tensor, ...]:
        """Views of that many elements each, or of the sizes listed."""
        return self._wrap_all(shape.split(self._array, split_size_or_sections, axis if dim is None else dim))

    def chunk(self, chunks: int, axis: int = 0, *, dim: int | None = None) -> tuple[Tensor, ...]:
        """At most `chunks` views of equal size."""
        return self._wrap_all(shape.chunk(self._array, chunks, axis if dim is None else dim))

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """The slices along `dim`."""
        return self._wrap_all(shape.unbind(self._array, dim))

    def flip(self, *dims: IntOrInts) -> Tensor:
        """Reversed along `dims`."""
        return self._wrap(shape.flip(self._array, shape.as_shape(*dims)))

    def roll(self, shifts: IntOrInts, dims: IntOrInts | None = None) -> Tensor:
        """Moved cyclically by `shifts` along `dims`."""
        return self._wrap(shape.roll(self._array, shifts, dims))

    def tril(self, diagonal: int = 0) -> Tensor:
        """The lower triangle of the last two axes."""
        return self._wrap(shape.tril(self._array, diagonal))

    def triu(self, diagonal: int = 0) -> Tensor:
        """The upper triangle of the last two axes."""
        return self._wrap(shape.triu(self._array, diagonal))

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
        """The diagonal of two axes, as the last axis."""
        return self._wrap(shape.diagonal(self._array, offset, axis1, axis2))

    def narrow(self, axis: int, start: int, length: int) -> Tensor:
        """`length` slices along `axis` from `start`."""
        index = (slice(None),) * (axis % self._array.ndim) + (slice(start, start + length),)
        return self._wrap(self._array[index])

    def select(self, axis: int, index: int) -> Tensor:
        """The slice at `index` along `axis`."""
        return self._wrap(indexing.get(self._array, (slice(None),) * (axis % self._array.ndim) + (index,)))

    def take(self, indices: object, axis: int | None = None, mode: str = "clip") -> Tensor:
        """The slices at `indices` along `axis`; positions out of range are clipped, wrap, or raise ("raise")."""
        where = np.asarray(required_operand(indices, "take"))
        return self._wrap(settled(np.take(self._array, where, axis=axis, mode=mode)))  # type: ignore[call-overload]

    def gather(self, input_indices: Any, axis: Any, batch_dims: int = 0) -> Tensor:
        """``gather(indices, axis, batch_dims=0)`` picks slices; ``gather(dim, index)`` picks elements."""
        if isinstance(input_indices, int):
            return self._wrap(indexing.gather_elements(self._array, input_indices, axis._array))
        return self._wrap(indexing.gather(self._array, input_indices._array, int(axis), batch_dims))

    def gather_elements(self, dim: int, index: Tensor) -> Tensor:
        """Elements by their position along `dim`."""
        return self._wrap(indexing.gather_elements(self._array, dim, index._array))

    def gather_nd(self, indices: Tensor) -> Tensor:
        """Elements or slices at the positions in the last axis of `indices`."""
        return self._wrap(indexing.gather_nd(self._array, indices._array))

    def index_select(self, axis: int, index: Tensor) -> Tensor:
        """The slices at the positions of the 1-D `index`."""
        return self._wrap(indexing.index_select(self._array, axis, index._array))

    def nonzero(self, *, as_tuple: bool = False) -> Any:
        """The positions of the elements that are not zero, one row each; or one Tensor for each axis."""
        rows = indexing.nonzero(self._array)
        return self._wrap_all(list(rows.T)) if as_tuple else self._wrap(rows)

    def sort(self, axis: int = -1, descending: bool = False, *, dim: int | None = None) -> tuple[Tensor, Tensor]:
        """The sorted elements and their former positions (Int32)."""
        values, order = indexing.sort(self._array, axis if dim is None else dim, descending)
        return self._wrap(values), self._wrap(order)

    def argsort(self, axis: int = -1, descending: bool = False, *, dim: int | None = None) -> Tensor:
        """The positions that sort (Int32)."""
        return self._wrap(indexing.argsort(self._array, axis if dim is None else dim, descending))

    def topk(self, k: int, dim: int | None = None, largest: bool = True, sorted: bool = True) -> tuple[Tensor, Tensor]:
        """The `k` largest (or smallest) elements along `dim`, and their positions (Int32)."""
        values, order = indexing.topk(self._array, k, -1 if dim is None else dim, largest, sorted)
        return self._wrap(values), self._wrap(order)


def _plain_ints(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sizes with Tensors among them as ints."""
    return tuple(_plain(g) for g in given)


def _plain(size: Any) -> Any:
    if isinstance(size, TensorCore):
        return size._array.tolist()
    return tuple(_plain(s) for s in size) if isinstance(size, list | tuple) else size
