"""Recurrent layers over time: x (time, batch, input) -> (time, batch, hidden) and the last state.

What depends on the input alone is one matrix product for all steps; the loop over time has one more for the state. A
weight is only read transposed. `lengths` (batch,) ends the sequences: outputs behind are zero, the state stays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .activation import sigmoid
from .half import in_float32
from .linear import same_dtype
from .promotion import Array, settled

State = tuple[Array, ...]
# weight_ih (gates * hidden, input), weight_hh (gates * hidden, hidden), and the bias of each.
Weights = tuple[Array, Array, Array | None, Array | None]
Step = Callable[[Array, State], State]


def _projected(x: Array, weight: Array, bias: Array | None) -> Array:
    """What every step takes from its input."""
    if x.ndim != 3 or x.shape[2] != weight.shape[1]:
        raise ValueError(f"a recurrent layer of input size {weight.shape[1]} cannot take an input of {x.shape}")
    same_dtype("a recurrent layer", x, weight)
    out = np.matmul(x.reshape(-1, x.shape[2]), weight.T).reshape(*x.shape[:2], -1)
    return out if bias is None else settled(out + bias)


def _run(step: Step, inputs: Array, state: State, lengths: Array | None) -> tuple[Array, State]:
    out = []
    for t in range(inputs.shape[0]):
        new = step(inputs[t], state)
        if lengths is not None:
            goes_on = (t < lengths)[:, None]
            out.append(np.where(goes_on, new[0], np.zeros((), inputs.dtype)))
            state = tuple(np.where(goes_on, a, b) for a, b in zip(new, state, strict=True))
        else:
            out.append(new[0])
            state = new
    return np.stack(out) if out else np.empty((*inputs.shape[:2], state[0].shape[1]), inputs.dtype), state


def lstm_step(gates: Array, c: Array) -> State:
    """The next (h, c) from the gates i, f, g, o before activation, (batch, 4 hidden)."""
    i, f, g, o = np.split(gates, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return settled(sigmoid(o) * np.tanh(c)), settled(c)


def gru_step(inputs: Array, hidden: Array, h: Array) -> State:
    """The next h from the parts r, z, n that the input and the state give, each (batch, 3 hidden)."""
    ir, iz, in_ = np.split(inputs, 3, axis=1)
    hr, hz, hn = np.split(hidden, 3, axis=1)
    update = sigmoid(iz + hz)
    new = np.tanh(in_ + sigmoid(ir + hr) * hn)
    return (settled(new + update * (h - new)),)


def _plus(a: Array, bias: Array | None) -> Array:
    return a if bias is None else settled(a + bias)


@in_float32
def lstm(x: Array, state: State, weights: Weights, lengths: Array | None = None) -> tuple[Array, State]:
    """An LSTM; the state is (h, c), each (batch, hidden). Returns the outputs and the last state."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    inputs = _plus(_projected(x, weight_ih, bias_ih), bias_hh)

    def step(given: Array, state: State) -> State:
        return lstm_step(given + np.matmul(state[0], weight_hh.T), state[1])

    return _run(step, inputs, state, lengths)


@in_float32
def gru(x: Array, state: State, weights: Weights, lengths: Array | None = None) -> tuple[Array, State]:
    """A GRU; the state is (h,), h (batch, hidden). Returns the outputs and the last state."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    inputs = _projected(x, weight_ih, bias_ih)

    def step(given: Array, state: State) -> State:
        return gru_step(given, _plus(np.matmul(state[0], weight_hh.T), bias_hh), state[0])

    return _run(step, inputs, state, lengths)


@in_float32
def rnn(
    x: Array, state: State, weights: Weights, lengths: Array | None = None, nonlinearity: str = "tanh"
) -> tuple[Array, State]:
    """A plain recurrent layer, "tanh" or "relu"; the state is (h,). Returns the outputs and the last state."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    inputs = _plus(_projected(x, weight_ih, bias_ih), bias_hh)

    def step(given: Array, state: State) -> State:
        total = settled(given + np.matmul(state[0], weight_hh.T))
        return (np.tanh(total) if nonlinearity == "tanh" else np.maximum(total, 0),)

    return _run(step, inputs, state, lengths)


def reversed_in_time(x: Array, lengths: Array | None) -> Array:
    """`x` (time, ...) backwards; with `lengths` only the first so many steps of each sequence change places."""
    if lengths is None:
        return x[::-1]
    t = np.arange(x.shape[0])[:, None]
    source = np.where(t < lengths, lengths - 1 - t, t)
    return np.take_along_axis(x, source[..., None], axis=0)
