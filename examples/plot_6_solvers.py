"""
Solvers and starts compared
===========================

An inversion searches a small space, the mixtures of a class's types, for the minimum of a function
that is not convex. The start and the solver matter more than the number of iterations.
"""

# %%
# Train modules of the ten digits and run four searches: Adam and Levenberg–Marquardt (LM), each
# from the even mixture ("uniform") and from the mixture that best reconstructs the target
# ("nearest").

import numpy as np
from matplotlib import pyplot as plt

import micfast
from micfast.data import load_digits_sequences

data = load_digits_sequences()
model = micfast.ModularInverseClassifier(
    hidden_size=16,
    n_modules_per_class=1,
    training=micfast.Training.paper(n_episodes=10000),
    random_state=0,
).fit(data.X_train, data.y_train)

searches = {}
for start in ("uniform", "nearest"):
    for solver in (micfast.Adam(start=start), micfast.LevenbergMarquardt(start=start)):
        searches[solver.name, start] = model.invert(data.X_test, solver=solver, history=True)

# %%
# The error of the true class's module over the iterations. An iteration of LM takes longer than one
# of Adam, because it differentiates in every direction; :doc:`/performance/solvers` has the times.

_, ax = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
own = np.arange(len(data.y_test)), data.y_test
look = {"adam": ("#D55E00", "Adam"), "lm": ("#0072B2", "LM")}
for (solver, start), found in searches.items():
    colour, name = look[solver]
    curve = found.error_history[:, *own].mean(axis=1)
    dashes = "-" if start == "nearest" else "--"
    ax.plot(curve, dashes, color=colour, label=f"{name}, {start} start")
ax.set(xlabel="iterations", ylabel="mean error of the true class's module", yscale="log")
ax.legend(frameon=False)
plt.show()

# %%
# With modules as well trained as these, the decisions hardly change. They do for modules that
# learned less well, and for longer sequences (see :doc:`/better`).

for (solver, start), found in searches.items():
    accuracy = (found.predictions == data.y_test).mean()
    print(f"{solver:5} {start:8} error {found.errors[own].mean():.4f}  accuracy {accuracy:.3f}")

# %%
# A search that ends in a local minimum: the sequence for which Adam from the even mixture does
# worst, compared with LM from the nearest start.

adam, lm = searches["adam", "uniform"], searches["lm", "nearest"]
worst = int((adam.errors[own] / lm.errors[own]).argmax())
digit = int(data.y_test[worst])
_, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for ax, found, name in zip(axes, (adam, lm), ("Adam", "LM"), strict=True):
    micfast.LatentPathDisplay.from_inversion(found, index=worst, which=digit, ax=ax)
    ax.set_title(f"{name}: error {found.errors[worst, digit]:.3f}", loc="left")
plt.show()
