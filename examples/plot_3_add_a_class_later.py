"""
Adding a class later
====================

Modules are independent of each other. A class that is added after training is one more module; the
weights of the others stay the same, bit for bit.
"""

# %%
# Train on eight of scikit-learn's ten digits. An image is a sequence of its rows: eight steps of
# eight values.

import time

import numpy as np
from matplotlib import pyplot as plt

from micfast import CrossErrorDisplay, ModularInverseClassifier, Training
from micfast.data import load_digits_sequences

data = load_digits_sequences()
early = data.y_train < 8
model = ModularInverseClassifier(
    hidden_size=16,
    n_modules_per_class=1,
    training=Training.paper(n_episodes=8000),
    random_state=0,
)
start = time.perf_counter()
model.fit(data.X_train[early], data.y_train[early])
print(f"classes {model.classes_.tolist()}, {time.perf_counter() - start:.1f} s")
known = data.y_test < 8
print(f"accuracy on 0 to 7: {model.score(data.X_test[known], data.y_test[known]):.3f}")

# %%
# Add eight and nine, from 20 images each.

before = model.bank_
for digit in (8, 9):
    images = data.X_train[data.y_train == digit][:20]
    start = time.perf_counter()
    model.add_class(images, digit)
    print(f"added {digit} in {time.perf_counter() - start:.2f} s")

print("the first eight modules are unchanged:", model.bank_.select(range(8)) == before)
print(f"accuracy on 0 to 9: {model.score(data.X_test, data.y_test):.3f}")

# %%
# The errors of all modules on test images show which classes the new ones resemble:

CrossErrorDisplay.from_estimator(model, data.X_test[:500], data.y_test[:500])
plt.show()

# %%
# A class can be retrained, for example on more samples, or removed.

nines = data.X_train[data.y_train == 9]
model.refit_class(nines, 9)
print(f"nine from {len(nines)} images: {model.score(data.X_test, data.y_test):.3f}")
model.remove_class(0)
print("without zero:", np.unique(model.predict(data.X_test)))
