"""Writes the files of this folder; needs torch, which the tests do not: python make.py"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

FOLDER = Path(__file__).parent
DTYPES = [
    "bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "bfloat16", "float32",
    "float64", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "complex64",
]  # fmt: skip


def raw(tensor: torch.Tensor) -> bytes:
    """The tensor's bytes in C order."""
    return bytes(tensor.detach().contiguous().flatten().view(torch.uint8).tolist()) if tensor.numel() else b""


def of_dtype(name: str, *shape: int) -> torch.Tensor:
    """A tensor whose bytes count up; of 0s and 1s for bool."""
    dtype = getattr(torch, name)
    nbytes = torch.Size(shape).numel() * dtype.itemsize
    flat = torch.arange(nbytes, dtype=torch.uint8)
    return (flat % 2 if name == "bool" else flat).view(dtype).reshape(shape)


def views() -> dict[str, torch.Tensor]:
    base = torch.arange(24, dtype=torch.float32)
    image = torch.arange(2 * 3 * 4 * 5, dtype=torch.int16).reshape(2, 3, 4, 5)
    return {
        "base": base,
        "tied": base,
        "slice": base[6:12].reshape(2, 3),
        "transposed": base.reshape(4, 6).T,
        "every second": base[1::2],
        "columns": base.reshape(4, 6)[:, 1:3],
        "channels last": image.to(memory_format=torch.channels_last),
        "permuted": image.permute(3, 0, 2, 1),
        "one by one": base[7:8].reshape(1, 1),
        "nothing": base[5:5],
    }


def training() -> dict[str, Any]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    net(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "best": 0.5,
        "note": "ü",
        "no": None,
    }


def parameters() -> dict[str, Any]:
    noted = nn.Parameter(torch.ones(2))
    noted.note = "kept by torch"
    return {
        "plain": nn.Parameter(torch.zeros(2)),
        "noted": noted,
        "size": torch.Size([2]),
        "device": torch.device("cpu"),
    }


def tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in nested containers, by the keys on the way to it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        if isinstance(item, torch.Tensor):
            yield f"{prefix}{key}", item
        else:
            yield from tensors(item, f"{prefix}{key}.")


def main() -> None:
    warnings.simplefilter("ignore")
    state = training()["model"]
    dtypes = {f"{name} {list(shape)}": of_dtype(name, *shape) for name in DTYPES for shape in ((), (2, 3), (0, 2))}
    read: dict[str, tuple[Any, Any]] = {
        "dtypes.pt": (dtypes, dtypes),
        "views.pt": (views(), views()),
        "state.pt": (state, state),
        "wrapped.pt": ({"state_dict": state, "epoch": 1}, state),
        "training.pt": (training(), training()),
        "parameters.pt": (parameters(), parameters()),
        "list.pt": ([torch.ones(2), (torch.zeros(1), 3)], [torch.ones(2), (torch.zeros(1), 3)]),
        "tensor.pt": (torch.arange(3), {"tensor": torch.arange(3)}),
    }
    expected: dict[str, Any] = {}
    for file, (value, named) in read.items():
        torch.save(value, FOLDER / file)
        expected[file] = [(n, str(t.dtype)[6:], list(t.shape), raw(t).hex()) for n, t in tensors(named)]
    for protocol in (3, 4, 5):
        torch.save(state, FOLDER / f"protocol{protocol}.pt", pickle_protocol=protocol)
        expected[f"protocol{protocol}.pt"] = expected["state.pt"]
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")

    torch.save(nn.Linear(2, 2), FOLDER / "refused_module.pt")
    torch.save({"x": torch.ones(1).expand(3)}, FOLDER / "refused_expanded.pt")
    torch.save({"x": torch.ones(2, dtype=torch.complex128)}, FOLDER / "refused_complex128.pt")
    torch.save({"x": torch.eye(2).to_sparse()}, FOLDER / "refused_sparse.pt")
    torch.save({"x": torch.ones(2, dtype=torch.complex64).conj()}, FOLDER / "refused_conjugate.pt")
    torch.save(state, FOLDER / "refused_legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), FOLDER / "refused_script.pt")


if __name__ == "__main__":
    main()
