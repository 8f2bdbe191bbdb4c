"""ls, show and unload against a real daemon."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mapcell.attaching import attach
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess

from .conftest import Cli

LS_FIELDS = {
    "name", "version", "tags", "state", "residence", "dtype", "nbytes", "tensors", "leases", "pinned", "verified",
}  # fmt: skip


def load(cli: Cli, path: Path, *options: str) -> None:
    """Has the daemon hold `path`, sealed."""
    assert cli("load", str(path), "--residence", "sealed", *options).status == 0


def test_nothing_is_loaded(cli: Cli, daemon: DaemonProcess) -> None:
    """Without models the list is empty, and a word on stderr says how to load one."""
    assert cli.json("ls") == []
    ran = cli("ls")
    assert (ran.status, ran.out) == (0, "")
    assert "mapcell load" in ran.err


def test_ls_fields(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """Each version is one row with the fixed fields."""
    load(cli, checkpoint, "--tag", "stable", "--pin")
    (row,) = cli.json("ls")
    assert row.keys() >= LS_FIELDS
    assert (row["name"], row["state"], row["residence"], row["dtype"]) == ("small", "READY", "sealed", "F32")
    assert (row["tensors"], row["nbytes"], row["leases"], row["pinned"], row["verified"]) == (3, 4096, 0, True, True)
    assert set(row["tags"]) == {"stable", "latest"}
    assert re.fullmatch("blake3:[0-9a-f]{64}", row["version"])


def test_ls_table(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """The table names each model in a line that fits 100 columns, and tags only when there are some."""
    load(cli, checkpoint, "--name", "sentence-transformers/all-MiniLM-L6-v2")
    plain = cli("ls").out.splitlines()
    assert plain[0].split() == ["MODEL", "VERSION", "STATE", "RESIDENCE", "DTYPE", "SIZE", "LEASES"]
    assert plain[1].split()[0] == "sentence-transformers/all-MiniLM-L6-v2"
    assert max(map(len, plain)) <= 100
    load(cli, checkpoint, "--name", "other", "--tag", "stable")
    assert "TAGS" in cli("ls").out.split()


def test_show_fields(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """show prints the row's fields, the strings, where it came from, and every tensor with its place."""
    load(cli, checkpoint)
    document = cli.json("show", "small")
    assert document.keys() >= LS_FIELDS | {"metadata", "source", "versions"}
    assert (document["metadata"], document["source"]) == ({"format": "np"}, str(checkpoint))
    tensors = {t.pop("name"): t for t in document["tensors"]}
    assert tensors.keys() == {"a.weight", "a.bias", "ids"}
    assert tensors["a.weight"].keys() == {"dtype", "shape", "segment", "offset", "nbytes"}
    assert (tensors["a.weight"]["dtype"], tensors["a.weight"]["shape"]) == ("F32", [4, 8])
    assert tensors["ids"]["nbytes"] == 24
    assert all(t["offset"] % 256 == 0 for t in tensors.values())


def test_show_table(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """For people show says the same: how it is held, the strings, the tensors."""
    load(cli, checkpoint)
    out = cli("show", "small").out
    assert "verified   verified\n" in out
    assert re.search(r"^format +np$", out, re.MULTILINE)
    assert re.search(r"^a\.weight +F32 +\[4, 8\] +\d+ +128 B$", out, re.MULTILINE)


@pytest.mark.parametrize("chosen", ["small:old", "small@{version}", "./small.safetensors", "small"])
def test_show_one_of_two(
    chosen: str, cli: Cli, daemon: DaemonProcess, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tag, the start of a version, and a path each find their version of two."""
    monkeypatch.chdir(checkpoint.parent)
    load(cli, checkpoint, "--tag", "old")
    version = cli.json("ls")[0]["version"]
    write_safetensors(checkpoint, {"only": np.zeros(2)})
    load(cli, checkpoint)
    document = cli.json("show", chosen.format(version=version[:15]))
    assert (document["version"] == version) == ("small:" in chosen or "@" in chosen)
    assert [v["tags"] for v in document["versions"]] == [["latest"], ["old"]]
    assert len(document["tensors"]) == (3 if document["version"] == version else 1)


@pytest.mark.parametrize(("everything", "shown"), [([], 40), (["--all"], 10_000)])
def test_ten_thousand_tensors(
    everything: list[str], shown: int, cli: Cli, daemon: DaemonProcess, tmp_path: Path
) -> None:
    """Of very many tensors show prints the first and the last, in 100 columns; --all and --json have them all."""
    names = [
        f"model.layers.{i}.self_attention.query_key_value.projection_with_a_long_name.weight" for i in range(10_000)
    ]
    load(cli, write_safetensors(tmp_path / "many.safetensors", {n: np.zeros(1, np.int8) for n in names}))
    out = cli("show", "many", *everything).out.splitlines()
    table = out[next(i for i, line in enumerate(out) if line.startswith("TENSOR ")) :]
    assert sum(line.startswith("model.layers.") for line in table) == shown
    assert max(map(len, table)) <= 100
    assert (f"... {10_000 - shown:,} more; --all shows them ..." in out) == (not everything)
    assert len(cli.json("show", "many")["tensors"]) == 10_000


@pytest.mark.parametrize("command", ["show", "unload"])
def test_unknown_name(command: str, cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """A name that nearly fits is answered with the one that does."""
    load(cli, checkpoint)
    ran = cli(command, "smal")
    assert (ran.status, ran.out) == (1, "")
    assert "did you mean 'small'?" in ran.err


def test_hostile_names(cli: Cli, daemon: DaemonProcess, tmp_path: Path) -> None:
    """Control characters in the names of files, tensors and strings reach no terminal."""
    path = write_safetensors(
        tmp_path / "evil\x1b[31m.safetensors", {"ten\x1b]0;title\x07sor\n": np.zeros(2)}, {"key\x1b": "value\x9b"}
    )
    load(cli, path)
    for arguments in (["ls"], ["show", str(path)], ["show", str(path), "--json"], ["inspect", str(path)]):
        ran = cli(*arguments)
        assert (ran.status, ran.err) == (0, "")
        assert all(c.isprintable() or c == "\n" for c in ran.out)
    assert cli.json("show", str(path))["tensors"][0]["name"] == "ten\x1b]0;title\x07sor\n"


def test_unload(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """unload says what went, and the memory is back at once."""
    load(cli, checkpoint)
    (row,) = cli.json("unload", "small")
    assert (row["name"], row["nbytes"]) == ("small", 4096)
    assert cli.json("ls") == []
    assert cli.json("status")["sealed"] == 0


def test_unload_what_is_held(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """Whoever holds an unloaded version keeps it, and unload says that the memory comes back later."""
    load(cli, checkpoint)
    with attach("small") as weights:
        out = cli("unload", "small").out
        assert "come back when 1 lease on it ended" in out
        assert weights["a.weight"].sum() == 32
        assert cli.json("ls") == []
        assert cli.json("status")["sealed"] == 4096
