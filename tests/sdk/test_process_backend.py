"""Weights without a daemon: whatever was opened is closed, whoever forgets to."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from mapcell.attaching import attach
from mapcell.process_backend import attach_in_process
from mapcell_formats.errors import FormatError, MapcellError
from support.checkpoints import write_safetensors

DATA = Path(__file__).parent.parent / "data" / "mindspore"


def descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("close", [True, False], ids=["closed", "forgotten"])
@pytest.mark.parametrize("kind", ["plain", "cast", "encrypted"])
def test_nothing_stays_open(tmp_path: Path, kind: str, close: bool) -> None:
    """With the weights go their files, also the one behind an encrypted checkpoint."""
    before = descriptors()
    if kind == "encrypted":
        weights = attach_in_process(
            str(DATA / "lenet5_aes_gcm.ckpt"),
            dtype=None,
            keys=None,
            prefix="",
            mode="r",
            decryption=(b"0123456789abcdef", "AES-GCM"),
        )
    else:
        file = write_safetensors(tmp_path / "x.safetensors", {"w": np.ones(4, np.float16)})
        weights = attach(file, daemon="never", dtype="float32" if kind == "cast" else None)
    first = weights[next(iter(weights))]
    value = first.copy()
    if close:
        weights.close()
        with pytest.raises(MapcellError, match="were closed"):
            weights[next(iter(weights))]
    del weights
    gc.collect()
    np.testing.assert_array_equal(first, value)
    del first
    gc.collect()
    assert descriptors() == before


def test_nothing_stays_open_of_what_is_broken(tmp_path: Path) -> None:
    """A checkpoint that is refused leaves no descriptor."""
    (tmp_path / "x").write_bytes(b"\x08\0\0\0\0\0\0\0{       ")
    before = descriptors()
    with pytest.raises(FormatError):
        attach(tmp_path / "x", daemon="never")
    assert descriptors() == before
