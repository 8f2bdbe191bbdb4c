"""`Weights` as a mapping: `items` gives what looking up each name gives, and looks up none."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

import mapcell
from mapcell.weights import Weights
from mapcell_formats.errors import MapcellError
from support.checkpoints import write_safetensors

ARRAYS = {f"block.{n}.weight": np.full((2, 3), n, np.float32) for n in range(20)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A checkpoint of 20 tensors."""
    return write_safetensors(tmp_path / "m.safetensors", ARRAYS)


@pytest.mark.parametrize("prefix", ["", "block.1", "nothing"])
def test_items(file: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """All that were chosen, in the checkpoint's order, as views that count as viewed; without finding any by name."""
    with mapcell.attach(file, prefix=prefix, daemon="never") as weights:
        names = list(weights)
        monkeypatch.setattr(Weights, "entry", lambda self, name: pytest.fail("looked up"))
        items = weights.items()
        assert len(items) == len(names)
        listed = list(items)
        assert [name for name, _ in listed] == names
        assert all((array == ARRAYS[name]).all() for name, array in listed)
        assert all(array.base is not None and not array.flags.writeable for _, array in listed)
        assert weights.statistics().viewed == len(listed)


def test_items_after_closing(file: Path) -> None:
    """Closed weights give no items, as they give no tensor."""
    weights = mapcell.attach(file, daemon="never")
    items = weights.items()
    weights.close()
    with pytest.raises(mapcell.MapcellError, match="were closed"):
        list(items)


def test_closed_weights_go_at_once(tmp_path: Path) -> None:
    """Closed or not, Weights go with their last reference: what they hold does not wait for the garbage collector."""
    path = write_safetensors(tmp_path / "x.safetensors", {"a": np.ones(3, np.float32)})
    gc.disable()
    try:
        for closed in (True, False):
            weights = mapcell.attach(path, daemon="never")
            assert weights["a"].sum() == 3
            if closed:
                weights.close()
                with pytest.raises(MapcellError, match="were closed"):
                    weights["a"]
            held = weakref.ref(weights)
            del weights
            assert held() is None
    finally:
        gc.enable()
