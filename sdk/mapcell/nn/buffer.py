"""Buffer: state of a Cell that is no Parameter."""

from __future__ import annotations

from typing import Any

from ..common.tensor import Tensor, sharing


def Buffer(data: Any, *, persistent: bool = True) -> Tensor:
    """A Tensor on the elements of `data` that a Cell registers as a buffer when it is assigned to an attribute.

    ValueError for None, TypeError for anything but a Tensor.
    """
    if data is None:
        raise ValueError("Buffer: there has to be a Tensor, not None")
    if not isinstance(data, Tensor):
        raise TypeError(f"Buffer: expected a Tensor, not {type(data).__name__}")
    buffer = sharing(data)
    buffer.__dict__.update(_is_buffer=True, persistent=persistent)
    return buffer
