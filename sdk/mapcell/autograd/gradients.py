"""Gradients of functions and Cells: `GradOperation`, `grad` and `value_and_grad`.

Only while one of these computes is anything recorded, and only what depends on the inputs and Parameters it asks for.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore/mindspore.grad.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..common.parameter import Parameter
from ..common.tensor import Tensor, detached, from_storage, is_recorded, wrap
from ..kernels.promotion import Array
from ..nn.cell import Cell
from ..storage import array_of
from . import functions, kernels, ufuncs
from .tape import Rules, Tape
from .traced import Traced, nested

_RULES = Rules(ufuncs.RULES, functions.RULES, kernels.RULES)
Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _Found:
    """What a function gave, and the gradients by the inputs and the Parameters asked for."""

    output: Any
    inputs: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]


def _differentiate(
    function: Function,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    positions: Sequence[int],
    weights: Sequence[Parameter],
    sens: Any = None,
    has_aux: bool = False,
) -> _Found:
    tape = Tape(_RULES)
    inputs = [_watched(args[i], tape, i) for i in positions]
    given = list(args)
    for i, traced in zip(positions, inputs, strict=True):
        given[i] = from_storage(traced)
    with _watching(weights, tape) as traced_weights:
        output = function(*given, **kwargs)
    gradients = tape.walk(_seeds(output[0] if has_aux else output, sens, tape))
    return _Found(
        _detached(output),
        tuple(_gradient(gradients, traced) for traced in inputs),
        tuple(_gradient(gradients, traced) for traced in traced_weights),
    )


def _watched(value: Any, tape: Tape, position: int) -> Traced:
    if not isinstance(value, Tensor):
        raise TypeError(f"a gradient by argument {position} needs a Tensor there, not a {type(value).__name__}")
    return Traced(_own(value), tape)


def _own(tensor: Tensor) -> Array:
    if is_recorded(tensor):
        raise nested()
    return array_of(tensor._storage)


@contextmanager
def _watching(weights: Sequence[Parameter], tape: Tape) -> Iterator[list[Traced]]:
    """Has the Parameters recorded inside the block; they are the caller's alone while it lasts."""
    before = [weight._storage for weight in weights]
    traced = [Traced(_own(weight), tape) for weight in weights]
    try:
        for weight, storage in zip(weights, traced, strict=True):
            weight._storage = storage
        yield traced
    finally:
        for weight, storage, old in zip(weights, traced, before, strict=True):
            # A Parameter that was given other data meanwhile keeps it.
            if weight._storage is storage:
                weight._storage = old


