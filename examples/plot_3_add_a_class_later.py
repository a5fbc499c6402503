"""
Adding a class later
====================

Modules know nothing of each other. A class that turns up after training is one more module, and
nothing that was learned before changes: the weights of the others stay the same, bit for bit.
"""

# %%
# Train on eight of the ten digits that come with scikit-learn. An image is read as a sequence of
# rows, eight steps of eight values.

import time

import numpy as np
from matplotlib import pyplot as plt

from micfast import CrossErrorDisplay, ModularInverseClassifier
from micfast.data import load_digits_sequences

data = load_digits_sequences()
early = data.y_train < 8
model = ModularInverseClassifier(
    hidden_size=16, n_modules_per_class=1, n_episodes=8000, random_state=0
)
start = time.perf_counter()
model.fit(data.X_train[early], data.y_train[early])
print(f"classes {model.classes_.tolist()}, {time.perf_counter() - start:.1f} s")
known = data.y_test < 8
print(f"accuracy on 0 to 7: {model.score(data.X_test[known], data.y_test[known]):.3f}")

# %%
# Eight and nine arrive, 20 images of each.

before = model.bank_
for digit in (8, 9):
    images = data.X_train[data.y_train == digit][:20]
    start = time.perf_counter()
    model.add_class(images, digit)
    print(f"added {digit} in {time.perf_counter() - start:.2f} s")

print("the first eight modules are unchanged:", model.bank_.select(range(8)) == before)
print(f"accuracy on 0 to 9: {model.score(data.X_test, data.y_test):.3f}")

# %%
# Which classes the newcomers are near to, by the errors of all modules on test images:

CrossErrorDisplay.from_estimator(model, data.X_test[:500], data.y_test[:500])
plt.show()

# %%
# A class can be trained anew, with more samples or better ones, or taken away.

nines = data.X_train[data.y_train == 9]
model.refit_class(nines, 9)
print(f"nine from {len(nines)} images: {model.score(data.X_test, data.y_test):.3f}")
model.remove_class(0)
print("without zero:", np.unique(model.predict(data.X_test)))
