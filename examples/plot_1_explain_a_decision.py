"""
Why was it called that?
=======================

Every decision can be explained: by the reconstruction of each class's module, its error, and the
mixture of types behind it. Here a classifier learns six gestures from five recordings of each.
"""

# %%
# The data are curves from formulas. Each recording is rotated, sheared, stretched, and drawn at an
# uneven speed.

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
# One small LSTM per class learns to draw the types of its class.

model = ModularInverseClassifier(n_types=4, n_modules_per_class=1, random_state=0)
model.fit(X_train, y_train)
print(f"accuracy {model.score(X_test, y_test):.3f}")

# %%
# For comparison, a nearest neighbour among the same recordings. On tidy data like these it is as
# accurate, but it cannot explain its decisions as the rest of this page does.

nearest = KNeighborsClassifier(1).fit(X_train.reshape(len(X_train), -1), y_train)
print(f"1-NN     {nearest.score(X_test.reshape(len(X_test), -1), y_test):.3f}")

# %%
# The three best reconstructions of one recording: grey is the recording, colour the reconstruction,
# and the number the mean squared error that decides.

index = int(np.flatnonzero(y_test == "spiral")[0])
_, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ReconstructionDisplay.from_estimator(model, X_test, y_test, index=index, n_best=3, ax=ax)
plt.show()

# %%
# The latent of the winning module is a mixture of its four types. The path shows the search.

LatentPathDisplay.from_estimator(model, X_test, y_test, index=index)
plt.show()

# %%
# Mean errors over all recordings: rows are modules, columns the true classes. If a row is dark in
# another class's column, its module also draws that class, and its own class needs more recordings.

CrossErrorDisplay.from_estimator(model, X_test, y_test)
plt.show()
