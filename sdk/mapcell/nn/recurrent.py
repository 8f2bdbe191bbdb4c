"""Recurrent layers and cells.

Sequences are (time, batch, input), or (batch, time, input) with `batch_first`. A state is (layers * directions, batch,
hidden). Weights are stored as checkpoints have them: all weight_ih, all weight_hh, all bias_ih, all bias_hh, and in
each group layer after layer, the reverse direction behind the forward one.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.nn.html
"""

from __future__ import annotations

from math import sqrt
from typing import Any, ClassVar

import numpy as np

from ..common.dtype import Type, float32
from ..common.initialised import initialised
from ..common.initializer import Uniform
from ..common.parameter import ParameterTuple
from ..common.tensor import Tensor, unwrap, wrap
from ..kernels import recurrent as kernel
from ..kernels.promotion import Array
from ..kernels.recurrent import State, Weights
from .basic import Dropout
from .cell import Cell
from .cell_precision import in_running_precision
from .checks import boolean, option, positive


class _Direction(Cell):
    """One layer in one direction: from a sequence and a state to outputs and the last state."""

    def construct(self, x: Array, state: State, weights: Weights, lengths: Array | None) -> tuple[Array, State]:
        raise NotImplementedError(f"{type(self).__name__} has to say what it computes")


class _DynamicLSTMCPUGPU(_Direction):
    def construct(self, x: Array, state: State, weights: Weights, lengths: Array | None) -> tuple[Array, State]:
        return kernel.lstm(x, state, weights, lengths)


class _DynamicGRUCPUGPU(_Direction):
    def construct(self, x: Array, state: State, weights: Weights, lengths: Array | None) -> tuple[Array, State]:
        return kernel.gru(x, state, weights, lengths)


class _DynamicRNNTanh(_Direction):
    def construct(self, x: Array, state: State, weights: Weights, lengths: Array | None) -> tuple[Array, State]:
        return kernel.rnn(x, state, weights, lengths, "tanh")


class _DynamicRNNRelu(_Direction):
    def construct(self, x: Array, state: State, weights: Weights, lengths: Array | None) -> tuple[Array, State]:
        return kernel.rnn(x, state, weights, lengths, "relu")


