"""The record of one computation, and the walk back along it.

Values are known by slot numbers. A step says which slots it filled and how their gradients become those of the slots
that it read; steps are walked in the reverse of the order in which they were computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from ..kernels.promotion import Array

# From the gradients of a step's results (None: nothing depends on it) to (slot, gradient) of what it read.
Back = Callable[[Sequence[Array | None]], Iterable[tuple[int, Array]]]
Rule = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Rules:
    """What can be recorded: ufuncs by name, NumPy's functions, and kernels that work in place."""

    ufuncs: Mapping[str, Rule]
    functions: Mapping[Callable[..., Any], Rule]
    kernels: Mapping[Callable[..., Any], Rule]


@dataclass(frozen=True, slots=True)
class _Step:
    outputs: tuple[int, ...]
    back: Back


class Tape:
    """The steps of one computation."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._steps: list[_Step] = []
        self._slots = count()

    def slot(self) -> int:
        """A number for one more value."""
        return next(self._slots)

    def add(self, outputs: Sequence[int], back: Back) -> None:
        """Notes a step."""
        self._steps.append(_Step(tuple(outputs), back))

    def walk(self, seeds: Iterable[tuple[int, Array]]) -> dict[int, Array]:
        """The gradients of all slots that no step filled, given those of the results."""
        gradients: dict[int, Array] = {}
        for slot, gradient in seeds:
            _add(gradients, slot, gradient)
        for step in reversed(self._steps):
            given = [gradients.pop(slot, None) for slot in step.outputs]
            if any(gradient is not None for gradient in given):
                for slot, gradient in step.back(given):
                    _add(gradients, slot, gradient)
        return gradients


def _add(gradients: dict[int, Array], slot: int, gradient: Array) -> None:
    before = gradients.get(slot)
    # Never in place: a rule may hand out one array for several inputs, or a view of what it was given.
    gradients[slot] = gradient if before is None else before + gradient
