"""load_checkpoint through a daemon: shared views, casts that all processes share, MindSpore's errors."""

import numpy as np
import pytest

import mapcell as ms
from mapcell import Parameter, Tensor, nn
from mapcell.common.initializer import initializer
from mapcell.nn.utils import no_init_parameters
from support.daemon import DaemonProcess


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A checkpoint, and a daemon that this process may use."""
    with DaemonProcess() as running:
        monkeypatch.setenv("MAPCELL_RUNTIME", str(running.runtime))
        monkeypatch.setenv("MAPCELL_DAEMON", "require")
        path = tmp_path / "x.ckpt"
        ms.save_checkpoint({"weight": Tensor(np.full((64, 3), 1.5, np.float32)), "n": Tensor([7])}, path)
        yield path


def network(dtype=ms.float32, count=ms.int64):
    net = nn.Cell()
    with no_init_parameters():
        net.weight = Parameter(initializer("zeros", [64, 3], dtype))
        net.n = Parameter(initializer("zeros", [1], count))
    return net


def memory(array):
    """What an array's memory belongs to."""
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return array.base


def test_loading_shares(file):
    """Nothing is copied, and nobody can write."""
    net = network()
    loaded = ms.load_checkpoint(file, net=net)
    assert list(loaded) == ["weight", "n"]
    assert np.shares_memory(net.weight.asnumpy(), loaded["weight"].asnumpy())
    assert not net.weight.asnumpy().flags.writeable
    assert memory(net.weight.asnumpy()) is not None


@pytest.mark.parametrize("how", ["load_checkpoint", "load_param_into_net", "bind"])
def test_floating_casts_are_the_daemons(file, how):
    """The cast tensor is a view too; integers are converted here."""
    net = network(ms.float16, ms.int32)
    if how == "load_checkpoint":
        ms.load_checkpoint(file, net=net)
    elif how == "load_param_into_net":
        assert ms.load_param_into_net(net, ms.load_checkpoint(file)) == ([], [])
    else:
        assert ms.bind(net, ms.attach(file), strict=False) == ([], [])
    weight = net.weight.asnumpy()
    assert (weight.dtype, weight.flags.writeable, float(weight[0, 0])) == (np.float16, False, 1.5)
    assert memory(weight) is not None
    assert (net.n.asnumpy().dtype, net.n.tolist()) == (np.int32, [7])


def test_errors_are_mindspores(file, tmp_path):
    """Whatever the daemon says of a file is a plain ValueError."""
    (tmp_path / "bad.ckpt").write_bytes(b"\xff" * 100)
    for name in ("missing.ckpt", "bad.ckpt"):
        with pytest.raises(ValueError) as caught:
            ms.load_checkpoint(tmp_path / name)
        assert type(caught.value) is ValueError
