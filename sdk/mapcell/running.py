"""Programs that know nothing of mapcell, and load from the shared copy all the same: ``mapcell run`` and ``sharing``.

    safetensors.safe_open      and so safetensors.torch.load_file, safetensors.numpy.load_file, transformers
    torch.load(mmap=True)      by way of torch.serialization._load, which is given the file's map as a storage; the
                               load itself is only listened to

Both are replaced by something that asks `SHARING` first and goes to the original for whatever it cannot do: another
device or framework, unknown arguments, a file that mapcell does not read, no daemon. `mapcell run` replaces them as
they are imported (`running_site/sitecustomize.py`), `sharing` wherever they are referred to, and puts them back.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mapcell_formats.errors import AccessDenied, BudgetExceeded, MapcellError, ProtocolError, StagingFailed

from .attaching import daemon_choice
from .log import warn

if TYPE_CHECKING:
    from .weights import Weights

# A checkpoint that is staged for the first time may be large, and the program would read it anyway.
TIMEOUT_SECONDS = 600.0
_PATIENCE_SECONDS = 5.0
# Not that there is no daemon, or that the file is not what the program expects: it finds out by itself.
_WORTH_SAYING = (AccessDenied, BudgetExceeded, StagingFailed, ProtocolError)


@dataclass(frozen=True, slots=True)
class Terms:
    """How files are asked for: `daemon` and `timeout` (seconds) as ``attach`` has them."""

    daemon: str | None = None
    timeout: float = TIMEOUT_SECONDS


class Sharing:
    """Whether this process loads from the shared copy, and on which terms. The one place where that is decided."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._terms: list[Terms] = []
        self._replaced: list[tuple[object, object]] = []
        # For one call in one thread: what floating tensors are cast to on their way.
        self.cast: ContextVar[str | None] = ContextVar("mapcell_cast", default=None)

    def begin(self, terms: Terms) -> None:
        """Files are shared from now on, until as many `end`."""
        with self._lock:
            self._terms.append(terms)
            if len(self._terms) == 1:
                self._replaced = _replacements()
                _swap(self._replaced)

    def end(self, terms: Terms) -> None:
        """Takes back one `begin`."""
        with self._lock:
            self._terms.remove(terms)
            if not self._terms:
                # Whoever imported a replacement meanwhile and renamed it away keeps it: it goes to the original now.
                _swap([(ours, theirs) for theirs, ours in self._replaced])
                self._replaced = []

    def stay(self) -> None:
        """Files are shared for the rest of this process."""
        with self._lock:
            if not self._terms:
                self._terms.append(Terms())

    def weights(self, filename: Any, cast: str | None = None) -> Weights | None:
        """The file's tensors, copy-on-write, through the daemon; None when the original has to do it."""
        terms = self._terms[-1:]
        if not terms or not isinstance(filename, (str, os.PathLike)):
            return None
        choice = daemon_choice(terms[0].daemon)
        path = os.fspath(filename)
        if choice == "never" or not isinstance(path, str):
            return None
        from .daemon_backend import attach_path

        patience = terms[0].timeout if choice == "require" else _PATIENCE_SECONDS
        try:
            return attach_path(os.path.abspath(path), dtype=cast, keys=None, prefix="", mode="c",
                               timeout=terms[0].timeout, patience=patience)  # fmt: skip
        except (MapcellError, OSError) as exc:
            if choice == "require" and os.path.exists(path):
                raise
            # Whatever it is, the program has its own way to the file, and its own errors for what is wrong with it.
            if isinstance(exc, _WORTH_SAYING):
                warn("%s is loaded without mapcell: %s", path, exc)
            return None


SHARING = Sharing()


@contextmanager
def sharing(daemon: str | None = None, timeout: float = TIMEOUT_SECONDS) -> Iterator[None]:
    """Inside, ``safetensors.safe_open``, ``load_file`` and ``torch.load(mmap=True)`` give the daemon's shared bytes.

    What they give is what they always give, tensors that may be written to and stay private; only the bytes come from
    the one copy on the host. Concerns every thread of this process, and nests; for child processes, and for programs
    that cannot be changed, there is ``mapcell run``. `daemon` is "auto" (whatever the daemon cannot do is loaded as
    without it), "require" (its refusals and its absence are raised) or "never"; default from MAPCELL_DAEMON.
    `timeout` in seconds bounds staging.
    """
    daemon_choice(daemon)
    terms = Terms(daemon, timeout)
    SHARING.begin(terms)
    try:
        yield
    finally:
        SHARING.end(terms)


def adopt(module: ModuleType) -> None:
    """Replaces what `module`, which was just imported, offers; for the hook of ``mapcell run``."""
    SHARING.stay()
    for offering, name, make in _OFFERED:
        if module.__name__ == offering:
            setattr(module, name, make(getattr(module, name)))


def _safe_open(original: Any) -> Any:
    from .running_safetensors import replacement

    return replacement(original, SHARING)


def _torch_load(original: Any) -> Any:
    from .running_torch import replacement

    return replacement(original, SHARING)


def _noting(original: Any) -> Any:
    from .running_torch import noting

    return noting(original)


_OFFERED = (
    ("safetensors", "safe_open", _safe_open),
    ("torch.serialization", "load", _noting),
    ("torch.serialization", "_load", _torch_load),
)


def _replacements() -> list[tuple[object, object]]:
    import safetensors  # noqa: F401

    loaded = [(getattr(sys.modules[module], name), make) for module, name, make in _OFFERED if module in sys.modules]
    return [(original, make(original)) for original, make in loaded]


def _swap(pairs: list[tuple[object, object]]) -> None:
    """Puts the second of each pair wherever a module has the first: others import them under names of their own."""
    by_identity = {id(old): new for old, new in pairs}
    for module in list(sys.modules.values()):
        # Most have none, and there are a hundred thousand names: they are looked through without a loop of Python's.
        if isinstance(module, ModuleType) and not by_identity.keys().isdisjoint(map(id, list(vars(module).values()))):
            for name, value in list(vars(module).items()):
                if id(value) in by_identity:
                    setattr(module, name, by_identity[id(value)])
