"""Cells that start as damped oscillators, fitted to the types in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import rfft
from scipy.special import logit

from micfast.kernels.weights import Weights
from micfast.sequences import ends
from micfast.settings import check_number
from micfast.training.initializations import INITIALIZATIONS, Initialization

__all__ = ["Matched"]

Floats = NDArray[np.float64]

# Dampings that are tried, in 1 / T: from a lasting oscillation to one that is over at once.
_DAMPINGS = (0.2, 1.0, 3.0, 10.0, 30.0)
# Ridges of the least-squares fits, per value: of a search step and of the last.
_SEARCH_RIDGE, _RIDGE = 1e-6, 1e-3
# Value of the input and output gates, and of their spread over units: N(0, sd^2) of their weights.
_GATE, _GATE_SD = 0.8, 0.1
# Spread of the recurrent weights of a module around those of its oscillators.
_CELL_SD = 0.01
# Numbers in one transform; bounds the memory.
_CHUNK = 2**22


@INITIALIZATIONS.register("matched")
@dataclass(frozen=True)
class Matched(Initialization):
    """Cells that are oscillators with the frequencies, dampings and phases of the types.

    Each pair of units starts as one linear oscillator that no gate disturbs: matching pursuit
    finds the H/2 damped sinusoids that hold most of the types' variance, and each type sets their
    amplitudes and phases by the input weights. (If H is odd, one unit is an exponential decay.)
    Modules of the same types differ by small random weights. With the read-out solved, which
    ``Training(method="projected")`` does before its first step, many types are already drawn.

    Parameters
    ----------
    amplitude : float or None
        Largest state of a cell at the first step, below 1. None is 0.6, and 0.05 for more than 1000
        steps. Small is closer to linear: better drawn before training, but linear modules draw
        mixtures of types as superpositions of them, and recognize less well.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import Training
    >>> from micfast.training.initializations.matched import Matched
    >>> Training().initialization == Matched()
    True
    >>> types = np.sin(np.linspace(0, 6, 30)).reshape(1, 1, 30, 1)  # of one module
    >>> Matched(amplitude=0.3).weights(types, hidden_size=6, seeds=[0])
    Weights(n_modules=1, hidden_size=6, input_size=1, output_size=1)
    """

    name: ClassVar[str] = "matched"
    amplitude: float | None = None

    def __post_init__(self) -> None:
        if self.amplitude is not None:
            value = check_number("Matched", "amplitude", self.amplitude, positive=True, below=1)
            self.set("amplitude", value)

    def weights(self, types: NDArray[Any], hidden_size: int, seeds: Sequence[int]) -> Weights:
        """See :meth:`Initialization.weights`."""
        (M, K, _, O), H = types.shape, hidden_size
        # The modules of a class share their types, so these are fitted once.
        numbers: dict[bytes, int] = {}
        which = [numbers.setdefault(one.tobytes(), len(numbers)) for one in types]
        first = [which.index(s) for s in range(len(numbers))]
        sets, lengths = types[first], ends(types[first]).max(axis=1)
        rotation, state = np.empty((len(sets), H, H)), np.empty((len(sets), H, K))
        for T in np.unique(lengths):
            # In groups of equal length: a module must not depend on the length of others.
            own = lengths == T
            rotation[own], found = _fit(sets[own, :, :T].astype(np.float64), H)
            state[own] = found * (self.amplitude or (0.6 if T <= 1000 else 0.05))
        forget = np.clip(np.diagonal(rotation, axis1=1, axis2=2), 0.05, 0.98)
        cell = (rotation - forget[:, None] * np.eye(H)) / _GATE**2
        drive = np.arctanh(np.clip(state / _GATE, -0.9, 0.9))

        sd = np.repeat([_GATE_SD, _GATE_SD, _CELL_SD, _GATE_SD], H)[:, None] / np.sqrt(H)
        W_hh, W_ih = np.empty((M, 4 * H, H)), np.empty((M, 4 * H, K))
        W_out, g = np.empty((M, O, H)), slice(2 * H, 3 * H)
        for m, seed in enumerate(seeds):
            rng = np.random.default_rng(seed % 2**64)
            W_hh[m] = sd * rng.standard_normal((4 * H, H))
            W_ih[m] = _GATE_SD * rng.standard_normal((4 * H, K))
            W_out[m] = rng.uniform(-1, 1, (O, H)) / np.sqrt(H)
        W_hh[:, g] += cell[which]
        W_ih[:, g] = drive[which]
        b = np.full((M, 4, H), logit(_GATE))
        b[:, 1], b[:, 2] = logit(forget[which]), 0
        arrays = (W_ih, W_hh, b.reshape(M, 4 * H), W_out, np.zeros((M, O)))
        return Weights(*(torch.from_numpy(a.astype(np.float32)) for a in arrays))


# -- the fit of damped sinusoids -----------------------------------------------------------------


def _fit(Y: Floats, hidden_size: int) -> tuple[Floats, Floats]:
    """Damped sinusoids for sets of types (S, K, T, O), one per pair of hidden units.

    Returns
    -------
    rotation : ndarray of shape (S, H, H)
        What a step makes of the cells.
    states : ndarray of shape (S, H, K)
        The cells before their first step, at most 1.
    """
    S, K, T, _ = Y.shape
    n, odd = divmod(hidden_size, 2)
    known = ~np.isnan(Y)
    Y = np.where(known, Y, 0)
    # Mostly all channels are known at the same steps, and mostly all types at all: these axes
    # then need not be repeated.
    if (known == known[..., :1]).all():
        known = known[..., :1]
    if known.all():
        known = known[:, :1]
    steps = np.arange(T)
    columns = np.ones((S, T, 1 + odd + 2 * n))
    if odd:
        columns[:, :, 1] = np.exp(-steps / T)
    angles, dampings = np.zeros((2, S, n))
    for q in range(n):
        begin = 1 + odd + 2 * q
        chosen = columns[:, :, :begin]
        drawn = chosen[:, None] @ _least_squares(chosen, Y, known, _SEARCH_RIDGE)
        gains = _gains(np.where(known, Y - drawn, 0), known)
        angles[:, q], dampings[:, q] = _best(gains, angles[:, :q], T, q, n)
        pole = np.exp((-dampings[:, q] + 1j * angles[:, q])[:, None] * steps)
        columns[:, :, begin], columns[:, :, begin + 1] = pole.real, pole.imag
    coefficients = _least_squares(columns, Y, known, _RIDGE)  # (S, K, P, O)
    cosines = coefficients[:, :, 1 + odd :: 2].transpose(0, 2, 3, 1)
    sines = coefficients[:, :, 2 + odd :: 2].transpose(0, 2, 3, 1)
    # Re((a - ib) e^iwt) = a cos wt + b sin wt. One read-out serves all types, so each oscillator
    # keeps what its channels have in common: the types' first right singular vector.
    states = np.empty((S, hidden_size, K))
    if n:
        states[:, : 2 * n] = _common(cosines - 1j * sines).reshape(S, 2 * n, K)
    if odd:
        states[:, -1:] = _common(coefficients[:, :, 1:2].transpose(0, 2, 3, 1))[:, 0, :1]
    rotation = np.zeros((S, hidden_size, hidden_size))
    pole = np.exp(-dampings + 1j * angles)
    re, im = np.arange(0, 2 * n, 2), np.arange(1, 2 * n, 2)
    rotation[:, re, re] = rotation[:, im, im] = pole.real
    rotation[:, im, re], rotation[:, re, im] = pole.imag, -pole.imag
    if odd:
        rotation[:, -1, -1] = np.exp(-1 / T)
    return rotation, states


def _least_squares(columns: Floats, Y: Floats, known: NDArray[np.bool_], ridge: float) -> Floats:
    """Coefficients (S, K, P, O) of columns (S, T, P) that fit Y (S, K, T, O) where it is known."""
    P = columns.shape[2]
    weighted = columns[:, None, None] * known.swapaxes(2, 3)[..., None]
    gram = weighted.swapaxes(-1, -2) @ columns[:, None, None]  # (S, K or 1, O or 1, P, P)
    gram += ridge * known.sum(axis=2)[..., None, None].clip(1) * np.eye(P)
    right = columns[:, None].swapaxes(-1, -2) @ Y  # (S, K, P, O)
    solved: Any = np.linalg.solve(gram, right.swapaxes(2, 3)[..., None])[..., 0]
    return solved.swapaxes(2, 3)


def _gains(residuals: Floats, known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Variance (S, dampings, frequencies) that one more sinusoid would hold.

    Frequencies are 2 pi / F times 0, 1, ..., F / 2, with F a power of 2 of at least 4 T.
    """
    S, K, T, O = residuals.shape
    n_steps = 2 ** (4 * T - 1).bit_length()
    rows = np.ascontiguousarray(residuals.transpose(0, 1, 3, 2), dtype=np.float32)
    present = known.transpose(0, 1, 3, 2)
    share = known.sum(axis=2)[..., None].clip(1)
    gains = np.empty((S, len(_DAMPINGS), n_steps // 2 + 1), dtype=np.float32)
    chunk = max(1, _CHUNK // (K * O * n_steps))
    for j, damping in enumerate(_DAMPINGS):
        decay = np.exp(-damping / T * np.arange(T))
        energy = (present * decay**2).sum(axis=-1, keepdims=True).clip(1e-30)
        scaled = rows * (decay * np.sqrt(2 / (energy * share))).astype(np.float32)
        for s in range(0, S, chunk):
            spectrum = rfft(scaled[s : s + chunk], n_steps)
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            gains[s : s + chunk, j] = power.reshape(len(power), K * O, -1).sum(axis=1)
    return gains


def _best(
    gains: NDArray[np.float32], chosen: Floats, T: int, q: int, n: int
) -> tuple[Floats, Floats]:
    """Angle and damping (S,) of the largest gain, not too near those chosen."""
    angles = np.linspace(0, np.pi, gains.shape[2])
    allowed = (angles >= np.pi / T) & (angles <= 0.98 * np.pi)
    near = np.abs(angles - chosen[:, :, None]) <= 0.8 * np.pi / T
    gains = np.where((allowed & ~near.any(axis=1))[:, None], gains, -1)
    flat = gains.reshape(len(gains), -1)
    damping, angle = np.divmod(flat.argmax(axis=1), gains.shape[2])
    # Short sequences have room for few different frequencies: the rest are spread evenly.
    none_left = flat.max(axis=1) < 0
    return (
        np.where(none_left, np.pi * (q + 0.5) / n, angles[angle]),
        np.where(none_left, _DAMPINGS[1], np.array(_DAMPINGS)[damping]) / T,
    )


def _common(coefficients: NDArray[Any]) -> Floats:
    """Real and imaginary part (S, n, 2, K) of the first right singular vectors of (S, n, O, K).

    Scaled to 1 at most: as a pair, since anything else would change the phases.
    """
    vectors = np.linalg.svd(coefficients, full_matrices=False)[2][:, :, 0]
    vectors = vectors / np.abs(vectors).max(axis=-1, keepdims=True)
    return np.stack([vectors.real, vectors.imag], axis=2)
