"""How much a checkpoint may hold, whatever its format. A module of constants: whoever needs one imports no reader."""

from __future__ import annotations

# How much of a file detection sees: enough for every magic number in use, little enough to read always.
HEAD_BYTES = 64
# Longer names occur in no real checkpoint; NumPy, MindSpore and the manifest all index by name.
MAX_NAME_BYTES = 4096
# A checkpoint of the largest published models has under 100,000 tensors.
MAX_TENSORS = 1_000_000
# NumPy's own limit in version 1; version 2 allows 64.
MAX_RANK = 32
# A header of 100,000 tensors takes 10 to 15 MB; the safetensors library itself stops at 100 MB.
MAX_HEADER_BYTES = 100_000_000
