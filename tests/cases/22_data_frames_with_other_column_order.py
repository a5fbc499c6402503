"""A list of data frames (a recording each) whose columns come in another order.

Sources: scikit-learn/scikit-learn#7242 and #12936, dmlc/xgboost#8357, csinva/imodels#290.
Expected: ValueError, as for one data frame in two dimensions ("The feature names should match those that
were passed during fit"), or columns taken by name. Today names are ignored: channels are swapped without
a word, even within one list.
"""
import sys
import warnings

import numpy as np
import pandas as pd

from micfast import ModularInverseClassifier, Training

warnings.simplefilter("ignore")


def make(seed):
    rng, X, y = np.random.default_rng(seed), [], []
    for i in range(16):
        t = np.linspace(0, 1, int(rng.integers(20, 36)))
        a, b = (np.sin(3 * t), np.cos(5 * t)) if i % 2 else (np.cos(5 * t), np.sin(9 * t))
        X.append(pd.DataFrame({"x": a, "y": b}) + 0.05 * rng.standard_normal((len(t), 2)))
        y.append("arch" if i % 2 else "wave")
    return X, y


quick = dict(n_types=2, training=Training.paper(n_episodes=1500), n_modules_per_class=1, random_state=0)
X, y = make(0)
new, labels = make(1)
model = ModularInverseClassifier(**quick).fit(X, y)
usual = model.score(new, labels)
wrong = []


def check(what, function):
    try:
        score = function()
    except ValueError:
        return
    if score < usual:
        wrong.append(f"{what}: expected ValueError or accuracy {usual:.2f}, got accuracy {score:.2f}")


check("predict, columns y, x", lambda: model.score([frame[["y", "x"]] for frame in new], labels))
check("predict, half of the frames y, x",
      lambda: model.score([frame[["y", "x"]] if i % 4 < 2 else frame for i, frame in enumerate(new)], labels))
check("fit, half of the frames y, x", lambda: ModularInverseClassifier(**quick).fit(
    [frame[["y", "x"]] if i % 4 < 2 else frame for i, frame in enumerate(X)], y).score(new, labels))
check("predict, frames of one length", lambda: model.score([frame[["y", "x"]][:20] for frame in new], labels))
try:
    model.predict([frame.rename(columns={"x": "pressure", "y": "time"}) for frame in new])
    wrong.append("predict, columns with other names: expected ValueError, got labels")
except ValueError:
    pass
print("\n".join(wrong) or "ok")
sys.exit(bool(wrong))
