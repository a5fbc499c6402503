"""Sequences in containers other than a list: what group-by, loadmat, sktime and awkward give.

Sources: tslearn-team/tslearn#217 (groupby("ID").apply), scikit-learn/scikit-learn#15816,
sktime/sktime#402, #1791 and #10716, aeon-toolkit/aeon#110, scipy/scipy#13093 (.mat: (n,) becomes (1, n)).
Expected: taken as list(container) is; or an error that says "pass a list of arrays". Today:
"setting an array element with a sequence." or "float() argument must be ... not 'generator'".
"""
import sys
import warnings

import numpy as np
import pandas as pd

from micfast import ModularInverseClassifier, Training

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X, y = [], []
for i in range(12):
    t = np.linspace(0, 1, int(rng.integers(20, 31)))
    X.append(np.stack([t, np.sin(3 * t) if i % 2 else np.cos(5 * t)], 1))
    y.append("arch" if i % 2 else "wave")
model = ModularInverseClassifier(n_types=2, training=Training.paper(n_episodes=500), n_modules_per_class=1, random_state=0).fit(X, y)
expected = model.predict(X).tolist()
long = pd.concat([pd.DataFrame(x, columns=["x", "y"]).assign(id=i) for i, x in enumerate(X)])
cell = np.empty((1, len(X)), dtype=object)
cell[0] = X
containers = {
    "list (for comparison)": lambda: X,
    "pd.Series of arrays (groupby.apply)": lambda: long.groupby("id")[["x", "y"]].apply(lambda g: g.to_numpy()),
    "cells of a .mat file, (1, n) objects": lambda: cell,
    "cells of a .mat file, (n, 1) objects": lambda: cell.T,
    "sktime's nested_univ": lambda: pd.DataFrame({"x": [pd.Series(x[:, 0]) for x in X],
                                                  "y": [pd.Series(x[:, 1]) for x in X]}),
    "generator": lambda: (x for x in X),
    "dict": lambda: dict(enumerate(X)),
}
try:
    import awkward

    containers["awkward array"] = lambda: awkward.Array([x.tolist() for x in X])
except ImportError:
    pass
wrong = []
for what, make in containers.items():
    try:
        got = model.predict(make()).tolist()
        if got != expected:
            wrong.append(f"{what}: expected the labels of the list, got {got}")
    except Exception as error:
        if "list of" not in str(error):
            wrong.append(f"{what}: {type(error).__name__}: {str(error).splitlines()[0][:110]}")
print("\n".join(wrong) or "ok")
sys.exit(bool(wrong))
