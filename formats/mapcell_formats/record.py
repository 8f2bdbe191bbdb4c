"""`Record`: a class whose instances are what ``@dataclass(frozen=True, slots=True)`` gives, cheap to make and import.

A dataclass compiles half a dozen functions for each class when its module is imported: half a millisecond each, which
is more than attaching a model takes. A Record shares its methods with all others. Whatever else knows dataclasses
(asdict, replace, fields, match) takes Records too; what they ask for is made when they first ask.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, cast, dataclass_transform

if TYPE_CHECKING:
    from dataclasses import Field

_CLASS_VARIABLE = "ClassVar["


class _FieldsWhenAsked:
    """What the module dataclasses looks for on a class."""

    def __get__(self, instance: object, owner: type[Record]) -> dict[str, Field[Any]]:
        return _dataclass_fields(owner)


@dataclass_transform(frozen_default=True)
class _Maker(type):
    """Turns a class's annotations into slots, as `dataclass(slots=True)` does by making the class a second time."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _Maker:
        # With `from __future__ import annotations`, which every module here has, they are strings.
        annotations = namespace.get("__annotations__", {}).items() if bases else ()
        kinds = {field: kind for field, kind in annotations if not kind.startswith(_CLASS_VARIABLE)}
        defaults = {field: namespace.pop(field) for field in kinds if field in namespace}
        base: Any = bases[0] if bases else _Bare
        namespace["__slots__"] = tuple(kinds)
        namespace["__match_args__"] = (*base._kinds, *kinds)
        made: Any = super().__new__(cls, name, bases, namespace)
        made._kinds = {**base._kinds, **kinds}
        made._defaults = {**base._defaults, **defaults}
        made._setters = (*base._setters, *(made.__dict__[field].__set__ for field in kinds))
        return cast(_Maker, made)


class _Bare:
    _kinds: ClassVar[Mapping[str, str]] = {}
    _defaults: ClassVar[Mapping[str, Any]] = {}
    _setters: ClassVar[tuple[Any, ...]] = ()


class Record(metaclass=_Maker):
    """Base of frozen values: a subclass lists its fields, which come after those of its base, as a dataclass does."""

    __match_args__: ClassVar[tuple[str, ...]]
    __dataclass_fields__: ClassVar[dict[str, Any]] = _FieldsWhenAsked()  # type: ignore[assignment]
    _kinds: ClassVar[dict[str, str]]
    _defaults: ClassVar[dict[str, Any]]
    _setters: ClassVar[tuple[Any, ...]]

    def __init__(self, *values: Any, **named: Any) -> None:
        cls = type(self)
        if len(values) != len(cls._setters) or named:
            values = _bound(cls, values, named)
        for put, value in zip(cls._setters, values, strict=True):
            put(self, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        _frozen(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        _frozen(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return values_of(self) == values_of(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(values_of(self))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in fields_of(self).items())
        return f"{type(self).__qualname__}({shown})"

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), values_of(self)


def values_of(record: Record) -> tuple[Any, ...]:
    """The values of its fields, in their order."""
    return tuple([getattr(record, name) for name in record.__match_args__])


def fields_of(record: Record) -> dict[str, Any]:
    """Its fields by name, in their order; what lies in them is not copied."""
    return {name: getattr(record, name) for name in record.__match_args__}


def kinds_of(cls: type[Record]) -> dict[str, str]:
    """What each field of `cls` is annotated with, in their order."""
    return cls._kinds


def _bound(cls: type[Record], values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    names = cls.__match_args__
    given = dict(zip(names, values, strict=False))
    known = cls._defaults | given | named
    missing = [name for name in names if name not in known]
    if missing or len(known) > len(names) or len(values) > len(names) or given.keys() & named.keys():
        raise TypeError(f"{cls.__name__}{names} was given {len(values)} values and {sorted(named)}")
    return tuple([known[name] for name in names])


def _frozen(message: str) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(message)


@cache
def _dataclass_fields(cls: type[Record]) -> dict[str, Field[Any]]:
    from dataclasses import MISSING, field, make_dataclass

    def described(default: Any) -> Any:
        # dataclasses takes what has no hash for mutable, and before Python 3.12 that is every mappingproxy.
        return field(default=default) if isinstance(default, Hashable) else field(default_factory=lambda: default)

    fields = [(name, kind, described(cls._defaults.get(name, MISSING))) for name, kind in cls._kinds.items()]
    made: Any = make_dataclass(cls.__name__, fields, frozen=True)
    found: dict[str, Field[Any]] = made.__dataclass_fields__
    return found