class _Recurrent(Cell):
    """Layers and directions around a `_Direction`.

    Args:
        dropout: in training, the share of each layer's outputs but the last's that is zeroed.
        bidirectional: outputs of both directions side by side, (..., 2 * hidden).

    Raises:
        TypeError, ValueError: arguments of another type or out of range; at the call inputs and states that do not fit.
    """

    gates: ClassVar[int]

    def __init__(
        self,
        rnn: _Direction,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        has_bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Type = float32,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        self.input_size = positive(input_size, "input_size", who)
        self.hidden_size = positive(hidden_size, "hidden_size", who)
        self.num_layers = positive(num_layers, "num_layers", who)
        self.has_bias = boolean(has_bias, "has_bias", who)
        self.batch_first = boolean(batch_first, "batch_first", who)
        self.bidirectional = boolean(bidirectional, "bidirectional", who)
        if not isinstance(dropout, float):
            raise TypeError(f"{who}: 'dropout' has to be a float, not {type(dropout).__name__}")
        if not 0 <= dropout < 1:
            raise ValueError(f"{who}: 'dropout' has to be within [0, 1), but it is {dropout}")
        self.rnn = rnn
        self.dropout_op = Dropout(p=dropout)
        self._make_parameters(dtype)

    def _make_parameters(self, dtype: Type) -> None:
        directions, rows, h = 1 + self.bidirectional, self.gates * self.hidden_size, self.hidden_size
        suffixes = [f"_l{i}{back}" for i in range(self.num_layers) for back in ("", "_reverse")[:directions]]
        widths = [self.input_size if i < directions else h * directions for i in range(len(suffixes))]
        bound = Uniform(1 / sqrt(h))

        def made(name: str, shapes: list[list[int]]) -> ParameterTuple:
            pairs = zip(suffixes, shapes, strict=True)
            return ParameterTuple(initialised(bound, s, dtype, name=name + suffix) for suffix, s in pairs)

        self.w_ih_list = made("weight_ih", [[rows, width] for width in widths])
        self.w_hh_list = made("weight_hh", [[rows, h] for _ in suffixes])
        self.b_ih_list = made("bias_ih", [[rows] for _ in suffixes]) if self.has_bias else None
        self.b_hh_list = made("bias_hh", [[rows] for _ in suffixes]) if self.has_bias else None

    def _weights(self, index: int) -> Weights:
        lists = (self.w_ih_list, self.w_hh_list, self.b_ih_list, self.b_hh_list)
        found: Any = tuple(None if p is None else unwrap(in_running_precision(p[index])) for p in lists)
        return found  # type: ignore[no-any-return]

    def _forward(self, x: Tensor, states: State, seq_length: Tensor | None) -> tuple[Tensor, list[Array]]:
        sequence = unwrap(x)
        if sequence.ndim != 3:
            raise ValueError(f"{type(self).__name__}: the input has to have 3 axes, but its shape is {x.shape}")
        if self.batch_first:
            sequence = sequence.swapaxes(0, 1)
        lengths = None if seq_length is None else unwrap(seq_length)
        last: list[State] = []
        for layer in range(self.num_layers):
            if layer:
                sequence = unwrap(self.dropout_op(wrap(sequence)))
            sequence = self._layer(layer, sequence, states, lengths, last)
        out = sequence.swapaxes(0, 1) if self.batch_first else sequence
        return wrap(out), [np.stack(parts) for parts in zip(*last, strict=True)]

    def _layer(self, layer: int, x: Array, states: State, lengths: Array | None, last: list[State]) -> Array:
        outputs = []
        for direction in range(1 + self.bidirectional):
            index = layer * (1 + self.bidirectional) + direction
            given = kernel.reversed_in_time(x, lengths) if direction else x
            out, state = self.rnn(given, tuple(s[index] for s in states), self._weights(index), lengths)
            outputs.append(kernel.reversed_in_time(out, lengths) if direction else out)
            last.append(state)
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-1)

    def _state(self, given: Any, x: Tensor) -> Array:
        batch = x.shape[0 if self.batch_first else 1] if x.ndim == 3 else 0
        shape = (self.num_layers * (1 + self.bidirectional), batch, self.hidden_size)
        if given is None:
            return np.zeros(shape, x.dtype.numpy)
        if not isinstance(given, Tensor):
            raise TypeError(f"{type(self).__name__}: a state has to be a Tensor, not {type(given).__name__}")
        if given.shape != shape:
            raise ValueError(f"{type(self).__name__}: the state has to have the shape {shape}, not {given.shape}")
        return unwrap(given)


