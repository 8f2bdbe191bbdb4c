"""Hooks around a Cell's call."""

import logging

import pytest

from mapcell import nn


class Double(nn.Cell):
    def construct(self, x, k=0):
        return x * 2 + k


def test_order_and_replacement():
    """Pre-hooks change the arguments, hooks the output, each seeing what the one before made of it."""
    cell, log = Double(), []
    cell.register_forward_pre_hook(lambda c, args: (args[0] + 10,))
    cell.register_forward_pre_hook(lambda c, args: log.append(("pre", args)))
    first = cell.register_forward_hook(lambda c, args, out: out + 1)
    cell.register_forward_hook(lambda c, args, out: log.append(("post", args, out)))
    assert cell(1) == 23
    assert log == [("pre", (11,)), ("post", (11,), 23)]
    first.remove()
    first.remove()
    assert cell(1) == 22


def test_a_single_value_becomes_the_only_argument():
    """Whatever is no tuple is wrapped in one; kwargs go on as they were."""
    cell = Double()
    cell.register_forward_pre_hook(lambda c, args: 5)
    assert cell(1, k=1) == 11


def test_prepend():
    """A hook may be put in front."""
    cell, log = Double(), []
    cell.register_forward_hook(lambda c, a, o: log.append("second"))
    cell.register_forward_hook(lambda c, a, o: log.append("first"), prepend=True)
    cell(1)
    assert log == ["first", "second"]


def test_with_kwargs():
    """Such hooks see and may replace keyword arguments."""
    cell, seen = Double(), []
    cell.register_forward_pre_hook(lambda c, a, k: (a, {"k": 3}), with_kwargs=True)
    cell.register_forward_pre_hook(lambda c, a, k: None, with_kwargs=True)
    cell.register_forward_hook(lambda c, a, k, o: seen.append(k), with_kwargs=True)
    assert cell(1) == 5
    assert seen == [{"k": 3}]
    cell.register_forward_pre_hook(lambda c, a, k: 3, with_kwargs=True)
    with pytest.raises(RuntimeError):
        cell(1)


def test_always_call(caplog):
    """Runs, with None, even when construct raises; its own failure is only logged."""

    class Bad(nn.Cell):
        def construct(self):
            raise KeyError("x")

    cell, seen = Bad(), []
    cell.register_forward_hook(lambda c, a, o: seen.append(("no", o)))
    cell.register_forward_hook(lambda c, a, o: seen.append(("yes", o)), always_call=True)
    cell.register_forward_hook(lambda c, a, o: 1 / 0, always_call=True)
    with caplog.at_level(logging.WARNING), pytest.raises(KeyError):
        cell()
    assert seen == [("yes", None)]
    assert "always_call" in caplog.text


def test_hooks_that_register_hooks():
    """One registered while hooks run takes part from the next call on."""
    cell, seen = Double(), []
    cell.register_forward_hook(
        lambda c, a, o: c.register_forward_hook(lambda c, a, o: seen.append(o)) and None if not seen else None
    )
    cell(1)
    assert seen == []
    cell(1)
    assert seen == [2]


@pytest.mark.parametrize(
    "register",
    ["register_forward_hook", "register_forward_pre_hook", "register_backward_hook", "register_backward_pre_hook"],
)
def test_only_callables(register):
    """Anything callable is accepted, anything else a TypeError; handles have different numbers."""
    cell = Double()
    with pytest.raises(TypeError):
        getattr(cell, register)(3)
    handles = [getattr(cell, register)(print) for _ in range(2)]
    assert handles[0].handle_id != handles[1].handle_id


def test_backward_hooks_do_not_change_the_forward_pass():
    """They wait for gradients."""
    cell = Double()
    cell.register_backward_hook(lambda *a: 1 / 0)
    cell.register_backward_pre_hook(lambda *a: 1 / 0)
    assert cell(1) == 2
