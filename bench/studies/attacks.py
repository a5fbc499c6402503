"""Classifiers to be disturbed and attacked, disturbances, and attacks along a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from micfast import ModularInverseClassifier

__all__ = ["Forward", "Modules", "Neighbour", "Victim", "attack", "disturb", "random_attack", "rms"]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


class Victim(Protocol):
    """A trained classifier that can be attacked."""

    name: str

    def margins(self, X: Floats, codes: Codes) -> tuple[Floats, Floats]:
        """How clearly each sequence is given its true class, and the gradient of that.

        Parameters
        ----------
        X : ndarray of shape (N, T, O)
        codes : ndarray of shape (N,)
            True classes, as numbers.

        Returns
        -------
        margins : ndarray of shape (N,)
            Positive exactly where the decision is right.
        gradient : ndarray of shape (N, T, O)
            Of each margin with respect to its sequence.
        """
        ...


class Modules:
    """Modular inverse classification: the lowest mean error of a class's modules decides.

    The margin is the lowest error of another class less that of the true one. An error is a
    minimum over inputs, so its derivative with respect to the target is that of the error at the
    input found: ``2 (target - drawn) / (T O)``. That is exact where the search has converged, and
    neither backpropagates through the search nor is hidden by it. Every call inverts anew.

    Parameters
    ----------
    name : str
    model : ModularInverseClassifier
        Fitted, without standardisation, on labels 0 to M - 1, deciding by mean squared error.
    """

    def __init__(self, name: str, model: ModularInverseClassifier) -> None:
        self.name = name
        self.model = model

    def margins(self, X: Floats, codes: Codes) -> tuple[Floats, Floats]:
        """See :class:`Victim`."""
        decision = self.model.decide(X)
        margins, others = _against_best_other(-decision.errors, codes)
        found = [decision.inversion(module=r) for r in range(len(self.model.banks_))]
        towards = [
            inversion.reconstructions(codes) - inversion.reconstructions(others)
            for inversion in found
        ]
        # The targets themselves cancel between the two errors.
        return margins, 2 / X[0].size * np.mean(towards, axis=0, dtype=np.float64)


class Forward:
    """The forward LSTM; the margin is between its outputs before the softmax.

    After the softmax, gradients of a sure decision would vanish, and the attack with them.

    Parameters
    ----------
    model : micfast.experiments.paper.baselines.TorchForward
    """

    name = "forward LSTM"

    def __init__(self, model: Any) -> None:
        self.model = model

    def margins(self, X: Floats, codes: Codes) -> tuple[Floats, Floats]:
        """See :class:`Victim`."""
        import torch

        x = torch.tensor(X, dtype=torch.float32, requires_grad=True)
        logits = self.model.logits(x)
        margins, others = _against_best_other(logits.detach().double().numpy(), codes)
        rows = torch.arange(len(codes))
        difference = logits[rows, torch.from_numpy(codes)] - logits[rows, torch.from_numpy(others)]
        (gradient,) = torch.autograd.grad(difference.sum(), x)
        return margins, gradient.double().numpy()


class Neighbour:
    """The nearest type decides; the margin is between mean squared distances.

    Parameters
    ----------
    types : ndarray of shape (C, K, T, O)
    """

    name = "1-NN Euclidean"

    def __init__(self, types: Floats) -> None:
        self.types = types.astype(np.float64)

    def margins(self, X: Floats, codes: Codes) -> tuple[Floats, Floats]:
        """See :class:`Victim`."""
        C, K = self.types.shape[:2]
        flat = self.types.reshape(C * K, -1)
        rows = X.reshape(len(X), -1)
        squares = (rows**2).sum(axis=1)[:, None] + (flat**2).sum(axis=1) - 2 * rows @ flat.T
        distances = (squares / flat.shape[1]).reshape(len(X), C, K)
        nearest, at = distances.argmin(axis=2), np.arange(len(X))
        margins, others = _against_best_other(-distances.min(axis=2), codes)
        own = self.types[codes, nearest[at, codes]]
        other = self.types[others, nearest[at, others]]
        return margins, 2 / X[0].size * (own - other)


def _against_best_other(scores: Floats, codes: Codes) -> tuple[Floats, Codes]:
    """Score of the true class less the best other's, and which that is."""
    at = np.arange(len(codes))
    others = scores.copy()
    others[at, codes] = -np.inf
    best = others.argmax(axis=1)
    return scores[at, codes] - others[at, best], best


