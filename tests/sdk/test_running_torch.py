"""What stands in for torch's way into a mapped file: any pickle, its storages out of lent weights."""

from __future__ import annotations

from collections import OrderedDict
from mmap import MAP_SHARED
from pathlib import Path

import pytest
import torch
from torch import nn

from mapcell.process_backend import attach_in_process
from mapcell.running_torch import noting, replacement
from mapcell_formats.errors import MapcellError

WHOLE = torch.arange(24.0).reshape(4, 6)


class Lender:
    """Lends every file, from this process's own map, and notes which."""

    def __init__(self) -> None:
        self.lent: list[str] = []

    def weights(self, filename, cast=None):
        self.lent.append(str(filename))
        try:
            return attach_in_process(str(filename), dtype=None, keys=None, prefix="", mode="c")
        except MapcellError:
            return None


@pytest.fixture
def lender(monkeypatch: pytest.MonkeyPatch) -> Lender:
    """torch.load lends from here."""
    lender = Lender()
    monkeypatch.setattr(torch.serialization, "_load", replacement(torch.serialization._load, lender))
    monkeypatch.setattr(torch, "load", noting(torch.load))
    return lender


OBJECTS = {
    "state dict": lambda: nn.Linear(3, 2).state_dict(),
    "nested": lambda: {"model": OrderedDict(w=WHOLE.clone()), "epoch": 3, "names": ["a"]},
    "list": lambda: [WHOLE.clone(), torch.ones(2, dtype=torch.bfloat16)],
    "views of one storage": lambda: {"rows": WHOLE[1:], "column": WHOLE[:, 2], "whole": WHOLE, "turned": WHOLE.T},
    "the same twice": lambda: {"a": WHOLE, "b": WHOLE},
    "part of a storage": lambda: {"part": WHOLE[1:2]},
    "no elements": lambda: {"none": torch.zeros(0, 3), "scalar": torch.tensor(2.5)},
    "parameter": lambda: {"p": nn.Parameter(torch.ones(3))},
    "nothing": dict,
}


def flat(value):
    """All that is in an object, tensors as lists with their kind."""
    if isinstance(value, torch.Tensor):
        return type(value), value.dtype, tuple(value.shape), value.stride(), value.requires_grad, value.tolist()
    if isinstance(value, dict):
        return type(value), [(k, flat(v)) for k, v in value.items()]
    return [flat(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("what", OBJECTS)
@pytest.mark.parametrize("weights_only", [True, False])
def test_the_same_object(lender: Lender, tmp_path: Path, what: str, weights_only: bool) -> None:
    """Whatever was saved comes back as without mapcell, and shares storages as it did."""
    path = tmp_path / "m.pt"
    torch.save(OBJECTS[what](), path)
    got = torch.load(path, mmap=True, weights_only=weights_only)
    assert lender.lent == [str(path)]
    assert flat(got) == flat(torch.load(path, weights_only=weights_only))
    if what == "views of one storage":
        assert got["rows"].data_ptr() == got["whole"].data_ptr() + 24


def test_the_bytes_are_the_lent_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors lie in the map that was lent, and may be written to without changing the file."""
    path = tmp_path / "m.pt"
    torch.save({"a": WHOLE.clone()}, path)
    before, weights = path.read_bytes(), attach_in_process(str(path), dtype=None, keys=None, prefix="", mode="c")
    monkeypatch.setattr(Lender, "weights", lambda *args: weights)
    monkeypatch.setattr(torch.serialization, "_load", replacement(torch.serialization._load, Lender()))
    got = noting(torch.load)(f=str(path), mmap=True)
    assert got["a"].data_ptr() == weights["a"].ctypes.data
    got["a"].zero_()
    assert path.read_bytes() == before


@pytest.mark.parametrize("how", ["no map", "file object", "shared map"])
def test_other_ways_to_load(lender: Lender, tmp_path: Path, how: str) -> None:
    """Without mmap=True, or with a map that is to be written through, nothing is asked of the daemon."""
    path = tmp_path / "m.pt"
    torch.save({"a": WHOLE}, path)
    if how == "shared map":
        with torch.serialization.set_default_mmap_options(MAP_SHARED):
            got = torch.load(path, mmap=True)
    elif how == "file object":
        with path.open("rb") as file:
            got = torch.load(file)
    else:
        got = torch.load(path)
    assert torch.equal(got["a"], WHOLE)
    assert lender.lent == []


def test_no_weights(lender: Lender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the daemon has not is taken out of torch's own map."""
    torch.save({"a": WHOLE}, tmp_path / "m.pt")
    monkeypatch.setattr(lender, "weights", lambda filename: None)
    assert torch.equal(torch.load(tmp_path / "m.pt", mmap=True)["a"], WHOLE)


def test_errors_are_torchs(lender: Lender, tmp_path: Path) -> None:
    """A file that is none of torch's is refused by torch."""
    (tmp_path / "m.pt").write_bytes(b"nothing")
    with pytest.raises(RuntimeError, match="mmap can only be used"):
        torch.load(tmp_path / "m.pt", mmap=True)
