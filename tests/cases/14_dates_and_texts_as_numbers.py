"""datetime64 is taken for numbers, and NaT for -9.2e18, if all sequences have one length.

Sources: scikit-learn/scikit-learn#10590, numpy/numpy#26177.
Expected: TypeError "must hold real numbers", as micfast.invert, the command line and fit with
sequences of unequal lengths say; above all for NaT, which is a missing value and no number. Today fit
trains, without a word, on a value of -9.2e18, and predicts chance.
"""
import sys
import warnings

import numpy as np

from micfast import ModularInverseClassifier, Training

warnings.simplefilter("ignore")
rng, t = np.random.default_rng(0), np.linspace(0, 1, 20)
X = np.concatenate([np.stack([f + 0.05 * rng.standard_normal(20) for _ in range(8)])
                    for f in (np.sin(3 * t), np.cos(5 * t))])[..., None]
y = np.repeat(["arch", "wave"], 8)
dates = (1e9 * X).astype("M8[ns]")
gap = dates.copy()
gap[0, 3] = np.datetime64("NaT")
texts = X.astype(str)
cut = {"unequal lengths, dates": [d[: 18 + i % 2] for i, d in enumerate(dates)],
       "unequal lengths, texts": [d[: 18 + i % 2] for i, d in enumerate(texts)]}
wrong = []
for what, data in {"dates": dates, "dates with one NaT": gap, "texts": texts, **cut}.items():
    model = ModularInverseClassifier(n_types=2, training=Training.paper(n_episodes=800), n_modules_per_class=1, random_state=0)
    try:
        score = model.fit(data, y).score(dates if what.startswith("dates") else data, y)
        wrong.append(f"{what}: expected TypeError, got a model of accuracy {score:.2f}, "
                     f"mean {model.standardizer_.mean_[0]:.2g}, scale {model.standardizer_.scale_[0]:.2g}")
    except (TypeError, ValueError) as error:
        print(f"{what}: {type(error).__name__}: {error}")
print("\n".join(wrong) or "ok")
sys.exit(bool(wrong))
