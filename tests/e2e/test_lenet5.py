"""LeNet5 from MindSpore's files through the daemon gives MindSpore's results."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import mapcell as ms
from mapcell.attaching import attach
from mapcell.binding import bind
from mapcell.demo.lenet5 import LeNet5
from mapcell.nn.utils import no_init_parameters
from mapcell.train.serialization import load_checkpoint
from support.daemon import DaemonProcess
from support.networks import MINDSPORE, Mixed


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[DaemonProcess]:
    """A daemon, and this process pointed at it and at nothing else."""
    with DaemonProcess() as running:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        monkeypatch.setenv("MAPCELL_DAEMON", "require")
        yield running


@pytest.mark.parametrize("file", ["lenet5.ckpt", "lenet5.safetensors", "lenet5_append.ckpt"])
def test_lenet5(daemon: DaemonProcess, file: str) -> None:
    """Attached and bound: the scores are MindSpore's, and the Parameters are views that nobody can write."""
    with no_init_parameters():
        net = LeNet5()
    weights = attach(MINDSPORE / file)
    assert weights.backend == "daemon"
    missing, _ = bind(net, weights, strict=False)
    assert missing == []
    with np.load(MINDSPORE / "lenet5_forward.npz") as expected:
        assert np.abs(net(ms.Tensor(expected["input"])).asnumpy() - expected["output"]).max() < 1e-5
    assert not net.fc1.weight.asnumpy().flags.writeable


@pytest.mark.parametrize("file", ["lenet5.ckpt", "lenet5.safetensors"])
def test_load_checkpoint(daemon: DaemonProcess, file: str) -> None:
    """MindSpore's own way to load goes to the daemon too."""
    net = LeNet5()
    load_checkpoint(str(MINDSPORE / file), net=net)
    with np.load(MINDSPORE / "lenet5_forward.npz") as expected:
        assert np.abs(net(ms.Tensor(expected["input"])).asnumpy() - expected["output"]).max() < 1e-5


def test_mixed(daemon: DaemonProcess) -> None:
    """Convolution, normalisation and embedding together."""
    net = Mixed()
    net.set_train(False)
    bind(net, attach(MINDSPORE / "mixed.ckpt"))
    with np.load(MINDSPORE / "mixed_forward.npz") as expected:
        got = net(ms.Tensor(expected["input"]), ms.Tensor(expected["ids"])).asnumpy()
        assert np.abs(got - expected["output"]).max() < 1e-5
