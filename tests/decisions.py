"""Digests of what a classifier of digits learns and answers, per instruction set.

``python -m tests.decisions`` prints those of the installed package as JSON;
``tests/data/decisions.json`` holds those of commit 482234b, and ``test_decision.py`` compares.
Types are samples and values exact binary fractions, so that no library's rounding enters.
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
from sklearn.datasets import load_digits

from micfast import ModularInverseClassifier, Training


def digest(array: np.ndarray) -> str:
    """One hash of all bits."""
    kind = f"{array.dtype.str} {array.shape}"
    return hashlib.sha256(kind.encode() + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def decisions() -> dict[str, str]:
    """Digests under the instruction set in use (``MICFAST_ISA``)."""
    pixels, labels = load_digits(return_X_y=True)
    rows = pixels.reshape(-1, 8, 8) / 16 - 0.5
    # The search and the training that were the defaults at 482234b.
    clf = ModularInverseClassifier(
        type_selection="first",
        n_modules_per_class=3,
        views="raw",
        pose=None,
        hull=False,
        training=Training.paper(),
        standardize=None,
        random_state=0,
    )
    clf.fit(rows[:300], labels[:300])
    new = rows[300:700]
    computed = {
        "types": clf.types_,
        "errors": clf.reconstruction_errors(new),
        "labels": clf.predict(new).astype(np.int64),
        "decision_function": clf.decision_function(new),
        "latents": clf.invert(new).latents,
    }
    return {name: digest(array) for name, array in computed.items()}


if __name__ == "__main__":
    json.dump(decisions(), sys.stdout, indent=1)