def _tensors(value: Any) -> Iterator[Tensor]:
    """The Tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _seeds(output: Any, sens: Any, tape: Tape) -> Iterator[tuple[int, Array]]:
    outputs = list(_tensors(output))
    given = [None] * len(outputs) if sens is None else list(sens if isinstance(sens, tuple) else (sens,))
    if len(given) != len(outputs):
        raise ValueError(f"{len(given)} gradients were given for {len(outputs)} outputs")
    for tensor, gradient in zip(outputs, given, strict=True):
        seed = np.ones(tensor.shape) if gradient is None else np.asarray(gradient)
        if seed.shape not in ((), tensor.shape):
            raise ValueError(f"the gradient given has the shape {seed.shape}, but the output {tensor.shape}")
        storage = tensor._storage
        if isinstance(storage, Traced):
            if storage.tape is not tape:
                raise nested()
            yield storage.slot, np.broadcast_to(seed, tensor.shape).astype(storage.dtype)


def _gradient(gradients: dict[int, Array], traced: Traced) -> Tensor:
    found = gradients.get(traced.slot)
    return wrap(np.zeros(traced.shape, traced.dtype) if found is None else np.array(found))


def _detached(value: Any) -> Any:
    """`value` with Tensors that no longer hold what led to them."""
    if isinstance(value, Tensor):
        return detached(value)
    if type(value) in (tuple, list):
        return type(value)(_detached(item) for item in value)
    if type(value) is dict:
        return {key: _detached(item) for key, item in value.items()}
    return value


def _parameters(weights: Any) -> list[Parameter]:
    """`weights` as a list. TypeError unless it is a Parameter or several."""
    found = [weights] if isinstance(weights, Parameter) else weights
    if not isinstance(found, tuple | list) or not all(isinstance(w, Parameter) for w in found):
        raise TypeError(f"'weights' has to be a Parameter, or a tuple or list of them, not {weights!r}")
    return list(found)


class GradOperation:
    """Makes of a function or Cell the function that computes its gradient.

    Args:
        get_all: the gradients by all Tensors among the arguments as a tuple, not only by the first argument.
        get_by_list: the gradients by Parameters as a tuple; with `get_all` the pair of both tuples.
        sens_param: the caller gives the gradient of the output as one argument more, the last one (or as `sens`).
            Otherwise it is all ones.

    The gradient by what the output does not depend on is zero.

    Raises at the call:
        GradientUnavailable: an operator without a rule was used, or the function computes a gradient itself.
        TypeError: the argument is no Tensor, or `weights` no Parameters.
        ValueError: a given gradient of another shape than the output.
    """

    def __init__(self, get_all: bool = False, get_by_list: bool = False, sens_param: bool = False) -> None:
        for name, value in (("get_all", get_all), ("get_by_list", get_by_list), ("sens_param", sens_param)):
            if not isinstance(value, bool):
                raise TypeError(f"GradOperation: {name!r} has to be a bool, not {type(value).__name__}")
        self.get_all, self.get_by_list, self.sens_param = get_all, get_by_list, sens_param

    def __call__(self, fn: Function, weights: Any = None) -> Function:
        """The function of the same arguments. `weights` are by default the trainable Parameters of a Cell."""
        if not callable(fn):
            raise TypeError(f"GradOperation: expected a function or a Cell, not {type(fn).__name__}")
        chosen = self._weights(fn, weights) if self.get_by_list else []

        def gradient(*args: Any, **kwargs: Any) -> Any:
            given, sens = self._split(args, kwargs)
            found = _differentiate(fn, given, kwargs, self._positions(given), chosen, sens)
            return self._shown(found)

        return gradient

    def _weights(self, fn: Function, weights: Any) -> list[Parameter]:
        if weights is None and isinstance(fn, Cell):
            return fn.trainable_params()
        return _parameters(weights)

    def _split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        if not self.sens_param:
            return args, None
        if "sens" in kwargs:
            return args, kwargs.pop("sens")
        if not args:
            raise TypeError("GradOperation: with sens_param the last argument is the gradient of the output")
        return args[:-1], args[-1]

    def _positions(self, args: Sequence[Any]) -> list[int]:
        if self.get_all:
            return [i for i, value in enumerate(args) if isinstance(value, Tensor)]
        return [] if self.get_by_list or not args else [0]

    def _shown(self, found: _Found) -> Any:
        if self.get_by_list:
            return (found.inputs, found.weights) if self.get_all else found.weights
        return found.inputs if self.get_all or not found.inputs else found.inputs[0]


@dataclass(frozen=True, slots=True)
class _Asked:
    """The arguments of `grad` and `value_and_grad`."""

    positions: int | tuple[int, ...] | None
    weights: Any
    has_aux: bool
    return_ids: bool

    def differentiate(self, fn: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """The output, and the gradients in the form that was asked for."""
        positions = () if self.positions is None else self.positions
        listed = (positions,) if isinstance(positions, int) else positions
        chosen = [] if self.weights is None else _parameters(self.weights)
        if any(not -len(args) <= i < len(args) for i in listed):
            raise ValueError(f"'grad_position' {self.positions} does not fit {len(args)} arguments")
        places = [i % len(args) for i in listed]
        found = _differentiate(fn, args, kwargs, places, chosen, None, self.has_aux)
        inputs = [self._named(i, g) for i, g in zip(places, found.inputs, strict=True)]
        weights = [self._named(w.name, g) for w, g in zip(chosen, found.weights, strict=True)]
        by_input = inputs[0] if isinstance(self.positions, int) else tuple(inputs)
        by_weight = weights[0] if isinstance(self.weights, Parameter) else tuple(weights)
        if self.weights is None:
            return found.output, by_input
        return found.output, by_weight if self.positions is None else (by_input, by_weight)

    def _named(self, name: int | str, gradient: Tensor) -> Any:
        return (name, gradient) if self.return_ids else gradient


def _asked(grad_position: Any, weights: Any, has_aux: bool, return_ids: bool) -> _Asked:
    several = isinstance(grad_position, tuple | list)
    positions = tuple(grad_position) if several else (grad_position,)
    if grad_position is None and weights is None:
        raise ValueError("grad: 'grad_position' and 'weights' cannot both be None")
    if grad_position is not None and any(isinstance(i, bool) or not isinstance(i, int) for i in positions):
        raise TypeError(f"grad: 'grad_position' has to be an int or a tuple of ints, not {grad_position!r}")
    return _Asked(positions if several else grad_position, weights, has_aux, return_ids)


def grad(
    fn: Function,
    grad_position: int | tuple[int, ...] | None = 0,
    weights: Any = None,
    has_aux: bool = False,
    return_ids: bool = False,
) -> Function:
    """The function of the same arguments that computes the gradient of `fn`, of the sum of all its outputs.

    Args:
        grad_position: by which arguments: a number gives a Tensor, several a tuple; None: by none.
        weights: by which Parameters: one gives a Tensor, several a tuple. With both, the pair of gradients.
        has_aux: only the first output counts; the function returns (gradients, the other outputs).
        return_ids: each gradient comes as (position or name, gradient), for `get_grad`.

    Raises:
        ValueError: neither of both was asked for; at the call a position that is not there.
        TypeError: positions that are no ints; at the call arguments that are no Tensors, weights no Parameters.
        GradientUnavailable: at the call, as `GradOperation`.
    """
    asked = _asked(grad_position, weights, has_aux, return_ids)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        output, gradients = asked.differentiate(fn, args, kwargs)
        return (gradients, tuple(output[1:])) if has_aux else gradients

    return gradient


def value_and_grad(
    fn: Function,
    grad_position: int | tuple[int, ...] | None = 0,
    weights: Any = None,
    has_aux: bool = False,
    return_ids: bool = False,
) -> Function:
    """As `grad`, but the function returns (all outputs of `fn`, gradients)."""
    asked = _asked(grad_position, weights, has_aux, return_ids)
    return lambda *args, **kwargs: asked.differentiate(fn, args, kwargs)


def get_grad(gradients: Any, identifier: int | Tensor) -> Tensor:
    """The gradient for a position or a Parameter, out of what `grad` with `return_ids` gave.

    ValueError when it is not there, TypeError for another identifier.
    """
    if not isinstance(identifier, Parameter) and (isinstance(identifier, bool) or not isinstance(identifier, int)):
        raise TypeError(f"get_grad: expected a position or a Parameter, not {type(identifier).__name__}")
    wanted = identifier.name if isinstance(identifier, Parameter) else identifier
    if isinstance(gradients, tuple) and len(gradients) == 2 and isinstance(gradients[0], int | str):
        gradients = (gradients,)
    for name, gradient in _pairs(gradients):
        if name == wanted and type(name) is type(wanted):
            return gradient
    raise ValueError(f"get_grad: there is no gradient for {wanted!r}; was return_ids=True given?")


def _pairs(gradients: Any) -> Iterator[tuple[int | str, Tensor]]:
    for item in gradients:
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], int | str):
            yield item
        elif isinstance(item, tuple):
            yield from _pairs(item)
