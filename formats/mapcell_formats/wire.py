"""How a message becomes bytes and back: msgpack of ``[protocol, id, operation, {field: value}]``.

Pure functions. What may stand in a message is decided by its Record alone (messages.py): a field that is unknown,
missing or of another type, an extension type, a string or list over its limit, is a ProtocolError that names the
operation and the field. Nothing is allocated beyond what the payload itself holds, whose size the caller bounds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgpack

from .errors import ProtocolError
from .record import Record, fields_of, kinds_of

# Raised whenever a message changes, or the manifest. Peers of different numbers refuse each other by name.
PROTOCOL = 3
# A path is at most 4,096 bytes on Linux, a tensor's name as long in the formats.
MAX_STRING = 4096
# An error's text may quote a path and several names.
MAX_TEXT = 16_384
# msgpack makes a list of the announced length before its items arrive, at up to 1,024 levels: this keeps it to 32 MiB.
MAX_ITEMS = 4096
# What a client accepts from its daemon: rows of leases and models.
MAX_ROWS = 100_000
MAX_INTEGER = 2**63 - 1
# Besides two for each item. A map takes two bytes to write and 250 to hold: a mebibyte of them would take 130.
_MAX_CONTAINERS = 64
_FEW_BYTES = 1024

Check = Callable[[Any], Any]


def encode(message: Any, request: int = 0) -> bytes:
    """The payload of `message`, answering or asking under the number `request`.

    ProtocolError when a string of it cannot be written in UTF-8, such as a name made of a path's odd bytes.
    """
    try:
        packed: bytes = msgpack.packb([PROTOCOL, request, message.OP, message], default=_plain)
    except UnicodeEncodeError as exc:
        raise ProtocolError(f"{message.OP}: {ascii(exc.object)[:80]} is not UTF-8") from None
    return packed


def decode(payload: bytes, operations: Mapping[str, type[Any]], max_items: int = MAX_ITEMS) -> tuple[int, Any]:
    """(request number, message) of `payload`, one of `operations`. ProtocolError says what is wrong with it."""
    request, op, fields = _envelope(payload, max_items)
    cls = operations.get(op)
    if cls is None:
        raise ProtocolError(f"unknown operation {op[:64]!r}", request=request)
    try:
        return request, _build(cls, fields)
    except ProtocolError as exc:
        raise ProtocolError(f"{op}: {exc.message}", request=request) from None


def _envelope(payload: bytes, max_items: int) -> tuple[int, str, Any]:
    # In a few bytes there are not so many lists and maps that they had to be counted.
    count = None if len(payload) <= _FEW_BYTES else _counter(2 * max_items + _MAX_CONTAINERS)
    try:
        raw = msgpack.unpackb(
            payload,
            list_hook=count,
            object_hook=count,
            max_ext_len=0,
            max_str_len=MAX_TEXT,
            max_bin_len=MAX_TEXT,
            # A list has a byte for each item at least.
            max_array_len=min(max_items, len(payload)),
            max_map_len=64,
        )
    # msgpack raises its own subclasses of ValueError, and RecursionError and UnicodeDecodeError through the same call.
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as exc:
        raise ProtocolError(f"message of {len(payload)} bytes is not msgpack within the limits: {exc}") from None
    if not isinstance(raw, list) or len(raw) != 4:
        raise ProtocolError("a message is [protocol, request, operation, fields]")
    protocol, request, op, fields = raw
    if type(request) is not int or not 0 <= request <= MAX_INTEGER:
        raise ProtocolError("the request's number is no integer from 0 to 2^63-1")
    if type(protocol) is not int or protocol != PROTOCOL:
        raise ProtocolError(
            f"protocol {str(protocol)[:32]} met {PROTOCOL}: install the same mapcell on both sides", request=request
        )
    if not isinstance(op, str):
        raise ProtocolError("the operation is no string", request=request)
    return request, op, fields


def _counter(limit: int) -> Check:
    left = limit

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {limit} lists and maps")
        return container

    return count


def _plain(value: object) -> dict[str, Any]:
    if isinstance(value, Record):
        return fields_of(value)
    raise TypeError(f"{type(value).__name__} has no place in a message")


def _build(cls: type[Record], fields: Any) -> Any:
    if not isinstance(fields, dict):
        raise ProtocolError(f"the fields of {cls.__name__} are no map")
    checks = _checks(cls)
    if fields.keys() != checks.keys():
        raise _misfit(fields, checks)
    values = []
    name = ""
    try:
        for name, check in checks.items():
            values.append(check(fields[name]))
    except (TypeError, ValueError) as exc:
        raise ProtocolError(f"field {name!r}: {exc}") from None
    return cls(*values)


def _misfit(fields: dict[Any, Any], checks: Mapping[str, Check]) -> ProtocolError:
    extra = sorted(str(name)[:32] for name in fields.keys() - checks.keys())
    missing = sorted(checks.keys() - fields.keys())
    return ProtocolError(f"unknown fields {extra[:8]}, missing fields {missing[:8]}")


@cache
def _checks(cls: type[Record]) -> dict[str, Check]:
    known = vars(sys.modules[cls.__module__])
    return {name: _check_for(kind, known) for name, kind in kinds_of(cls).items()}


def _check_for(kind: str, known: Mapping[str, Any]) -> Check:
    """The check for a field that is annotated so. `known` are the names that a Record may be called by."""
    # Not typing.get_type_hints, which takes a tenth of a millisecond for each message that a new worker uses.
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind.startswith("tuple[") and kind.endswith(", ...]"):
        return _tuple_of(_check_for(kind[6:-6], known))
    if kind.startswith("dict[str, ") and kind.endswith("]"):
        return _map_of(_check_for(kind[10:-1], known))
    if " | " in kind:
        return _any_of([_check_for(one, known) for one in kind.split(" | ")])
    cls = known.get(kind)
    assert isinstance(cls, type), kind
    assert issubclass(cls, Record), kind
    return lambda value: _build(cls, value)


def _string(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("is no string")
    if len(value) > MAX_TEXT:
        raise ValueError(f"is longer than {MAX_TEXT} characters")
    return value


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise TypeError("is no byte string")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("is no integer")
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ValueError("is outside -2^63 to 2^63")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError("is no number")
    return float(value)


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError("is no boolean")
    return value


def _none(value: Any) -> None:
    if value is not None:
        raise TypeError("is not nil")


def _tuple_of(check: Check) -> Check:
    def checked(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise TypeError("is no list")
        return tuple(check(v) for v in value)

    return checked


def _map_of(check: Check) -> Check:
    def checked(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise TypeError("is no map")
        return {_string(k): check(v) for k, v in value.items()}

    return checked


def _any_of(checks: list[Check]) -> Check:
    def checked(value: Any) -> Any:
        faults = []
        for check in checks:
            try:
                return check(value)
            except (TypeError, ValueError, ProtocolError) as exc:
                faults.append(str(exc))
        raise TypeError(" and ".join(faults))

    return checked


_SCALARS: Mapping[str, Check] = {
    "str": _string,
    "bytes": _bytes,
    "int": _integer,
    "float": _number,
    "bool": _boolean,
    "None": _none,
}