# -- disturbances and attacks --------------------------------------------------------------------


def disturb(kind: str, level: float, X: Floats, rng: np.random.Generator) -> Floats:
    """Disturb sequences at random.

    Parameters
    ----------
    kind : {"noise", "dropout", "shift"}
        Gaussian noise; one stretch set to 0, the mean; a shift forwards or backwards in time, the
        first or last value taking the free place.
    level : float
        See :class:`Plan`.
    X : ndarray of shape (N, T, O)
    rng : numpy Generator

    Returns
    -------
    ndarray of shape (N, T, O)
    """
    N, T, _ = X.shape
    if kind == "noise":
        return X + level * rng.standard_normal(X.shape)
    n = min(T, max(1, round(level * T)))
    steps = np.arange(T)
    if kind == "dropout":
        begin = rng.integers(0, T - n + 1, N)[:, None]
        return np.where(((begin <= steps) & (steps < begin + n))[..., None], 0.0, X)
    if kind == "shift":
        source = np.clip(steps - n * rng.choice([-1, 1], N)[:, None], 0, T - 1)
        return np.take_along_axis(X, source[..., None], axis=1)
    raise ValueError(f"disturb: kind must be 'noise', 'dropout' or 'shift', got {kind!r}")


def attack(
    victim: Victim, X: Floats, codes: Codes, norm: str, budget: float, n_steps: int
) -> tuple[NDArray[np.bool_], Floats, float]:
    """Projected gradient descent on the margin, from the sequence itself.

    Parameters
    ----------
    victim : Victim
    X : ndarray of shape (N, T, O)
    codes : ndarray of shape (N,)
    norm : {"l2", "linf"}
    budget : float
        See :class:`Plan`.
    n_steps : int
        Steps of ``2.5 * budget / n_steps`` each.

    Returns
    -------
    fooled : ndarray of bool, shape (N,)
        Where the decision was wrong at the start or after any step.
    attacked : ndarray of shape (N, T, O)
        The sequences after the last step.
    blind : float
        Share of the gradients that were zero: there a gradient attack tells nothing.
    """
    if norm not in ("l2", "linf"):
        raise ValueError(f"attack: norm must be 'l2' or 'linf', got {norm!r}")
    attacked, fooled, blind = X.astype(np.float64), np.zeros(len(X), bool), 0
    size = 2.5 * budget / n_steps
    for _ in range(n_steps):
        margins, gradient = victim.margins(attacked, codes)
        fooled |= margins <= 0
        lengths = rms(gradient)
        blind += int((lengths == 0).sum())
        step = np.sign(gradient) if norm == "linf" else gradient / np.maximum(lengths, 1e-300)
        change = attacked - size * step - X
        if norm == "linf":
            change = np.clip(change, -budget, budget)
        else:
            change *= np.minimum(1, budget / np.maximum(rms(change), 1e-300))
        attacked = X + change
    fooled |= victim.margins(attacked, codes)[0] <= 0
    return fooled, attacked, blind / (n_steps * len(X))


def random_attack(
    victim: Victim, X: Floats, codes: Codes, budget: float, n: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Whether any of n random disturbances of just this size changes the decision."""
    fooled = np.zeros(len(X), bool)
    for _ in range(n):
        change = rng.standard_normal(X.shape)
        fooled |= victim.margins(X + budget * change / rms(change), codes)[0] <= 0
    return fooled


def rms(x: Floats) -> Floats:
    """Root mean square of each sequence."""
    return np.sqrt((x**2).mean(axis=(1, 2), keepdims=True))
