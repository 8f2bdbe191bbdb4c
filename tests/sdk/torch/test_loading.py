"""`load_file`: tensors over the checkpoint's own pages, of every dtype, that may be written to and come to an end."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

import mapcell.torch
from mapcell.torch.tensors import DTYPES
from mapcell_formats.dtypes import CODES
from mapcell_formats.errors import NotFound

UNPICKLED = {"U16", "U32", "U64", "F8_E4M3", "F8_E5M2", "F8_E8M0"}


def tensors() -> dict[str, torch.Tensor]:
    """One tensor of each dtype that checkpoints hold, and shapes that are easily got wrong."""
    numbers = torch.arange(24).reshape(2, 3, 4) % 2
    every = {code: numbers.to(dtype) for code, dtype in DTYPES.items()}
    return every | {
        "scalar": torch.tensor(1.5),
        "none": torch.zeros(0),
        "none of three": torch.zeros(3, 0, 2, dtype=torch.bfloat16),
        "one": torch.ones(1, 1, 1),
    }


def mapped(path: Path) -> bool:
    """Whether this process maps the file."""
    return str(path) in Path("/proc/self/maps").read_text()


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors agree in dtype, shape and every bit."""
    bits = (t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A safetensors file of `tensors`."""
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file(tensors(), path)
    return path


def test_every_dtype_has_one_of_torch() -> None:
    """What the readers know torch knows, too."""
    assert set(DTYPES) == set(CODES)


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_the_same_tensors(saved: Path, suffix: str, readonly: bool) -> None:
    """Names, dtypes, shapes, strides and elements are those of the library that the file belongs to."""
    path = saved
    if suffix == "pt":
        path = saved.with_suffix(".pt")
        torch.save(tensors(), path)
    got = mapcell.torch.load_file(path, readonly=readonly)
    expected = safetensors.torch.load_file(saved) if suffix == "safetensors" else torch.load(path)
    assert set(got) == set(expected)
    for name, tensor in got.items():
        assert same(tensor, expected[name]), name
        assert tensor.stride() == expected[name].stride()
        assert (tensor.is_leaf, tensor.requires_grad, tensor._is_view()) == (True, False, False)
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_no_copy(saved: Path) -> None:
    """The tensors lie in the map of the file, and two loads in two maps."""
    first, second = mapcell.torch.load_file(saved), mapcell.torch.load_file(saved)
    spans = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if str(saved) in line
    ]
    assert len(spans) == 2
    for tensor in [*first.values(), *second.values()]:
        assert tensor.numel() == 0 or any(lo <= tensor.data_ptr() < hi for lo, hi in spans)
    del tensor


def test_writes_stay_private(saved: Path) -> None:
    """Writing in place changes what was loaded here, not the file nor what is loaded elsewhere."""
    before = saved.read_bytes()
    mine, other = mapcell.torch.load_file(saved), mapcell.torch.load_file(saved)
    for tensor in mine.values():
        tensor.zero_()
    assert not mine["F32"].any()
    assert same(other["F32"], tensors()["F32"])
    assert saved.read_bytes() == before


def test_the_map_lives_as_long_as_the_last_tensor(saved: Path) -> None:
    """Views, parameters and NumPy arrays of a tensor keep it; when all are gone, so is the map."""
    kept = mapcell.torch.load_file(saved)["F32"]
    gc.collect()
    view, parameter, array = kept[1:], torch.nn.Parameter(kept), kept.numpy()
    for _ in range(3):
        assert mapped(saved)
        kept, view, parameter, array = view, parameter, array, None
    del kept, view, parameter, array
    gc.collect()
    assert not mapped(saved)


def test_only_some(saved: Path) -> None:
    """`keys`, `prefix` and `dtype` choose and cast as they do for attach."""
    assert set(mapcell.torch.load_file(saved, keys=["F32", "U8"])) == {"F32", "U8"}
    assert set(mapcell.torch.load_file(saved, prefix="none")) == {"none", "none of three"}
    assert mapcell.torch.load_file(saved, keys=["F16"], dtype=torch.float32)["F16"].dtype == torch.float32
    with pytest.raises(NotFound, match="did you mean 'F32'"):
        mapcell.torch.load_file(saved, keys=["F31"])


def test_another_device(saved: Path) -> None:
    """For any device but the CPU the tensors are copies there."""
    assert {t.device.type for t in mapcell.torch.load_file(saved, device="meta").values()} == {"meta"}


@pytest.mark.parametrize(
    "through",
    [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t)), lambda t: t.clone()],
    ids=["deepcopy", "pickle", "clone"],
)
def test_copies_own_their_memory(saved: Path, through) -> None:
    """What copies a tensor gives one that has nothing to do with the map."""
    loaded = mapcell.torch.load_file(saved)
    # torch itself cannot pickle a single tensor of these dtypes.
    copied = {name: through(tensor) for name, tensor in loaded.items() if name not in UNPICKLED}
    del loaded
    gc.collect()
    assert not mapped(saved)
    assert all(same(tensor, tensors()[name]) for name, tensor in copied.items())


@pytest.mark.parametrize("how", ["safetensors", "torch"])
def test_saving_writes_each_tensor_once(saved: Path, tmp_path: Path, how: str) -> None:
    """Both libraries take the tensors as they are, and write their elements alone."""
    loaded = mapcell.torch.load_file(saved)
    if how == "safetensors":
        # What safetensors.torch.load does not read.
        del loaded["F8_E8M0"]
        again = safetensors.torch.load(safetensors.torch.save(loaded))
    else:
        file = io.BytesIO()
        torch.save({"F32": loaded["F32"]}, file)
        again = torch.load(io.BytesIO(file.getvalue()))
        assert file.tell() < 2000
    assert all(same(tensor, loaded[name]) for name, tensor in again.items())
