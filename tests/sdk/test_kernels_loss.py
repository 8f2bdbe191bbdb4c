"""Losses against their formulas in float64."""

import numpy as np
import pytest
from scipy import special

from mapcell.kernels import loss

RANDOM = np.random.RandomState(0)
X = RANDOM.standard_normal((4, 3)).astype(np.float32)
T = RANDOM.standard_normal((4, 3)).astype(np.float32)
P, Q = special.expit(X), special.expit(T)
SIGNS = np.sign(T)

FORMULAS = [
    (loss.squared_error(X, T), (X - T) ** 2),
    (loss.absolute_error(X, T), np.abs(X - T)),
    (loss.smooth_l1(X, T, 0.5), np.where(np.abs(X - T) < 0.5, (X - T) ** 2, np.abs(X - T) - 0.25)),
    (loss.smooth_l1(X, T, 0), np.abs(X - T)),
    (loss.huber(X, T, 0.5), np.where(np.abs(X - T) <= 0.5, (X - T) ** 2 / 2, 0.5 * (np.abs(X - T) - 0.25))),
    (loss.binary_cross_entropy(P, Q, None), -(Q * np.log(P) + (1 - Q) * np.log(1 - P))),
    (loss.binary_cross_entropy_with_logits(X, Q, None, None), -(Q * np.log(P) + (1 - Q) * np.log(1 - P))),
    (loss.binary_cross_entropy_with_logits(X, Q, X, T), -X * (Q * np.log(P) * T + (1 - Q) * np.log(1 - P))),
    (loss.kl_divergence(np.log(P), Q), Q * (np.log(Q) - np.log(P))),
    (loss.hinge_embedding(X, SIGNS, 1.0), np.where(SIGNS == 1, X, np.maximum(0, 1 - X))),
    (loss.margin_ranking(X, T, SIGNS, 0.1), np.maximum(0, -SIGNS * (X - T) + 0.1)),
    (loss.soft_margin(X, SIGNS), np.log1p(np.exp(-SIGNS * X))),
    (loss.gaussian(X, T, Q, False, 1e-6), (np.log(Q) + (X - T) ** 2 / Q) / 2),
    (loss.gaussian(X, T, Q, True, 1e-6), (np.log(Q) + (X - T) ** 2 / Q + np.log(2 * np.pi)) / 2),
    (loss.poisson(X, Q, True, False, 1e-8), np.exp(X) - Q * X),
    (loss.poisson(P, Q, False, False, 1e-8), P - Q * np.log(P + 1e-8)),
    (
        loss.triplet_margin(X, T, P, 1.0, 2, 0, False),
        np.maximum(0, np.linalg.norm(X - T, axis=1) - np.linalg.norm(X - P, axis=1) + 1),
    ),
]


@pytest.mark.parametrize(("got", "want"), FORMULAS)
def test_formula(got, want):
    """Each element within 1e-5, in float32."""
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_logits_far_from_zero_do_not_overflow():
    """The loss of a hopeless prediction is its logit."""
    x = np.array([1000.0, -1000.0], np.float32)
    assert loss.binary_cross_entropy_with_logits(x, np.array([0.0, 1.0], np.float32), None, None).tolist() == [
        1000,
        1000,
    ]


def test_likelihood_picks_the_target_class():
    """Weighted by class; what is to be ignored has loss and weight 0."""
    scores = np.log(np.array([[0.25, 0.75], [0.5, 0.5], [0.1, 0.9]], np.float32))
    weight = np.array([1.0, 2.0], np.float32)
    losses, weights = loss.negative_log_likelihood(scores, np.array([1, 0, -100]), weight, -100)
    np.testing.assert_allclose(losses, [-2 * np.log(0.75), -np.log(0.5), 0], rtol=1e-6)
    assert weights.tolist() == [2, 1, 0]


def test_smoothing_shares_the_target_among_all_classes():
    """The target class keeps 1 - s, and every class gets s / classes."""
    scores = np.log(np.array([[0.2, 0.8]], np.float32))
    losses, _ = loss.negative_log_likelihood(scores, np.array([1]), None, -100, 0.1)
    np.testing.assert_allclose(losses, [-0.9 * np.log(0.8) - 0.05 * (np.log(0.2) + np.log(0.8))], rtol=1e-6)


def test_probabilities_as_targets_agree_with_classes():
    """One-hot probabilities give the loss of the class, with and without smoothing."""
    classes = np.array([0, 2, 1, 1])
    hot = np.eye(3, dtype=np.float32)[classes]
    log_p = special.log_softmax(X, axis=1)
    for smoothing in (0.0, 0.2):
        by_class, _ = loss.negative_log_likelihood(log_p, classes, None, -100, smoothing)
        np.testing.assert_allclose(loss.class_probabilities(X, hot, None, smoothing), by_class, rtol=1e-5)


def test_focal_without_focus_is_cross_entropy():
    """With gamma 0 nothing is scaled down."""
    classes = np.array([[0], [2], [1], [1]])
    want = -np.take_along_axis(special.log_softmax(X, axis=1), classes, 1)[:, 0]
    np.testing.assert_allclose(loss.focal(X, classes, None, 0.0), want, rtol=1e-5)


@pytest.mark.parametrize(("reduction", "want"), [("none", [1, 2, 6]), ("mean", 3), ("sum", 9)])
def test_reductions(reduction, want):
    """All elements, their mean or their sum; ValueError otherwise."""
    assert loss.reduced(np.array([1.0, 2, 6], np.float32), reduction).tolist() == want
    with pytest.raises(ValueError, match="reduction"):
        loss.reduced(X, "median")
