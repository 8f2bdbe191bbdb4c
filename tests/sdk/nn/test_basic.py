"""Layers that drop, reshape and select, where training or odd arguments matter."""

import numpy as np
import pytest

import mapcell as ms
from mapcell import Tensor, nn

ONES = Tensor(np.ones((32, 32), np.float32))


@pytest.mark.parametrize(("layer", "kept"), [(nn.Dropout(p=0.25), 0.75), (nn.Dropout(0.9), 0.9), (nn.Dropout(), 0.5)])
def test_dropout_drops_in_training_only(layer, kept):
    """The kept share is scaled up; for inference the input itself comes back."""
    ms.set_seed(1)
    assert layer.set_train(False)(ONES) is ONES
    out = layer.set_train()(ONES).asnumpy()
    assert abs((out > 0).mean() - kept) < 0.06
    np.testing.assert_allclose(out.max(), 1 / kept, rtol=1e-6)


@pytest.mark.parametrize("make", [nn.Dropout1d, nn.Dropout2d, nn.Dropout3d])
def test_channel_dropout_drops_whole_channels(make):
    """All positions of a channel share one fate."""
    ms.set_seed(1)
    shape = {nn.Dropout1d: (4, 8, 3), nn.Dropout2d: (4, 8, 3, 3), nn.Dropout3d: (4, 8, 2, 2, 2)}[make]
    out = make(0.5).set_train()(Tensor(np.ones(shape, np.float32))).asnumpy().reshape(32, -1)
    assert set(np.unique(out).tolist()) == {0.0, 2.0}
    assert (out == out[:, :1]).all()


def test_recurrent_dropout_acts_between_layers():
    """In training the second layer sees other inputs; for inference nothing is random."""
    layer, x = nn.LSTM(3, 4, 2, dropout=0.5), Tensor(np.ones((2, 1, 3), np.float32))
    layer.set_train(False)
    np.testing.assert_array_equal(layer(x)[0].asnumpy(), layer(x)[0].asnumpy())
    layer.set_train()
    assert any((layer(x)[0].asnumpy() != layer(x)[0].asnumpy()).any() for _ in range(5))


def test_range_and_roll():
    """Int32 of ints, Float32 otherwise; elements come around."""
    assert str(nn.Range(3)().dtype) == "Int32"
    assert nn.Range(0, 1, 0.5)().asnumpy().tolist() == [0, 0.5]
    assert nn.Roll(1, 0)(Tensor([1, 2, 3])).asnumpy().tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: nn.Flatten("1"), TypeError),
        (lambda: nn.Flatten(2)(ONES), ValueError),
        (lambda: nn.Unflatten(1, 4), TypeError),
        (lambda: nn.Unflatten(1, (5, 5))(ONES), ValueError),
        (lambda: nn.PixelShuffle(0), ValueError),
        (lambda: nn.PixelShuffle(2)(Tensor(np.ones((1, 3, 2, 2), np.float32))), ValueError),
        (lambda: nn.Dropout2d(1.5), ValueError),
        (lambda: nn.L1Regularizer(0), ValueError),
        (lambda: nn.GELU("tanh"), TypeError),
        (lambda: nn.PReLU(2, "a"), TypeError),
        (lambda: nn.RReLU(0.5, 0.1), ValueError),
        (lambda: nn.Softmax2d()(ONES), ValueError),
        (lambda: nn.ConstantPad1d((1, 2, 3), 0.0), ValueError),
        (lambda: nn.ConstantPad1d("1", 0.0), TypeError),
        (lambda: nn.ConstantPad1d(1, "0"), TypeError),
        (lambda: nn.ReflectionPad2d(-1), ValueError),
        (lambda: nn.Pad(((1, 1),))(ONES), ValueError),
        (lambda: nn.Pad(((1, 1, 1), (0, 0))), ValueError),
        (lambda: nn.LossBase("max"), ValueError),
        (lambda: nn.LossBase()(ONES, ONES), NotImplementedError),
        (lambda: nn.MaxPool2d(2)(ONES), ValueError),
        (lambda: nn.MaxPool2d(2)([1]), TypeError),
        (lambda: nn.AvgPool2d(2, divisor_override=0), ValueError),
        (lambda: nn.AvgPool2d(2, padding=1), ValueError),
        (lambda: nn.Conv2d(2, 3, 3)(np.ones((1, 2, 4, 4), np.float32)), TypeError),
        (lambda: nn.Conv2d(2, 3, 3)(Tensor(np.ones((1, 4, 4, 4), np.float32))), RuntimeError),
        (lambda: nn.LSTM(3, 4)(Tensor(np.ones((2, 1, 3), np.float32)), (ONES, ONES)), ValueError),
        (lambda: nn.GRUCell(3, 4)([1], ONES), TypeError),
        (lambda: nn.MultiheadAttention(4, 2)(ONES, ONES, ONES), ValueError),
        (lambda: nn.TransformerEncoderLayer(4, 2, activation=3), ValueError),
    ],
)
def test_errors(call, error):
    """Arguments and inputs that do not fit."""
    with pytest.raises(error):
        call()


def test_a_loss_of_ones_own():
    """`get_loss` weighs and reduces what a subclass computes."""

    class Absolute(nn.LossBase):
        def construct(self, logits, labels):
            return self.get_loss((logits - labels).abs(), 2.0)

    assert float(Absolute("sum")(Tensor([1.0, -3.0]), Tensor([0.0, 0.0]))) == 8
