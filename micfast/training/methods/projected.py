"""Adam on all types at once, with the read-out solved exactly at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from micfast.arrays import to_numpy
from micfast.kernels import calls
from micfast.kernels.execution import Execution
from micfast.kernels.weights import Weights
from micfast.progress import Report
from micfast.settings import check_count, check_number
from micfast.training.methods import METHODS, Fleet, Learned, Method
from micfast.training.methods.adam import ADAM, CURVE_POINTS

__all__ = ["ProjectedAdam"]

# Largest norm of a module's gradient, and the ridge of its read-out.
_CLIP_NORM, _RIDGE = 1.0, 1e-6


@METHODS.register("projected")
@dataclass(frozen=True)
class ProjectedAdam(Method):
    """Adam with the read-out eliminated (variable projection, Golub and Pereyra 1973).

    Each step draws all K types; the best linear read-out of the hidden states is a small linear
    system, so only the LSTM's own weights are left to Adam. The learning rate rises over the first
    100 steps and then falls as a cosine.

    Parameters
    ----------
    n_steps : int
        0 solves the read-out alone.
    learning_rate : float
        Adam's largest step size; above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import GeneratorBank, Training, train
    >>> from micfast.training.methods.projected import ProjectedAdam
    >>> bank = GeneratorBank.random(1, hidden_size=6, input_size=2, output_size=1, seeds=[0])
    >>> types = np.stack([np.sin(np.linspace(0, 6, 30)), np.cos(np.linspace(0, 6, 30))])[..., None]
    >>> none, some = (
    ...     train(bank, types, Training(ProjectedAdam(n), noise_in=0), seeds=[0]).errors[0]
    ...     for n in (0, 200)
    ... )
    >>> bool(some < none)
    True
    """

    name: ClassVar[str] = "projected"
    n_steps: int = 500
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        where = type(self).__name__
        self.set("n_steps", check_count(where, "n_steps", self.n_steps, 0, 2**40))
        rate = check_number(where, "learning_rate", self.learning_rate, positive=True)
        self.set("learning_rate", rate)

    def train(self, fleet: Fleet, execution: Execution, report: Report) -> Learned:
        """See :meth:`Method.train`; losses are relative errors, with noise."""
        M = len(fleet.weights)
        tensors = (
            fleet.types,
            fleet.variance,
            torch.arange(M, device=fleet.types.device),
            fleet.noise_in,
            fleet.noise_out,
            fleet.seeds,
        )
        adam, read_out = (self.n_steps, self.learning_rate, *ADAM), (_CLIP_NORM, _RIDGE)
        settings = (*adam, *read_out, CURVE_POINTS, fleet.omit_nan)
        found = calls.train_projected(fleet.weights, tensors, settings, execution, report)
        steps = [{self.name: self.n_steps} for _ in range(M)]
        return Learned(Weights(*found[:5]), steps, [*to_numpy(found.loss_curve)])
