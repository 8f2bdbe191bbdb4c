"""Sources that are replaced under running workers: old bytes stay, new ones are noticed, and followed where wanted."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import mapcell
from mapcell.watching import Watcher
from mapcell_formats.errors import MapcellError
from mapcell_formats.messages import Event, ModelRow, Unload
from support.checkpoints import write_safetensors
from support.configured import Configured, model
from support.models import load, number_of, rows, tell, write_model
from support.proc import eventually

WORKERS = 3
PATIENCE = 30.0
Harm = Callable[[Path], None]


def newest(name: str = "m") -> ModelRow:
    """The newest version of `name`."""
    return rows(name)[0]


def becomes(state: str, name: str = "m") -> None:
    """Waits until the source of `name` is so."""
    eventually(lambda: newest(name).source_state == state, PATIENCE)


def newer_than(weights: mapcell.Weights) -> mapcell.Weights:
    """What the name of `weights` means once that is something else."""
    eventually(lambda: weights.newer() is not None, PATIENCE)
    return mapcell.attach(weights.name)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint full of ones."""
    folder = tmp_path / "models"
    folder.mkdir()
    return write_model(folder / "m.safetensors", 1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    """One daemon for all of this."""
    with (
        pytest.MonkeyPatch.context() as patch,
        Configured(tmp_path_factory.mktemp("following"), "", patch) as daemon,
    ):
        yield daemon


@pytest.fixture
def daemon(running: Configured, monkeypatch: pytest.MonkeyPatch) -> Iterator[Configured]:
    """That daemon with nothing loaded or configured, before and after."""
    monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
    yield running
    gc.collect()
    running.reload("")
    for name in {row.name for row in rows()}:
        tell(Unload(name))
    eventually(lambda: not rows(), PATIENCE)


@pytest.fixture
def following(daemon: Configured, source: Path) -> Configured:
    """The model "m", sealed, that follows its source, and "n" that does not; both are loaded."""
    sealed = 'residence = "sealed"'
    daemon.reload(model("m", source, sealed, "follow = true") + model("n", source, sealed))
    for name in "mn":
        mapcell.attach(name).close()
        becomes("same", name)
    return daemon


def _rename(source: Path) -> None:
    write_model(source, 2)


def _rewrite(source: Path) -> None:
    beside = write_model(source.with_name("beside"), 2)
    source.write_bytes(beside.read_bytes())


def _in_steps(source: Path) -> None:
    data = write_model(source.with_name("beside"), 2).read_bytes()
    source.unlink()
    with source.open("wb", buffering=0) as file:
        for start in range(0, len(data), len(data) // 7):
            file.write(data[start : start + len(data) // 7])


def _other_folder(source: Path) -> None:
    write_model(source, 2)
    os.rename(source.parent, source.parent.with_name("old"))
    os.rename(source.parent.with_name("old"), source.parent)


@pytest.mark.parametrize("harm", [_rename, _rewrite, _in_steps, _other_folder])
def test_followed_and_reported(following: Configured, source: Path, harm: Harm) -> None:
    """The one that follows means the new version, the other says "changed"; who holds the old one keeps its bytes."""
    held = {name: mapcell.attach(name) for name in "mn"}
    harm(source)
    newer_than(held["m"])
    becomes("same", "m")
    becomes("changed", "n")
    assert [number_of(w) for w in held.values()] == [1, 1]
    assert [number_of(mapcell.attach(name)) for name in "mn"] == [2, 1]
    assert held["n"].newer() is None
    assert (newest("m").follow, newest("n").follow) == (True, False)


def test_a_link_is_switched(daemon: Configured, tmp_path: Path) -> None:
    """A folder of links into another, as Hugging Face's cache is: a switched link and a changed target are noticed."""
    blobs, one, other = (tmp_path / name for name in ("blobs", "one", "other"))
    for folder in (blobs, one, other):
        folder.mkdir()
    for number, folder in ((1, one), (2, other)):
        write_model(blobs / str(number), number)
        (folder / "model.safetensors").symlink_to(f"../blobs/{number}")
    current = tmp_path / "current"
    current.symlink_to("one")
    daemon.reload(model("m", current, "follow = true"))
    first = mapcell.attach("m")
    becomes("same")
    (tmp_path / "next").symlink_to("other")
    os.rename(tmp_path / "next", current)
    second = newer_than(first)
    becomes("same")
    write_model(blobs / "2", 3)
    assert [number_of(w) for w in (first, second, newer_than(second))] == [1, 2, 3]


def test_missing_broken_and_back(following: Configured, source: Path) -> None:
    """A deleted source is missing; one that cannot be staged is tried once and reported; the next good one is taken."""
    held = mapcell.attach("m")
    source.unlink()
    becomes("missing", "m")
    becomes("missing", "n")
    failed = following.log().count("following failed")
    source.write_bytes(b"half a file")
    becomes("failing")
    assert "looks like text" in newest().source_detail
    # Touching what is beside it wakes the daemon, and is no reason to try again.
    for number in range(3):
        source.with_name(f"beside{number}").touch()
    following.reload(following.config.read_text())
    becomes("failing")
    tried = following.log().count("following failed")
    assert failed < tried <= failed + 2
    os.utime(source)
    eventually(lambda: following.log().count("following failed") == tried + 1, PATIENCE)
    write_model(source, 2)
    becomes("same")
    assert (number_of(held), number_of(mapcell.attach("m"))) == (1, 2)


def test_a_writer_is_waited_for(following: Configured, source: Path) -> None:
    """While somebody has the new file open for writing nothing is staged, however long; when they close it is."""
    data = write_model(source.with_name("beside"), 2).read_bytes()
    fresh, failed = source.with_name("fresh"), following.log().count("following failed")
    with fresh.open("wb", buffering=0) as file:
        file.write(data[: len(data) // 2])
        os.rename(fresh, source)
        becomes("writing", "m")
        file.write(data[len(data) // 2 :])
        assert number_of(mapcell.attach("m")) == 1
    becomes("same", "m")
    assert number_of(mapcell.attach("m")) == 2
    assert following.log().count("following failed") == failed


def test_shards_are_one_source(daemon: Configured, tmp_path: Path) -> None:
    """Of a checkpoint in shards a new shard alone is followed, and one that breaks its index is reported."""
    values = {f"t{i}": np.full(1024, i, np.float32) for i in range(2)}
    folder = tmp_path / "sharded"
    folder.mkdir()
    for i in range(2):
        write_safetensors(folder / f"part{i}.safetensors", {f"t{i}": values[f"t{i}"]})
    index = '{"weight_map": {"t0": "part0.safetensors", "t1": "part1.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(index)
    daemon.reload(model("m", folder, "follow = true", 'residence = "sealed"'))
    first = mapcell.attach("m")
    becomes("same")
    write_safetensors(folder / "new", {"t1": np.full(1024, 7, np.float32)})
    os.rename(folder / "new", folder / "part1.safetensors")
    assert [w["t1"][0] for w in (first, newer_than(first))] == [1, 7]
    (folder / "part0.safetensors").unlink()
    becomes("failing")
    assert "part0.safetensors is missing" in newest().source_detail


def test_loaded_by_path(daemon: Configured, source: Path) -> None:
    """What a client loaded by path is reported, not followed; a path that leads the daemon elsewhere is left alone."""
    load(source, "m").close()
    becomes("same")
    write_model(source, 2)
    becomes("changed")
    assert number_of(mapcell.attach("m")) == 1
    folder = os.open(source.parent, os.O_RDONLY)
    try:
        # This process's descriptor: the daemon has another of that number, or none.
        load(Path(f"/proc/self/fd/{folder}/m.safetensors"), "h").close()
    finally:
        os.close(folder)
    becomes("unwatched", "h")
    os.rename(source.parent, source.parent.with_name("hidden"))
    becomes("missing", "m")


def test_casts_hear_of_it(following: Configured, source: Path) -> None:
    """What was cast from the newest version is as new as that, until there is another."""
    cast = mapcell.attach("m", dtype="float64")
    assert cast.newer() is None
    write_model(source, 2)
    becomes("changed", "n")
    eventually(lambda: cast.newer() == newest("m").version, PATIENCE)
    again = mapcell.attach("m", dtype="float64")
    assert (number_of(cast), number_of(again), again.newer()) == (1, 2, None)


def test_watchers_hear(following: Configured, source: Path) -> None:
    """`watch` tells that the source changed, that the new version is ready, and that the old one is retired."""
    seen: list[Event] = []
    with Watcher("m") as watcher:

        def hears(*kinds: str) -> bool:
            seen.extend(event for event in watcher.poll(0.1) if event.number)
            return watcher.subscribed and {*kinds} <= {event.kind for event in seen}

        eventually(hears, PATIENCE)
        write_model(source, 2)
        eventually(lambda: hears("ready", "retired"), PATIENCE)
    assert ("source", "changed") in [(event.kind, event.detail) for event in seen]
    kinds = [event.kind for event in seen]
    assert kinds.index("ready") < kinds.index("retired")


def test_follow_is_switched_on(following: Configured, source: Path) -> None:
    """SIGHUP with follow = true stages what changed before; with follow = false it is only reported from then on."""
    write_model(source, 2)
    becomes("changed", "n")
    eventually(lambda: number_of(mapcell.attach("m")) == 2, PATIENCE)
    text = following.config.read_text()
    following.reload(text.replace("follow = true", "follow = false") + "follow = true\n")
    becomes("same", "n")
    assert number_of(mapcell.attach("n")) == 2
    write_model(source, 3)
    becomes("changed", "m")
    eventually(lambda: number_of(mapcell.attach("n")) == 3, PATIENCE)
    assert number_of(mapcell.attach("m")) == 2


def test_under_load(following: Configured, source: Path) -> None:
    """Workers that attach without pause get one version or the other, whole, and fail never; nothing old is kept."""
    over = threading.Event()
    answers: list[list[int]] = [[] for _ in range(WORKERS)]
    errors: list[Exception] = []

    def work(mine: list[int]) -> None:
        while not over.is_set():
            try:
                with mapcell.attach("m", timeout=PATIENCE) as weights:
                    mine.append(number_of(weights))
            except MapcellError as exc:
                errors.append(exc)

    workers = [threading.Thread(target=work, args=(mine,)) for mine in answers]
    for worker in workers:
        worker.start()
    try:
        for number in (2, 3, 4):
            write_model(source, number)
            eventually(lambda number=number: all(mine and mine[-1] == number for mine in answers), PATIENCE)
    finally:
        over.set()
        for worker in workers:
            worker.join()
    gc.collect()
    assert not errors
    for mine in answers:
        assert mine == sorted(mine)
        assert set(mine) >= {2, 3, 4}
    eventually(lambda: len(rows("m")) == 1, PATIENCE)
