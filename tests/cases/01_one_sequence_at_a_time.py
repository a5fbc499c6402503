"""Univariate sequences of unequal lengths: a batch is accepted, one sequence alone is not.

Sources: tslearn-team/tslearn#217 and #220, timeseriesAI/tsai#449, johannfaouzi/pyts#146.
Expected: predict([x]) of one 1-D sequence gives what predict gives for it in a batch, whatever its
length (an estimator that was trained on unequal lengths has no length of its own). The same for
several sequences that happen to have one length, for leave-one-out, and for reconstruct.
"""
import sys
import warnings

import numpy as np
from sklearn.model_selection import LeaveOneOut, cross_val_score

from micfast import ModularInverseClassifier, Training

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X, y = [], []
for i in range(16):
    t = np.linspace(0, 1, int(rng.integers(20, 36)))
    X.append((np.sin(3 * t) if i % 2 else np.cos(5 * t)) + 0.05 * rng.standard_normal(len(t)))
    y.append("arch" if i % 2 else "wave")
quick = dict(n_types=2, training=Training.paper(n_episodes=1500), n_modules_per_class=1, random_state=0)
model = ModularInverseClassifier(**quick).fit(X, y)
batch = model.predict(X).tolist()
wrong = []


def check(what, function, expected):
    try:
        got = function()
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
    if got != expected:
        wrong.append(f"{what}: expected {expected}, got {got}")


def one_by_one(method):
    refused = 0
    for x in X:
        try:
            getattr(model, method)([x])
        except ValueError:
            refused += 1
    return refused


for method in ("predict", "predict_proba", "decision_function", "transform", "novelty_score",
               "reconstruction_errors", "reconstruct"):
    check(f"{method}: refused of {len(X)} given one by one", lambda: one_by_one(method), 0)
check("predict of one", lambda: model.predict([X[0]]).tolist(), batch[:1])
check("predict of three of one length", lambda: len(model.predict([x[:20] for x in X[:3]])), 3)
equal = ModularInverseClassifier(**quick).fit([x[:20] for x in X], y)
check("trained on a list of one length, two of others", lambda: len(equal.predict([X[0][:15], X[1][:18]])), 2)
check("trained on a list of one length, one of another", lambda: len(equal.predict([X[0][:15]])), 1)
check("reconstruct keeps its shape", lambda: model.reconstruct([X[0]]).shape[1:],
      (len(X[0]), *model.reconstruct(X[:2]).shape[2:]))
check("leave one out", lambda: len(cross_val_score(
    ModularInverseClassifier(**(quick | {"training": Training.paper(n_episodes=100, max_retries=0)})), X[:6], y[:6],
    cv=LeaveOneOut(), error_score="raise")), 6)
print("\n".join(wrong) or "ok")
sys.exit(bool(wrong))
