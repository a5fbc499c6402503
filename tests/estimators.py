"""What the tests of the classifier share: three classes of curves, a small model, comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from micfast import ModularInverseClassifier, Training
from micfast.kernels import backend

T, C, PER_CLASS = 10, 2, 7
# The plain search: what is tested of it holds whatever the default asks beside it.
PLAIN = {"views": "raw", "pose": None, "hull": False}
SMALL = PLAIN | {
    "n_types": 2,
    "hidden_size": 6,
    "n_modules_per_class": 1,
    "training": Training.paper(n_episodes=400, noise_in=0.1, max_retries=0, learned_tol=100.0),
    "random_state": 0,
}

# PyTorch alone trains far slower, and its matrix products round differently for other fleets.
needs_kernel = pytest.mark.skipif(
    backend.extension is None, reason="many trainings: minutes without the compiled kernel"
)


def small(**params: Any) -> ModularInverseClassifier:
    """A classifier that is fitted in a moment; parameters may be nested ones."""
    return ModularInverseClassifier(**SMALL).set_params(**params)


def curves(seed: int = 0, n_steps: int = T) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of noisy plane curves, in units far from the standard ones."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, n_steps)
    shapes = {
        "arch": np.stack([t, np.sin(np.pi * t)], axis=-1),
        "line": np.stack([t, t], axis=-1),
        "wave": np.stack([-t, np.sin(2 * np.pi * t)], axis=-1),
    }
    X = np.concatenate([np.repeat(s[None], PER_CLASS, axis=0) for s in shapes.values()])
    X = X * rng.uniform(0.8, 1.2, (len(X), 1, 1)) + 0.03 * rng.standard_normal(X.shape)
    return 100 + 7 * X, np.repeat(list(shapes), PER_CLASS)


X, y = curves()
X_NEW, Y_NEW = curves(seed=1)


def same_fit(a: ModularInverseClassifier, b: ModularInverseClassifier) -> None:
    """Equal to the bit in all that was learned per class."""
    assert a.classes_.tolist() == b.classes_.tolist()
    assert a.banks_ == b.banks_
    for one, other in zip(a.calibration_, b.calibration_, strict=True):
        np.testing.assert_array_equal(one["types"], other["types"])
        np.testing.assert_array_equal(one["samples"], other["samples"])
    np.testing.assert_array_equal(a.types_, b.types_)
    for one, other in zip(a.training_report_, b.training_report_, strict=True):
        for key in set(one) - {"seconds"}:
            np.testing.assert_array_equal(one[key], other[key])
    for one, other in zip(a.type_info_, b.type_info_, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.index, other.index)
        np.testing.assert_array_equal([one.inertia, one.n_iter], [other.inertia, other.n_iter])


def saved(clf: ModularInverseClassifier, path: Any) -> ModularInverseClassifier:
    """The classifier as it comes back from a file."""
    clf.save(path)
    return ModularInverseClassifier.load(path)
