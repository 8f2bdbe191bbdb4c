"""``mapcell.common.api``: decorators under the name that older networks import them by."""

from __future__ import annotations

from ..context import jit as jit
from ..context import jit_class as jit_class
from ..context import ms_function as ms_function
