"""predict(X[0]): the commonest slip. micfast.invert says what to do, the estimator doesn't.

Sources: ageron/handson-ml2#215, blue-yonder/tsfresh#351, timeseriesAI/tsai#449.
Expected: a message with X[None] (as invert's "a single target is targets[None]"). Today "X must have
shape [n_samples, n_timesteps, 2] as in fit, got 2 dimensions"; "X has 1 features, but ... is expecting
20 features as input"; "Reshape your data either using array.reshape(-1, 1) ...", which would be wrong.
"""
import sys
import warnings

import numpy as np

from micfast import ModularInverseClassifier, Training

warnings.simplefilter("ignore")
t = np.linspace(0, 1, 20)
X = np.stack([np.stack([t, np.sin(3 * t)], 1), np.stack([t, np.cos(5 * t)], 1)] * 4)
y = ["arch", "wave"] * 4
quick = dict(n_types=1, training=Training.paper(n_episodes=100, max_retries=0), n_modules_per_class=1, type_selection="first",
             random_state=0)
wrong = []
for what, data, one in (("two channels, X[0]", X, X[0]), ("one channel, X[0] of shape (T, 1)", X[..., 1:], X[0, :, 1:]),
                        ("one channel, X[0] of shape (T,)", X[..., 1], X[0, :, 1])):
    try:
        ModularInverseClassifier(**quick).fit(data, y).predict(one)
        wrong.append(f"{what}: expected ValueError, got an answer")
    except ValueError as error:
        if "[None]" not in str(error):
            wrong.append(f"{what}: expected a hint at X[None], got: {' '.join(str(error).split())[-150:]}")
print("\n".join(wrong) or "ok")
sys.exit(bool(wrong))
