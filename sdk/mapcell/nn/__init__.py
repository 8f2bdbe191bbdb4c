"""Cells: the base class, its containers, and the layers."""

from __future__ import annotations

from .buffer import Buffer as Buffer
from .cell import Cell as Cell
from .containers import CellDict as CellDict
from .containers import CellList as CellList
from .containers import SequentialCell as SequentialCell
