"""Settings of a training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from micfast.settings import Settings, check_count, check_number, is_number
from micfast.training.initializations import INITIALIZATIONS, Initialization
from micfast.training.initializations.drawn import Torch
from micfast.training.methods import METHODS, Method
from micfast.training.methods.adam import BatchOneAdam

__all__ = ["Training"]


@dataclass(frozen=True)
class Training(Settings):
    """How modules are trained. See ``docs/training.md``.

    Parameters
    ----------
    method : {"auto", "projected", "lm", "adam"} or method object
        "projected": Adam with the read-out solved exactly at every step. "lm": the
        Levenberg-Marquardt method, also with the exact read-out. "auto": the first, and then the
        second where the first was not enough. "adam": the paper's, one type after the other.
    initialization : {"matched", "chrono", "torch"} or initialization object
        "matched": oscillators with the frequencies of the types. "chrono": time constants from 1
        step to the length of the types. "torch": PyTorch's default, as in the paper.
    noise_in : float, or one per module
        Standard deviation of the noise on the one-hot inputs, which are then clipped to [0, 1].
    noise_out : float, or one per module
        Standard deviation of the noise on the types, in their units.
    goal : float
        Relative error, that is mean squared error over the types' variance, with which "lm" stops;
        "auto" gives "lm" the modules above it.
    max_retries : int
        How often modules that failed to learn their types are retrained from a new seed; but not,
        except by "adam", where the types are too rich for ``hidden_size``.
    learned_tol : float
        A module has learned its types when its noise-free relative error is at most this.

    Raises
    ------
    TypeError, ValueError
        For values that are not as described.

    Notes
    -----
    :func:`micfast.train` has modules to start from, and ignores ``initialization`` and
    ``max_retries``; it alone takes a noise per module.

    Examples
    --------
    >>> from micfast import Training
    >>> Training().method.first.n_steps
    500
    >>> Training.paper(n_episodes=40000).method
    BatchOneAdam(n_episodes=40000, learning_rate=0.01)
    """

    method: Method | str = "auto"
    initialization: Initialization | str = "matched"
    noise_in: float | tuple[float, ...] = 0.2
    noise_out: float | tuple[float, ...] = 0.0
    goal: float = 0.01
    max_retries: int = 3
    learned_tol: float = 0.1

    def __post_init__(self) -> None:
        where = "Training"
        self.set("method", METHODS.resolve(self.method))
        self.set("initialization", INITIALIZATIONS.resolve(self.initialization))
        for name in ("goal", "learned_tol"):
            self.set(name, check_number(where, name, getattr(self, name), positive=True))
        for name in ("noise_in", "noise_out"):
            self.set(name, _noise(name, getattr(self, name)))
        self.set("max_retries", check_count(where, "max_retries", self.max_retries, 0, 10**6))

    @classmethod
    def paper(
        cls, n_episodes: int = 20000, *, learning_rate: float = 0.01, **others: Any
    ) -> Training:
        """The paper's training: Adam with batch size 1 from PyTorch's initialization, no noise.

        Parameters
        ----------
        n_episodes : int
            Training episodes of each module; each shows one type.
        learning_rate : float
        **others
            Noise, ``max_retries`` and ``learned_tol``.

        Returns
        -------
        Training
        """
        method = BatchOneAdam(n_episodes, learning_rate)
        settings: dict[str, Any] = {"method": method, "initialization": Torch(), "noise_in": 0.0}
        return cls(**(settings | others))


def _noise(name: str, value: object) -> float | tuple[float, ...]:
    if isinstance(value, Iterable) and not isinstance(value, str) and not is_number(value):
        return tuple(check_number("Training", name, level) for level in value)
    return check_number("Training", name, value)
