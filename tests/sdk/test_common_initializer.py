"""Initializers: their distributions, formulas and errors."""

import math

import numpy as np
import pytest

import mapcell as ms
from mapcell import Tensor
from mapcell.common import initializer as init
from mapcell.common.initializer import initializer

SHAPE = (120, 60, 3)
FAN_IN, FAN_OUT = 180, 360


def values(kind, shape=SHAPE, dtype=ms.float32):
    return initializer(kind, shape, dtype).asnumpy()


UNIFORM = [
    ("uniform", 0.07),
    (init.Uniform(2.0), 2.0),
    ("xavier_uniform", math.sqrt(6 / (FAN_IN + FAN_OUT))),
    (init.XavierUniform(2), 2 * math.sqrt(6 / (FAN_IN + FAN_OUT))),
    ("he_uniform", math.sqrt(6 / FAN_IN)),
    (init.HeUniform(negative_slope=math.sqrt(5)), 1 / math.sqrt(FAN_IN)),
    (init.HeUniform(mode="fan_out", nonlinearity="relu"), math.sqrt(6 / FAN_OUT)),
    (init.HeUniform(nonlinearity="tanh"), math.sqrt(3) * 5 / 3 / math.sqrt(FAN_IN)),
    (init.HeUniform(nonlinearity="sigmoid"), math.sqrt(3 / FAN_IN)),
    (init.VarianceScaling(), math.sqrt(3 / FAN_IN)),
    (init.VarianceScaling(2.0, "fan_avg", "uniform"), math.sqrt(6 / ((FAN_IN + FAN_OUT) / 2))),
]


@pytest.mark.parametrize(("kind", "bound"), UNIFORM, ids=[str(i) for i in range(len(UNIFORM))])
def test_uniform_distributions(kind, bound):
    """Within the bound, and as wide as it."""
    drawn = values(kind)
    assert drawn.dtype == np.float32
    assert np.abs(drawn).max() <= bound * (1 + 1e-6)
    assert np.abs(drawn).max() > bound * 0.99
    assert abs(drawn.mean()) < bound * 0.03
    assert drawn.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)


NORMAL = [
    ("normal", 0.01, 0),
    ("Normal", 0.01, 0),
    (init.Normal(2.0, 3.0), 2.0, 3.0),
    ("truncatedNormal", 0.01, 0),
    ("xavierNormal", math.sqrt(2 / (FAN_IN + FAN_OUT)), 0),
    ("HE_NORMAL", math.sqrt(2 / FAN_IN), 0),
    (init.VarianceScaling(1.0, "fan_out", "untruncated_normal"), math.sqrt(1 / FAN_OUT), 0),
]


@pytest.mark.parametrize("seed", [None, 3], ids=["unseeded", "seeded"])
@pytest.mark.parametrize(("kind", "sigma", "mean"), NORMAL, ids=[str(i) for i in range(len(NORMAL))])
def test_normal_distributions(kind, sigma, mean, seed, unseeded):
    """Mean and deviation, with MindSpore's documented generator too."""
    if seed is not None:
        ms.set_seed(seed)
    drawn = values(kind)
    assert drawn.mean() == pytest.approx(mean, abs=sigma * 0.03)
    assert drawn.std() == pytest.approx(sigma, rel=0.03)
    assert np.mean(np.abs(drawn - mean) < sigma) == pytest.approx(0.6827, abs=0.02)


@pytest.fixture
def unseeded():
    """Gives the package back as it was: without a seed."""
    from mapcell.common import seed

    before = seed._state.seed
    seed._state.seed = None
    yield
    seed._state.seed = before


def test_truncated_normal_cuts_at_absolute_values():
    """a and b are values, not deviations."""
    drawn = values(init.TruncatedNormal(1.0, 0.0, -0.5, 1.0))
    assert drawn.min() >= -0.5
    assert drawn.max() <= 1.0
    assert drawn.min() < -0.49
    assert drawn.max() > 0.98


EXACT = [
    ("zeros", [2], [0, 0]),
    ("zero", [2], [0, 0]),
    ("ones", 2, [1, 1]),
    ("ONE", (2,), [1, 1]),
    (3, [2], [3, 3]),
    (2.5, [1], [2.5]),
    (True, [1], [1]),
    (init.Constant(7), (), 7),
    (np.float32(1.5), [1], [1.5]),
    ("identity", [2, 3], [[1, 0, 0], [0, 1, 0]]),
    (init.Dirac(), [2, 2, 3], [[[0, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0]]]),
    (init.Dirac(2), [4, 1, 1], [[[1]], [[0]], [[1]], [[0]]]),
]


@pytest.mark.parametrize(("kind", "shape", "expected"), EXACT, ids=range(len(EXACT)))
def test_exact_values(kind, shape, expected):
    """Constants, identity matrices and passing kernels."""
    assert values(kind, shape).tolist() == expected


def test_orthogonal_rows_and_columns():
    """The shorter side is orthonormal, times the gain."""
    for shape in ((4, 7), (7, 4), (3, 2, 4)):
        matrix = values(init.Orthogonal(2.0), shape).reshape(shape[0], -1)
        short = matrix if matrix.shape[0] < matrix.shape[1] else matrix.T
        assert np.allclose(short @ short.T, 4 * np.eye(short.shape[0]), atol=1e-5)


