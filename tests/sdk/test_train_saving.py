"""save_checkpoint: what can be saved, as what, and where."""

import os
import threading

import ml_dtypes
import numpy as np
import pytest

import mapcell as ms
from mapcell import Parameter, Tensor, nn
from mapcell.common.initializer import initializer
from mapcell.nn.utils import no_init_parameters


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """In an empty folder, without a daemon."""
    monkeypatch.setenv("MAPCELL_DAEMON", "never")
    monkeypatch.chdir(tmp_path)


class Part(nn.Cell):
    def __init__(self):
        super().__init__()
        self.weight = Parameter(initializer("ones", [2]), name="given")
        self.register_buffer("buffer", Tensor([1.0]))


def loaded(name="x.ckpt"):
    return {k: v if isinstance(v, str) else v.tolist() for k, v in ms.load_checkpoint(name).items()}


OBJECTS = [
    (Part, {"given": [1, 1]}),
    (lambda: [Parameter([1.0], name="a"), Parameter([2.0], name="b")], {"a": [1], "b": [2]}),
    (lambda: [{"name": "a", "data": Tensor([1])}, {"name": "b", "data": Parameter(2.0)}], {"a": [1], "b": 2}),
    (lambda: [{"name": "a", "data": Tensor([1])}, {"name": "a", "data": Tensor([2])}], {"a": [2]}),
    (
        lambda: {"a": Tensor([1]), "b": Parameter(2.0), "c": np.ones(1), "d": "x"},
        {"a": [1], "b": 2, "c": [1], "d": "x"},
    ),
    (lambda: Part().state_dict(), {"weight": [1, 1], "buffer": [1]}),
    (lambda: {"t": Tensor(np.arange(6).reshape(2, 3)).T}, {"t": [[0, 3], [1, 4], [2, 5]]}),
    (lambda: {"e": Tensor(np.zeros((2, 0)))}, {"e": [[], []]}),
]


@pytest.mark.parametrize(("make", "expected"), OBJECTS, ids=range(len(OBJECTS)))
def test_what_can_be_saved(make, expected):
    """Networks by Parameter names, lists, dicts; what is not contiguous, what is empty."""
    ms.save_checkpoint(make(), "x")
    assert loaded() == expected


@pytest.mark.parametrize("obj", [3, "net", Tensor([1]), [3], [{"name": "a"}], {"a": 3}, {3: Tensor([1])}], ids=repr)
def test_what_cannot(obj):
    """Anything else is a TypeError, and no file is left."""
    with pytest.raises(TypeError):
        ms.save_checkpoint(obj, "x")
    assert os.listdir() == []


def test_lazy_networks_are_initialised_first():
    """What is saved is what the network then has."""
    with no_init_parameters():
        net = nn.SequentialCell(Part())
    net[0].weight.set_data(initializer("normal", [2]))
    ms.save_checkpoint(net, "x")
    assert loaded() == {"0.weight": net[0].weight.tolist()}


DTYPES = [bool, "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ml_dtypes.bfloat16]


@pytest.mark.parametrize("format", ["ckpt", "safetensors"])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (1, 2, 3, 4)], ids=str)
def test_every_dtype_comes_back(format, shape):
    """Bytes, dtype and shape."""
    arrays = {np.dtype(d).name: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(d) for d in DTYPES}
    ms.save_checkpoint({name: Tensor(a) for name, a in arrays.items()}, "x", format=format)
    back = ms.load_checkpoint(f"x.{format}")
    for name, array in arrays.items():
        got = back[name].asnumpy()
        assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_appended_values():
    """Numbers become scalars of fixed dtypes; strings are for .ckpt only."""
    ms.save_checkpoint(
        [], "x", append_dict={"i": 3, "f": 0.5, "b": True, "s": "", "t": Tensor([1]), "p": Parameter(1.0)}
    )
    assert loaded() == {"i": 3, "f": 0.5, "b": True, "s": "", "t": [1], "p": 1}
    kinds = [str(v.dtype) for v in ms.load_checkpoint("x.ckpt").values() if not isinstance(v, str)]
    assert kinds == ["Int64", "Float32", "Bool", "Int64", "Float32"]
    with pytest.raises(ValueError):
        ms.save_checkpoint([], "x", append_dict={"s": "text"}, format="safetensors")
    for wrong in (3, {"a": None}, {"a": [1]}, {3: 1}):
        with pytest.raises(TypeError):
            ms.save_checkpoint(Part(), "y", append_dict=wrong)