class LSTM(_Recurrent):
    """x, (h, c), seq_length -> outputs, (h, c). Gates in the order i, f, g, o. Arguments and errors: `_Recurrent`."""

    gates = 4

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(_DynamicLSTMCPUGPU(), *args, **kwargs)

    def construct(
        self, x: Tensor, hx: tuple[Tensor, Tensor] | None = None, seq_length: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if hx is not None and not isinstance(hx, tuple):
            raise TypeError(f"LSTM: 'hx' has to be a tuple of two Tensors, not {type(hx).__name__}")
        states = tuple(self._state(s, x) for s in hx or (None, None))
        out, (h, c) = self._forward(x, states, seq_length)
        return out, (wrap(h), wrap(c))


class _OneState(_Recurrent):
    def construct(self, x: Tensor, hx: Tensor | None = None, seq_length: Tensor | None = None) -> tuple[Tensor, Tensor]:
        out, (h,) = self._forward(x, (self._state(hx, x),), seq_length)
        return out, wrap(h)


class GRU(_OneState):
    """x, h, seq_length -> outputs, h. Gates in the order r, z, n. Arguments and errors: `_Recurrent`."""

    gates = 3

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(_DynamicGRUCPUGPU(), *args, **kwargs)


class RNN(_OneState):
    """x, h, seq_length -> outputs, h. `nonlinearity` is "tanh" or "relu". Arguments and errors: `_Recurrent`."""

    gates = 1

    def __init__(self, *args: Any, nonlinearity: str = "tanh", **kwargs: Any) -> None:
        option(nonlinearity, "nonlinearity", "RNN", ("tanh", "relu"))
        super().__init__(_DynamicRNNTanh() if nonlinearity == "tanh" else _DynamicRNNRelu(), *args, **kwargs)


class _RecurrentCell(Cell):
    """One step: x (batch, input) and a state (batch, hidden) -> the next state. ValueError when they do not fit."""

    gates: ClassVar[int]

    def __init__(self, input_size: int, hidden_size: int, has_bias: bool = True, dtype: Type = float32) -> None:
        super().__init__()
        who = type(self).__name__
        self.input_size = positive(input_size, "input_size", who)
        self.hidden_size = positive(hidden_size, "hidden_size", who)
        self.has_bias = boolean(has_bias, "has_bias", who)
        rows, bound = self.gates * hidden_size, Uniform(1 / sqrt(hidden_size))
        self.weight_ih = initialised(bound, [rows, input_size], dtype, name="weight_ih")
        self.weight_hh = initialised(bound, [rows, hidden_size], dtype, name="weight_hh")
        self.bias_ih = self.bias_hh = None
        if has_bias:
            self.bias_ih = initialised(bound, [rows], dtype, name="bias_ih")
            self.bias_hh = initialised(bound, [rows], dtype, name="bias_hh")

    def _weights(self) -> Weights:
        biases = (None if b is None else unwrap(b) for b in (self.bias_ih, self.bias_hh))
        return unwrap(self.weight_ih), unwrap(self.weight_hh), *biases  # type: ignore[return-value]

    def _checked(self, x: Any, state: Any) -> tuple[Array, Array]:
        who = type(self).__name__
        for name, value in (("x", x), ("hx", state)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{who}: {name!r} has to be a Tensor, not {type(value).__name__}")
        if x.ndim != 2 or state.shape != (x.shape[0], self.hidden_size):
            raise ValueError(f"{who}: an input of {x.shape} does not fit a state of {state.shape}")
        return unwrap(x)[None], unwrap(state)


class LSTMCell(_RecurrentCell):
    """x, (h, c) -> (h, c). See `_RecurrentCell`."""

    gates = 4

    def construct(self, x: Tensor, hx: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if not isinstance(hx, tuple):
            raise TypeError(f"LSTMCell: 'hx' has to be a tuple of two Tensors, not {type(hx).__name__}")
        sequence, h = self._checked(x, hx[0])
        _, c = self._checked(x, hx[1])
        _, (next_h, next_c) = kernel.lstm(sequence, (h, c), self._weights())
        return wrap(next_h), wrap(next_c)


class GRUCell(_RecurrentCell):
    """x, h -> h. See `_RecurrentCell`."""

    gates = 3

    def construct(self, x: Tensor, hx: Tensor) -> Tensor:
        sequence, h = self._checked(x, hx)
        return wrap(kernel.gru(sequence, (h,), self._weights())[1][0])


class RNNCell(_RecurrentCell):
    """x, h -> h. `nonlinearity` is "tanh" or "relu". See `_RecurrentCell`."""

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        has_bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: Type = float32,
    ) -> None:
        self._nonlinearity = option(nonlinearity, "nonlinearity", "RNNCell", ("tanh", "relu"))
        super().__init__(input_size, hidden_size, has_bias, dtype)

    def construct(self, x: Tensor, hx: Tensor) -> Tensor:
        sequence, h = self._checked(x, hx)
        return wrap(kernel.rnn(sequence, (h,), self._weights(), None, self._nonlinearity)[1][0])
