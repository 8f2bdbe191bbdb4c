"""From one format to the other, and checkpoints in several files."""

import pytest

import mapcell as ms
from mapcell import Parameter, Tensor, nn


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """In an empty folder, without a daemon."""
    monkeypatch.setenv("MAPCELL_DAEMON", "never")
    monkeypatch.chdir(tmp_path)


def test_there_and_back():
    """Names may be mapped; strings stay behind; folders are converted whole."""
    ms.save_checkpoint({"a": Tensor([1.0]), "b": Tensor([2])}, "x", append_dict={"who": "me"})
    ms.ckpt_to_safetensors("x.ckpt", name_map={"a": "z"})
    assert {k: v.tolist() for k, v in ms.load_checkpoint("x.safetensors").items()} == {"b": [2], "z": [1]}
    ms.safetensors_to_ckpt(".", ".", file_name_regex="x")
    assert {k: v.tolist() for k, v in ms.load_checkpoint("x.ckpt").items()} == {"b": [2], "z": [1]}


def test_nothing_to_convert(tmp_path):
    """A folder without such files is a ValueError."""
    for function in (ms.ckpt_to_safetensors, ms.safetensors_to_ckpt):
        with pytest.raises(ValueError):
            function(tmp_path)
    with pytest.raises(ValueError):
        ms.ckpt_to_safetensors("missing.ckpt")


def test_segmented_checkpoints():
    """All .ckpt files of a folder, by name, later over earlier."""
    ms.save_checkpoint({"a": Tensor([1.0]), "b": Tensor([1.0])}, "1")
    ms.save_checkpoint({"b": Tensor([2.0])}, "2")
    net = nn.Cell()
    net.b = Parameter(Tensor([0.0]))
    merged = ms.load_segmented_checkpoints(".", net=net)
    assert {k: v.tolist() for k, v in merged.items()} == {"a": [1], "b": [2]}
    assert net.b.tolist() == [2]
    with pytest.raises(ValueError):
        ms.load_segmented_checkpoints("missing")
