"""What nested dicts call their tensors."""

from __future__ import annotations

import pytest

from mapcell_formats.errors import FormatError
from mapcell_formats.torch_names import MAX_DEPTH, Pickle, named_tensors
from mapcell_formats.torch_pickle import DType, Storage, Tensor

T = Tensor(Storage("0", DType("float32"), 4), DType("float32"), 0, (1,), (1,), 0)
HERE = Pickle("/m/x", 64, 1000)

NAMES: dict[str, tuple[object, list[str]]] = {
    "a state dict": ({"a.w": T, "b": T}, ["a.w", "b"]),
    "one tensor under a wrapper's name": ({"model": T}, ["model"]),
    "a bare tensor": (T, ["tensor"]),
    "a list": ([T, (T, 5, T)], ["0", "1.0", "1.2"]),
    "wrapped": ({"state_dict": {"w": T}, "epoch": 3, "args": {"lr": [0.1]}}, ["w"]),
    "wrapped twice": ({"model": {"state_dict": {"w": T}, "step": 1}}, ["w"]),
    "wrapped in another word": ({"encoder": {"w": T}}, ["encoder.w"]),
    "two wrapped": ({"model": {"w": T}, "module": {"w": T}}, ["model.w", "module.w"]),
    "beside a tensor": ({"model": {"w": T}, "mean": T}, ["model.w", "mean"]),
    "with an optimizer": (
        {"state_dict": {"w": T}, "optimizer": {"state": {"0": {"step": T}}, "param_groups": [{"lr": 1}]}},
        ["state_dict.w", "optimizer.state.0.step"],
    ),
    "a wrapped list": ({"params": [T, T]}, ["0", "1"]),
    "an empty key": ({"": T, "a": {"": T}}, ["", "a."]),
}


@pytest.mark.parametrize("case", NAMES)
def test_names(case: str) -> None:
    """Names are the ways to the tensors, without a well-known key around all of them."""
    value, names = NAMES[case]
    assert list(named_tensors(value, HERE)) == names


def _nested(levels: int) -> object:
    value: object = T
    for _ in range(levels):
        value = [value]
    return value


def test_depth() -> None:
    """As many levels as allowed, and not one more, also when they are found from the middle first."""
    assert len(named_tensors(_nested(MAX_DEPTH), HERE)) == 1
    with pytest.raises(FormatError, match="nested too deeply"):
        named_tensors(_nested(MAX_DEPTH + 1), HERE)
    inner = _nested(40)
    late = inner
    for _ in range(40):
        late = [late]
    with pytest.raises(FormatError, match="nested too deeply") as caught:
        named_tensors([inner, late], HERE)
    assert (caught.value.path, caught.value.offset) == ("/m/x", 64)


def test_shared_containers() -> None:
    """A dict in two places gives its tensors two names each."""
    same = {"w": T}
    assert list(named_tensors({"now": same, "best": same}, HERE)) == ["now.w", "best.w"]


@pytest.mark.parametrize("nbytes", [1000, 32 << 20])
def test_no_more_tensors_than_bytes(nbytes: int) -> None:
    """Containers that multiply their tensors are refused before any name is made."""
    value: object = {"k" * 200: T}
    for _ in range(30):
        value = {"a" * 50: value, "b": value}
    with pytest.raises(FormatError, match="holds 1073741824 tensors"):
        named_tensors(value, Pickle("/m/x", 64, nbytes))


def test_no_longer_names_than_bytes() -> None:
    """Few tensors in many containers with long keys are refused too."""
    value: object = {"k" * 2000: T, "l": T}
    for _ in range(8):
        value = {"a" * 100: value, "b" * 100: value}
    with pytest.raises(FormatError, match="names longer than the pickle"):
        named_tensors(value, HERE)
