"""The context that networks set, and decorators that change nothing."""

import pytest

import mapcell as ms
from mapcell import context


def test_settings_are_kept():
    """What is set can be asked for; modes and devices are checked."""
    ms.set_context(mode=ms.GRAPH_MODE, save_graphs=True)
    assert (ms.get_context("mode"), context.get_context("save_graphs")) == (0, True)
    context.set_context(mode=context.PYNATIVE_MODE)
    ms.set_device("CPU", 1)
    assert (ms.get_context("mode"), ms.get_context("device_target"), ms.get_context("device_id")) == (1, "CPU", 1)
    ms.set_auto_parallel_context(parallel_mode="auto_parallel")
    ms.reset_auto_parallel_context()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: ms.set_context(mode=7), ValueError),
        (lambda: ms.get_context("nothing"), ValueError),
        (lambda: ms.set_device(3), TypeError),
        (lambda: ms.set_device("TPU"), ValueError),
        (lambda: ms.set_device("CPU", "0"), TypeError),
        (lambda: ms.JitConfig(jit_level="O9"), ValueError),
        (lambda: ms.JitConfig(exc_mode="x"), ValueError),
        (lambda: ms.JitConfig(jit_syntax_level="x"), ValueError),
    ],
)
def test_wrong_settings(call, error):
    """Each has its kind of error."""
    with pytest.raises(error):
        call()


def test_decorators():
    """lazy_inline and jit work with and without arguments."""

    def function(x):
        return x + 1

    for decorate in (ms.lazy_inline, ms.jit):
        assert decorate(function) is function
    assert ms.lazy_inline(attrs="a")(function) is function
    assert ms.jit(jit_level="O0")(function)(1) == 2
    assert ms.ms_function is ms.jit
    assert ms.jit_class(int) is int


def test_a_process_alone():
    """What is asked of a cluster has the answers of one process."""
    assert ms.get_auto_parallel_context("parallel_mode") == ms.ParallelMode.STAND_ALONE
    assert ms.get_auto_parallel_context("device_num") == 1
    with pytest.raises(ValueError, match="not known"):
        ms.get_auto_parallel_context("nothing")


def test_what_changes_nothing():
    """Decorators and wrappers for graphs give back what they are given."""
    for decorator in (ms.no_inline, ms.constexpr, ms.jit, ms.lazy_inline):
        assert decorator(len) is len
        assert decorator()(len) is len
    assert ms.constexpr(get_instance=False)(len) is len
    value = [1]
    assert ms.mutable(value) is value
    assert ms.recompute(max, 1, 2) == 2
