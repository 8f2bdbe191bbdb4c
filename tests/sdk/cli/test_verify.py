"""verify: files without a daemon, and models that a daemon lends."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from mapcell import daemon_backend
from mapcell.contents import ReadContents
from mapcell.process_backend import ProcessBacking
from mapcell.weights import Weights
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.manifest import Description, Manifest, TensorEntry, encode_manifest
from mapcell_formats.source import FileSource
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess
from support.proc import eventually

from .conftest import Cli


def test_a_file(cli: Cli, checkpoint: Path) -> None:
    """A file needs no daemon: version, whether it is sound, tensors and seconds."""
    document = cli.json("verify", str(checkpoint))
    assert document["version"].startswith("blake3:")
    assert (document["ok"], document["tensors"], document["nbytes"]) == (True, 3, 184)
    assert document["seconds"] >= 0
    assert "digests" not in document
    assert "sha256" not in document


def test_each_tensor(cli: Cli, checkpoint: Path) -> None:
    """--tensors adds the digest of each tensor's bytes."""
    digests = cli.json("verify", str(checkpoint), "--tensors")["digests"]
    bias = next(t for t in digests if t["name"] == "a.bias")
    assert bias == {
        "name": "a.bias",
        "dtype": "F32",
        "shape": [8],
        "nbytes": 32,
        "digest": "blake3:" + blake3(np.arange(8, dtype=np.float32).tobytes()).hexdigest(),
    }


def test_numbers(cli: Cli, tmp_path: Path) -> None:
    """--nans counts what is no number, in all and for each tensor, and finds no fault in it."""
    path = write_safetensors(tmp_path / "x", {"x": np.array([1, np.nan, np.inf], np.float32), "y": np.ones(2)})
    document = cli.json("verify", str(path), "--nans", "--tensors")
    assert (document["ok"], document["nans"], document["infs"]) == (True, 1, 1)
    assert {t["name"]: (t["nans"], t["infs"]) for t in document["digests"]} == {"x": (1, 1), "y": (0, 0)}


def test_for_people(cli: Cli, checkpoint: Path) -> None:
    """Without --json the same in a few lines that fit 100 columns."""
    out = cli("verify", str(checkpoint), "--nans", "--tensors", "--sha256").out
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() in out
    assert "0 NaNs, 0 infinities" in out
    assert all(len(line) <= 100 for line in out.splitlines())


