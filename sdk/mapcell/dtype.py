"""``mapcell.dtype``: the module `mapcell.common.dtype` under the name that networks import it by."""

from __future__ import annotations

import sys

from .common import dtype

# One module under two names: a dtype exists once.
sys.modules[__name__] = dtype
