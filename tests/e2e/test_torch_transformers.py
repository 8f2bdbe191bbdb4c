"""transformers' models out of the shared copy: the same outputs, ties and buffers, and no memory of their own."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import mapcell.torch
from mapcell.connection import daemon_status
from support.architectures import MODELS, made, outputs
from support.daemon import DaemonProcess
from support.proc import eventually

DOCUMENT = Path(__file__).parents[2] / "docs" / "torch.md"


@pytest.fixture(scope="module")
def serving() -> Any:
    """A daemon for all these tests."""
    with DaemonProcess() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        yield running
        mapcell.disconnect()


@pytest.fixture(autouse=True)
def lending(serving: DaemonProcess, monkeypatch: pytest.MonkeyPatch) -> Any:
    """This process asks that daemon; every lease is given back in the end."""
    monkeypatch.setenv("MAPCELL_RUNTIME", str(serving.runtime))
    yield
    gc.collect()
    eventually(lambda: daemon_status().leases == 0)


def save(model: Any, folder: Path, how: str) -> None:
    """Writes the model as one file, in shards, or as torch.save does."""
    if how == "bin":
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    else:
        model.save_pretrained(folder, **({"max_shard_size": "100KB"} if how == "shards" else {}))
        assert (len(list(folder.glob("*.safetensors"))) > 1) == (how == "shards")


def shared(model: torch.nn.Module, folder: Path) -> tuple[int, int]:
    """Bytes of parameters that lie in maps of the folder's files, or of the daemon's memory, and of all."""
    spans = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if str(folder) in line or "memfd:mapcell" in line
    ]
    sizes = [(p.nbytes, any(lo <= p.data_ptr() < hi for lo, hi in spans)) for p in model.parameters()]
    return sum(n for n, inside in sizes if inside), sum(n for n, _ in sizes)


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    """Whether all outputs agree in every bit."""
    return len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *((kind, "file") for kind in MODELS),
        *((kind, how) for kind in ("decoder, tied", "mixture of experts") for how in ("shards", "bin")),
    ],
)
def test_from_pretrained(kind: str, how: str, tmp_path: Path) -> None:
    """Loaded through the daemon a model answers as loaded by transformers, bit for bit, from shared pages."""
    model = made(kind)
    save(model, tmp_path, how)
    ordinary = type(model).from_pretrained(tmp_path)
    loaded = mapcell.torch.from_pretrained(tmp_path, type(model), daemon="require")
    assert equal(outputs(loaded), outputs(ordinary))
    # One for each file that anything still lies in.
    assert 1 <= daemon_status().leases <= max(1, len(list(tmp_path.glob("*.safetensors"))))
    assert list(loaded.state_dict()) == list(ordinary.state_dict())
    assert dict(loaded.named_parameters()).keys() == dict(ordinary.named_parameters()).keys()
    for name, buffer in ordinary.named_buffers():
        assert torch.equal(loaded.get_buffer(name), buffer)
    inside, every = shared(loaded, tmp_path)
    # Its experts are fused while they are loaded, unless they were saved so.
    assert inside == every or (kind == "mixture of experts" and how != "bin" and inside < every / 2)


@pytest.mark.parametrize(
    ("kind", "how"), [*((kind, "meta") for kind in MODELS), ("decoder, tied", "no_init_parameters")]
)
def test_bind_module(kind: str, how: str, tmp_path: Path) -> None:
    """Built without memory and bound, a model answers the same; tables that no checkpoint holds are there again."""
    model = made(kind)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    with torch.device("meta") if how == "meta" else mapcell.torch.no_init_parameters():
        bound = type(model)(model.config).eval()
    assert all(p.is_meta for p in bound.parameters())
    assert mapcell.torch.bind_module(bound, tmp_path / "model.pt") == ([], [])
    assert not any(t.is_meta for t in [*bound.parameters(), *bound.buffers()])
    assert equal(outputs(bound), outputs(model))
    assert shared(bound, tmp_path)[0] == sum(p.nbytes for p in bound.parameters())


def test_a_cast_is_made_once_by_the_daemon(tmp_path: Path) -> None:
    """From bfloat16 on disk to float32 in use: transformers' own results, and the daemon's memory."""
    model = made("decoder, tied").bfloat16()
    save(model, tmp_path, "file")
    ordinary = type(model).from_pretrained(tmp_path, dtype=torch.float32)
    loaded = mapcell.torch.from_pretrained(tmp_path, type(model), dtype=torch.float32, daemon="require")
    assert equal(outputs(loaded), outputs(ordinary))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    inside, every = shared(loaded, tmp_path)
    assert inside == every
    assert daemon_status().sealed >= every


def test_experts_that_were_saved_fused(tmp_path: Path) -> None:
    """Where transformers has nothing to convert, nothing is this process's own."""
    model = made("mixture of experts")
    model.save_pretrained(tmp_path, save_original_format=False)
    loaded = mapcell.torch.from_pretrained(tmp_path, type(model), daemon="require")
    assert equal(outputs(loaded), outputs(model))
    inside, every = shared(loaded, tmp_path)
    assert inside == every


