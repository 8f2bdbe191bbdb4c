"""Parts of a checkpoint: only what was asked for is read and held, and a slice of a tensor is a view."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapcell.attaching import attach
from mapcell.connection import daemon_status
from mapcell.tensor_file import safe_open
from mapcell_formats.errors import BindError, NotFound
from support.checkpoints import write_safetensors
from support.daemon import DaemonProcess

# 1 MiB each.
ROWS, COLUMNS = 512, 512
TENSORS = {
    f"{part}.{n}": np.full((ROWS, COLUMNS), n, np.float32) + np.arange(COLUMNS, dtype=np.float32)
    for part in ("enc", "dec")
    for n in range(8)
}
TENSOR_BYTES = ROWS * COLUMNS * 4
# What a stager reads besides tensors: the header, and Python modules that it is the first to need.
OTHER_BYTES = 1 << 20

PARTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "keys": ({"keys": ["enc.3", "dec.0"]}, {"enc.3", "dec.0"}),
    "a prefix": ({"prefix": "dec."}, {f"dec.{n}" for n in range(8)}),
    "keys and a prefix": ({"keys": ["enc.3", "dec.0"], "prefix": "dec."}, {"dec.0"}),
    "no keys": ({"keys": []}, set()),
    "a prefix of nothing": ({"prefix": "head."}, set()),
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A checkpoint of 16 MiB."""
    return str(write_safetensors(tmp_path / "m.safetensors", TENSORS))


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon that holds nothing yet, and this process pointed at it."""
    with DaemonProcess() as running:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        yield running


@pytest.mark.parametrize("case", PARTS)
def test_only_the_part_is_staged(daemon: DaemonProcess, path: str, case: str) -> None:
    """The daemon reads and seals the tensors that were asked for, and no other; neither is there another to see."""
    options, names = PARTS[case]
    with attach(path, daemon="require", **options) as weights:
        status = daemon_status()
        assert status is not None
        assert set(weights) == names == {e.name for e in weights.entries()}
        assert all(np.array_equal(weights[name], TENSORS[name]) for name in names)
        assert weights.residence == "sealed"
    assert status.sealed == len(names) * TENSOR_BYTES
    assert len(names) * TENSOR_BYTES <= status.bytes_read <= len(names) * TENSOR_BYTES + OTHER_BYTES
    with pytest.raises(NotFound):
        weights["enc.7"]


@pytest.mark.parametrize("case", PARTS)
def test_parts_without_a_daemon(path: str, case: str) -> None:
    """In the process itself the same part is there, as views of the file."""
    options, names = PARTS[case]
    with attach(path, daemon="never", **options) as weights:
        assert set(weights) == names
        assert all(np.array_equal(weights[name], TENSORS[name]) for name in names)
        assert not any(weights[name].flags.owndata for name in names)


def test_a_cast_part(daemon: DaemonProcess, path: str) -> None:
    """Of a part that is to be cast only the cast bytes are held."""
    with attach(path, daemon="require", keys=["enc.1"], dtype="float16") as weights:
        status = daemon_status()
        assert status is not None
        assert status.sealed == TENSOR_BYTES // 2
        assert weights["enc.1"].dtype == np.float16
        assert np.array_equal(weights["enc.1"], TENSORS["enc.1"].astype(np.float16))


def test_a_key_that_is_not_there(daemon: DaemonProcess, path: str) -> None:
    """A key that the checkpoint lacks is NotFound, and nothing is held."""
    for choice in ("require", "never"):
        with pytest.raises(NotFound, match=r"'enc\.8'"):
            attach(path, daemon=choice, keys=["enc.1", "enc.8"])
    status = daemon_status()
    assert status is not None
    assert status.sealed == 0


def test_parts_and_the_whole_side_by_side(daemon: DaemonProcess, path: str) -> None:
    """Two parts and the whole are three things, and each keeps what it has."""
    with (
        attach(path, daemon="require", keys=["enc.0"]) as one,
        attach(path, daemon="require", keys=["enc.1"]) as other,
        attach(path, daemon="require") as whole,
    ):
        assert (len(one), len(other), len(whole)) == (1, 1, 16)
        assert len({one.version, other.version, whole.version}) == 3
        assert np.array_equal(one["enc.0"], whole["enc.0"])


@pytest.fixture(params=["require", "never"])
def choice(request: pytest.FixtureRequest) -> str:
    """What attach is to be told, with a daemon where it needs one."""
    if request.param == "require":
        request.getfixturevalue("daemon")
    return str(request.param)


def test_a_part_of_a_tensor_is_a_view(choice: str, path: str) -> None:
    """A tensor-parallel part looks at the shared bytes: no copy, read-only, and right."""
    with attach(path, daemon=choice) as weights:
        for axis, (rank, world) in product((0, 1, -1), ((0, 1), (0, 2), (3, 4), (511, 512))):
            part = weights.slice("enc.5", axis, rank, world)
            assert np.array_equal(part, np.split(TENSORS["enc.5"], world, axis)[rank])
            assert np.shares_memory(part, weights["enc.5"])
            assert not part.flags.owndata
            assert not part.flags.writeable


@pytest.mark.parametrize(
    ("axis", "rank", "world"), [(2, 0, 2), (-3, 0, 2), (0, 2, 2), (0, -1, 2), (0, 0, 3), (0, 0, 0), (0, 0, -1)]
)
def test_parts_that_there_are_not(path: str, axis: int, rank: int, world: int) -> None:
    """An axis that is not there and a part that cannot be cut are BindError."""
    with attach(path, daemon="never") as weights, pytest.raises(BindError):
        weights.slice("enc.5", axis, rank, world)


def test_slices_of_safe_open_are_views(choice: str, path: str) -> None:
    """get_slice, indexed as NumPy is, gives the part that the safetensors library gives, without its copy."""
    from safetensors import safe_open as library_open

    with safe_open(path, framework="np", daemon=choice) as ours, library_open(path, framework="np") as theirs:
        part = ours.get_slice("dec.2")
        assert part.get_shape() == theirs.get_slice("dec.2").get_shape()
        assert part.get_dtype() == theirs.get_slice("dec.2").get_dtype()
        for index in (np.s_[:, 10:20], np.s_[3:4], np.s_[::7, ::-1], np.s_[5, :100], np.s_[..., 1]):
            view = part[index]
            assert np.array_equal(view, TENSORS["dec.2"][index])
            assert np.shares_memory(view, ours.get_tensor("dec.2"))
        assert np.array_equal(part[:, 10:20], theirs.get_slice("dec.2")[:, 10:20])
