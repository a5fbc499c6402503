"""The nearest mixtures: the kernel computes what the reference does, to the bit."""

import itertools

import numpy as np
import pytest
import torch
from estimators import needs_kernel

from micfast.kernels import mixtures


@needs_kernel
@pytest.mark.parametrize("n_types", [1, 2, 4, 5, 9])
def test_mixtures_of_the_kernel_are_the_reference(n_types):
    """To the bit: where the system is singular, too, and for every way to ask."""
    rng, C, D = np.random.default_rng(n_types), 3, 7
    for P, n_kept, n, own_grams, some_gone, gain in itertools.product(
        (1, 7), (1, 2), (1, 21), (False, True), (False, True), (1.0, 1.2)
    ):
        types = torch.from_numpy(rng.standard_normal((C, P, n_types, D)))
        types[:, :, -1] = types[:, :, 0]
        X = torch.from_numpy(rng.standard_normal((n, D)))
        grams = (types @ types.mT)[..., None]
        if own_grams:
            grams = grams * torch.from_numpy(rng.uniform(0.5, 1, n))
        gone = torch.from_numpy(rng.random((C, n_types, n)) < 0.4) if some_gone else None
        asked = (grams, types @ X.T, (X * X).sum(dim=1), torch.from_numpy(rng.uniform(1, 2, P)))
        found = mixtures.nearest(*asked, most_gain=gain, n_kept=n_kept, gone=gone)
        # Where only small faces are enumerated, all poses are looked at.
        kept = P if n_types == 9 else min(n_kept, P)
        for one, other in zip(
            found, mixtures.reference_nearest(*asked, gain, kept, gone), strict=True
        ):
            assert one.tolist() == other.tolist()
