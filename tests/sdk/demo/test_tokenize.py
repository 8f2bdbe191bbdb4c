"""Token ids: the tokenizer's against those of transformers, and batches cut out of them."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapcell.demo.assets import find_model, sentences
from mapcell.demo.tokenize import MAX_TOKENS, padded, tokenized
from mapcell_formats.errors import MapcellError

EXPECTED = Path(__file__).parents[2] / "data/minilm/expected.npz"


def test_same_as_transformers() -> None:
    """Ids and masks of the demo's sentences are exactly those that transformers made."""
    tokens = tokenized(sentences(), find_model().tokenizer)
    with np.load(EXPECTED) as expected:
        assert np.array_equal(tokens.ids, expected["input_ids"])
        assert np.array_equal(tokens.mask, expected["attention_mask"])


def test_long_and_empty_lines() -> None:
    """A long line is cut at the model's limit, an empty one has its two marks."""
    tokens = tokenized(["word " * 1000, ""], find_model().tokenizer)
    assert tokens.ids.shape == (2, MAX_TOKENS)
    assert tokens.mask.sum(1).tolist() == [MAX_TOKENS, 2]


def test_padded() -> None:
    """Rows are padded on the right with zeros."""
    tokens = padded([[1, 2, 3], [4]])
    assert tokens.ids.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert tokens.mask.tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(("first", "last", "shape"), [(0, 2, (2, 3)), (1, 3, (2, 2)), (2, 9, (1, 2)), (3, 3, (0, 0))])
def test_batch(first: int, last: int, shape: tuple[int, int]) -> None:
    """A batch is as wide as its longest row."""
    batch = padded([[1, 2, 3], [4], [5, 6]]).batch(first, last)
    assert batch.ids.shape == batch.mask.shape == shape
    assert len(batch) == shape[0]


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without tokenizers the error says what to install."""
    ordinary = builtins.__import__

    def refusing(name: str, *args: Any) -> Any:
        if name == "tokenizers":
            raise ImportError(name)
        return ordinary(name, *args)

    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(MapcellError, match=r"pip install 'mapcell\[demo\]'"):
        tokenized(["a"], tmp_path)