def test_sha256(cli: Cli, checkpoint: Path) -> None:
    """--sha256 is what Hugging Face publishes for the file."""
    assert (
        cli.json("verify", str(checkpoint), "--sha256")["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    )


@pytest.mark.parametrize("algorithm", ["blake3:", "sha256:", ""])
def test_expected(cli: Cli, checkpoint: Path, algorithm: str) -> None:
    """--expect passes with the right digest, in capitals too, and fails with another."""
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    right = sha256 if algorithm == "sha256:" else cli.json("verify", str(checkpoint))["version"].removeprefix("blake3:")
    assert cli.json("verify", str(checkpoint), "--expect", algorithm + right.upper())["ok"] is True
    ran = cli("verify", str(checkpoint), "--json", "--expect", algorithm + "0" * 64)
    assert ran.status == 1
    assert ran.json()["ok"] is False
    assert right in ran.err
    assert ran.err.startswith("error: ")


WRONG: dict[str, tuple[list[str], int, str]] = {
    "digest of another hash": (["--expect", "md5:" + "0" * 64], 2, "say blake3:"),
    "digest too short": (["--expect", "0" * 63], 2, "64 hex digits"),
    "digest of other letters": (["--expect", "x" * 64], 2, "64 hex digits"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage(cli: Cli, checkpoint: Path, case: str) -> None:
    """A digest that cannot be one is wrong usage."""
    arguments, status, says = WRONG[case]
    ran = cli("verify", str(checkpoint), *arguments)
    assert ran.status == status
    assert says in ran.err


def test_a_broken_file(cli: Cli, checkpoint: Path) -> None:
    """A file that is no longer whole is refused."""
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    ran = cli("verify", str(checkpoint))
    assert ran.status == 1
    assert "ends before its tensors do" in ran.err


def test_a_bare_name_that_is_a_file(cli: Cli, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a daemon a bare name is the file of that name; one that is none needs a daemon."""
    monkeypatch.chdir(checkpoint.parent)
    assert cli.json("verify", checkpoint.name)["ok"] is True
    assert cli("verify", "nowhere").status == 3


def test_a_model(cli: Cli, checkpoint: Path, daemon: DaemonProcess) -> None:
    """A sealed model has the version that its file has, and what is lent is compared with what was staged."""
    cli("load", str(checkpoint), "--name", "m", "--residence", "sealed")
    document = cli.json("verify", "m", "--tensors")
    assert (document["ok"], document["compared"]) == (True, 3)
    from_file = cli.json("verify", str(checkpoint), "--tensors")
    assert document["version"] == document["digest"] == from_file["version"]
    assert {t["name"]: t["digest"] for t in document["digests"]} == {
        t["name"]: t["digest"] for t in from_file["digests"]
    }


def test_a_mapped_model(cli: Cli, checkpoint: Path, daemon: DaemonProcess) -> None:
    """A file that is lent as it lies keeps its id when it was hashed; then what is lent is compared, and its source."""
    cli("load", str(checkpoint), "--name", "m", "--residence", "mapped")
    document = cli.json("verify", "m")
    assert (document["ok"], document["compared"] in (0, 3)) == (True, True)
    assert document["version"].startswith("file-")
    assert document["digest"] == cli.json("verify", str(checkpoint))["version"]
    eventually(lambda: cli.json("ls")[0]["verified"] and cli.json("ls")[0]["source_state"] == "same", 60)
    assert cli.json("ls")[0]["digest"] == document["digest"]
    assert cli.json("verify", "m") | {"seconds": 0} == document | {"seconds": 0, "compared": 3, "source_state": "same"}
    assert "with what was staged or hashed before" in cli("verify", "m").out
    assert f"verified, {document['digest']}" in cli("show", "m").out
    checkpoint.unlink()
    eventually(lambda: cli.json("show", "m")["source_state"] == "missing", 60)
    assert (cli.json("verify", "m")["ok"], cli.json("verify", "m")["source_state"]) == (True, "missing")
    assert "source now  is missing" in cli("show", "m").out
    assert cli("ls").out.splitlines()[0].endswith("SOURCE")


def test_a_model_that_is_not_there(cli: Cli, daemon: DaemonProcess) -> None:
    """A name that the daemon does not know is status 1; --sha256 goes with files only."""
    assert cli("verify", "nobody").status == 1
    ran = cli("verify", "nobody", "--sha256")
    assert ran.status == 2
    assert "--sha256 is of a file" in ran.err


def test_lent_bytes_that_are_damaged(cli: Cli, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are not what was staged are named by tensor, and the status is 1."""

    def attach(*_: object, **__: object) -> Weights:
        source = FileSource.open(checkpoint)
        found = read_checkpoint([source])
        entries = [TensorEntry(t.name, t.dtype, t.shape, 0, t.extents[0].offset, t.nbytes) for t in found.tensors]
        digests = [b"\1" * 32 if t.name == "ids" else bytes(32) for t in found.tensors]
        about = Description("blake3:" + "0" * 64, "sealed", "safetensors", True, found.metadata)
        manifest = Manifest(encode_manifest(about, [source.size], entries, digests))
        backing = ProcessBacking(ReadContents(about, found.tensors, None), found.sources, [source], "r")
        return Weights(manifest, backing, name="m", source=None)

    monkeypatch.setattr(daemon_backend, "attach_name", attach)
    ran = cli("verify", "m", "--json")
    assert ran.status == 1
    assert ran.json()["faults"][0] == "tensor 'ids' is not what was staged"
    assert "'ids'" in ran.err
