"""Seeds, and the numbers that MindSpore's documentation prints."""

import numpy as np
import pytest

import mapcell as ms
from mapcell.common import philox, seed
from mapcell.common.initializer import Normal, initializer


@pytest.fixture(autouse=True)
def _unseeded():
    """Gives the package back as it was."""
    before = seed._state.seed, seed._state.tensors
    yield
    seed._state.seed, seed._state.tensors = before


def documented_weight(sigma=0.01):
    """The weight of the documentation's Conv2d(3, 64, 3) after set_seed(1)."""
    ms.set_seed(1)
    return initializer(Normal(sigma), [64, 3, 3, 3]).asnumpy()


# Sums over kernel windows, which a convolution of ones with 'same' padding prints: corner, edge, interior.
PRINTED = [
    (0, np.s_[:, 1:, 1:], 3.10382620e-02),
    (0, np.s_[:, 1:, :], 4.38603461e-02),
    (0, np.s_[:, 1:, :-1], 1.38719045e-02),
    (0, np.s_[:, :, :], 3.54298912e-02),
    (0, np.s_[:, :, :-1], -5.54019120e-03),
    (0, np.s_[:, :-1, 1:], 9.66199022e-03),
    (63, np.s_[:, :, :], -3.60766202e-02),
    (63, np.s_[:, :-1, :], 6.74417242e-05),
    (63, np.s_[:, :-1, :-1], -2.27325838e-02),
]


@pytest.mark.parametrize(("channel", "window", "value"), PRINTED)
def test_documented_numbers(channel, window, value):
    """The seeded example of the documentation, to 1e-7."""
    assert documented_weight()[channel][window].sum() == pytest.approx(value, abs=1e-7)
    assert documented_weight(0.2)[channel][window].sum() == pytest.approx(20 * value, abs=2e-6)


@pytest.mark.parametrize("kind", ["normal", "uniform", "truncatedNormal", "he_uniform", "orthogonal"])
def test_a_seed_repeats(kind):
    """The same seed and order give the same elements; the next tensor gives others."""

    def two():
        ms.set_seed(5)
        return [initializer(kind, [8, 8]).asnumpy() for _ in range(2)]

    first, second = two(), two()
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert not np.array_equal(first[0], first[1])


def test_numpys_seed_repeats_too():
    """Without set_seed, numpy.random.seed makes initialisation repeatable."""
    seed._state.seed = None
    np.random.seed(3)
    first = initializer("normal", [4]).asnumpy()
    np.random.seed(3)
    assert np.array_equal(first, initializer("normal", [4]).asnumpy())


def test_large_tensors_are_seeded_as_well():
    """Beyond the documented generator's reach NumPy's takes over, repeatably."""
    drawn = []
    for _ in range(2):
        ms.set_seed(9)
        drawn.append(initializer("normal", [seed.PHILOX_UP_TO + 1]).asnumpy())
    assert np.array_equal(*drawn)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 16, 17, 63, 64, 65, 1000])
def test_any_number_of_elements(count):
    """Every size is filled, with finite numbers."""
    drawn = philox.standard_normal(count, 1, 1)
    assert drawn.shape == (count,)
    assert drawn.dtype == np.float32
    assert np.isfinite(drawn).all()


def test_chunks_are_independent_streams():
    """The last chunk takes what does not divide, and none repeats another."""
    drawn = philox.standard_normal(1007, 2, 1)
    assert len(np.unique(drawn)) > 1000


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError), ("1", TypeError)])
def test_bad_seeds(value, error):
    """Only ints from 0 up are seeds."""
    with pytest.raises(error):
        ms.set_seed(value)


def test_get_seed():
    """It is the seed last set; large ones are fine."""
    ms.set_seed(2**40)
    assert ms.get_seed() == 2**40
