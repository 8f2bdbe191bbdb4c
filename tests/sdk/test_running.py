"""`sharing`: where it reaches, when it ends, and what it makes of a daemon's answers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from safetensors.numpy import load_file, save_file

import mapcell.daemon_backend
from mapcell.running import SHARING, Sharing, Terms, sharing
from mapcell.running_safetensors import SharedFile
from mapcell_formats.errors import (
    AccessDenied,
    BudgetExceeded,
    DaemonUnavailable,
    FormatError,
    MapcellError,
    StagingFailed,
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file of one tensor."""
    save_file({"x": np.arange(3)}, tmp_path / "m.safetensors")
    return str(tmp_path / "m.safetensors")


def places() -> list[object]:
    """What programs reach the three by."""
    return [safetensors.safe_open, safetensors.torch.safe_open, torch.load, torch.serialization._load]


def test_it_reaches_what_was_imported_before(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every module that has the original gets the replacement, whatever it calls it, and the original back."""
    other = ModuleType("other")
    other.opener = safetensors.safe_open  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other", other)
    before = [*places(), other.opener]
    with sharing():
        assert not any(a is b for a, b in zip([*places(), other.opener], before, strict=True))
        with sharing(daemon="never"):
            inside = places()
        assert inside == places()
    assert [*places(), other.opener] == before


def test_an_error_ends_it() -> None:
    """What raises inside leaves nothing replaced."""
    before = places()
    with pytest.raises(ZeroDivisionError), sharing():
        1 / 0  # noqa: B018
    assert places() == before


def test_what_was_imported_inside_goes_on_working(path: str) -> None:
    """A replacement that somebody kept asks the original once it is over."""
    with sharing():
        kept = safetensors.safe_open
    assert not isinstance(kept(path, "np"), SharedFile)


def test_without_a_daemon(path: str) -> None:
    """Everything is as without mapcell; only who requires a daemon is told that there is none."""
    with sharing():
        assert load_file(path)["x"].tolist() == [0, 1, 2]
    with sharing(daemon="require"), pytest.raises(DaemonUnavailable):
        load_file(path)
    with sharing(daemon="require"), pytest.raises(FileNotFoundError):
        load_file(path + "x")
    with pytest.raises(ValueError, match="daemon='perhaps'"), sharing(daemon="perhaps"):
        pass


def test_the_environment_decides(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAPCELL_DAEMON says what holds where nothing was said."""
    monkeypatch.setenv("MAPCELL_DAEMON", "require")
    with sharing(), pytest.raises(DaemonUnavailable):
        load_file(path)
    with sharing(daemon="never"):
        assert load_file(path)["x"].tolist() == [0, 1, 2]


REFUSALS = {
    "budget": (BudgetExceeded("too big"), True),
    "access": (AccessDenied("not you"), True),
    "staging": (StagingFailed("broken off"), True),
    "format": (FormatError("no header"), False),
    "none": (DaemonUnavailable("nobody"), False),
    "system": (OSError(24, "too many open files"), False),
}


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("daemon", ["auto", "require"])
def test_refusals(
    path: str, case: str, daemon: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The program loads by itself, with a warning if it is of interest; who requires the daemon gets the error."""
    error, said = REFUSALS[case]

    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(mapcell.daemon_backend, "attach_path", refuse)
    sharing_here = Sharing()
    sharing_here._terms.append(Terms(daemon))
    if daemon == "require":
        with pytest.raises((MapcellError, OSError)) as caught:
            sharing_here.weights(path)
        assert caught.value is error
        return
    assert sharing_here.weights(path) is None
    assert [r.getMessage() for r in caplog.records] == ([f"{path} is loaded without mapcell: {error}"] if said else [])


@pytest.mark.parametrize("filename", [b"m.safetensors", 3, None, object()])
def test_only_paths(filename: object) -> None:
    """What is no path is nobody's business here."""
    with sharing(daemon="require"):
        assert SHARING.weights(filename) is None
