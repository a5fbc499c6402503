"""
Why was it called that?
=======================

Every decision comes with its reasons: what each class's module drew, how far that is from the
sequence, and with which mixture of the class's types it was drawn. Here six gestures are learned
from five recordings of each.
"""

# %%
# The data: curves from formulas, each recording of it written with another hand: turned, sheared,
# stretched, and at an uneven speed.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.neighbors import KNeighborsClassifier

from micfast import (
    CrossErrorDisplay,
    LatentPathDisplay,
    ModularInverseClassifier,
    ReconstructionDisplay,
)

CURVES = {
    "circle": lambda s: (np.sin(2 * np.pi * s), np.cos(2 * np.pi * s)),
    "eight": lambda s: (np.sin(4 * np.pi * s), np.sin(2 * np.pi * s)),
    "spiral": lambda s: (s * np.sin(4 * np.pi * s), s * np.cos(4 * np.pi * s)),
    "zigzag": lambda s: (2 * s - 1, 2 * np.abs((3 * s) % 1 - 0.5)),
    "tick": lambda s: (2 * s - 1, np.where(s < 0.35, -2.5 * s, -0.875 + 2.9 * (s - 0.35))),
    "arc": lambda s: (np.cos(np.pi * s), np.sin(np.pi * s)),
}


def record(name, rng, n_steps=60):
    """One recording of a gesture: pen positions (n_steps, 2)."""
    s = np.linspace(0, 1, n_steps)
    s = s + 0.06 * rng.normal() * np.sin(2 * np.pi * s)
    path = np.stack(CURVES[name](s), axis=1)
    return path @ (np.eye(2) + 0.18 * rng.normal(size=(2, 2))) + 0.02 * rng.normal(size=2)


rng = np.random.default_rng(0)
X_train = np.stack([record(name, rng) for name in CURVES for _ in range(5)])
y_train = np.repeat(list(CURVES), 5)
X_test = np.stack([record(name, rng) for name in CURVES for _ in range(30)])
y_test = np.repeat(list(CURVES), 30)

# %%
# One small LSTM per class learns to draw its class's types.

model = ModularInverseClassifier(n_types=4, n_modules_per_class=1, random_state=0)
model.fit(X_train, y_train)
print(f"accuracy {model.score(X_test, y_test):.3f}")

# %%
# A nearest neighbour among the same recordings is the yardstick: on tidy data like these it does
# as well. What it does not give is the rest of this page.

nearest = KNeighborsClassifier(1).fit(X_train.reshape(len(X_train), -1), y_train)
print(f"1-NN     {nearest.score(X_test.reshape(len(X_test), -1), y_test):.3f}")

# %%
# The three best drawings of one recording. Grey is the recording, colour is what the module makes
# of it, and the number is the mean squared difference that decides.

index = int(np.flatnonzero(y_test == "spiral")[0])
_, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ReconstructionDisplay.from_estimator(model, X_test, y_test, index=index, n_best=3, ax=ax)
plt.show()

# %%
# The winning module found its drawing as a mixture of its four types; the path shows the search.

LatentPathDisplay.from_estimator(model, X_test, y_test, index=index)
plt.show()

# %%
# Over all the recordings: rows are modules, columns the true classes. A row that is dark
# in a foreign column is a module that draws too much, and a class that needs more recordings.

CrossErrorDisplay.from_estimator(model, X_test, y_test)
plt.show()
