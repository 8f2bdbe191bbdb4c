"""Runtime folders and daemons, as the user who may and the user who may not."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import pytest

from mapcell.cli.daemon_probes import daemon_findings, runtime_findings
from support.daemon import DaemonProcess
from support.users import OTHER_UID, as_user, needs_root


@pytest.mark.parametrize(
    ("make", "ok", "detail"),
    [
        (lambda p: None, True, "not there"),
        (lambda p: p.mkdir(0o700), True, "without sockets"),
        (lambda p: p.write_text(""), False, "no folder"),
        (lambda p: (p.mkdir(), p.chmod(0o777)), False, "everybody may put sockets in it"),
        (lambda p: (p.mkdir(0o700), (p / "handles.sock").touch()), False, "handles.sock that nobody listens on"),
    ],
    ids=["missing", "empty", "file", "open", "dead socket"],
)
def test_folders(make: object, ok: bool, detail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is judged by what it is and who may write in it."""
    folder = tmp_path / "run"
    make(folder)  # type: ignore[operator]
    monkeypatch.setenv("MAPCELL_RUNTIME", str(folder))
    (finding,) = runtime_findings()
    assert (finding.ok, bool(finding.advice)) == (ok, not ok)
    assert detail in finding.detail


@needs_root
@pytest.mark.parametrize(("mode", "folder_ok", "daemon_said"), [(0o755, True, "[allow]"), (0o700, False, "no mapcell")])
def test_another_user(
    mode: int, folder_ok: bool, daemon_said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user whom the folder or [allow] keeps out is told by whom, and what to ask for; both end in failure."""
    config = tmp_path / "mapcelld.toml"
    config.write_text('[allow]\nusers = ["0"]\n')
    with DaemonProcess("--config", str(config)) as daemon:
        daemon.runtime.parent.chmod(0o755)
        daemon.runtime.chmod(mode)
        monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
        assert [f.ok for f in runtime_findings()] == [True]
        assert daemon_findings()[1] == daemon.pid

        def look() -> list[dict[str, object]]:
            return [asdict(f) for f in (*runtime_findings(), *daemon_findings()[0])]

        folder, answer = as_user(OTHER_UID, look)
    assert folder["ok"] == folder_ok
    assert not answer["ok"]
    assert daemon_said in answer["detail"]
    assert folder["required"] == (not folder_ok)
    assert folder_ok or "usermod -aG" in folder["advice"]
    assert answer["required"] == folder_ok


@needs_root
def test_folder_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in /tmp that another user made could hold their sockets: it is not to be used."""
    folder = Path(f"/tmp/mapcell-doctor-{os.getpid()}")
    folder.mkdir()
    try:
        os.chown(folder, OTHER_UID, OTHER_UID)
        monkeypatch.setenv("MAPCELL_RUNTIME", str(folder))
        (finding,) = runtime_findings()
    finally:
        folder.rmdir()
    assert (finding.ok, finding.required) == (False, True)
    assert "somebody else made it" in finding.detail
