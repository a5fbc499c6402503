"""
Ways to search, compared
========================

An inversion is a search in a small space, the mixtures of a class's types, over a surface that is
not convex. Where it starts and how it steps matters more than how long it runs.
"""

# %%
# Modules of the ten digits, and the error of the module of the true class over the iterations of
# four searches: Adam and Levenberg and Marquardt's method (LM), each from the even mixture and
# from the mixture whose drawing is nearest to the target.

import numpy as np
from matplotlib import pyplot as plt

import micfast
from micfast.data import load_digits_sequences

data = load_digits_sequences()
model = micfast.ModularInverseClassifier(
    hidden_size=16, n_modules_per_class=1, n_episodes=10000, random_state=0
).fit(data.X_train, data.y_train)
targets = model.standardizer_.transform(data.X_test)

searches = {}
for solver, n_iter in (("adam", 50), ("lm", 8)):
    for init in ("uniform", "nearest"):
        searches[solver, init] = micfast.invert(
            model.bank_, targets, solver=solver, n_iter=n_iter, init=init, return_history=True
        )

# %%
# The axis counts iterations, not time: one of LM's is dearer, since it differentiates in every
# direction (:doc:`/performance/solvers` has the times).

_, ax = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
own = np.arange(len(targets)), data.y_test
look = {"adam": ("#D55E00", "Adam"), "lm": ("#0072B2", "LM")}
for (solver, init), found in searches.items():
    colour, name = look[solver]
    curve = found.error_history[:, *own].mean(axis=1)
    dashes = "-" if init == "nearest" else "--"
    ax.plot(curve, dashes, color=colour, label=f"{name}, {init} start")
ax.set(xlabel="iterations", ylabel="mean error of the true class's module", yscale="log")
ax.legend(frameon=False)
plt.show()

# %%
# What that means for the decisions: with modules as well trained as these, little. It matters for
# those that learned less well, and for longer sequences (see :doc:`/better`).

for (solver, init), found in searches.items():
    accuracy = (found.predictions == data.y_test).mean()
    print(f"{solver:5} {init:8} error {found.errors[own].mean():.4f}  accuracy {accuracy:.3f}")

# %%
# A search that ends in a local minimum, seen from its path: the sequence where Adam from the even
# mixture does worst, compared with LM from the nearest start.

adam, lm = searches["adam", "uniform"], searches["lm", "nearest"]
worst = int((adam.errors[own] / lm.errors[own]).argmax())
digit = int(data.y_test[worst])
_, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for ax, found, name in zip(axes, (adam, lm), ("Adam", "LM"), strict=True):
    micfast.LatentPathDisplay.from_inversion(found, index=worst, which=digit, ax=ax)
    ax.set_title(f"{name}: error {found.errors[worst, digit]:.3f}", loc="left")
plt.show()
