"""Networks that MindSpore trained give MindSpore's results, from its own files, read by this process."""

from __future__ import annotations

import numpy as np
import pytest

import mapcell as ms
from mapcell.attaching import attach
from mapcell.binding import bind
from mapcell.demo.lenet5 import LeNet5
from mapcell.nn.utils import no_init_parameters
from support.networks import MINDSPORE, Mixed


@pytest.mark.parametrize("file", ["lenet5.ckpt", "lenet5.safetensors"])
@pytest.mark.parametrize("lazy", [True, False])
def test_lenet5(file: str, lazy: bool) -> None:
    """Bound weights, with the network's own initialisation skipped or done, give MindSpore's scores."""
    if lazy:
        with no_init_parameters():
            net = LeNet5()
    else:
        net = LeNet5()
    bind(net, attach(MINDSPORE / file, daemon="never"))
    with np.load(MINDSPORE / "lenet5_forward.npz") as expected:
        assert np.abs(net(ms.Tensor(expected["input"])).asnumpy() - expected["output"]).max() < 1e-5


@pytest.mark.parametrize("file", ["lenet5.ckpt", "lenet5.safetensors"])
def test_load_checkpoint(file: str) -> None:
    """MindSpore's own way to load does the same."""
    from mapcell.train.serialization import load_checkpoint

    net = LeNet5()
    load_checkpoint(str(MINDSPORE / file), net=net, format=file.rpartition(".")[2])
    with np.load(MINDSPORE / "lenet5_forward.npz") as expected:
        assert np.abs(net(ms.Tensor(expected["input"])).asnumpy() - expected["output"]).max() < 1e-5


def test_mixed() -> None:
    """Convolution, normalisation and embedding together."""
    net = Mixed()
    net.set_train(False)
    bind(net, attach(MINDSPORE / "mixed.ckpt", daemon="never"))
    with np.load(MINDSPORE / "mixed_forward.npz") as expected:
        got = net(ms.Tensor(expected["input"]), ms.Tensor(expected["ids"])).asnumpy()
        assert np.abs(got - expected["output"]).max() < 1e-5
