"""`no_init_parameters`: modules without the memory of their parameters, and with their buffers."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from mapcell.torch import no_init_parameters


class Tied(nn.Module):
    """One parameter under three names, two of them given to it before it had one."""

    def __init__(self) -> None:
        super().__init__()
        both = nn.Parameter(torch.zeros(2))
        self.first, self.second = both, both
        self.third = self.first


def test_parameters_own_nothing_and_buffers_are_whole() -> None:
    """Parameters are on the meta device as they were declared; buffers hold what the constructor computed."""
    with no_init_parameters():
        module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LSTM(4, 2), nn.MultiheadAttention(4, 2))
        module.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    real = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LSTM(4, 2), nn.MultiheadAttention(4, 2))
    assert all(p.is_meta for p in module.parameters())
    assert {n: p.shape for n, p in module.named_parameters() if n != "frozen"} == {
        n: p.shape for n, p in real.named_parameters()
    }
    assert [p.requires_grad for _, p in module.named_parameters()].count(False) == 1
    for name, buffer in real.named_buffers():
        assert torch.equal(module.get_buffer(name), buffer)


def test_ties_stay() -> None:
    """A parameter that several names mean is one parameter afterwards, too."""
    with no_init_parameters():
        module = Tied()
    assert module.first is module.second is module.third


def test_no_memory_is_touched() -> None:
    """A module of 1 GiB is built within a hundredth of that."""
    status = Path("/proc/self/status")
    nn.Linear(8, 8)

    def peak() -> int:
        return int(next(x for x in status.read_text().splitlines() if x.startswith("VmHWM")).split()[1]) << 10

    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    with no_init_parameters():
        module = nn.Sequential(*(nn.Linear(4096, 4096) for _ in range(16)))
    assert sum(p.nbytes for p in module.parameters()) > 1 << 30
    assert peak() - before < 10 << 20


def test_only_where_it_was_asked_for() -> None:
    """Neither another thread nor what comes after is concerned; lazy modules stay lazy."""
    made: list[nn.Module] = []
    with no_init_parameters(), no_init_parameters():
        thread = threading.Thread(target=lambda: made.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
        lazy = nn.LazyLinear(3)
    made.append(nn.Linear(2, 2))
    assert not any(p.is_meta for m in made for p in m.parameters())
    assert lazy(torch.zeros(1, 2)).shape == (1, 3)


def test_an_error_ends_it() -> None:
    """A constructor that raises leaves nothing behind."""
    with pytest.raises(TypeError), no_init_parameters():
        nn.Linear()  # type: ignore[call-arg]
    assert not nn.Linear(2, 2).weight.is_meta
