"""Every format is fuzzed, from seeds that are worth beginning with."""

from __future__ import annotations

import pytest

from fuzz.targets import TARGETS, Target
from mapcell_formats.checkpoint import Checkpoint
from mapcell_formats.detect import ARCHIVES, READERS
from mapcell_formats.errors import FormatError

# What readers call themselves where a target has another name.
_TARGET_OF = {"mindspore": "ckpt", "zip": "npz"}


def test_every_reader_has_a_target() -> None:
    """A format that is read is one that is fuzzed."""
    formats = {reader.format for reader in (*READERS, *ARCHIVES)}
    assert {_TARGET_OF.get(name, name) for name in formats} <= TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    """No seed is a finding, and at least one of them is a sound file: the search begins behind the first check."""
    target = TARGETS[name]
    sound = 0
    for seed in target.seeds:
        target.run(seed)
        try:
            target.parse(seed)
        except FormatError:
            continue
        sound += 1
    assert sound


@pytest.mark.parametrize("error", [ValueError, KeyError, MemoryError, RecursionError, AssertionError])
def test_other_errors_are_findings(error: type[Exception]) -> None:
    """Whatever else comes out of a reader is not swallowed."""

    def parse(_: bytes) -> Checkpoint:
        raise error

    with pytest.raises(error):
        Target((), parse).run(b"")
