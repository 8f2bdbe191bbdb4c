"""What normalising layers keep when they are trained, and layers that MindSpore's CPU cannot run."""

import numpy as np
import pytest

from mapcell import Tensor, nn


def floats(*shape):
    """Normal float32 numbers around 2."""
    return Tensor((np.random.RandomState(0).standard_normal(shape) + 2).astype(np.float32))


@pytest.mark.parametrize(
    ("use", "training", "own"), [(None, False, False), (None, True, True), (True, False, True), (False, True, False)]
)
def test_batch_norm_chooses_its_statistics(use, training, own):
    """The input's own in training or when told so, and then the kept ones move."""
    layer = nn.BatchNorm1d(3, momentum=0.75, use_batch_statistics=use).set_train(training)
    x = floats(4, 3)
    out = layer(x).asnumpy()
    kept = layer.moving_mean.asnumpy()
    if own:
        np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(kept, 0.25 * x.asnumpy().mean(0), rtol=1e-5)
        np.testing.assert_allclose(layer.moving_variance.asnumpy(), 0.75 + 0.25 * x.asnumpy().var(0, ddof=1), rtol=1e-5)
    else:
        np.testing.assert_allclose(out, x.asnumpy() / np.sqrt(1 + 1e-5), rtol=1e-5)
        assert kept.tolist() == [0, 0, 0]


def test_training_gives_shared_statistics_private_storage():
    """Read-only moving averages are replaced, not written to."""
    layer = nn.BatchNorm1d(2).set_train()
    shared = np.zeros(2, np.float32)
    shared.flags.writeable = False
    layer.moving_mean.set_data(Tensor.from_numpy(shared))
    layer(floats(4, 2))
    assert shared.tolist() == [0, 0]
    assert layer.moving_mean.asnumpy().min() > 0


def test_instance_norm_of_every_rank():
    """Every channel of every sample has mean 0 and variance 1 before gamma and beta."""
    for layer, shape in (
        (nn.InstanceNorm1d(3), (2, 3, 8)),
        (nn.InstanceNorm2d(3), (2, 3, 4, 4)),
        (nn.InstanceNorm3d(3), (2, 3, 2, 4, 4)),
    ):
        out = layer(floats(*shape)).asnumpy().reshape(2, 3, -1)
        np.testing.assert_allclose(out.mean(-1), 0, atol=1e-5)
        np.testing.assert_allclose(out.var(-1), 1, rtol=1e-3)


def test_rms_norm_over_several_axes():
    """The weight has the shape of the last axes."""
    layer = nn.RMSNorm((2, 3), epsilon=0, weight_init=2.0)
    x = floats(4, 2, 3)
    root = np.sqrt((x.asnumpy() ** 2).mean((1, 2), keepdims=True))
    np.testing.assert_allclose(layer(x).asnumpy(), 2 * x.asnumpy() / root, rtol=1e-5)
    assert repr(layer) == "RMSNorm(normalized_shape=(2, 3), epsilon=0)"


@pytest.mark.parametrize(
    ("make", "shape", "error"),
    [
        (lambda: nn.BatchNorm1d(3), (2, 4), ValueError),
        (lambda: nn.BatchNorm1d(3), (2, 3, 4, 4), ValueError),
        (lambda: nn.BatchNorm3d(3), (2, 3, 4, 4), ValueError),
        (lambda: nn.InstanceNorm2d(3), (2, 4, 4, 4), ValueError),
        (lambda: nn.GroupNorm(2, 4), (2, 3, 4), ValueError),
        (lambda: nn.RMSNorm(4), (2, 3), ValueError),
        (lambda: nn.BatchNorm2d(3, data_format="NHWC"), (2, 4, 4, 3), ValueError),
        (lambda: nn.BatchNorm2d(2.5), (2, 2, 4, 4), TypeError),
        (lambda: nn.LayerNorm(4), (2, 4), TypeError),
    ],
)
def test_errors(make, shape, error):
    """Arguments and inputs that do not fit."""
    with pytest.raises(error):
        make()(floats(*shape))
