"""Building and binding touch nothing: no page of the weights, and no memory for Parameters."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapcell import Tensor
from mapcell.attaching import attach
from mapcell.binding import bind
from mapcell.daemon_backend import attach_path
from mapcell.demo.assets import find_model, sentences
from mapcell.demo.measure import mapping_at
from mapcell.demo.minilm import RENAME, Config, MiniLM
from mapcell.demo.tokenize import tokenized
from mapcell.nn.utils import no_init_parameters
from support.daemon import DaemonProcess

MIB = 1 << 20
# 60 layers of 4096 x 4096: one billion parameters.
BUILD = """
import json, os
from mapcell import nn
from mapcell.demo.measure import memory_of
from mapcell.nn.utils import no_init_parameters
before = memory_of(os.getpid())
with no_init_parameters():
    net = nn.SequentialCell([nn.Dense(4096, 4096) for _ in range(60)])
after = memory_of(os.getpid())
count = sum(p.size for p in net.get_parameters())
print(json.dumps([count, after.private - before.private, after.rss - before.rss]))
"""


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon, and this process pointed at it."""
    with DaemonProcess() as running:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        yield running


@pytest.mark.parametrize("residence", ["mapped", "sealed"])
def test_bind_touches_no_page(daemon: DaemonProcess, residence: str) -> None:
    """After bind no page of the mapping is resident here, and no Parameter owns memory; the forward brings them in."""
    model = find_model()
    attach_path(
        str(model.checkpoint), dtype=None, keys=None, prefix="", mode="r", timeout=60, residence=residence, name="m"
    ).close()
    weights = attach("m")
    assert weights.residence == residence
    with no_init_parameters():
        net = MiniLM(Config.read(model.config))
    bind(net, weights, rename=RENAME)
    assert weights.statistics().viewed == 0
    # To make a view is not to touch it, and tells where the mapping is.
    inside = weights["encoder.layer.0.attention.self.query.weight"].ctypes.data
    mapping = mapping_at(inside)
    assert mapping.end - mapping.start >= weights.nbytes
    assert mapping.rss == 0
    tokens = tokenized(sentences(), model.tokenizer)
    net(Tensor(tokens.ids), Tensor(tokens.mask))
    assert 40 * MIB < mapping_at(inside).rss < 91 * MIB


def test_a_billion_parameters_take_no_memory() -> None:
    """A network of a billion parameters is built under no_init_parameters() in less than 5 MiB."""
    told = subprocess.run([sys.executable, "-c", BUILD], check=True, capture_output=True, text=True)
    count, private, rss = json.loads(told.stdout)
    assert count > 1_000_000_000
    assert private < 5 * MIB
    assert rss < 5 * MIB


def test_unused_weights_stay_untouched(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Looking at one tensor brings in that tensor's pages, not the others'."""
    import numpy as np

    from support.checkpoints import write_safetensors

    tensors = {name: np.full(4 * MIB // 4, 1, np.float32) for name in "abcd"}
    path = write_safetensors(tmp_path / "four.safetensors", tensors)
    attach_path(str(path), dtype=None, keys=None, prefix="", mode="r", timeout=60, residence="sealed", name="m").close()
    weights = attach("m")
    array = weights["b"]
    assert mapping_at(array.ctypes.data).rss == 0
    assert array.sum() == array.size
    assert 4 * MIB <= mapping_at(array.ctypes.data).rss <= 5 * MIB