def test_sparse_columns():
    """Each column has ceil(sparsity * rows) zeros."""
    assert (values(init.Sparse(0.25, 1.0), (10, 6)) == 0).sum(axis=0).tolist() == [3] * 6


def test_other_dtypes():
    """Integers truncate, low precision rounds."""
    assert values("normal", [5], ms.int32).tolist() == [0] * 5
    assert values(5, [2], ms.int32).tolist() == [5, 5]
    for dtype in (ms.float16, ms.bfloat16, ms.float64):
        assert values("normal", [2000], dtype).astype(np.float64).std() == pytest.approx(0.01, rel=0.1)


AT_ONCE = [
    (("nope", [1]), ValueError),
    (("truncated_normal", [1]), ValueError),
    (("constant", [1]), ValueError),
    ((init.Normal, [1]), TypeError),
    ((None, [1]), TypeError),
    ((np.zeros(1), [1]), TypeError),
    (("ones", None), AttributeError),
    (("ones", [0]), ValueError),
    (("ones", [-1]), ValueError),
    (("ones", [1.0]), ValueError),
    (("ones", [np.int64(1)]), ValueError),
    (("ones", [True]), ValueError),
    (("ones", [1], np.float32), TypeError),
    ((Tensor([1.0]), [2]), ValueError),
    ((Tensor([1.0]), None), ValueError),
    (("sparse", [2, 2]), TypeError),
]


@pytest.mark.parametrize(("arguments", "error"), AT_ONCE, ids=range(len(AT_ONCE)))
def test_errors_at_once(arguments, error):
    """Arguments are checked when the Tensor is asked for."""
    with pytest.raises(error):
        initializer(*arguments)


LATER = [
    ("xavier_uniform", [3]),
    ("xavier_normal", [3]),
    ("he_uniform", [3]),
    ("orthogonal", [3]),
    ("identity", [3]),
    ("identity", [2, 2, 2]),
    (init.Sparse(0.5), [3]),
    (init.Dirac(), [2, 2]),
    (init.Dirac(2), [3, 1, 1]),
    (init.HeNormal(mode="fan"), [2, 2]),
    (init.HeNormal(nonlinearity="no"), [2, 2]),
]


@pytest.mark.parametrize(("kind", "shape"), LATER, ids=range(len(LATER)))
def test_errors_when_it_runs(kind, shape):
    """What depends on the shape is checked when the elements are made."""
    tensor = initializer(kind, shape)
    with pytest.raises(ValueError):
        tensor.init_data()


@pytest.mark.parametrize(
    "make",
    [
        lambda: init.Normal(-1),
        lambda: init.TruncatedNormal(-1),
        lambda: init.Sparse(0.1, -1),
        lambda: init.Constant([1, 2]),
        lambda: init.VarianceScaling(0),
        lambda: init.VarianceScaling(1, "fan"),
        lambda: init.VarianceScaling(1, "fan_in", "normal"),
    ],
)
def test_errors_of_constructors(make):
    """Values that no shape makes right are refused by the class."""
    with pytest.raises(ValueError):
        make()


def test_own_initializers():
    """A subclass overrides _initialize; without it the base says so."""

    class Count(init.Initializer):
        def _initialize(self, arr):
            arr[...] = np.arange(arr.size).reshape(arr.shape)

    assert values(Count(), [2, 2]).tolist() == [[0, 1], [2, 3]]
    assert init.Normal(2.0).init_kwargs == {"sigma": 2.0, "mean": 0.0}
    with pytest.raises(NotImplementedError):
        initializer(init.Initializer(), [1]).init_data()


def test_laziness_of_the_result():
    """It has init until its elements are needed, which printing is not."""
    tensor = initializer("ones", [2])
    assert (tensor.has_init, type(tensor.init).__name__, str(tensor)) == (True, "One", "<uninitialized>")
    assert repr(tensor) == "Tensor(shape=[2], dtype=Float32, value=\n<uninitialized>)"
    assert tensor.data_ptr() == 0
    assert (tensor + 1).tolist() == [2, 2]
    assert (tensor.has_init, tensor.init) == (False, None)


def test_a_tensor_is_returned_as_it_is():
    """Its dtype stays, whatever dtype was asked for."""
    tensor = Tensor([1, 2])
    assert initializer(tensor, [2], ms.float16) is tensor
    assert initializer(tensor, 2) is tensor


def test_names_that_published_initializers_import():
    """Helpers that MindSpore means for itself."""
    assert init._assignment(np.empty((2,)), [1, 2]).tolist() == [1, 2]
    assert init._calculate_fan_in_and_fan_out(SHAPE) == (FAN_IN, FAN_OUT)
    assert init._calculate_fan_in_and_fan_out(Tensor(np.zeros(SHAPE))) == (FAN_IN, FAN_OUT)
    assert init._init_random_normal(3.0, 0.1, (1000,)).mean() == pytest.approx(3, abs=0.02)
    drawn = init._init_random_uniform(1.0, 2.0, (1000,))
    assert (drawn.dtype, drawn.min() >= 1, drawn.max() < 2) == (np.float32, True, True)