@pytest.mark.parametrize(
    ("name", "format", "file"),
    [
        ("x", "ckpt", "x.ckpt"),
        ("x.bin", "ckpt", "x.bin.ckpt"),
        ("my_ckpt", "ckpt", "my_ckpt"),
        ("x", "safetensors", "x.safetensors"),
        ("x.ckpt", "safetensors", "x.ckpt.safetensors"),
    ],
)
def test_file_names(name, format, file):
    """The ending is added unless the name ends with the format."""
    ms.save_checkpoint(Part(), name, format=format)
    assert os.listdir() == [file]
    assert len(ms.load_checkpoint(file)) == 1


REFUSED = [
    ({"integrated_save": 1}, TypeError),
    ({"async_save": 1}, TypeError),
    ({"async_save": "later"}, ValueError),
    ({"enc_key": "text"}, ValueError),
    ({"enc_key": b"short"}, ValueError),
    ({"enc_key": b"0" * 16, "enc_mode": "ROT13"}, ValueError),
    ({"enc_key": b"0" * 16, "crc_check": True}, ValueError),
    ({"enc_key": b"0" * 16, "format": "safetensors"}, ValueError),
    ({"crc_check": 1}, ValueError),
    ({"format": "onnx"}, ValueError),
    ({"choice_func": lambda n: False}, ValueError),
    ({"save_obj": []}, ValueError),
    ({"save_obj": {"c": Tensor([1j])}}, TypeError),
    ({"save_obj": {"c": Tensor(np.zeros(1, np.complex64))}}, ValueError),
    ({"ckpt_file_name": 3}, TypeError),
    ({"ckpt_file_name": ""}, ValueError),
    ({"ckpt_file_name": "."}, IsADirectoryError),
    ({"ckpt_file_name": "no/such/folder"}, FileNotFoundError),
]


@pytest.mark.parametrize(("arguments", "error"), REFUSED, ids=range(len(REFUSED)))
def test_refusals(arguments, error):
    """Each wrong argument has its kind of error, and no file is left."""
    with pytest.raises(error):
        ms.save_checkpoint(**({"save_obj": Part(), "ckpt_file_name": "x"} | arguments))
    assert os.listdir() == []


def test_choice_and_unknown_keywords():
    """Names are chosen; keywords for clusters are ignored."""
    given = {"a": Tensor([1]), "b": Tensor([2])}
    ms.save_checkpoint(given, "x", choice_func=lambda n: n == "b", global_step_num=3, incremental=False)
    assert loaded() == {"b": [2]}


def test_saving_over_what_is_loaded():
    """A network whose weights are views of a file may be saved to that file; the views keep their bytes."""
    ms.save_checkpoint({"weight": Tensor([1.0, 2.0])}, "x.ckpt")
    net = Part()
    net.weight.name = "weight"
    ms.load_checkpoint("x.ckpt", net)
    ms.save_checkpoint({"weight": Tensor([7.0, 8.0])}, "x.ckpt")
    assert net.weight.tolist() == [1, 2]
    ms.save_checkpoint(net, "x.ckpt")
    assert loaded() == {"weight": [1, 2]}
    assert os.stat("x.ckpt").st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", [True, "thread", "process"])
def test_async_save(how):
    """The file is there once the thread ended, with the elements as they were at the call."""
    array = np.ones(3, np.float32)
    ms.save_checkpoint({"a": Tensor.from_numpy(array)}, "x", async_save=how)
    array[0] = 9
    for thread in threading.enumerate():
        if thread.name == "mapcell-save":
            thread.join()
    assert loaded() == {"a": [1, 1, 1]}


def test_tensors_lie_aligned():
    """What was saved can be mapped: every view starts at a multiple of its item size and owns no memory."""
    ms.save_checkpoint({f"t{i}": Tensor(np.ones(i + 1)) for i in range(5)}, "x")
    for parameter in ms.load_checkpoint("x.ckpt").values():
        array = parameter.asnumpy()
        assert array.flags.aligned
        assert not array.flags.owndata
