"""What decides: distances under warping, thresholds, samples by which a class is judged."""

import math

import numpy as np
import pytest
from scipy.special import softmax

from micfast.classify.calibration import (
    best_temperature,
    calibration_samples,
    comparable,
    temperature_samples,
    threshold,
)
from micfast.classify.distances.dtw import warped_distances
from micfast.training.distances import squared_dtw

WORST = float(np.finfo(np.float32).max)


def pairs(N=3, M=4, T=9, C=2, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(N, T, C)).astype(np.float32)
    return targets, rng.normal(size=(N, M, T, C)).astype(np.float32)


@pytest.mark.slow  # tslearn compiles for seconds
@pytest.mark.parametrize("sizes", [(3, 4, 9, 2), (2, 1, 1, 3), (1, 3, 12, 1)])
def test_dtw_is_tslearns(sizes):
    from tslearn.metrics import dtw

    targets, drawn = pairs(*sizes)
    T, C = targets.shape[1:]
    expected = [
        [dtw(x, y) ** 2 / (T * C) for y in ys] for x, ys in zip(targets, drawn, strict=True)
    ]
    found = warped_distances(targets, drawn)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_errors_are_squared_distances_over_all_values():
    targets, drawn = pairs()
    expected = [
        squared_dtw(x[None], ys, 9)[0] / (9 * 2) for x, ys in zip(targets, drawn, strict=True)
    ]
    np.testing.assert_array_equal(warped_distances(targets, drawn), expected)


def test_warping_forgives_shifts_and_nothing_else():
    t = np.linspace(0, 1, 40)
    bump = np.exp(-(((t - 0.4) / 0.05) ** 2))[:, None]
    targets = np.stack([bump, bump])
    drawn = np.stack([np.stack([bump, np.roll(bump, 5, axis=0), 0 * bump])] * 2)
    found = warped_distances(targets, drawn)
    mse = ((targets[:, None] - drawn) ** 2).mean(axis=(2, 3))
    np.testing.assert_array_equal(found[0], found[1])
    assert abs(found[0, 0]) < 1e-6
    assert found[0, 1] < 0.3 * mse[0, 1]
    assert found[0, 2] > 10 * max(found[0, 1], 1e-4)
    assert (found <= mse + 1e-6).all()


def test_nan_and_infinity_spoil_their_own_pairs_only():
    targets, drawn = pairs()
    expected = warped_distances(targets, drawn)
    drawn[0, 1, 3, 0], drawn[2, 3, 8, 1], targets[1, 8, 0] = np.nan, np.inf, np.nan
    found = warped_distances(targets, drawn)
    spoiled = np.zeros(found.shape, dtype=bool)
    spoiled[0, 1] = spoiled[2, 3] = spoiled[1] = True
    np.testing.assert_array_equal(np.isnan(found), spoiled)
    np.testing.assert_array_equal(found[~spoiled], expected[~spoiled])


def test_threads_and_sizes():
    targets, drawn = pairs(N=7)
    expected = warped_distances(targets, drawn)
    np.testing.assert_array_equal(warped_distances(targets, drawn, 3), expected)
    np.testing.assert_array_equal(warped_distances(targets[5:], drawn[5:, 2:]), expected[5:, 2:])
    assert warped_distances(targets[:0], drawn[:0]).shape == (0, 4)


def test_comparable():
    errors = np.array([[1, np.nan], [np.inf, 0]], dtype=np.float32)
    np.testing.assert_array_equal(comparable(errors), [[1, WORST], [WORST, 0]])
    assert comparable(errors).dtype == np.float64


def test_threshold_is_exceeded_by_the_share_asked_for():
    errors = np.random.default_rng(0).exponential(size=1000)
    for reject in (0.01, 0.1, 0.5, 0.99):
        assert (errors > threshold(errors, reject)).mean() == pytest.approx(reject, abs=2e-3)


def test_calibration_samples():
    rng = np.random.default_rng
    Z = np.arange(20.0)[:, None, None] * np.ones((3, 2))
    types = Z[[4, 11, 11]]
    drawn = calibration_samples(Z, types, rng(0))
    assert sorted(drawn[:, 0, 0]) == [v for v in range(20) if v not in (4, 11)]
    np.testing.assert_array_equal(drawn, calibration_samples(Z, types, rng(0)))
    assert not np.array_equal(drawn, calibration_samples(Z, types, rng(1)))
    many = calibration_samples(np.arange(99.0)[:, None, None], types[:, :1, :1], rng(0))
    assert len({*many[:, 0, 0]}) == 64
    # Eight others are enough; with seven the types count too.
    assert len(calibration_samples(Z[:9], types[:1], rng(0))) == 8
    assert len(calibration_samples(Z[:8], types[:1], rng(0))) == 8
    np.testing.assert_array_equal(calibration_samples(Z[4:5], types, rng(0)), Z[4:5])


def test_samples_end_where_types_do():
    """NaN after the ends counts as equal, so that a short sample is known to be a type."""
    Z = np.arange(12.0)[:, None, None] * np.ones((4, 1))
    Z[3, 2:] = np.nan
    assert len(calibration_samples(Z, Z[[3]], np.random.default_rng(0))) == 11


def test_temperature_takes_few_samples():
    def drawn(sizes):
        parts = [np.full((n, 2, 1), float(c)) for c, n in enumerate(sizes)]
        rngs = [np.random.default_rng(c) for c in range(len(sizes))]
        Z, codes = temperature_samples(parts, rngs)
        np.testing.assert_array_equal(Z[:, 0, 0], codes)
        return np.bincount(codes, minlength=len(sizes)).tolist()

    assert drawn([5, 7]) == [5, 7]
    assert drawn([200, 7, 200]) == [42, 7, 42]
    assert sum(drawn([2] * 270)) == 128


def test_best_temperature_minimises_the_log_loss():
    rng = np.random.default_rng(0)
    codes = rng.integers(3, size=200)
    errors = rng.exponential(size=(200, 3)) + 0.8 * (np.arange(3) != codes[:, None])
    found = best_temperature(errors, codes)

    def log_loss(temperature):
        return -np.log(softmax(-errors / temperature, axis=1)[np.arange(200), codes]).mean()

    grid = np.geomspace(0.01, 100, 2000)
    assert log_loss(found) <= min(map(log_loss, grid)) + 1e-9
    assert best_temperature(1e6 * errors, codes) == pytest.approx(1e6 * found, rel=1e-3)
    assert best_temperature(np.zeros((4, 3)), codes[:4]) == 1.0
    assert math.isfinite(best_temperature(np.where(errors > 2, WORST, errors), codes))
