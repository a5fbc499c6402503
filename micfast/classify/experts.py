"""Product of experts: what the errors of several views say together, and how far to trust them.

Each expert e gives a sequence an error for each class. Classes are ranked by
``sum_e tau_e log(error_e)``: the logarithm of a weighted geometric mean of the errors, times the
sum of the temperatures tau. These come from sequences of known class that no expert has learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

__all__ = ["Expectation", "Experts", "fit_experts"]

Floats = NDArray[np.float64]

# Errors are at least this part of the median one: a class cannot win by drawing to the last bit.
_LEAST_ERROR = 1e-4
# Standard deviations of the prior: of log(tau) around their common value, and of that around 0.
_SPREAD, _COMMON = 1.0, 1.0
_Z95 = 1.959964


@dataclass(frozen=True)
class Expectation:
    """What the training samples say about the accuracy on new sequences.

    Attributes
    ----------
    accuracy, low, high : float
        With its 95 % interval (Wilson's).
    log_loss : float
        Mean of minus the logarithm of the true class's probability.
    n : int
        Sequences asked.
    source : {"held out", "left out"}
        Training samples that no module has learned; or types, each left out of the hull of its
        class, which stands in for modules trained without it.

    Examples
    --------
    >>> from micfast.classify.experts import Expectation
    >>> print(Expectation(0.9, 0.77, 0.96, 0.31, n=40, source="left out"))
    expected accuracy 0.90 [0.77, 0.96], log loss 0.31 (40 training samples, each left out in turn)
    """

    accuracy: float
    low: float
    high: float
    log_loss: float
    n: int
    source: Literal["held out", "left out"]

    def __str__(self) -> str:
        how = "each left out in turn" if self.source == "left out" else "held out"
        return (
            f"expected accuracy {self.accuracy:.2f} [{self.low:.2f}, {self.high:.2f}], log loss "
            f"{self.log_loss:.2f} ({self.n} training samples, {how})"
        )


@dataclass(frozen=True, eq=False)
class Experts:
    """How the errors of E experts become one.

    Attributes
    ----------
    names : tuple of str
    taus : ndarray of shape (E,)
        Temperatures; probabilities are proportional to the product of ``error_e ** -tau_e``.
    floors : ndarray of shape (E,)
        Added to the errors.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.classify.experts import Experts
    >>> experts = Experts(("raw", "energy"), taus=np.array([2.0, 2.0]), floors=np.zeros(2))
    >>> experts.combine(np.array([[[0.1, 0.4]], [[0.4, 0.1]]]))  # of each sequence and class
    array([[0.2, 0.2]])
    """

    names: tuple[str, ...]
    taus: Floats
    floors: Floats

    @property
    def temperature(self) -> float:
        """By which logarithms of the combined errors are divided in probabilities."""
        return 1 / float(self.taus.sum())

    def combine(self, errors: Floats) -> Floats:
        """Weighted geometric means (..., ) of the experts' errors (E, ...)."""
        if len(self.taus) == 1:
            return errors[0]
        shares = self.taus / self.taus.sum()
        # One after the other: the rounding of a matrix product depends on its size.
        weighted = [share * log for share, log in zip(shares, self.logs(errors), strict=True)]
        return np.exp(sum(weighted[1:], weighted[0]))

    def logs(self, errors: Floats) -> Floats:
        """Logarithms of errors (E, ...) above their floors."""
        return np.log(errors + self.floors.reshape(-1, *[1] * (errors.ndim - 1)))


def wilson(n_right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share."""
    if n == 0:
        return 0.0, 1.0
    share, z2 = n_right / n, _Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def fit_experts(
    names: tuple[str, ...],
    errors: list[Floats],
    codes: NDArray[Any],
    source: Literal["held out", "left out"],
) -> tuple[Experts, Expectation | None]:
    """Temperatures of the lowest log loss, drawn towards a common value.

    Parameters
    ----------
    names : tuple of str
    errors : list of ndarray of shape (E, n, C)
        At each level of noise, the first without any; rows with infinite errors are left out.
    codes : ndarray of shape (n,)
        The true classes.
    source
        See :class:`Expectation`.

    Returns
    -------
    Experts
        With temperatures of 1 if there is nothing to ask.
    Expectation or None
        At no noise.
    """
    E = len(names)
    usable = np.all([np.isfinite(level).all(axis=(0, 2)) for level in errors], axis=0)
    errors, codes = [level[:, usable] for level in errors], codes[usable]
    clean = errors[0]
    if not len(codes):
        return Experts(names, np.ones(E), np.zeros(E)), None
    floors = _LEAST_ERROR * np.median(clean, axis=(1, 2))
    experts = Experts(names, np.ones(E), np.maximum(floors, 1e-12))
    logs = [experts.logs(level) for level in errors]
    at = np.arange(len(codes))

    def loss(theta: Floats) -> tuple[float, Floats]:
        """Log loss over all levels with the prior, and its gradient by log(tau)."""
        tau = np.exp(theta)
        value, slope = 0.0, np.zeros(E)
        for level in logs:
            scores = -np.einsum("e,enc->nc", tau, level)
            total = logsumexp(scores, axis=1)
            value += float((total - scores[at, codes]).sum()) / len(logs)
            share = np.exp(scores - total[:, None])
            share[at, codes] -= 1
            slope -= tau * np.einsum("enc,nc->e", level, share) / len(logs)
        common = theta.mean()
        apart = theta - common
        value += float((apart @ apart) / (2 * _SPREAD**2) + common**2 / (2 * _COMMON**2))
        return value, slope + apart / _SPREAD**2 + common / (E * _COMMON**2)

    best = minimize(loss, np.zeros(E), jac=True, method="L-BFGS-B", bounds=[(-5, 4)] * E)
    fitted = Experts(names, np.exp(best.x), experts.floors)
    scores = -np.einsum("e,enc->nc", fitted.taus, logs[0])
    right = int((scores.argmax(axis=1) == codes).sum())
    log_loss = float((logsumexp(scores, axis=1) - scores[at, codes]).mean())
    n = len(codes)
    return fitted, Expectation(right / n, *wilson(right, n), log_loss, n, source)
