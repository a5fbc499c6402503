"""A wide table (one row a sequence) whose short rows end in NaN: the message leads astray.

Sources: White-Link/...#1 (this is the layout of the UCR archive), tslearn-team/tslearn#94,
scikit-learn/scikit-learn#21219 (review: odd for other packages' estimators).
Expected: the table is taken as sequences of unequal lengths, as the same numbers in three dimensions
are; or the message says how: X[..., None] or nan_policy="omit". Today it recommends another library's
HistGradientBoostingClassifier and an imputer.
"""
import sys
import warnings

import numpy as np
import pandas as pd

from micfast import ModularInverseClassifier, Training

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
rows, y = [], []
for i in range(12):
    t = np.linspace(0, 1, int(rng.integers(20, 31)))
    rows.append(pd.Series(np.sin(3 * t) if i % 2 else np.cos(5 * t)))
    y.append("arch" if i % 2 else "wave")
table = pd.DataFrame(rows)
quick = dict(n_types=2, training=Training.paper(n_episodes=500), n_modules_per_class=1, random_state=0)
in_3d = ModularInverseClassifier(**quick).fit(table.to_numpy()[..., None], y)
wrong = []
for what, function in {
    "fit": lambda: ModularInverseClassifier(**quick).fit(table, y).score(table, y),
    "predict": lambda: in_3d.score(table, y),
}.items():
    try:
        function()
    except ValueError as error:
        if "nan_policy" not in str(error) and "[..., None]" not in str(error):
            wrong.append(f"{what}: expected an answer or a message that tells the way, got: {error}"[:260])
print("\n".join(wrong) or "ok")
sys.exit(bool(wrong))
