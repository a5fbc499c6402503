"""Variants of the types."""

import numpy as np
import pytest

from micfast.augment import augment_types

T = 60
STROKE = np.stack([np.sin(np.linspace(0, 3, T)), np.linspace(0, 1, T) ** 2], axis=1)


def test_shapes_dtype_and_the_first_variant():
    types = np.stack([STROKE, STROKE[::-1]]).astype(np.float32)
    variants = augment_types(types, 5, random_state=0)
    assert variants.shape == (2, 5, T, 2)
    assert variants.dtype == np.float32
    np.testing.assert_array_equal(variants[:, 0], types)
    assert len(np.unique(variants.reshape(10, -1), axis=0)) == 10


def test_same_seed_same_variants():
    first = augment_types(STROKE, 4, random_state=7)
    np.testing.assert_array_equal(first, augment_types(STROKE, 4, random_state=7))
    assert (first[1:] != augment_types(STROKE, 4, random_state=8)[1:]).any()


def test_a_warp_keeps_the_path_its_ends_and_its_direction():
    ramp = np.linspace(0, 1, T)[:, None]
    variants = augment_types(ramp, 500, warp=0.05, affine=0, random_state=0)[..., 0]
    np.testing.assert_allclose(variants[:, [0, -1]], [[0, 1]] * 500, atol=1e-12)
    assert (np.diff(variants, axis=1) > 0).all()
    # The ramp's value is the time shown; in the middle it strays as far as asked.
    middle = variants[1:, T // 2] - ramp[T // 2, 0]
    assert 0.035 < middle.std() < 0.065


def test_affine_changes_are_affine_and_as_large_as_asked():
    variants = augment_types(STROKE, 400, warp=0, affine=0.1, random_state=0)
    centred = STROKE - STROKE.mean(axis=0)
    coefficients = []
    for variant in variants[1:]:
        np.testing.assert_allclose(variant.mean(axis=0), STROKE.mean(axis=0))
        matrix, residual, *_ = np.linalg.lstsq(centred, variant - variant.mean(axis=0), rcond=None)
        assert residual.max() < 1e-20
        coefficients.append(matrix - np.eye(2))
    assert 0.09 < np.std(coefficients) < 0.11


def test_many_channels_are_only_scaled():
    image = np.random.default_rng(0).random((9, 28))
    variant = augment_types(image, 2, warp=0, affine=0.2, random_state=0)[1]
    ratio = (variant - variant.mean(axis=0)) / (image - image.mean(axis=0))
    np.testing.assert_allclose(ratio, ratio[0, 0])


@pytest.mark.parametrize("off", [{"warp": 0}, {"affine": 0}, {}])
def test_nothing_changes_where_nothing_is_asked_for(off):
    settings = {"warp": 0.0, "affine": 0.0}
    variants = augment_types(STROKE, 3, **(settings | off), random_state=0)
    np.testing.assert_array_equal(variants, np.stack([STROKE] * 3))


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ({"types": np.zeros(3)}, ValueError, "types must be finite and have shape"),
        ({"types": np.full((3, 1), np.nan)}, ValueError, "types must be finite"),
        ({"n_variants": 0}, ValueError, "n_variants must be at least 1, got 0"),
        ({"n_variants": 2.0}, TypeError, "n_variants must be an integer"),
        ({"warp": -0.1}, ValueError, "warp must be from 0 to below 1"),
        ({"affine": 1.0}, ValueError, "affine must be from 0 to below 1"),
        ({"affine": float("nan")}, ValueError, "affine must be from 0 to below 1"),
    ],
)
def test_wrong_arguments(argument, error, message):
    with pytest.raises(error, match=message):
        augment_types(**({"types": STROKE} | argument))
