"""Every error that mapcell raises on purpose.

    MapcellError
      FormatError(ValueError)                 bytes that break their format
        UnsupportedFormat                     sound bytes of a kind that mapcell does not read
      BindError(ValueError)                   a network and a checkpoint that do not fit
      DaemonUnavailable(ConnectionError)      no daemon answers
      NotFound(LookupError)                   no such model, version or tensor (or one hidden from the asker)
      AccessDenied(PermissionError)           the asker may not do that
      BudgetExceeded(MemoryError)             the bytes do not fit the daemon's budget
      StagingFailed(RuntimeError)             a source could not be read to its end
      ProtocolError(RuntimeError)             the other side broke the protocol or speaks another version
      NotOffered(AttributeError)              a name of MindSpore's that is left out on purpose
      GradientUnavailable(NotImplementedError)  a gradient was asked for that there is no rule for
      DeviceUnavailable(RuntimeError)         no CUDA binding, driver or device, or no such device
      DeviceMemoryExceeded(MemoryError)       the bytes do not fit a device's free memory
      DeviceFailed(RuntimeError)              a call of CUDA's failed

A message says whose fault it is and what to do next. An error crosses the wire as ``(code, message, details)``
and is raised again on the other side as the same class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

Detail = str | int | None


class MapcellError(Exception):
    """Base of every error that mapcell raises on purpose."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, **details: Detail) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Detail] = details

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (from_wire, (self.code, self.message, self.details))


class FormatError(MapcellError, ValueError):
    """Bytes that break their format: which file, which tensor, at which offset, what was expected."""

    code = "format"

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        tensor: str | None = None,
        offset: int | None = None,
        expected: str | None = None,
    ) -> None:
        where = "".join(
            [
                f"{path}: " if path else "",
                f"tensor {tensor!r}: " if tensor is not None else "",
                message,
                f" (at byte {offset})" if offset is not None else "",
                f"; expected {expected}" if expected else "",
            ]
        )
        super().__init__(where, path=path, tensor=tensor, offset=offset, expected=expected)
        self.path = path
        self.tensor = tensor
        self.offset = offset
        self.expected = expected


class UnsupportedFormat(FormatError):
    """Bytes of a kind, or using a feature, that mapcell does not read."""

    code = "unsupported-format"


class BindError(MapcellError, ValueError):
    """A network's Parameters and a checkpoint's tensors do not fit together."""

    code = "bind"


class DaemonUnavailable(MapcellError, ConnectionError):
    """No daemon answers where one was sought."""

    code = "daemon-unavailable"


class NotFound(MapcellError, LookupError):
    """No such model, version or tensor, or one that the asker may not see."""

    code = "not-found"


class AccessDenied(MapcellError, PermissionError):
    """The asker may not do that."""

    code = "access-denied"


class BudgetExceeded(MapcellError, MemoryError):
    """The bytes do not fit: needed, budget, in use, and what holds it."""

    code = "budget-exceeded"


class StagingFailed(MapcellError, RuntimeError):
    """A source could not be read to its end."""

    code = "staging-failed"


class ProtocolError(MapcellError, RuntimeError):
    """The other side broke the protocol, or speaks another version of it."""

    code = "protocol"


class NotOffered(MapcellError, AttributeError):
    """A name of MindSpore's that is left out on purpose."""

    code = "not-offered"


class GradientUnavailable(MapcellError, NotImplementedError):
    """There is no rule for the gradient of an operator that was used."""

    code = "gradient-unavailable"


class DeviceUnavailable(MapcellError, RuntimeError):
    """No CUDA binding, driver or device was found, or none of that number."""

    code = "device-unavailable"


class DeviceMemoryExceeded(MapcellError, MemoryError):
    """The bytes do not fit a device: needed, free, and the shortfall."""

    code = "device-memory-exceeded"


class DeviceFailed(MapcellError, RuntimeError):
    """A call of CUDA's failed."""

    code = "device-failed"


_BY_CODE: Mapping[str, type[MapcellError]] = {
    cls.code: cls
    for cls in (
        MapcellError,
        FormatError,
        UnsupportedFormat,
        BindError,
        DaemonUnavailable,
        NotFound,
        AccessDenied,
        BudgetExceeded,
        StagingFailed,
        ProtocolError,
        NotOffered,
        GradientUnavailable,
        DeviceUnavailable,
        DeviceMemoryExceeded,
        DeviceFailed,
    )
}


def from_wire(code: str, message: str, details: Mapping[str, Detail]) -> MapcellError:
    """The error that `code` names, with its message exactly as the sender wrote it."""
    error = _BY_CODE.get(code, MapcellError)(message)
    # Set, not passed: what the other side calls a detail may be the name of an argument, and a FormatError would build
    # its message anew out of them.
    error.details = dict(details)
    if isinstance(error, FormatError):
        for field in ("path", "tensor", "offset", "expected"):
            setattr(error, field, details.get(field))
    return error
