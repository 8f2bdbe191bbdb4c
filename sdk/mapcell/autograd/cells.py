"""Gradients at the border of a Cell: its backward hooks, and a `bprop` of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..common.tensor import Tensor, detached, from_storage, is_recorded, unwrap, wrap
from ..kernels.promotion import Array, is_inexact
from .tape import Tape
from .traced import Traced, fitted

Run = Callable[..., Any]
Gradients = tuple[Tensor, ...]


def run_cell(cell: Any, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `run`, the Cell's `construct`, gives, recorded so that hooks or `bprop` see the gradients."""
    if hasattr(type(cell), "bprop"):
        return _run_bprop(cell, run, args, kwargs)
    passage = _Passage(cell, [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)])
    inside = iter(passage.enter())
    given = [next(inside) if isinstance(a, Tensor) else a for a in args]
    named = {name: next(inside) if isinstance(a, Tensor) else a for name, a in kwargs.items()}
    return passage.leave(run(*given, **named))


class _Passage:
    """One call of a Cell with backward hooks: a step before it and a step behind it, which change no value."""

    def __init__(self, cell: Any, inputs: Sequence[Tensor]) -> None:
        self._cell = cell
        self._inputs = inputs
        self._recorded = [t for t in inputs if is_recorded(t)]
        self._passed: Gradients = ()

    def enter(self) -> list[Tensor]:
        """The inputs, behind a step that calls the hooks when the gradients of all of them are there."""
        if not self._recorded:
            return list(self._inputs)
        inner = {id(t): _again(unwrap(t)) for t in self._recorded}
        tape: Tape = unwrap(self._recorded[0]).tape  # type: ignore[attr-defined]
        tape.add([traced.slot for traced in inner.values()], self._entered)
        return [from_storage(inner[id(t)]) if id(t) in inner else t for t in self._inputs]

    def leave(self, output: Any) -> Any:
        """`output`, behind a step that calls the pre-hooks."""
        several = isinstance(output, tuple | list)
        outputs = list(output) if several else [output]
        recorded = [t for t in outputs if is_recorded(t)]
        if not recorded:
            return output
        outer = {id(t): _again(unwrap(t)) for t in recorded}
        tape: Tape = unwrap(recorded[0]).tape  # type: ignore[attr-defined]
        tape.add([traced.slot for traced in outer.values()], lambda given: self._left(recorded, given))
        replaced = [from_storage(outer[id(t)]) if id(t) in outer else t for t in outputs]
        return type(output)(replaced) if several else replaced[0]

    def _left(self, outputs: Sequence[Tensor], given: Sequence[Array | None]) -> Iterator[tuple[int, Array]]:
        gradients = tuple(wrap(_or_zeros(g, t)) for g, t in zip(given, outputs, strict=True))
        for hook in tuple(self._cell._backward_pre_hooks.values()):
            gradients = _replaced(gradients, hook(self._cell, gradients), "register_backward_pre_hook")
        self._passed = gradients
        if not self._recorded:
            self._call_hooks([None] * len(self._inputs))
        for tensor, gradient in zip(outputs, gradients, strict=True):
            traced: Any = unwrap(tensor)
            yield traced.slot, fitted(unwrap(gradient), traced)

    def _entered(self, given: Sequence[Array | None]) -> Iterator[tuple[int, Array]]:
        known = dict(zip(map(id, self._recorded), given, strict=True))
        gradients = self._call_hooks([known.get(id(t)) for t in self._inputs])
        for tensor, gradient in zip(self._inputs, gradients, strict=True):
            if id(tensor) in known:
                traced: Any = unwrap(tensor)
                yield traced.slot, fitted(unwrap(gradient), traced)

    def _call_hooks(self, given: Sequence[Array | None]) -> Gradients:
        gradients = tuple(wrap(_or_zeros(g, t)) for g, t in zip(given, self._inputs, strict=True))
        for hook in tuple(self._cell._backward_hooks.values()):
            gradients = _replaced(gradients, hook(self._cell, gradients, self._passed), "register_backward_hook")
        return gradients


def _again(traced: Any) -> Traced:
    """Another value of the same elements on the same tape."""
    return Traced(traced.value, traced.tape)


def _or_zeros(gradient: Array | None, tensor: Tensor) -> Array:
    return np.zeros(tensor.shape, tensor.dtype.numpy) if gradient is None else gradient


def _replaced(gradients: Gradients, answer: Any, who: str) -> Gradients:
    """The gradients that a hook returned in place of those it was given."""
    if answer is None:
        return gradients
    new = (answer,) if isinstance(answer, Tensor) else tuple(answer) if isinstance(answer, tuple | list) else None
    if new is None or not all(isinstance(g, Tensor) for g in new):
        raise TypeError(f"a hook of {who} has to return None, a Tensor or a tuple of Tensors, not {answer!r}")
    if [g.shape for g in new] != [g.shape for g in gradients]:
        shapes = ", ".join(str(g.shape) for g in gradients)
        raise ValueError(f"a hook of {who} has to return gradients of the shapes {shapes}")
    return new


def _run_bprop(cell: Any, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs the Cell on constants; the gradients by its arguments are what ``bprop(*args, out, dout)`` returns."""
    constants = [detached(a) if isinstance(a, Tensor) else a for a in args]
    named = {name: detached(a) if isinstance(a, Tensor) else a for name, a in kwargs.items()}
    output = run(*constants, **named)
    recorded = {i: unwrap(a) for i, a in enumerate(args) if is_recorded(a)}
    if not recorded:
        return output
    several = isinstance(output, tuple)
    outputs = output if several else (output,)
    tape: Tape = next(iter(recorded.values())).tape  # type: ignore[attr-defined]
    outer = [Traced(unwrap(o), tape) if is_inexact(o.dtype.numpy) else None for o in map(detached, outputs)]

    def back(given: Sequence[Array | None]) -> Iterator[tuple[int, Array]]:
        found = iter(given)
        pairs = zip(outer, outputs, strict=True)
        each = tuple(wrap(_or_zeros(None if t is None else next(found), o)) for t, o in pairs)
        answer = cell.bprop(*constants, output, each if several else each[0])
        gradients = answer if isinstance(answer, tuple | list) else (answer,)
        if len(gradients) != len(args):
            raise ValueError(
                f"bprop of {type(cell).__name__} gave {len(gradients)} gradients for {len(args)} arguments"
            )
        for i, traced in recorded.items():
            yield traced.slot, fitted(unwrap(gradients[i]), traced)  # type: ignore[attr-defined,arg-type]

    tape.add([t.slot for t in outer if t is not None], back)
    replaced = [o if t is None else from_storage(t) for t, o in zip(outer, outputs, strict=True)]
    return tuple(replaced) if several else replaced[0]
