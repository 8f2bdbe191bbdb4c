"""What inspect tells of each format, few tensors or many, fits a terminal and says what a person wants to know."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formats.mindspore_data import key_of
from hostile import corpus_gguf
from hostile.torch_building import dict_of, pickled, storage, tensor, torch_file
from mapcell.cli.output import PIPED_WIDTH, width
from mapcell_formats.ckpt_writer import encode_ckpt
from mapcell_formats.items import TensorItem
from mapcell_formats.npz_writer import encode_npz
from mapcell_formats.safetensors_writer import encode_safetensors

from .conftest import Cli

DATA = Path(__file__).parents[2] / "data"
MANY = 10_000


def item(name: str) -> TensorItem:
    return TensorItem(name, "F32", (2,), bytes(8))


def names(count: int) -> list[str]:
    """Names longer than any column."""
    return [f"model.language_model.layers.{i // 64}.mlp.experts.{i % 64}.down_projection.weight" for i in range(count)]


def _write(encode: Callable[..., Any], path: Path, count: int) -> Path:
    path.write_bytes(b"".join(map(bytes, encode(map(item, names(count))))))
    return path


def _shards(folder: Path, count: int) -> Path:
    held = [names(count)[part::100] for part in range(100)]
    files = [f"model-{part:05}-of-00100.safetensors" for part in range(100)]
    for file, some in zip(files, held, strict=True):
        (folder / file).write_bytes(b"".join(map(bytes, encode_safetensors(map(item, some)))))
    places = {name: file for file, some in zip(files, held, strict=True) for name in some}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def _gguf(folder: Path, count: int) -> Path:
    pairs = (corpus_gguf.pair("general.name", corpus_gguf.STRING, corpus_gguf.string("tiny")),)
    infos = tuple(
        corpus_gguf.info(name, (64, 2), corpus_gguf.Q4_0, offset=96 * i) for i, name in enumerate(names(count))
    )
    path = folder / "x.gguf"
    path.write_bytes(corpus_gguf.gguf_file(pairs, infos, bytes(96 * count)))
    return path


def _torch(folder: Path, count: int) -> Path:
    turned = {"turned": tensor((1, 2), (1, 1), inner=storage("1", 2))} if count > 1 else {}
    tensors = dict.fromkeys(names(count), tensor()) | turned
    path = folder / "x.pt"
    path.write_bytes(torch_file(pickled(dict_of(tensors)), {"0": bytes(8), "1": bytes(8)}))
    return path


FORMATS: dict[str, Callable[[Path, int], Path]] = {
    "safetensors": lambda folder, count: _write(encode_safetensors, folder / "x.safetensors", count),
    "shards": _shards,
    "mindspore": lambda folder, count: _write(encode_ckpt, folder / "x.ckpt", count),
    "npz": lambda folder, count: _write(encode_npz, folder / "x.npz", count),
    "gguf": _gguf,
    "torch": _torch,
}


@pytest.mark.parametrize("name", FORMATS)
def test_many_tensors_fit(name: str, cli: Cli, tmp_path: Path) -> None:
    """10,000 tensors of long names take a screen or two, no line of which is too long."""
    path = FORMATS[name](tmp_path, MANY)
    lines = cli("inspect", str(path)).out.splitlines()
    assert max(map(width, lines)) <= PIPED_WIDTH
    assert len(lines) < 250
    assert any(re.match("tensors +10,00", line) for line in lines)
    assert "more; --all shows them" in "\n".join(lines)


TOLD: dict[str, tuple[str, list[str], list[str]]] = {
    "strings of a .ckpt": (
        "mindspore/lenet5_append.ckpt",
        [],
        [
            "format +mindspore$",
            "author +a string value$",
            r"mapped +no, it will be sealed \(6 of 11 tensors\): tensor 'fc1",
        ],
    ),
    "encrypted": (
        "mindspore/lenet5_aes_cbc.ckpt",
        ["--dec-key-env", "KEY"],
        ["encryption +AES-CBC$", "mapped +no, and not sealed either: the worker that has the key"],
    ),
    "safetensors": ("mindspore/lenet5.safetensors", [], ["parameters +61,684$", "alignment +8 B$"]),
    "torch": ("torch/views.pt", [], [r"mapped +no, it will be sealed \(\d of 10 tensors\): tensor 'transposed'"]),
    "mapped": ("torch/state.pt", [], ["format +torch$", "mapped +possible, as it lies$", "alignment +64 B$"]),
}


@pytest.mark.parametrize("case", TOLD)
def test_told(case: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What matters of each file is in a line of its own."""
    file, options, lines = TOLD[case]
    monkeypatch.setenv("KEY", key_of(Path(file).name).hex() if options else "")
    out = cli("inspect", str(DATA / file), *options).out
    for line in lines:
        assert re.search(f"^{line}", out, re.MULTILINE), line
    assert max(map(width, out.splitlines())) <= PIPED_WIDTH


