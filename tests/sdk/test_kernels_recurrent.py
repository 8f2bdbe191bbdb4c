"""Recurrent layers against one step after another in float64."""

import numpy as np
import pytest

from mapcell.kernels import recurrent

RANDOM = np.random.RandomState(0)
TIME, BATCH, INPUT, HIDDEN = 5, 3, 4, 6


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def weights(gates, with_bias=True):
    """weight_ih, weight_hh, bias_ih and bias_hh, float32."""
    rows = gates * HIDDEN
    shapes = ((rows, INPUT), (rows, HIDDEN), (rows,), (rows,))
    made = [(RANDOM.standard_normal(s) / 2).astype(np.float32) for s in shapes]
    return tuple(made if with_bias else [*made[:2], None, None])


def floats(*shape):
    """Standard normal float32 numbers."""
    return RANDOM.standard_normal(shape).astype(np.float32)


def lstm_step(x, state, w):
    """Gates in the order i, f, g, o."""
    h, c = state
    i, f, g, o = np.split(x @ w[0].T + w[2] + h @ w[1].T + w[3], 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(x, state, w):
    """Gates in the order r, z, n; the reset gate acts on the hidden part with its bias."""
    (h,) = state
    inputs, hidden = np.split(x @ w[0].T + w[2], 3, axis=1), np.split(h @ w[1].T + w[3], 3, axis=1)
    r, z = sigmoid(inputs[0] + hidden[0]), sigmoid(inputs[1] + hidden[1])
    return ((1 - z) * np.tanh(inputs[2] + r * hidden[2]) + z * h,)


def rnn_step(x, state, w):
    """tanh of both parts."""
    return (np.tanh(x @ w[0].T + w[2] + state[0] @ w[1].T + w[3]),)


KINDS = {
    "lstm": (recurrent.lstm, lstm_step, 4, 2),
    "gru": (recurrent.gru, gru_step, 3, 1),
    "rnn": (recurrent.rnn, rnn_step, 1, 1),
}


def run(step, x, state, w, lengths):
    """The steps in float64; behind a sequence's end the output is 0 and the state stays."""
    w = [np.zeros(1) if a is None else a.astype(np.float64) for a in w]
    state, out = tuple(s.astype(np.float64) for s in state), []
    for t, now in enumerate(x.astype(np.float64)):
        new = step(now, state, w)
        on = np.full((BATCH, 1), True) if lengths is None else (t < lengths)[:, None]
        out.append(np.where(on, new[0], 0))
        state = tuple(np.where(on, a, b) for a, b in zip(new, state, strict=True))
    return np.stack(out), state


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("lengths", [None, np.array([5, 1, 3])], ids=["whole", "lengths"])
def test_sequences(kind, with_bias, lengths):
    """Outputs and last state, with and without biases and lengths."""
    kernel, step, gates, states = KINDS[kind]
    x, w, state = (
        floats(TIME, BATCH, INPUT),
        weights(gates, with_bias),
        tuple(floats(BATCH, HIDDEN) for _ in range(states)),
    )
    out, last = kernel(x, state, w, lengths)
    want, want_last = run(step, x, state, w, lengths)
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-5)
    for got, expected in zip(last, want_last, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_relu_instead_of_tanh():
    """The plain layer's other nonlinearity is never negative."""
    out, _ = recurrent.rnn(floats(TIME, BATCH, INPUT), (floats(BATCH, HIDDEN),), weights(1), None, "relu")
    assert out.min() == 0
    assert out.max() > 1


def test_reversing_keeps_what_lies_behind_the_end():
    """With lengths only the first steps of each sequence change places; reversing twice gives the input."""
    x = np.arange(4, dtype=np.float32)[:, None, None] + np.zeros((4, 2, 1), np.float32)
    lengths = np.array([4, 2])
    turned = recurrent.reversed_in_time(x, lengths)
    assert turned[:, :, 0].T.tolist() == [[3, 2, 1, 0], [1, 0, 2, 3]]
    np.testing.assert_array_equal(recurrent.reversed_in_time(turned, lengths), x)
    np.testing.assert_array_equal(recurrent.reversed_in_time(x, None), x[::-1])


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (np.ones((TIME, INPUT), np.float32), ValueError),
        (np.ones((TIME, BATCH, INPUT + 1), np.float32), ValueError),
        (np.ones((TIME, BATCH, INPUT)), TypeError),
    ],
)
def test_misfits(x, error):
    """Another rank or width is a ValueError, another dtype a TypeError."""
    with pytest.raises(error):
        recurrent.gru(x, (floats(BATCH, HIDDEN),), weights(3))
