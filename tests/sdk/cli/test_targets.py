"""What SOURCE means, and what a model is called by default."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from mapcell.cli.targets import File, Known, Wish, default_name, locate
from mapcell_formats.errors import NotFound
from support.daemon import DaemonProcess

from .conftest import Cli
from .test_hub import cached

PLAIN = Wish(name="", tag="", residence="auto", dtype="", pin=False, wait=True)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models/minilm.safetensors", "minilm"),
        ("/models/minilm/model.safetensors", "minilm"),
        ("/models/lenet5/checkpoint.ckpt", "lenet5"),
        ("/model.safetensors", "model"),
        ("/models/minilm/model.safetensors.index.json", "minilm"),
        ("/models/Llama-3.1-8B", "Llama-3.1-8B"),
        ("/models/Llama-3.1-8B.gguf", "Llama-3.1-8B"),
        ("/m/my model@2.ckpt", "my-model-2"),
        ("/m/v1: final.ckpt", "v1-final"),
        ("/m/evil\x1b[31m.ckpt", "evil-[31m"),
        ("/m/.hidden", "hidden"),
        ("/m/\udcff.ckpt", "model"),
        ("/c/models--org--name/snapshots/abc/model.safetensors", "org/name"),
    ],
)
def test_default_name(path: str, name: str) -> None:
    """A model is called after its file, its folder or its repository, in characters that a name may hold."""
    assert default_name(Path(path)) == name


@pytest.mark.parametrize("source", ["./small", "small.safetensors", "{folder}/small.safetensors", "odd\udcff"])
def test_files(source: str, cli: Cli, daemon: DaemonProcess, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts like a path is a file, and so is what no model is called, or can be called."""
    monkeypatch.chdir(checkpoint.parent)
    target = locate(source.format(folder=checkpoint.parent), PLAIN)
    assert isinstance(target, File)
    assert target.path == str(checkpoint.parent / Path(source.format(folder=checkpoint.parent)).name)


def test_models_come_before_files(
    cli: Cli, daemon: DaemonProcess, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that the daemon knows means its model, even where a file is called the same."""
    monkeypatch.chdir(checkpoint.parent)
    (checkpoint.parent / "small").write_bytes(checkpoint.read_bytes())
    assert cli("load", "./small.safetensors").status == 0
    assert locate("small", PLAIN) == Known("small")


def test_cached_repository(cli: Cli, daemon: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository in the Hugging Face cache is found by its name, and keeps it."""
    snapshot = cached(tmp_path, "org/mini", {"model.safetensors": "x"})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert locate("org/mini", PLAIN) == File(str(snapshot / "model.safetensors"), "org/mini")


def test_nothing(cli: Cli, daemon: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is nothing at all is refused with everywhere that was looked."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NotFound, match=f"no model 'org/none'.*no.* a file of that name.*{tmp_path}"):
        locate("org/none", PLAIN)


@pytest.mark.parametrize(
    ("wish", "option"),
    [
        (Wish("x", "", "auto", "", False, True), "--name"),
        (Wish("", "x", "auto", "", False, True), "--tag"),
        (Wish("", "", "sealed", "", False, True), "--residence"),
        (Wish("", "", "auto", "", True, True), "--pin"),
    ],
)
def test_options_of_files(wish: Wish, option: str, cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """Options that only a file can have are wrong usage with a model that the daemon knows."""
    assert cli("load", str(checkpoint)).status == 0
    with pytest.raises(click.UsageError, match=f"{option} only goes with a file"):
        locate("small", wish)
