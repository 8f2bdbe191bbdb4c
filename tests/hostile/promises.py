"""What every reader guarantees about a checkpoint that it returned, whatever the bytes were."""

from __future__ import annotations

from mapcell_formats.checkpoint import Checkpoint


def check(checkpoint: Checkpoint) -> None:
    """AssertionError unless names are unique, and extents add up to their tensor and lie within their source."""
    names = [tensor.name for tensor in checkpoint.tensors]
    assert len(set(names)) == len(names)
    for tensor in checkpoint.tensors:
        assert sum(extent.nbytes for extent in tensor.extents) == tensor.nbytes
        for extent in tensor.extents:
            source = checkpoint.sources[extent.source]
            assert 0 <= extent.offset <= extent.offset + extent.nbytes <= source.size
