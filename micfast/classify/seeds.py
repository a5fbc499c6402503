"""Seeds of an estimator: each a function of its entropy, a label and a purpose alone."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from micfast.generators.labels import Label

__all__ = ["kernel_seed", "seed_sequence"]


def seed_sequence(
    entropy: NDArray[np.uint32], label: Label | None, purpose: str
) -> np.random.SeedSequence:
    """Seed of one purpose of one class (None: of all).

    So a module does not depend on which other classes there are, or on their order.
    """
    text = f"{purpose}|{type(label).__name__}|{label!r}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    words = np.frombuffer(digest, dtype="<u4")
    return np.random.SeedSequence([int(word) for word in (*entropy, *words)])


def kernel_seed(entropy: NDArray[np.uint32], label: Label, purpose: str) -> int:
    """63-bit seed for a kernel."""
    state = seed_sequence(entropy, label, purpose).generate_state(1, np.uint64)
    return int(state[0] >> 1)
