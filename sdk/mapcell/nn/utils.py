"""Helpers for building networks.

Source: https://www.mindspore.cn/docs/en/master/api_python/nn/mindspore.nn.utils.no_init_parameters.html
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..common.parameter import deferring_initialisation


@contextmanager
def no_init_parameters() -> Iterator[None]:
    """Parameters made from initializers inside allocate nothing until their elements are first needed.

    Loading or binding a checkpoint before that spares their initialisation altogether. Parameters made from Tensors or
    arrays are not affected. Works as a context manager and as a decorator, nests, and concerns only the thread (or
    asyncio task) that enters it.
    """
    token = deferring_initialisation.set(True)
    try:
        yield
    finally:
        deferring_initialisation.reset(token)
