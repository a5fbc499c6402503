"""Initializations: what they promise, for types of any length, and independent of company."""

import numpy as np
import pytest
import torch

from micfast import GeneratorBank, Training, train
from micfast.training.errors import variance
from micfast.training.initializations import INITIALIZATIONS
from micfast.training.initializations.matched import Matched
from micfast.training.methods.projected import ProjectedAdam

K = 3


def sinusoids(n_steps, frequencies, n_channels=1, seed=0):
    """K types that are sums of sinusoids, with random amplitudes and phases."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_steps)[:, None, None]
    phases = rng.uniform(0, 2 * np.pi, (K, 1, n_channels, len(frequencies)))
    waves = np.cos(2 * np.pi * t / n_steps * np.array(frequencies) + phases)
    return (waves * rng.uniform(0.5, 1, phases.shape)).sum(axis=-1).astype(np.float32)


def relative_errors(types, initialization, hidden_size=10):
    """Of modules that are given their exact read-out and nothing else."""
    weights = INITIALIZATIONS.resolve(initialization).weights(types, hidden_size, range(len(types)))
    training = Training(method=ProjectedAdam(0), noise_in=0)
    trained = train(GeneratorBank(weights), types, training, seeds=range(len(types)))
    return trained.errors / variance(types)


def test_sinusoids_are_drawn_without_training():
    types = sinusoids(60, [2.0, 5.5, 9.0])[None]
    assert relative_errors(types, Matched(0.2)) < 0.06
    assert relative_errors(types, "matched") < 0.2
    # The others forget, or know nothing of frequencies.
    assert relative_errors(types, "chrono") > 0.3
    assert relative_errors(types, "torch") > 0.3


def test_unequal_lengths_and_missing_values():
    whole = sinusoids(60, [2.0, 5.5, 9.0])
    holes = whole.copy()
    holes[0, 45:] = np.nan  # one type is shorter
    holes[1, 10:16, 0] = np.nan
    holes[2, 30:33] = np.nan
    errors = relative_errors(np.stack([whole, holes]), Matched(0.2))
    assert (errors < 0.05).all()


@pytest.mark.parametrize("name", [*INITIALIZATIONS])
def test_a_module_does_not_depend_on_the_others(name):
    """Not even to the bit: on the number of modules, or on how long the others' types are."""
    initialization = INITIALIZATIONS[name]()
    long = sinusoids(40, [3.0, 8.0])
    short = np.pad(sinusoids(25, [2.0]), ((0, 0), (0, 15), (0, 0)), constant_values=np.nan)
    together = initialization.weights(np.stack([long, short, long]), 7, [5, 6, 7])
    for m, types, seed in ((0, long, 5), (1, short[:, :25], 6), (2, long, 7)):
        alone = initialization.weights(types[None], 7, [seed])
        for tensor, other in zip(together[m : m + 1], alone, strict=True):
            assert torch.equal(tensor, other)
    assert not torch.equal(together.W_hh[0], together.W_hh[2])  # equal types, other seeds


@pytest.mark.parametrize("name", [*INITIALIZATIONS])
@pytest.mark.parametrize(("hidden_size", "n_steps"), [(1, 5), (2, 1), (5, 2), (9, 4), (10, 3)])
def test_small_sizes(name, hidden_size, n_steps):
    types = np.random.default_rng(0).standard_normal((2, K, n_steps, 2)).astype(np.float32)
    weights = INITIALIZATIONS[name]().weights(types, hidden_size, [-1, 2**63])
    assert weights.sizes == (2, hidden_size, K, 2)
    assert all(torch.isfinite(tensor).all() for tensor in weights)


def test_constant_types_and_channels_without_values():
    types = np.ones((2, K, 20, 2), dtype=np.float32)
    types[1, :, :, 1] = np.nan
    weights = Matched().weights(types, 6, [0, 1])
    assert all(torch.isfinite(tensor).all() for tensor in weights)


def test_chrono_remembers_for_as_long_as_the_types():
    H, types = 8, sinusoids(30, [2.0])[None]
    b = INITIALIZATIONS["chrono"]().weights(types, H, [0]).b[0].double()
    remembered, written = b[H : 2 * H].exp(), b[:H]
    assert 1 <= remembered.min() <= remembered.max() <= 29
    torch.testing.assert_close(written, -b[H : 2 * H])
    default = INITIALIZATIONS["torch"]().weights(types, H, [0]).b[0].double()
    assert torch.equal(b[2 * H :], default[2 * H :])


def test_the_paper_s_initialization_is_that_of_random_banks():
    types = sinusoids(30, [2.0])[None]
    weights = INITIALIZATIONS["torch"]().weights(types, 5, [3])
    bank = GeneratorBank.random(1, hidden_size=5, input_size=K, output_size=1, seeds=[3])
    assert GeneratorBank(weights) == bank


def test_the_amplitude_is_that_of_the_cells():
    types = sinusoids(30, [2.0])[None]
    small, large = (Matched(a).weights(types, 4, [0]).W_ih[0, 8:12] for a in (0.1, 0.3))
    assert 2.9 < float(large.abs().max() / small.abs().max()) < 3.5
