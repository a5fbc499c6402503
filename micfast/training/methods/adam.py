"""The paper's training: Adam, one type after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from micfast.arrays import to_numpy
from micfast.kernels import calls
from micfast.kernels.execution import Execution
from micfast.progress import Report
from micfast.settings import check_count, check_number
from micfast.training.methods import METHODS, Fleet, Learned, Method

__all__ = ["ADAM", "CURVE_POINTS", "BatchOneAdam"]

# Adam's settings besides the learning rate, as in torch and the paper.
ADAM = (0.9, 0.999, 1e-8)
CURVE_POINTS = 100


@METHODS.register("adam")
@dataclass(frozen=True)
class BatchOneAdam(Method):
    """Adam with batch size 1, as in the paper.

    An episode shows one of the K types: its one-hot code (plus noise, clipped to [0, 1]) is the
    input, its sequence (plus noise) the target; one step on the mean squared error.

    Parameters
    ----------
    n_episodes : int
    learning_rate : float
        Adam's step size; above 0.

    Examples
    --------
    >>> from micfast import Training
    >>> from micfast.training.methods.adam import BatchOneAdam
    >>> Training.paper().method == Training(method="adam").method == BatchOneAdam()
    True
    """

    name: ClassVar[str] = "adam"
    tries_rich_types: ClassVar[bool] = True
    n_episodes: int = 20000
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        where = type(self).__name__
        self.set("n_episodes", check_count(where, "n_episodes", self.n_episodes, 1, 2**62))
        rate = check_number(where, "learning_rate", self.learning_rate, positive=True)
        self.set("learning_rate", rate)

    def train(self, fleet: Fleet, execution: Execution, report: Report) -> Learned:
        """See :meth:`Method.train`; losses are mean squared errors."""
        M = len(fleet.weights)
        which = torch.arange(M, device=fleet.types.device)
        tensors = (fleet.types[:, :, None], which, fleet.noise_in, fleet.noise_out, fleet.seeds)
        settings = (self.n_episodes, self.learning_rate, *ADAM, CURVE_POINTS, fleet.omit_nan)
        found = calls.train(fleet.weights, tensors, settings, execution, report)
        steps = [{self.name: self.n_episodes} for _ in range(M)]
        more = {"b_first": found.b_first, "b_state": found.b_state}
        trained: dict[str, Any] = {
            **dict(zip(("W_ih", "W_hh", "b", "W_out", "b_out"), found[:5], strict=True)),
            **{name: tensor for name, tensor in more.items() if tensor.numel()},
        }
        weights = replace(fleet.weights, **trained)
        return Learned(weights, steps, [*to_numpy(found.loss_curve)])
