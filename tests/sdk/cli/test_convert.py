"""convert: files of one format into another, from the command line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from .conftest import Cli


def test_fields(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    """convert tells where it wrote what."""
    target = tmp_path / "out.safetensors"
    document = cli.json("convert", str(checkpoint), str(target))
    assert document.pop("seconds") >= 0
    assert document == {
        "source": str(checkpoint),
        "dest": str(target),
        "format": "safetensors",
        "encrypted": None,
        "tensors": 3,
        "nbytes": target.stat().st_size,
        "left_out": [],
    }


def test_options(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    """Prefix, several rules in order, dtype and alignment all arrive."""
    target = tmp_path / "out.npz"
    options = [
        "--prefix",
        "a.",
        "--rename",
        "^w(?=eight)=W",
        "--rename",
        "W=kernel.",
        "--dtype",
        "float16",
        "--align",
        "4096",
    ]
    ran = cli("convert", str(checkpoint), str(target), *options)
    assert ran.status == 0
    assert ran.out.startswith(f"wrote {target}: 2 tensors, ")
    assert ran.err == "left out 1 string of the checkpoint: format\n"
    with np.load(target) as arrays:
        assert {name: arrays[name].dtype for name in arrays} == dict.fromkeys(["kernel.eight", "bias"], np.float16)


def test_paths_as_people_write_them(cli: Cli, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bare names are files of the folder one is in; a folder is a checkpoint."""
    monkeypatch.chdir(checkpoint.parent)
    assert cli("convert", "small.safetensors", "out.ckpt").status == 0
    os.mkdir("model")
    os.rename("small.safetensors", "model/model.safetensors")
    assert cli("convert", "model", "again.safetensors").status == 0
    assert sorted(load_file("again.safetensors")) == ["a.bias", "a.weight", "ids"]


WRONG: dict[str, tuple[list[str], int, str]] = {
    "a suffix of no format": (["out.bin"], 2, "ends in .safetensors or .ckpt or .npz"),
    "an alignment": (["out.npz", "--align", "3"], 2, "power of two"),
    "a dtype that is none": (["out.npz", "--dtype", "float31"], 2, "is no dtype"),
    "a rule without =": (["out.npz", "--rename", "abc"], 2, "say REGEX=REPLACEMENT"),
    "a broken expression": (["out.npz", "--rename", "(=x"], 2, "'(=x': "),
    "a group that is not there": (["out.npz", "--rename", r"a=\1"], 2, "group"),
    "a folder that is not there": (["nowhere/out.npz"], 1, "nowhere"),
    "a dtype that .npz lacks": (["out.npz", "--dtype", "bfloat16"], 1, "cannot hold BF16"),
    "names that become one": (["out.npz", "--rename", ".+=x"], 1, "given twice"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong(cli: Cli, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """Wrong usage is status 2, what cannot be done status 1, and nothing is written."""
    arguments, status, says = WRONG[case]
    monkeypatch.chdir(checkpoint.parent)
    ran = cli("convert", checkpoint.name, *arguments)
    assert ran.status == status
    assert says in ran.err
    assert os.listdir() == [checkpoint.name]


def test_no_source(cli: Cli, tmp_path: Path) -> None:
    """A source that is not there is an error of one line."""
    ran = cli("convert", str(tmp_path / "none.ckpt"), str(tmp_path / "x.npz"))
    assert ran.status == 1
    assert ran.err.startswith("error: ")
