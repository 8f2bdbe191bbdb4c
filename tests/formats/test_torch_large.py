"""State dicts of hundreds of tensors, saved by torch itself: nearly all of their tensors are read at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mapcell_formats import pickle_usual
from mapcell_formats.detect import read_checkpoint
from mapcell_formats.errors import UnsupportedFormat
from mapcell_formats.source import FileSource

from .test_npy import arrays

SHAPES = [(3,), (2, 3), (300, 2), (2, 3, 4), (2, 1, 2, 2), (0, 5), (70_000,), ()]
DTYPES = [torch.float32, torch.int64, torch.bool]


def state_dict() -> dict[str, torch.Tensor]:
    """Tensors of every usual shape, tied, sliced and transposed ones among them."""
    tensors = {
        f"layer.{number}.{shape}.{dtype}": torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)
        for number in range(8)
        for shape in SHAPES
        for dtype in DTYPES[: 1 + number % 3]
    }
    tied = {f"tied.{name}": tensor for name, tensor in list(tensors.items())[:20]}
    cut = {f"cut.{name}": tensor[1:] for name, tensor in list(tensors.items())[40:60] if tensor.ndim}
    turned = {f"turned.{name}": tensor.T for name, tensor in list(tensors.items())[60:] if tensor.ndim == 2}
    parameters = {f"{name}.parameter": torch.nn.Parameter(torch.ones(2, 2)) for name in list(tensors)[:10]}
    return tensors | tied | cut | turned | parameters


@pytest.mark.parametrize("protocol", [2, 4])
def test_large(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor comes back, and with torch's own protocol 2 most are recognised as a whole."""
    recognised = 0
    usual_call = pickle_usual.usual_call

    def counted(data: bytes, pos: int, held: int) -> pickle_usual.Call | None:
        nonlocal recognised
        call = usual_call(data, pos, held)
        recognised += call is not None
        return call

    monkeypatch.setattr(pickle_usual, "usual_call", counted)
    saved = state_dict()
    torch.save(saved, tmp_path / "x.pt", pickle_protocol=protocol)
    with FileSource.open(tmp_path / "x.pt") as source:
        found = arrays(read_checkpoint([source]))
    assert list(found) == list(saved)
    for name, tensor in saved.items():
        wanted = tensor.detach().numpy()
        assert (found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape), name
        assert found[name].tobytes() == wanted.tobytes(), name
    assert recognised > 80 if protocol == 2 else recognised == 0


def test_legacy(tmp_path: Path) -> None:
    """The form from before torch 1.6 is refused with what to do."""
    torch.save({"x": torch.ones(2)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with (
        FileSource.open(tmp_path / "x.pt") as source,
        pytest.raises(UnsupportedFormat, match=r"torch\.save\(torch\.load"),
    ):
        read_checkpoint([source])
