"""Primitive: an operator as an object, made with its options and called with its Tensors.

`of(name, function, **options)` makes a class whose constructor takes the options by position or keyword,
as given here by default, and whose instances call `function(*tensors, **options)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ..context import constexpr as constexpr


class Primitive:
    """Base of the operators that are objects. Its subclasses compute; it only keeps a name and attributes."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or type(self).__name__
        self.attrs: dict[str, Any] = {}

    def add_prim_attr(self, name: str, value: Any) -> Primitive:
        """Keeps an attribute and returns self."""
        self.attrs[name] = value
        return self

    def set_device(self, device_target: str) -> Primitive:
        """Keeps the attribute `primitive_target` and returns self: everything is computed on the CPU."""
        return self.add_prim_attr("primitive_target", device_target)

    def __call__(self, *args: Any) -> Any:
        """What the operator computes. NotImplementedError where a subclass does not say."""
        raise NotImplementedError(f"the operator {self.name} has no implementation here")

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value}" for key, value in self.attrs.items())
        return f"Prim[{self.name}]<{shown}>" if shown else f"Prim[{self.name}]"


class TablePrimitive(Primitive):
    """An operator that passes its options to a function."""

    function: ClassVar[Callable[..., Any]]
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.attrs = self._options(args, kwargs)

    @classmethod
    def _options(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if len(args) > len(cls.options):
            raise TypeError(f"{cls.__name__} takes {len(cls.options)} options, but {len(args)} were given")
        given = dict(zip(cls.options, args, strict=False))
        for name, value in kwargs.items():
            if name not in cls.options or name in given:
                raise TypeError(f"{cls.__name__} got an unexpected option {name!r}; it takes {list(cls.options)}")
            given[name] = value
        return {**cls.options, **given}

    def __getattr__(self, name: str) -> Any:
        attrs = self.__dict__.get("attrs", {})
        if name in attrs:
            return attrs[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __call__(self, *args: Any) -> Any:
        """Computes with the Tensors given. Errors are those of the function of the same purpose in `ops`."""
        return type(self).function(*args, **self.attrs)


def of(name: str, function: Callable[..., Any], **options: Any) -> type[TablePrimitive]:
    """The class `name` of operators that call `function` with `options`, whose values here are the defaults."""
    members = {"function": staticmethod(function), "options": options, "__doc__": function.__doc__}
    # Where the classes are bound to their names, which is where pickle looks for them.
    return type(name, (TablePrimitive,), {**members, "__module__": f"{__package__}.primitives"})
