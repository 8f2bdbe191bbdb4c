"""pin, unpin, tag, retire and evict against a real daemon."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapcell.attaching import attach
from mapcell.connection import CONNECTIONS
from mapcell.daemon_backend import attach_path
from mapcell_formats.errors import MapcellError
from mapcell_formats.messages import Evict, Pin, Retire, Tag, Unload
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess
from support.users import OTHER_UID, as_user, needs_root

from .conftest import Cli


@pytest.fixture
def versions(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> Iterator[list[str]]:
    """Two versions of the model `small`, the older one first; the older is tagged `old`."""
    assert cli("load", str(checkpoint), "--residence", "sealed", "--tag", "old").status == 0
    write_safetensors(checkpoint, {"only": np.zeros(2)})
    assert cli("load", str(checkpoint), "--residence", "sealed").status == 0
    yield [row["version"] for row in reversed(cli.json("ls"))]
    cli("unpin", "small")


def pinned(cli: Cli) -> list[bool]:
    """Whether each version is pinned, the older one first."""
    return [row["pinned"] for row in reversed(cli.json("ls"))]


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("small", [False, True]),
        ("small:old", [True, False]),
        ("small@{0}", [True, False]),
        ("small@{1}", [False, True]),
    ],
)
def test_pin(name: str, after: list[bool], cli: Cli, versions: list[str]) -> None:
    """pin pins the one version that the name means, and says which; unpin takes it off again."""
    (row,) = cli.json("pin", name.format(*versions))
    assert (row["version"], row["pinned"]) == (versions[after.index(True)], True)
    assert pinned(cli) == after
    assert "+pin" in cli("ls").out
    assert "pinned small blake3:" in cli("pin", name.format(*versions)).out
    assert all(not row["pinned"] for row in cli.json("unpin", name.format(*versions)))
    assert pinned(cli) == [False, False]


def test_unpin_by_name_is_of_all_versions(cli: Cli, versions: list[str]) -> None:
    """A pin that an older version got does not stay behind."""
    for name in ("small:old", "small"):
        assert cli("pin", name).status == 0
    assert pinned(cli) == [True, True]
    out = cli("unpin", "small").out
    assert out.count("it may be evicted again") == 2
    assert pinned(cli) == [False, False]


def test_unpin_lets_go_of_what_was_replaced(cli: Cli, versions: list[str]) -> None:
    """Only its pin kept an older version; without it the memory comes back, and unpin says so."""
    assert cli("pin", "small:old").status == 0
    assert cli("tag", "small", "latest", "old").status == 0
    assert [row["version"] for row in cli.json("ls")] == versions[::-1]
    assert "which a newer version has replaced; its 4.0 KiB come back now" in cli("unpin", "small").out
    assert [row["version"] for row in cli.json("ls")] == versions[1:]


@pytest.mark.parametrize(("version", "found"), [("{0}", 0), ("{1}", 1), ("latest", 1), ("old", 0), ("{0:.15}", 0)])
def test_tag(version: str, found: int, cli: Cli, versions: list[str]) -> None:
    """tag takes an id, the beginning of one, or another tag, and attaching by the new tag gives that version."""
    (row,) = cli.json("tag", "small", version.format(*versions), "prod")
    assert row["version"] == versions[found]
    assert "prod" in row["tags"]
    with attach("small:prod") as weights:
        assert weights.version == versions[found]


def test_tag_moves(cli: Cli, versions: list[str]) -> None:
    """A tag that the model has is moved, and the version that it leaves goes when nothing else keeps it."""
    assert cli("tag", "small", "latest", "old").out.startswith(f"small:old is {versions[1][:15]}")
    assert [row["version"] for row in cli.json("ls")] == [versions[1]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tag", "small", "blake3:0000", "x"], "no version 'small@blake3:0000'"),
        (["tag", "small", "blake3:", "x"], "begins the ids of 2 versions of 'small'; give more digits"),
        (["tag", "small", "nosuch", "x"], "no version 'small:nosuch'"),
        (["tag", "small", "latest", "latest"], "'latest' moves by itself"),
        (["tag", "small", "latest", "a b"], "cannot be a tag: no blanks"),
        (["tag", "smal", "latest", "x"], "did you mean 'small'?"),
        (["pin", "smal"], "did you mean 'small'?"),
        (["unpin", "small:nosuch"], "no version 'small:nosuch'"),
        (["retire", "small@blake3:0000"], "`mapcell show small` lists them"),
        (["evict", "nothing"], "no model 'nothing'; `mapcell ls` lists them"),
    ],
)
def test_refusals(arguments: list[str], says: str, cli: Cli, versions: list[str]) -> None:
    """What cannot be done is refused in one line that says what would do, and changes nothing."""
    ran = cli(*arguments)
    assert (ran.status, ran.out) == (1, "")
    assert says in ran.err
    assert ran.err.count("\n") == 1
    assert [row["version"] for row in cli.json("ls")] == versions[::-1]


@pytest.mark.parametrize(("verb", "done"), [("retire", "retired"), ("evict", "evicted"), ("unload", "unloaded")])
def test_one_version_goes(verb: str, done: str, cli: Cli, versions: list[str]) -> None:
    """A version alone can be retired or evicted, and the model keeps the other."""
    (row,) = cli.json(verb, f"small@{versions[1][:20]}")
    assert row["version"] == versions[1]
    assert [row["version"] for row in cli.json("ls")] == versions[:1]
    assert f"{done} small blake3:" in cli(verb, "small").out
    assert cli.json("ls") == []
    assert cli.json("status")["sealed"] == 0


def test_what_is_held(cli: Cli, versions: list[str]) -> None:
    """evict names the processes that hold a version; retire lets them finish."""
    with attach("small") as weights:
        refusal = cli("evict", "small")
        assert refusal.status == 1
        assert f"'small' is held by 1 process (pid {os.getpid()}); `mapcell retire` stops handing it out" in refusal.err
        out = cli("retire", f"small@{versions[1]}").out
        assert "come back when 1 lease on it ended" in out
        assert weights["only"].tolist() == [0, 0]
        assert [row["version"] for row in cli.json("ls")] == versions[:1]


def test_what_is_pinned(cli: Cli, versions: list[str]) -> None:
    """A pinned version is not evicted, which evict says together with what to do."""
    assert cli("pin", "small").status == 0
    assert "'small' is pinned, so it is not evicted; `mapcell unpin` it first" in cli("evict", "small").err
    assert len(cli.json("ls")) == 2
    assert cli("unpin", "small").status == 0
    evictions = cli.json("status")["evictions"]
    assert cli("evict", "small").status == 0
    assert cli.json("status")["evictions"] == evictions + 2


def test_casts_go_with_their_base(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """A cast is listed beside what it was made from; it can be shown and evicted alone, not pinned or tagged."""
    assert cli("load", str(checkpoint), "--residence", "sealed").status == 0
    with attach("small", dtype="float16") as weights:
        cast = weights.version
    assert cli.json("show", f"small@{cast}")["dtype"] == "F16"
    for arguments in (["pin", f"small@{cast}"], ["tag", "small", cast, "half"]):
        assert "was cast from blake3:" in cli(*arguments).err
    assert [row["version"] for row in cli.json("evict", f"small@{cast}")] == [cast]
    assert len(cli.json("ls")) == 1


@pytest.mark.parametrize("name", ["cast.safetensors", "odd@1:2.safetensors", "a@b:c"])
@pytest.mark.parametrize("verb", ["unload", "retire", "evict"])
def test_path_with_only_a_cast(verb: str, name: str, cli: Cli, daemon: DaemonProcess, tmp_path: Path) -> None:
    """A path of which only a cast is held, whatever signs it holds, can be shown, pinned and given back by it."""
    path = write_safetensors(tmp_path / name, {"a": np.ones(4, np.float32)})
    with attach(path, dtype="float16", daemon="require") as weights:
        version = weights.version
    (row,) = cli.json("ls")
    assert (row["name"], row["version"]) == (str(path), version)
    for shown in (str(path), f"{path}@{version[:15]}"):
        assert cli.json("show", shown)["tensors"][0]["dtype"] == "F16"
    assert cli.json("pin", str(path))[0]["pinned"]
    assert not cli.json("unpin", str(path))[0]["pinned"]
    assert [row["version"] for row in cli.json(verb, str(path))] == [version]
    assert cli.json("ls") == []
    assert cli.json("status")["sealed"] == 0


@needs_root
def test_other_users(cli: Cli, daemon: DaemonProcess, checkpoint: Path) -> None:
    """Pins and tags take an operator, of one's own models as well; what others loaded is not to be changed."""
    with tempfile.TemporaryDirectory(prefix="mcu", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        theirs = write_safetensors(Path(folder) / "theirs.safetensors", {"a": np.ones(4, np.float32)})
        theirs.chmod(0o644)
        for place in (daemon.runtime, daemon.runtime.parent):
            place.chmod(0o755)
        assert cli("load", str(checkpoint), "--residence", "sealed").status == 0

        def outcome(message: object) -> str:
            try:
                return ",".join(row.name for row in CONNECTIONS.client().ask(message, 5).rows)
            except MapcellError as exc:
                return f"{type(exc).__name__}: {exc}"

        def change() -> dict[str, Any]:
            attach_path(str(theirs), dtype=None, keys=None, prefix="", mode="r", timeout=30, name="theirs").close()
            messages = {
                f"{type(m).__name__} {m.name}": m
                for name in ("small", "theirs")
                for m in (Pin(name, True), Tag(name, "blake3:", "t"), Retire(name), Unload(name))
            }
            return {"evict": outcome(Evict("small"))} | {what: outcome(m) for what, m in messages.items()}

        said = as_user(OTHER_UID, change)
    operators_only = ["evict", "Retire small", "Unload small"]
    operators_only += [f"{verb} {name}" for verb in ("Pin", "Tag") for name in ("small", "theirs")]
    for what in operators_only:
        assert said[what].startswith("AccessDenied: "), what
        assert "takes an operator" in said[what]
    assert said["Retire theirs"] == "theirs"
    assert said["Unload theirs"].startswith("NotFound: ")
    assert [row["name"] for row in cli.json("ls")] == ["small"]
