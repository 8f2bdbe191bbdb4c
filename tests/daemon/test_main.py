"""The command `mapcelld`: how it ends tells the service manager whether to try again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from mapcell_formats.errors import MapcellError
from mapcelld import main as module
from mapcelld.main import main


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command sets logging up for its process; here that is the test's."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (None, 0, ""),
        (MapcellError("another serves this folder"), 1, "error: another serves this folder\n"),
        (MapcellError("two\nlines"), 1, "error: two\\nlines\n"),
        (OSError("a bug"), 70, "ended by a bug: exception='OSError: a bug'"),
        (ZeroDivisionError(), 70, "ended by a bug: exception='ZeroDivisionError: '"),
    ],
)
def test_exit_status(raised: Exception | None, status: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 wants an operator, 70 is a bug, after which systemd starts the daemon again."""

    def serve(*_: object) -> None:
        if raised is not None:
            raise raised

    monkeypatch.setattr(module, "serve", serve)
    done = CliRunner().invoke(main, [], env={"MAPCELL_CONFIG": ""})
    assert done.exit_code == status
    assert said in done.output


def test_check_config(tmp_path: Path) -> None:
    """--check-config reads and does not serve."""
    path = tmp_path / "c.toml"
    path.write_text("budget = 1\n")
    done = CliRunner().invoke(main, ["--check-config", "--config", str(path)])
    assert (done.exit_code, done.output) == (0, "the configuration is valid\n")
    path.write_text("budget = []\n")
    assert CliRunner().invoke(main, ["--check-config", "--config", str(path)]).exit_code == 1
