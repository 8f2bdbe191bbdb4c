"""load against a real daemon."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mapcell.attaching import attach
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess

from .conftest import Cli
from .test_files import sharded, unaligned
from .test_hub import cached
from .test_main import MAIN

SECONDS = 30.0


def large(folder: Path) -> Path:
    """A checkpoint that is staged in many steps."""
    return write_safetensors(folder / "large.safetensors", {f"t{i}": np.full(1 << 20, i, np.float32) for i in range(8)})


def wait_until_ready(cli: Cli, name: str) -> None:
    """Waits until the daemon lists `name` as ready."""
    until = time.monotonic() + SECONDS
    while not [row for row in cli.json("ls") if (row["name"], row["state"]) == (name, "READY")]:
        assert time.monotonic() < until, "it never became ready"
        time.sleep(0.02)


def wait_until_free(cli: Cli) -> None:
    """Waits until the daemon has noticed that the last lease ended."""
    until = time.monotonic() + SECONDS
    while cli.json("status")["leases"]:
        assert time.monotonic() < until, "a lease never ended"
        time.sleep(0.02)


def test_load_says_what_it_did(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """load names the model, its tensors, size and residence; afterwards a worker attaches by that name."""
    ran = cli("load", str(checkpoint), "--residence", "sealed")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("small is loaded: 3 tensors, 4.0 KiB sealed, blake3:")
    with attach("small") as weights:
        assert weights["a.bias"].tolist() == list(range(8))
    wait_until_free(cli)


def test_load_fields(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """--json prints the version's row and the seconds that it took."""
    document = cli.json("load", str(checkpoint), "--name", "n", "--tag", "t", "--residence", "sealed", "--pin")
    assert document["name"] == "n"
    assert set(document["tags"]) == {"t", "latest"}
    assert (document["pinned"], document["state"], document["source"]) == (True, "READY", str(checkpoint))
    assert document["seconds"] >= 0