def test_without_a_daemon(tmp_path: Path) -> None:
    """The same call loads as transformers does; an Auto class finds the architecture."""
    model = made("encoder")
    save(model, tmp_path, "file")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAPCELL_RUNTIME", str(tmp_path / "nobody"))
        loaded = mapcell.torch.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert equal(outputs(loaded), outputs(model))


SCRIPT = """
import json, subprocess, sys
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from mapcell.connection import daemon_status

folder, tokens, kept = sys.argv[1], torch.arange(20).reshape(2, 10), []
file = folder + "/model.safetensors"

def leases():
    status = daemon_status()
    return status.leases if status else 0

def note(loaded):
    kept.append(loaded)
    counts.append(leases())

counts = [leases()]
note(AutoModelForCausalLM.from_pretrained(folder))
note(load_file(file))
note(safe_open(file, framework="pt").get_slice("model.norm.weight")[:4])
note(torch.load(folder + "/model.pt", mmap=True))
with torch.no_grad():
    torch.save(kept[0](tokens, use_cache=False).logits, sys.argv[2])
child = [sys.executable, "-c", sys.argv[3], file]
told = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
print(json.dumps({"counts": counts, "child": told, "sum": kept[1]["model.norm.weight"].sum().item()}))
"""
MAIN = "from mapcell.cli import main; main()"
CHILD = """
import sys
from safetensors.torch import load_file
from mapcell.connection import daemon_status
tensor = load_file(sys.argv[1])["model.norm.weight"]
status = daemon_status()
print(tensor.sum().item(), status.leases if status else 0)
"""


def test_run(tmp_path: Path, serving: DaemonProcess) -> None:
    """Under `mapcell run` a program that knows nothing of mapcell, and its child, load from the shared copy.

    Each load holds one lease more.
    """
    model = made("decoder, tied")
    save(model, tmp_path, "file")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    env = os.environ | {"MAPCELL_RUNTIME": str(serving.runtime)}
    command = [
        sys.executable,
        "-c",
        MAIN,
        "run",
        "--daemon",
        "require",
        "--",
    ]
    command += [sys.executable, "-c", SCRIPT, str(tmp_path), str(tmp_path / "logits"), CHILD]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["counts"] == [0, 1, 2, 3, 4]
    assert told["child"] == [str(told["sum"]), "5"]
    with torch.no_grad():
        logits = model(torch.arange(20).reshape(2, 10), use_cache=False).logits
    assert torch.equal(torch.load(tmp_path / "logits"), logits)


def test_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of docs/torch.md runs as it stands there."""
    monkeypatch.chdir(tmp_path)
    save(made("decoder, tied").bfloat16(), tmp_path / "llama", "file")
    sizes = {"0.weight": (128, 64), "0.bias": (128,), "2.weight": (10, 128), "2.bias": (10,)}
    save_file({name: torch.ones(size) for name, size in sizes.items()}, "model.safetensors")
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 4
    exec(compile("\n".join(blocks), "docs/torch.md", "exec"), {"__name__": "example"})
