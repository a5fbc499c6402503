"""One channel is thousands of times larger than the others; standardize="global" is the default.

Sources: SPOClab-ca/dn3#40, thedatumorg/TSB-AD#80, angus924/minirocket#16, aeon-toolkit/aeon#3792.
Expected: a warning that names the channels which hold next to nothing of the variance and
standardize="channel"; or accuracy as without the large channel. Today: no word, every module
"learned", accuracy of chance.
"""
import sys
import warnings

import numpy as np

from micfast import ModularInverseClassifier, Training

t = np.linspace(0, 1, 30)


def make(seed):
    rng = np.random.default_rng(seed)
    X = np.concatenate([np.stack([f + 0.05 * rng.standard_normal(30) for _ in range(12)])
                        for f in (np.sin(3 * t), np.cos(5 * t))])
    pressure = 101325 + 300 * rng.standard_normal((len(X), 1)) * np.ones(30)  # Pa: weather, no class
    return np.stack([X, pressure], axis=2), np.repeat(["arch", "wave"], 12)


X, y = make(0)
new, labels = make(1)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = ModularInverseClassifier(n_types=2, training=Training.paper(n_episodes=1500), n_modules_per_class=1, random_state=0)
    model.fit(X, y)
told = [str(w.message) for w in caught if "channel" in str(w.message)]
score = model.score(new, labels)
alone = ModularInverseClassifier(n_types=2, training=Training.paper(n_episodes=1500), n_modules_per_class=1, random_state=0)
alone = alone.fit(X[..., :1], y).score(new[..., :1], labels)
bad = not told and score < 0.9
print(f"accuracy {score:.2f} (first channel alone {alone:.2f}); learned: "
      f"{[r['learned'] for r in model.training_report_]}; warnings about channels: {told}")
print("expected a warning or an accuracy above 0.9" if bad else "ok")
sys.exit(bad)