def test_load_twice_is_once(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """Loading an unchanged file again gives the version that is there."""
    versions = {cli.json("load", str(checkpoint), "--residence", "sealed")["version"] for _ in range(2)}
    assert len(versions) == 1
    assert len(cli.json("ls")) == 1


@pytest.mark.parametrize("source", ["file", "model"])
def test_load_casts(source: str, cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """--dtype has floating tensors cast by the daemon, of a file and of a model that is there."""
    if source == "model":
        assert cli("load", str(checkpoint), "--name", "cast").status == 0
        document = cli.json("load", "cast", "--dtype", "float16")
    else:
        document = cli.json("load", str(checkpoint), "--name", "cast", "--dtype", "F16")
    assert document["residence"] == "sealed"
    with attach("cast", dtype="float16") as weights:
        assert weights.version == document["version"]
        assert (weights["a.weight"].dtype, weights["ids"].dtype) == (np.float16, np.int64)


def test_load_from_the_cache(
    cli: Cli, daemon: DaemonProcess, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ORG/NAME in the Hugging Face cache is loaded under that name, through the cache's links."""
    cache = checkpoint.parent / "hub"
    snapshot = cached(cache, "org/mini", {"model.safetensors": ""})
    (snapshot / "model.safetensors").resolve().write_bytes(checkpoint.read_bytes())
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    assert cli("load", "org/mini").out.startswith("org/mini is loaded: 3 tensors")


@pytest.mark.parametrize("source", ["two", "two/model.safetensors.index.json"])
def test_load_folder(source: str, cli: Cli, daemon: DaemonProcess, tmp_path: Path) -> None:
    """A checkpoint in several files is loaded by its folder or index, called after the folder, and found by it."""
    folder = sharded(tmp_path)
    assert cli("load", str(tmp_path / source)).out.startswith("two is loaded: 2 tensors")
    assert {t["name"] for t in cli.json("show", str(folder))["tensors"]} == {"first", "second"}
    with attach("two") as weights:
        assert weights["second"].sum() == 4


def test_load_odd_path(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """A path of bytes that are not UTF-8 is loaded like any other, and found again by it."""
    odd = os.fsdecode(os.fsencode(checkpoint.parent) + b"/\xff.safetensors")
    checkpoint.rename(odd)
    assert cli("load", odd, "--name", "odd").status == 0
    assert cli.json("show", odd)["name"] == "odd"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--residence", "mapped"], "cannot be mapped as it lies"),
        (["--name", "a b"], "cannot name a model"),
        (["--name", "./x"], "cannot name a model"),
    ],
)
def test_load_refused(options: list[str], word: str, cli: Cli, daemon: DaemonProcess, tmp_path: Path) -> None:
    """The daemon's refusals are passed on as they are, in one line."""
    ran = cli("load", str(unaligned(tmp_path)), *options)
    assert (ran.status, ran.out) == (1, "")
    assert word in ran.err
    assert ran.err.count("\n") == 1


def test_load_over_budget(cli: Cli, daemon: DaemonProcess, tmp_path: Path) -> None:
    """What does not fit the budget is refused with the figures."""
    path = write_safetensors(tmp_path / "huge.safetensors", {"t": np.zeros(20 << 20, np.float32)})
    ran = cli("load", str(path), "--residence", "sealed")
    assert (ran.status, ran.out) == (1, "")
    assert f"the budget is {64 << 20}" in ran.err


def test_no_wait(cli: Cli, daemon: DaemonProcess, tmp_path: Path) -> None:
    """--no-wait leaves once staging has begun, and the daemon goes on until the model is there."""
    ran = cli("load", str(large(tmp_path)), "--residence", "sealed", "--no-wait")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("large is being staged; `mapcell status`")
    wait_until_ready(cli, "large")
    with attach("large") as weights:
        assert weights["t7"][0] == 7


def test_no_wait_fields(cli: Cli, daemon: DaemonProcess, tmp_path: Path) -> None:
    """--no-wait --json says which model is being staged."""
    assert cli.json("load", str(large(tmp_path)), "--residence", "sealed", "--no-wait", "--name", "n") == {
        "name": "n",
        "state": "STAGING",
    }
    wait_until_ready(cli, "n")


def test_no_wait_of_what_is_there(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """What needs no staging is simply loaded."""
    assert cli("load", str(checkpoint)).status == 0
    assert "is loaded" in cli("load", str(checkpoint), "--no-wait").out


def test_no_wait_of_a_configured_model(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that only the configuration knows is listed before it is loaded, and loaded without waiting."""
    path, config = large(tmp_path), tmp_path / "mapcelld.toml"
    config.write_text(f'[[model]]\nname = "conf"\nsource = "{path}"\nresidence = "sealed"\npin = true\n')
    with DaemonProcess("--config", str(config)) as daemon:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(daemon.runtime))
        (row,) = cli.json("ls")
        assert (row["name"], row["state"], row["version"], row["source"]) == ("conf", "UNLOADED", "", str(path))
        assert (row["residence"], row["pinned"], row["nbytes"], row["tags"]) == ("sealed", True, 0, [])
        assert cli.json("show", "conf")["tensors"] == []
        assert "`mapcell load conf` loads it" in cli("show", "conf").out
        assert "'conf' is not loaded; `mapcell load conf` loads it" in cli("pin", "conf").err
        assert cli.json("status")["stagings"] == 0
        ran = cli("load", "conf", "--no-wait")
        assert (ran.status, ran.err) == (0, "")
        wait_until_ready(cli, "conf")
        assert len(cli.json("show", "conf")["tensors"]) == 8


def test_no_wait_hears_of_a_broken_file(cli: Cli, daemon: DaemonProcess, tmp_path: Path) -> None:
    """A file that is no checkpoint is still refused before --no-wait leaves."""
    (tmp_path / "broken.ckpt").write_bytes(b"\xff" * 64)
    ran = cli("load", str(tmp_path / "broken.ckpt"), "--no-wait")
    assert (ran.status, ran.out) == (1, "")
    assert "broken.ckpt" in ran.err


def test_progress_bar(daemon: DaemonProcess, tmp_path: Path) -> None:
    """On a terminal load draws a bar on stderr, and stdout has only the result."""
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-c", MAIN, "load", str(large(tmp_path)), "--residence", "sealed"]
        environment = daemon.env() | {"TERM": "xterm", "COLUMNS": "100"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
            os.close(theirs)
            drawn = _read_all(ours)
            out, _ = process.communicate(timeout=SECONDS)
    finally:
        os.close(ours)
    assert process.returncode == 0
    assert b"large" in drawn
    assert b"32.0 MiB" in drawn
    assert out.startswith(b"large is loaded: 8 tensors, 32.0 MiB sealed")


def _read_all(terminal: int) -> bytes:
    data = b""
    while True:
        try:
            piece = os.read(terminal, 65_536)
        # What a pseudo-terminal says when its other side was closed.
        except OSError:
            return data
        if not piece:
            return data
        data += piece
