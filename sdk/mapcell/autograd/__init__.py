"""Gradients by a small eager tape: enough for examples, checks and small networks. Nothing else depends on it."""

from __future__ import annotations

from .gradients import GradOperation as GradOperation
from .gradients import get_grad as get_grad
from .gradients import grad as grad
from .gradients import value_and_grad as value_and_grad
