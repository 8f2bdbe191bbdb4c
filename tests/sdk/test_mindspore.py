"""Binding a network of the real MindSpore: what needs none is tried with arrays, the rest where it is installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from mapcell.mindspore import Slot, explained, planned
from support.checkpoints import write_safetensors

TESTS = Path(__file__).parents[1]
installed = pytest.mark.skipif(find_spec("mindspore") is None, reason="MindSpore is not installed")
SLOT = Slot("fc.weight", "0.weight", (2, 3), "float32")
FITS = np.zeros((2, 3), np.float32)


def read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array as a shared map would be."""
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("name", ["fc.weight", "0.weight"])
def test_found_by_name_or_path(name: str) -> None:
    """A tensor may be called as the Parameter, or as the place where it is."""
    plan = planned([SLOT], [(name, name, FITS)], strict=True, readonly=False)
    assert (plan.missing, plan.unexpected, plan.faults) == ([], [], [])
    ((slot, array),) = plan.bound
    assert slot is SLOT
    assert array is FITS


@pytest.mark.parametrize(
    ("array", "strict", "readonly", "said"),
    [
        (FITS, True, False, None),
        (np.zeros((3, 2), np.float32), False, False, r"shape \(3, 2\) .* but \(2, 3\)"),
        (np.zeros((2, 3, 1), np.float32), False, False, "shape"),
        (np.zeros((2, 3), np.float16), True, False, "float16 .* but float32 .*dtype="),
        (np.zeros((2, 3), np.float16), False, False, None),
        (np.zeros((2, 3), ml_dtypes.bfloat16), False, False, None),
        (np.zeros((2, 3), np.int32), False, False, "int32 .* but float32"),
        (np.zeros((2, 3), ml_dtypes.float8_e5m2), False, False, "which MindSpore has not"),
        (read_only(np.zeros((2, 3), np.float32)), True, False, 'mode="c"'),
        (read_only(np.zeros((2, 3), np.float32)), True, True, None),
    ],
)
def test_what_fits(array: np.ndarray[Any, Any], strict: bool, readonly: bool, said: str | None) -> None:
    """Shapes are compared, though set_data compares none; dtypes convert only if asked, floats to floats."""
    plan = planned([SLOT], [("w", "fc.weight", array)], strict, readonly)
    assert plan.missing == []
    if said is None:
        assert (plan.faults, len(plan.bound)) == ([], 1)
    else:
        (fault,) = plan.faults
        assert re.search(said, fault)
        assert plan.bound == []


def test_everything_is_told_at_once() -> None:
    """Missing, unexpected, twofold and unfit names in one message, with near names."""
    slots = [SLOT, Slot("fc.bias", "0.bias", (2,), "float32"), Slot("norm.gamma", "1.gamma", (2,), "float32")]
    given = [("fc.weight", "fc.weight", FITS), ("0.weight", "0.weight", FITS), ("fc.bia", "fc.bia", FITS)]
    given += [("gamma", "norm.gamma", np.zeros(3, np.float32)), ("left", None, FITS)]
    plan = planned(slots, given, strict=True, readonly=False)
    told = explained(plan, strict=True)
    for part in (
        "1 missing: 'fc.bias'", "did you mean 'fc.bia'", "1 unexpected: 'fc.bia'", "both mean 'fc.weight'",
        "'gamma' has the shape (3,)",
    ):  # fmt: skip
        assert part in told
    assert "left" not in told
    assert "missing" not in explained(plan, strict=False)


TENSORS = {
    "0.weight": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3),
    "0.bias": np.arange(4, dtype=np.float32),
    "1.gamma": np.ones(4, np.float32),
    "1.beta": np.zeros(4, np.float32),
}


def real(program: str, path: Path) -> Any:
    """What a program of support.real_mindspore finds."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    env["MAPCELL_DAEMON"] = "never"
    command = [sys.executable, "-m", "support.real_mindspore", program, str(path)]
    told = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout.splitlines()[-1])


@installed
def test_aliases_the_map(tmp_path: Path) -> None:
    """Each Parameter lies at the view's address, and the map stays as long as the network."""
    path = write_safetensors(tmp_path / "w.safetensors", TENSORS)
    assert real("aliases", path) == {"returned": [[], []], "aliases": True, "held": True, "let go": True}


@installed
def test_computes(tmp_path: Path) -> None:
    """MindSpore computes with the shared bytes what NumPy does."""
    y = np.ones((2, 3), np.float32) @ TENSORS["0.weight"].T + TENSORS["0.bias"]
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    found = real("computes", write_safetensors(tmp_path / "w.safetensors", TENSORS))
    np.testing.assert_allclose(found, y, atol=1e-3)


@installed
def test_writes_stay_here(tmp_path: Path) -> None:
    """By path the map is private: what MindSpore writes is in no other's pages, nor in the file."""
    found = real("writes", write_safetensors(tmp_path / "w.safetensors", TENSORS))
    assert found == {"here": [7, 7, 7, 7], "elsewhere": [0, 1, 2, 3]}


@installed
def test_bfloat16(tmp_path: Path) -> None:
    """bfloat16 is bound as such where the Parameter is, and converted into own memory where it is not."""
    halves = {name: array.astype(ml_dtypes.bfloat16) for name, array in TENSORS.items()}
    found = real("halves", write_safetensors(tmp_path / "w.safetensors", halves))
    assert found["aliases"]
    assert "bfloat16 in the checkpoint, but float32" in found["refused"]
    assert found["converted"] == ["Float32", halves["0.weight"].astype(np.float32).tolist()]


@installed
def test_nothing_is_bound_when_something_is_wrong(tmp_path: Path) -> None:
    """BindError names all that does not fit; with strict=False the rest is bound and the names are told."""
    given = {"0.weight": TENSORS["0.weight"], "0.bia": TENSORS["0.bias"]}
    found = real("wrong", write_safetensors(tmp_path / "w.safetensors", given))
    assert "3 missing: '0.bias', '1.gamma', '1.beta'" in found["refused"]
    assert "1 unexpected: '0.bia'" in found["refused"]
    assert found["untouched"]
    assert found["returned"] == [["0.bias", "1.gamma", "1.beta"], ["0.bia"]]
    assert found["bound"]
