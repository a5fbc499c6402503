"""Settings of a training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from micfast.settings import Settings, check_count, check_number, is_number

__all__ = ["Training"]


@dataclass(frozen=True)
class Training(Settings):
    """How modules are trained: batch-1 Adam on the types, as in the paper.

    Parameters
    ----------
    n_episodes : int
        Training episodes of each module; each shows one type.
    learning_rate : float
        Adam's step size; above 0.
    noise_in : float, or one per module
        Standard deviation of the noise on the one-hot inputs, which are then clipped to [0, 1].
    noise_out : float, or one per module
        Standard deviation of the noise on the types, in their units.
    max_retries : int
        How often modules that failed to learn their types are retrained from a new seed.
    learned_tol : float
        A module has learned its types when its noise-free mean squared error is at most this
        fraction of the types' variance.

    Raises
    ------
    TypeError, ValueError
        For values that are not as described.

    Notes
    -----
    Only :func:`micfast.train` takes a noise per module, and it ignores the last two settings; the
    classifier uses them.
    """

    n_episodes: int = 20000
    learning_rate: float = 0.01
    noise_in: float | tuple[float, ...] = 0.0
    noise_out: float | tuple[float, ...] = 0.0
    max_retries: int = 3
    learned_tol: float = 0.1

    def __post_init__(self) -> None:
        where = "Training"
        self.set("n_episodes", check_count(where, "n_episodes", self.n_episodes, 1, 2**62))
        for name in ("learning_rate", "learned_tol"):
            self.set(name, check_number(where, name, getattr(self, name), positive=True))
        for name in ("noise_in", "noise_out"):
            self.set(name, _noise(name, getattr(self, name)))
        self.set("max_retries", check_count(where, "max_retries", self.max_retries, 0, 10**6))


def _noise(name: str, value: object) -> float | tuple[float, ...]:
    if isinstance(value, Iterable) and not isinstance(value, str) and not is_number(value):
        return tuple(check_number("Training", name, level) for level in value)
    return check_number("Training", name, value)
