"""load_checkpoint: files, filters, keys, formats, errors."""

import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest

import mapcell as ms
from mapcell import Parameter, Tensor, nn
from mapcell.common.initializer import initializer
from mapcell.nn.utils import no_init_parameters
from mapcell_formats.dtypes import numpy_dtype, parse_dtype

DATA = Path(__file__).parents[1] / "data" / "mindspore"
EXPECTED = json.loads((DATA / "expected.json").read_text())


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """These tests are about this process's own reading."""
    monkeypatch.setenv("MAPCELL_DAEMON", "never")


def tensors(n=2):
    return {f"{i}.{part}": Tensor(np.full((2, 2), i, np.float32)) for i in range(n) for part in ("weight", "bias")}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "f.ckpt"
    ms.save_checkpoint(tensors(), path, append_dict={"epoch": 3, "who": "me"})
    return path


def test_mindspores_own_files():
    """Every tensor of every file, encrypted ones included, has the bytes, dtype and shape that MindSpore wrote."""
    with np.load(DATA / "expected.npz") as stored:
        expected = {key: stored[key].tobytes() for key in stored.files}
    compared = 0
    for file in sorted({key.split("|")[0] for key in EXPECTED}):
        secret = EXPECTED.get(file)
        key = {"dec_key": secret["key"].encode(), "dec_mode": secret["mode"]} if secret else {}
        for name, value in ms.load_checkpoint(DATA / file, **key).items():
            about = EXPECTED.get(f"{file}|{name}") or EXPECTED[f"lenet5.ckpt|{name}"]
            if "value" in about:
                assert (value if isinstance(value, str) else value.item()) == about["value"]
                continue
            assert (str(value.dtype), list(value.shape)) == (about["dtype"], about["shape"])
            bytes_ = expected.get(f"{file}|{name}") or expected[f"lenet5.ckpt|{name}"]
            assert value.asnumpy().tobytes() == bytes_
            compared += 1
    assert compared > 100


def test_names_order_and_kinds(file):
    """File order for .ckpt; numbers come back as Parameters, strings as str; names are the keys."""
    loaded = ms.load_checkpoint(str(file))
    assert list(loaded) == ["0.weight", "0.bias", "1.weight", "1.bias", "epoch", "who"]
    assert all(isinstance(v, Parameter) and v.name == k and v.requires_grad for k, v in loaded.items() if k != "who")
    assert (loaded["who"], str(loaded["epoch"].dtype), loaded["epoch"].shape) == ("me", "Int64", ())


def test_strings_keep_their_place(tmp_path):
    """A string between tensors comes back between them."""
    given = {"a": Tensor([1.0]), "s": "text", "b": Tensor([2.0]), "t": ""}
    ms.save_checkpoint(given, tmp_path / "x")
    assert {k: v if isinstance(v, str) else None for k, v in ms.load_checkpoint(tmp_path / "x.ckpt").items()} == {
        "a": None, "s": "text", "b": None, "t": ""
    }  # fmt: skip
    assert list(ms.load_checkpoint(tmp_path / "x.ckpt")) == ["a", "s", "b", "t"]


def test_nothing_is_read_before_it_is_used(file):
    """Loading makes no view; the elements are read-only views of the file."""
    loaded = ms.load_checkpoint(file)
    storage = loaded["0.weight"]._storage
    assert storage.pending
    array = loaded["0.weight"].asnumpy()
    assert not array.flags.writeable
    assert not array.flags.owndata


def test_safetensors(tmp_path):
    """Sorted by name; the ending says what it is, or a format that agrees with it."""
    path = tmp_path / "f.safetensors"
    ms.save_checkpoint(tensors(), path, format="safetensors")
    expected = ["0.bias", "0.weight", "1.bias", "1.weight"]
    assert list(ms.load_checkpoint(path)) == list(ms.load_checkpoint(path, format="safetensors")) == expected
    assert ms.load_checkpoint(path)["1.bias"].name == "1.bias"
    assert list(ms.load_checkpoint(path, specify_prefix="1")) == ["1.bias", "1.weight"]
    assert list(ms.load_checkpoint(io.BytesIO(path.read_bytes()), format="safetensors")) == expected
    with pytest.raises(TypeError):
        ms.load_checkpoint(io.BytesIO(path.read_bytes()))
    with pytest.raises(ValueError):
        ms.load_checkpoint(path, dec_key=b"0" * 16)


