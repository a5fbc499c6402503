"""
Rejecting sequences of unknown classes
======================================

Most classifiers assign one of their classes to any input. The errors of the modules tell more: a
sequence that no module can reconstruct belongs to none of the classes.
"""

# %%
# Handwritten digits, as sequences of rows. No six is used in training.

import numpy as np
from matplotlib import pyplot as plt
from sklearn.metrics import RocCurveDisplay, roc_auc_score

from micfast import ModularInverseClassifier, Training
from micfast.data import load_digits_sequences

data = load_digits_sequences()


def fit_without(digit):
    """Modules of all digits but one."""
    model = ModularInverseClassifier(
        hidden_size=16,
        n_modules_per_class=1,
        training=Training.paper(n_episodes=3000),
        random_state=0,
    )
    known = data.y_train != digit
    return model.fit(data.X_train[known], data.y_train[known])


model = fit_without(6)

# %%
# ``novelty_score`` is the lowest error divided by that class's threshold: the error that 5 % of the
# class's own training samples exceed.

score = model.novelty_score(data.X_test)
unknown = data.y_test == 6

_, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
bins = np.geomspace(score.min(), score.max(), 30)
left.hist(score[~unknown], bins, alpha=0.7, color="#0072B2", label="digits learned")
left.hist(score[unknown], bins, alpha=0.7, color="#D55E00", label="six, never seen")
left.axvline(1, color="#1C2733", linestyle="--", linewidth=1)
left.set(xscale="log", xlabel="novelty score (above 1: rejected)", ylabel="test images")
left.legend(frameon=False)
RocCurveDisplay.from_predictions(unknown, score, ax=right, name="novelty score")
right.legend(loc="lower right", frameon=False)
plt.show()

# %%
# With ``reject`` set, ``predict`` returns ``reject_label`` above the threshold; both may be changed
# after training. The thresholds come from few samples, some of them the types themselves, so more
# than 5 % of the known images are rejected. If that matters, choose ``reject`` on held-out
# sequences.

model.set_params(reject=0.05, reject_label=-1)
answers = model.predict(data.X_test)
kept = ~unknown & (answers != -1)
print(f"sixes rejected:          {(answers[unknown] == -1).mean():.2f}")
print(f"other digits rejected:   {(answers[~unknown] == -1).mean():.2f}")
print(f"accuracy on those kept:  {(answers[kept] == data.y_test[kept]).mean():.3f}")

# %%
# The six is easy to recognise as unknown. Now each digit is held out in turn. A digit that looks
# like a blend of the others can be drawn by their modules and is harder to detect.

areas = []
for digit in range(10):
    score = fit_without(digit).novelty_score(data.X_test)
    areas.append(roc_auc_score(data.y_test == digit, score))

_, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
ax.bar(range(10), areas, color="#0072B2")
ax.set(ylim=(0.5, 1), xticks=range(10), xlabel="digit held out", ylabel="AUROC (0.5 is chance)")
plt.show()
