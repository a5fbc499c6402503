"""A channel that is constant in training, standardize="channel".

Sources: scikit-learn/scikit-learn#17794, #3722, #19527, #19788; numpy/numpy#32445;
stumpy-dev/stumpy#765.
Expected: a constant channel has scale 1 whatever the constant is (as for 0.25 today): np.std of
equal numbers is often 1e-16 and not 0. Today the channel is divided by that, and a new sequence
whose value differs in the 9th digit has error 1e9 and more in every class: predictions are chance.
"""
import sys
import warnings

import numpy as np

from micfast import ModularInverseClassifier, Training
from micfast.data import Standardizer

warnings.simplefilter("ignore")
t = np.linspace(0, 1, 30)


def make(seed, constant):
    rng = np.random.default_rng(seed)
    X = np.concatenate([np.stack([f + 0.05 * rng.standard_normal(30) for _ in range(10)])
                        for f in (np.sin(3 * t), np.cos(5 * t))])
    return np.stack([X, np.full_like(X, constant)], axis=2), np.repeat(["arch", "wave"], 10)


wrong = []
for constant in (0.25, 0.1, 9.81, -9.81, 14.62, 1e6 + 0.1):
    X, y = make(0, constant)
    model = ModularInverseClassifier(n_types=2, training=Training.paper(n_episodes=1500), n_modules_per_class=1,
                                     standardize="channel", random_state=0).fit(X, y)
    new, labels = make(1, constant * (1 + 1e-6))
    scale, score = model.standardizer_.scale_[1], model.score(new, labels)
    if scale != 1 or score < 0.95:
        wrong.append(f"constant {constant}: expected scale 1 and accuracy 1.0 on sequences where it "
                     f"is {1e-6:g} larger, got scale {scale:.3g} and accuracy {score}")
ones = Standardizer("global").fit(np.full((8, 20, 1), 0.1)).scale_[0]
if ones != 1:
    wrong.append(f"Standardizer('global') of 0.1 everywhere: expected scale 1, got {ones:.3g}")
gaps = np.full((4, 11, 2), 14.62)
gaps[..., 0] = np.arange(11)
gaps[0, 8:] = np.nan
scale = Standardizer("channel").fit(gaps).scale_[1]
if scale != 1:
    wrong.append(f"constant beside missing values: expected scale 1, got {scale:.3g}")
rng = np.random.default_rng(0)
missed = sum(Standardizer("channel").fit(np.full((10, 50, 1), c)).scale_[0] != 1
             for c in np.round(rng.uniform(-20, 20, 300), 2))
if missed:
    wrong.append(f"constants of two decimals: expected 0 of 300 not recognised, got {missed}")
print("\n".join(wrong) or "ok")
sys.exit(bool(wrong))