def test_quantised(cli: Cli, tmp_path: Path) -> None:
    """Of quantised tensors the blocks' bytes are told and the weights', and totals by type."""
    path = _gguf(tmp_path, 2)
    out = cli("inspect", str(path)).out
    assert re.search(r"^U8 +2 tensors, 144 B\n  Q4_0 +2 tensors, 144 B$", out, re.MULTILINE)
    assert re.search(r"^parameters +256$", out, re.MULTILINE)
    assert re.search(r"U8 Q4_0 +\[2, 36\] +\[2, 64\] ", out)
    document = cli.json("inspect", str(path))
    assert document["types"] == {"Q4_0": {"tensors": 2, "nbytes": 144}}
    assert (document["tensors"][0]["type"], document["tensors"][0]["weights"]) == ("Q4_0", [2, 64])


def test_files_of_a_folder(cli: Cli, tmp_path: Path) -> None:
    """The files are listed with their segment, tensors and size, and the index among them."""
    out = cli("inspect", str(_shards(tmp_path, 200))).out
    assert re.search(r"^format +safetensors, in 100 files$", out, re.MULTILINE)
    assert re.search(r"^ +0 +model\.safetensors\.index\.json +0 +", out, re.MULTILINE)
    assert re.search(r"^ +100 +model-00099-of-00100\.safetensors +2 +", out, re.MULTILINE)


def test_decoded_parts_belong_to_their_file(cli: Cli, tmp_path: Path) -> None:
    """What has to be decoded of a file is another segment of the same file."""
    np.savez_compressed(tmp_path / "x.npz", a=np.ones(3))
    (file,) = cli.json("inspect", str(tmp_path / "x.npz"))["files"]
    assert (file["name"], file["tensors"], file["segments"]) == ("x.npz", 1, [0, 1])


def test_int4(cli: Cli, tmp_path: Path) -> None:
    """MindSpore's Int4 tensors are I8 and told to be more."""
    from hostile.building import record
    from hostile.building import tensor as proto

    (tmp_path / "x.ckpt").write_bytes(record("q", proto((4,), "Int4")))
    out = cli("inspect", str(tmp_path / "x.ckpt")).out
    assert re.search(r"^q +I8 Int4 +\[4\]", out, re.MULTILINE)
    assert "STRING" not in out


def test_long_paths_are_folded(cli: Cli, tmp_path: Path) -> None:
    """A field that is longer than a line goes on beneath."""
    folder = tmp_path / ("f" * 90)
    folder.mkdir()
    shutil.copy(DATA / "mindspore" / "lenet5.ckpt", folder / "x.ckpt")
    out = cli("inspect", str(folder / "x.ckpt")).out
    assert max(map(width, out.splitlines())) <= PIPED_WIDTH
    assert "".join(out.split("format")[0].split()) == f"file{folder}/x.ckpt"