FILTERS = [
    ({"choice_func": lambda n: n.endswith("bias")}, ["0.bias", "1.bias"]),
    ({"choice_func": lambda n: "yes" if n == "who" else ""}, ["who"]),
    ({"specify_prefix": "0"}, ["0.weight", "0.bias"]),
    ({"specify_prefix": ("0.w", "1")}, ["0.weight", "1.weight", "1.bias"]),
    ({"filter_prefix": ["0", "1.b", "e", "w"]}, ["1.weight"]),
    ({"specify_prefix": "0", "filter_prefix": "0.b"}, ["0.weight"]),
    ({"filter_prefix": "0", "choice_func": lambda n: False}, ["1.weight", "1.bias", "epoch", "who"]),
    ({"choice_func": lambda n: False}, ValueError),
    ({"choice_func": lambda n: 1 / 0}, ValueError),
    ({"choice_func": 3}, ValueError),
    ({"specify_prefix": "zz"}, ValueError),
    ({"filter_prefix": ""}, ValueError),
    ({"filter_prefix": []}, ValueError),
    ({"specify_prefix": ["a", ""]}, ValueError),
    ({"filter_prefix": 3}, TypeError),
    ({"specify_prefix": [3]}, TypeError),
    ({"specify_prefix": {"a"}}, TypeError),
    ({"dec_key": "text"}, ValueError),
    ({"dec_key": b"0" * 16}, ValueError),
    ({"dec_key": b"short"}, ValueError),
    ({"dec_mode": 3}, ValueError),
    ({"crc_check": 1}, ValueError),
    ({"format": "onnx"}, ValueError),
    ({"format": "safetensors"}, ValueError),
    ({"net": 3}, TypeError),
]


@pytest.mark.parametrize(("arguments", "expected"), FILTERS, ids=range(len(FILTERS)))
def test_filters_and_arguments(file, arguments, expected):
    """Which names are left, or the exact exception of MindSpore."""
    if isinstance(expected, list):
        assert list(ms.load_checkpoint(file, **arguments)) == expected
        return
    with pytest.raises(expected) as caught:
        ms.load_checkpoint(file, **arguments)
    assert type(caught.value) is expected


FILES = [
    ("missing.ckpt", None),
    ("empty.ckpt", b""),
    ("garbage.ckpt", b"\xff" * 100),
    ("text.ckpt", b"hello"),
    ("x.txt", b"hi"),
    ("empty.safetensors", b""),
    ("garbage.safetensors", b"\xff" * 100),
    ("", None),
]


@pytest.mark.parametrize(("name", "contents"), FILES, ids=[n or "none" for n, _ in FILES])
def test_broken_files(tmp_path, monkeypatch, name, contents):
    """Whatever is wrong with a file is a plain ValueError."""
    monkeypatch.chdir(tmp_path)
    if contents is not None:
        Path(name).write_bytes(contents)
    with pytest.raises(ValueError) as caught:
        ms.load_checkpoint(name)
    assert type(caught.value) is ValueError


