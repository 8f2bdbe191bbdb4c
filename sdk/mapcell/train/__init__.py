"""Checkpoints: loading, saving, and what belongs to them."""

from __future__ import annotations
