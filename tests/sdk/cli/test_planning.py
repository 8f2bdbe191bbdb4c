"""load --dry-run: what would happen, without it happening."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mapcell.attaching import attach
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess

from .conftest import Cli
from .test_files import unaligned


@pytest.mark.parametrize(
    ("options", "residence", "sealed"),
    [
        ([], "auto", 4096),
        (["--residence", "sealed"], "sealed", 4096),
        (["--residence", "mapped"], "mapped", 4096),
        (["--dtype", "float64"], "sealed", 4096),
    ],
)
def test_forecast(
    options: list[str], residence: str, sealed: int, cli: Cli, daemon: DaemonProcess, checkpoint: Path
) -> None:
    """A dry run says what the file is, what it would take and what is free, and loads nothing."""
    document = cli.json("load", str(checkpoint), "--dry-run", *options)
    assert (document["name"], document["source"], document["format"]) == ("small", str(checkpoint), "safetensors")
    assert (document["tensors"], document["nbytes"], document["sealed_nbytes"]) == (3, 184, sealed)
    assert (document["residence"], document["budget"], document["in_use"]) == (residence, 64 << 20, 0)
    assert document["fits"] is True
    assert cli.json("ls") == []


def test_forecast_is_what_happens(cli: Cli, daemon: DaemonProcess, tmp_path: Path) -> None:
    """The bytes that a dry run foretells are those that the budget is charged, alignment and cast included."""
    tensors = {f"t{i}": np.zeros(300_000 + i, np.float16) for i in range(5)}
    path = str(write_safetensors(tmp_path / "m.safetensors", tensors))
    foretold = cli.json("load", path, "--dry-run", "--dtype", "float32")["sealed_nbytes"]
    assert cli.json("load", path, "--dtype", "float32")["nbytes"] == foretold
    assert cli.json("status")["sealed"] == foretold


def test_forecast_for_people(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """For people a dry run says the same in lines."""
    ran = cli("load", str(checkpoint), "--dry-run", "--residence", "sealed")
    assert ran.status == 0
    assert "takes 4.0 KiB (4096 bytes with alignment)" in ran.out
    assert "0 B of 64.0 MiB in use" in ran.out


@pytest.mark.parametrize(
    ("residence", "outcome"),
    [
        ("auto", "mapped if the daemon can guard the file, else sealed"),
        ("mapped", "mapped"),
        ("sealed", "sealed"),
    ],
)
def test_outcome(residence: str, outcome: str, cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """The last line says what would come of it."""
    out = cli("load", str(checkpoint), "--dry-run", "--residence", residence).out
    assert out.splitlines()[-1].removeprefix("would be").strip() == outcome


def test_not_mappable(cli: Cli, daemon: DaemonProcess, tmp_path: Path) -> None:
    """A file that cannot be mapped would be sealed, or refused when mapping is demanded; the tensor is named."""
    path = str(unaligned(tmp_path))
    document = cli.json("load", path, "--dry-run")
    assert document["residence"] == "sealed"
    assert "tensor 'odd' lies at byte 65" in document["mapped_obstacle"]
    ran = cli("load", path, "--dry-run", "--residence", "mapped")
    assert ran.status == 1
    assert "tensor 'odd'" in ran.err
    assert ran.out.splitlines()[-1].endswith("refused")


def test_too_large(cli: Cli, daemon: DaemonProcess, tmp_path: Path) -> None:
    """What would not fit ends with status 1 and the shortfall; what can be evicted counts as free."""
    first = write_safetensors(tmp_path / "first.safetensors", {"t": np.ones(10 << 20, np.float32)})
    second = write_safetensors(tmp_path / "second.safetensors", {"t": np.zeros(10 << 20, np.float32)})
    assert cli("load", str(first), "--residence", "sealed").status == 0
    document = cli.json("load", str(second), "--residence", "sealed", "--dry-run")
    assert (document["in_use"], document["evictable"], document["fits"]) == (40 << 20, 40 << 20, True)
    with attach("first"):
        ran = cli("load", str(second), "--residence", "sealed", "--dry-run", "--json")
        assert ran.status == 1
        assert (ran.json()["evictable"], ran.json()["fits"]) == (0, False)
        assert f"needs {40 << 20} bytes and {24 << 20} can be had" in ran.err
        assert cli("load", str(second), "--residence", "sealed").status == 1


def test_known_model(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """A model that is loaded already is said to be."""
    assert cli("load", str(checkpoint)).status == 0
    assert cli("load", "small", "--dry-run").out.startswith("small is loaded already")
    assert cli.json("load", "small", "--dry-run")["loaded"] is True


def test_configured_model(cli: Cli, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that only the daemon's configuration knows is staged when it is loaded, not by a dry run."""
    config = checkpoint.parent / "mapcelld.toml"
    config.write_text(f'[[model]]\nname = "conf"\nsource = "{checkpoint}"\n')
    with DaemonProcess("--config", str(config)) as daemon:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
        assert "stands in the daemon's configuration" in cli("load", "conf", "--dry-run").out
        assert cli.json("load", "conf", "--dry-run") == {"name": "conf", "loaded": False, "versions": []}
        assert [row["state"] for row in cli.json("ls")] == ["UNLOADED"]
        assert cli("load", "conf").out.startswith("conf is loaded: 3 tensors")