def test_damaged_files(file, tmp_path):
    """Truncated, with bytes behind, a folder of that name, another format under the name."""
    whole = file.read_bytes()
    for contents in (whole[:-1], whole[: len(whole) // 2], whole + b"\x00\x01"):
        file.write_bytes(contents)
        with pytest.raises(ValueError):
            ms.load_checkpoint(file)
    (tmp_path / "folder.ckpt").mkdir()
    ms.save_checkpoint(tensors(), tmp_path / "f.safetensors", format="safetensors")
    (tmp_path / "g.ckpt").write_bytes((tmp_path / "f.safetensors").read_bytes())
    for name in ("folder.ckpt", "g.ckpt"):
        with pytest.raises(ValueError):
            ms.load_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", [3, None, b"f.ckpt", ["f.ckpt"]])
def test_names_that_are_no_paths(name):
    """A TypeError."""
    with pytest.raises(TypeError):
        ms.load_checkpoint(name)


@pytest.mark.parametrize("mode", ["AES-GCM", "AES-CBC", "SM4-CBC"])
def test_encryption(tmp_path, mode):
    """What was encrypted loads with its key and mode only."""
    key, path = b"0123456789ABCDEF", tmp_path / "e.ckpt"
    ms.save_checkpoint(tensors(), path, enc_key=key, enc_mode=mode)
    loaded = ms.load_checkpoint(path, dec_key=key, dec_mode=mode)
    assert loaded["1.weight"].tolist() == [[1, 1], [1, 1]]
    other = "AES-CBC" if mode == "AES-GCM" else "AES-GCM"
    for arguments in (
        {},
        {"dec_key": b"0" * 16, "dec_mode": mode},
        {"dec_key": key, "dec_mode": other},
        {"dec_key": key, "dec_mode": mode.lower()},
    ):
        with pytest.raises(ValueError) as caught:
            ms.load_checkpoint(path, **arguments)
        assert type(caught.value) is ValueError


def test_checksums(tmp_path):
    """With crc_check a changed byte is found, in both formats; a file without a checksum loads."""
    for format in ("ckpt", "safetensors"):
        path = tmp_path / f"c.{format}"
        ms.save_checkpoint(tensors(), path, crc_check=True, format=format)
        assert len(ms.load_checkpoint(path, crc_check=True)) == 4
        contents = bytearray(path.read_bytes())
        position = contents.rfind(np.float32(1).tobytes())
        contents[position] ^= 1
        path.write_bytes(contents)
        assert len(ms.load_checkpoint(path)) == 4
        with pytest.raises(ValueError, match="CRC"):
            ms.load_checkpoint(path, crc_check=True)
        ms.save_checkpoint(tensors(), path, format=format)
        assert len(ms.load_checkpoint(path, crc_check=True)) == 4


class Part(nn.Cell):
    def __init__(self, dtype=ms.float32, shape=(2, 2)):
        super().__init__()
        self.weight = Parameter(initializer("ones", list(shape), dtype))


def test_into_a_network(file):
    """The dict is returned, the network is loaded; strict and what does not fit are load_param_into_net's."""
    with no_init_parameters():
        net = nn.SequentialCell(Part(), Part())
    loaded = ms.load_checkpoint(file, net=net)
    assert "who" in loaded
    assert net[1].weight.tolist() == [[1, 1], [1, 1]]
    assert np.shares_memory(net[1].weight.asnumpy(), loaded["1.weight"].asnumpy())
    half = nn.SequentialCell(Part(ms.float16), Part(ms.float16))
    ms.load_checkpoint(file, half)
    assert (half[1].weight.tolist(), half[1].weight.dtype) == ([[1, 1], [1, 1]], ms.float16)
    for arguments, error in (({"strict_load": True}, RuntimeError), ({"strict_load": "a"}, TypeError)):
        with pytest.raises(error):
            ms.load_checkpoint(file, half, **arguments)
    with pytest.raises(RuntimeError):
        ms.load_checkpoint(file, nn.SequentialCell(Part(shape=(3, 2))))
    with pytest.raises(TypeError):
        ms.load_checkpoint(file, net, remove_redundancy=True)


def test_async(file):
    """The result comes from a thread, and so does the error."""
    assert next(iter(ms.load_checkpoint_async(str(file)).result())) == "0.weight"
    with pytest.raises(ValueError):
        ms.load_checkpoint_async("missing.ckpt").result()


def test_threads_share_a_first_use(file):
    """Many threads that use a Parameter first all see its elements."""
    loaded, seen = ms.load_checkpoint(file), []
    threads = [threading.Thread(target=lambda: seen.append(loaded["1.bias"].tolist())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [[[1, 1], [1, 1]]] * 8


def test_dtype_codes_are_numpys():
    """A loaded Parameter's dtype is the one that the file names."""
    loaded = ms.load_checkpoint(DATA / "dtypes.ckpt")
    for parameter in loaded.values():
        assert parameter.asnumpy().dtype == numpy_dtype(parse_dtype(str(parameter.dtype)))
