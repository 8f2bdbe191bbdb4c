"""inspect, which asks no daemon."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hostile import corpus_gguf
from support.checkpoints import write_safetensors

from .conftest import Cli

DATA = Path(__file__).parents[2] / "data" / "mindspore"


def unaligned(folder: Path) -> Path:
    """A safetensors file whose one tensor lies at an odd byte."""
    header = b'{"odd":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} '
    path = folder / "odd.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    return path


def sharded(folder: Path) -> Path:
    """A folder with a checkpoint in two files and their index."""
    target = folder / "two"
    target.mkdir()
    names = {"first": "model-00001-of-00002.safetensors", "second": "model-00002-of-00002.safetensors"}
    for tensor, file in names.items():
        write_safetensors(target / file, {tensor: np.ones(4, np.float32)})
    (target / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return target


def test_inspect_fields(cli: Cli, checkpoint: Path) -> None:
    """inspect prints what show does without the daemon's fields, totals by dtype, and whether it can be mapped."""
    document = cli.json("inspect", str(checkpoint))
    assert (document["name"], document["source"], document["format"]) == (
        "small.safetensors", str(checkpoint), "safetensors",
    )  # fmt: skip
    assert (document["dtype"], document["nbytes"], document["metadata"]) == ("mixed", 184, {"format": "np"})
    assert document["totals"] == {"F32": {"tensors": 2, "nbytes": 160}, "I64": {"tensors": 1, "nbytes": 24}}
    assert (document["mappable"], document["obstacle"]) == (True, None)
    tensors = {t["name"]: t for t in document["tensors"]}
    weight = tensors["a.weight"]
    assert (weight["dtype"], weight["shape"], weight["segment"], weight["nbytes"]) == ("F32", [4, 8], 0, 128)
    data = checkpoint.read_bytes()
    assert np.frombuffer(data, np.int64, 3, tensors["ids"]["offset"]).tolist() == [0, 1, 2]


def test_inspect_table(cli: Cli, checkpoint: Path) -> None:
    """For people inspect says the same."""
    out = cli("inspect", str(checkpoint)).out
    assert re.search(r"^F32 +2 tensors, 160 B$", out, re.MULTILINE)
    assert re.search(r"^mapped +possible, as it lies$", out, re.MULTILINE)
    assert re.search(r"^a\.bias +F32 +\[8\] +\d+ +32 B$", out, re.MULTILINE)
    assert "SEGMENT" not in out


def test_inspect_says_why_not_mapped(cli: Cli, tmp_path: Path) -> None:
    """A file that has to be sealed comes with the tensor that makes it so."""
    path = unaligned(tmp_path)
    document = cli.json("inspect", str(path))
    assert document["mappable"] is False
    assert document["obstacle"] == "tensor 'odd' lies at byte 65, which is no multiple of its item size 4"
    assert document["obstacle"] in " ".join(cli("inspect", str(path)).out.split())


def test_inspect_mindspore(cli: Cli) -> None:
    """A MindSpore .ckpt is inspected like any other."""
    document = cli.json("inspect", str(DATA / "lenet5.ckpt"))
    shapes = {t["name"]: t["shape"] for t in document["tensors"]}
    assert shapes["conv1.weight"] == [6, 1, 5, 5]
    assert document["totals"].keys() == {"F32"}


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("empty", b"", "is empty"),
        ("text", b"hello\n", "looks like text"),
        ("model.pt", b"PK\x03\x04....", "a zip archive"),
        ("short.safetensors", (1 << 40).to_bytes(8, "little") + b"{}", "short.safetensors"),
        ("folder", None, "a folder without a checkpoint"),
    ],
)
def test_inspect_refuses(name: str, content: bytes | None, word: str, cli: Cli, tmp_path: Path) -> None:
    """What is no checkpoint is refused in one line that names the file and what it is."""
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    ran = cli("inspect", str(path), "--json")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"error: {path}: ")
    assert word in ran.err
    assert ran.err.count("\n") == 1


def test_inspect_folder(cli: Cli, tmp_path: Path) -> None:
    """A folder with a checkpoint in parts is inspected as the one checkpoint that it is."""
    folder = sharded(tmp_path)
    document = cli.json("inspect", str(folder))
    assert {t["name"] for t in document["tensors"]} == {"first", "second"}
    assert len({t["segment"] for t in document["tensors"]}) == 2
    assert "SEGMENT" in cli("inspect", str(folder)).out


def test_inspect_relative_and_home(cli: Cli, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FILE is a path however it is written."""
    monkeypatch.chdir(checkpoint.parent)
    monkeypatch.setenv("HOME", str(checkpoint.parent))
    for name in ("small.safetensors", "./small.safetensors", "~/small.safetensors"):
        assert cli.json("inspect", name)["source"] == str(checkpoint)


def test_many_tensors(cli: Cli, tmp_path: Path) -> None:
    """The middle of many tensors is left out unless --all asks for it."""
    path = write_safetensors(tmp_path / "m.safetensors", {f"t{i:04}": np.zeros(1) for i in range(300)})
    assert "... 260 more; --all shows them ..." in cli("inspect", str(path)).out
    assert sum(line.startswith("t0") for line in cli("inspect", str(path), "--all").out.splitlines()) == 300


def test_inspect_gguf(cli: Cli, tmp_path: Path) -> None:
    """A quantised tensor is shown with its type, a long string by its beginning; --json has all of both."""
    template = "{% for message in messages %}" * 100
    pairs = (corpus_gguf.pair("tokenizer.chat_template", corpus_gguf.STRING, corpus_gguf.string(template)),)
    infos = (corpus_gguf.info("q", (64, 2), corpus_gguf.Q4_0),)
    path = tmp_path / "model.gguf"
    path.write_bytes(corpus_gguf.gguf_file(pairs, infos, bytes(72)))
    out = cli("inspect", str(path)).out
    assert re.search(r"^q +U8 Q4_0 +\[2, 36\] ", out, re.MULTILINE)
    assert "gguf.type" not in out
    assert "(2,900 characters; --json has all)" in "".join(line.strip() for line in out.splitlines())
    assert all(len(line) <= 100 for line in out.splitlines())
    assert cli.json("inspect", str(path))["metadata"] == {
        "tokenizer.chat_template": template, "gguf.type:q": "Q4_0",
    }  # fmt: skip
