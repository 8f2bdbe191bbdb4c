"""What stands in for `safetensors.safe_open`: the original's answers, out of lent weights."""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from mapcell.process_backend import attach_in_process
from mapcell.running_safetensors import SharedFile, replacement
from mapcell_formats.errors import MapcellError

ORIGINAL = safetensors.safe_open
TENSORS = {
    "b.weight": torch.arange(12.0).reshape(3, 4),
    "a.half": torch.ones(2, 2, dtype=torch.float16),
    "scalar": torch.tensor(3),
    "empty": torch.zeros(0, 4),
}


class Lender:
    """Lends every file, from this process's own map, and notes which."""

    def __init__(self) -> None:
        self.cast: ContextVar[str | None] = ContextVar("cast", default=None)
        self.lent: list[str] = []

    def weights(self, filename, cast=None):
        self.lent.append(str(filename))
        try:
            return attach_in_process(str(filename), dtype=cast, keys=None, prefix="", mode="c")
        except MapcellError:
            return None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of `TENSORS`."""
    safetensors.torch.save_file(TENSORS, tmp_path / "m.safetensors", metadata={"format": "pt"})
    return tmp_path / "m.safetensors"


@pytest.fixture
def lender() -> Lender:
    """A lender that lent nothing yet."""
    return Lender()


ASKED = {
    "keys": lambda f: f.keys(),
    "offset_keys": lambda f: f.offset_keys(),
    "metadata": lambda f: f.metadata(),
    "get_tensor": lambda f: f.get_tensor("b.weight"),
    "get_tensor of one element": lambda f: f.get_tensor("scalar"),
    "get_tensor of none": lambda f: f.get_tensor("empty"),
    "get_tensors": lambda f: list(f.get_tensors().values()),
    "whole slice": lambda f: f.get_slice("b.weight")[...],
    "rows": lambda f: f.get_slice("b.weight")[1:3],
    "columns": lambda f: f.get_slice("b.weight")[:, 1:2],
    "one row": lambda f: f.get_slice("b.weight")[1],
    "slice of one element": lambda f: f.get_slice("scalar")[...],
    "shape": lambda f: f.get_slice("b.weight").get_shape(),
    "dtype": lambda f: f.get_slice("a.half").get_dtype(),
    "unknown tensor": lambda f: f.get_tensor("nope"),
    "unknown slice": lambda f: f.get_slice("nope"),
    "after leaving": lambda f: (f.__exit__(None, None, None), f.keys()),
    "slice after leaving": lambda f: (s := f.get_slice("b.weight"), f.__exit__(None, None, None), s[...])[2],
}


def answer(ask, file):
    """What comes of asking, errors included, in a form that can be compared."""
    try:
        got = ask(file)
    except safetensors.SafetensorError as exc:
        return type(exc), str(exc)
    return plain(got)


def plain(got):
    """Values with their types, dtypes and shapes."""
    if isinstance(got, (torch.Tensor, np.ndarray)):
        return type(got), got.dtype, tuple(got.shape), got.tolist()
    return [plain(item) for item in got] if isinstance(got, list) else got


@pytest.mark.parametrize("framework", ["pt", "np"])
@pytest.mark.parametrize("asked", ASKED)
def test_answers_are_the_originals(path: Path, lender: Lender, asked: str, framework: str) -> None:
    """Whatever is asked, values, types and errors are those of safetensors."""
    with replacement(ORIGINAL, lender)(path, framework=framework) as mine:
        assert isinstance(mine, SharedFile)
        with ORIGINAL(path, framework=framework) as theirs:
            assert answer(ASKED[asked], mine) == answer(ASKED[asked], theirs)


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_what_was_given_may_be_written_to(path: Path, lender: Lender, framework: str) -> None:
    """Tensors are private to this process; a second NumPy array of one name is another one, as the original's is."""
    before = path.read_bytes()
    with replacement(ORIGINAL, lender)(str(path), framework) as file:
        first = file.get_tensor("b.weight")
        first[:] = 7
        second = file.get_tensor("b.weight")
        part = file.get_slice("b.weight")[1:]
        if framework == "np":
            second[:] = 8
            part[:] = 9
            assert (first == 7).all()
        else:
            assert second.data_ptr() == first.data_ptr()
    assert path.read_bytes() == before


NOT_OURS = {
    "device": ((), {"device": "meta"}),
    "third argument": (("cuda:0",), {}),
    "framework": ((), {"framework": "flax"}),
    "backend": ((), {"backend": "pread"}),
    "unknown argument": ((), {"prefetch": True}),
    "too many arguments": (("cpu", "mmap", 3), {}),
}


@pytest.mark.parametrize("case", NOT_OURS)
def test_everything_else_goes_to_the_original(path: Path, lender: Lender, case: str) -> None:
    """Other devices, frameworks and arguments are passed on as they came, and nothing is asked of the daemon."""
    more, options = NOT_OURS[case]
    calls = []

    def original(*args, **kwargs):
        calls.append((args, kwargs))
        return "theirs"

    framework = () if "framework" in options else ("pt",)
    assert replacement(original, lender)(path, *framework, *more, **options) == "theirs"
    assert calls == [((path, *framework, *more), options)]
    assert lender.lent == []


@pytest.mark.parametrize("named", ["missing", "folder", "number", "torch"])
def test_what_is_no_such_file(path: Path, lender: Lender, named: str) -> None:
    """What the original refuses is refused by the original."""
    torch.save({}, path.with_suffix(".pt"))
    given = {"missing": path.with_name("x"), "folder": path.parent, "number": 3, "torch": path.with_suffix(".pt")}[
        named
    ]
    errors = []
    for kind in (ORIGINAL, replacement(ORIGINAL, lender)):
        with pytest.raises((OSError, TypeError, safetensors.SafetensorError)) as caught:
            kind(given[named], "pt")
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


def test_dtypes_that_numpy_lacks(tmp_path: Path, lender: Lender) -> None:
    """A file with bfloat16 is NumPy's own affair: the original raises what it always raises."""
    safetensors.torch.save_file({"x": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "b.safetensors")
    open_file = replacement(ORIGINAL, lender)
    assert type(open_file(tmp_path / "b.safetensors", "np")) is ORIGINAL
    assert open_file(tmp_path / "b.safetensors", "pt").get_tensor("x").dtype == torch.bfloat16


def test_a_cast_on_the_way(path: Path, lender: Lender) -> None:
    """What is set for a call is what tensors are cast to."""
    lender.cast.set("F32")
    file = replacement(ORIGINAL, lender)(path, "pt")
    assert file.get_slice("a.half").get_dtype() == "F32"
    assert file.get_tensor("a.half").dtype == torch.float32
    assert file.get_tensor("scalar").dtype == torch.int64


def test_it_looks_like_the_original(path: Path, lender: Lender) -> None:
    """isinstance knows files of both kinds."""
    open_file = replacement(ORIGINAL, lender)
    assert isinstance(open_file(path, "pt"), open_file)
    assert isinstance(ORIGINAL(path, "pt"), open_file)
    assert not isinstance(path, open_file)
    assert open_file.__name__ == "safe_open"
    assert open_file.__doc__ == ORIGINAL.__doc__
