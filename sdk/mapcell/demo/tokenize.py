"""Sentences to token ids, with the tokenizer that belongs to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapcell_formats.errors import MapcellError

# What all-MiniLM-L6-v2 was trained with (max_seq_length of its sentence_bert_config.json).
MAX_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Tokens:
    """A batch of sentences: ids and mask, int64 of shape (sentences, longest), padded with zeros."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, first: int, last: int) -> Tokens:
        """The sentences from `first` to before `last`, without columns that all of them pad."""
        mask = self.mask[first:last]
        longest = int(mask.sum(axis=1).max(initial=0))
        return Tokens(self.ids[first:last, :longest], mask[:, :longest])


def padded(rows: Sequence[Sequence[int]]) -> Tokens:
    """Token ids of different lengths as one batch."""
    longest = max(map(len, rows), default=0)
    ids = np.zeros((len(rows), longest), np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return Tokens(ids, mask)


def tokenized(sentences: Sequence[str], tokenizer: Path) -> Tokens:
    """The tokens of `sentences`, each cut at 256. MapcellError when the tokenizers library is not installed."""
    encoder = _opened(tokenizer)
    encoder.no_padding()
    encoder.enable_truncation(MAX_TOKENS)
    return padded([encoding.ids for encoding in encoder.encode_batch(list(sentences))])


def _opened(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MapcellError("the demo needs a tokenizer; run: pip install 'mapcell[demo]'") from None
    return Tokenizer.from_file(str(path))
