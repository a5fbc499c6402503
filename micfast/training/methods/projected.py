"""Adam on all types at once, with the read-out solved exactly at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from micfast.arrays import to_numpy
from micfast.kernels import calls
from micfast.kernels.definition import extents
from micfast.kernels.execution import Execution
from micfast.kernels.reference_projected import TrainProjectedResult
from micfast.kernels.weights import Weights
from micfast.progress import Report, part_of
from micfast.settings import check_count, check_number
from micfast.training.methods import METHODS, Fleet, Learned, Method
from micfast.training.methods.adam import ADAM, CURVE_POINTS

__all__ = ["ProjectedAdam"]

# Largest norm of a module's gradient, and the ridge of its read-out.
_CLIP_NORM, _RIDGE = 1.0, 1e-6
# Steps of types that the learning rate is given for. A weight's change turns an oscillation by an
# angle that grows with time: past this length it must be smaller, or it loses the phases.
_LENGTH = 300


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
        Adam's largest step size; above 0. It is halved for types of more than 300 steps, and again
        at each doubling of that length. A module that failed is tried again with twice the rate.

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

    def again(self) -> Method:
        """See :meth:`Method.again`: at twice the rate, which ends farther from the start."""
        return self.replace(learning_rate=2 * self.learning_rate)

    def train(self, fleet: Fleet, execution: Execution, report: Report) -> Learned:
        """See :meth:`Method.train`; losses are relative errors, with noise."""
        rates = self._rates(fleet)
        groups = [np.flatnonzero(rates == rate) for rate in np.unique(rates)]
        M, place, done = len(rates), np.argsort(np.concatenate(groups)).tolist(), 0
        parts, curves = [], []
        for own in groups:
            share = part_of(report, done / M, (done + len(own)) / M)
            found = self._run(fleet[own], float(rates[own[0]]), execution, share)
            parts.append(Weights(*found[:5]))
            curves += [*to_numpy(found.loss_curve)]
            done += len(own)
        steps = [{self.name: self.n_steps} for _ in range(M)]
        return Learned(Weights.concat(parts)[place], steps, [curves[j] for j in place])

    def _rates(self, fleet: Fleet) -> NDArray[np.float64]:
        """Learning rate (M,) of each module, by the length of its longest type."""
        lengths = np.full(len(fleet.weights), fleet.types.shape[2])
        if fleet.omit_nan:
            lengths = to_numpy(extents(fleet.types)[0].amax(dim=1))
        doublings = np.ceil(np.log2(np.maximum(lengths, _LENGTH) / _LENGTH))
        return self.learning_rate * 0.5**doublings

    def _run(
        self, fleet: Fleet, rate: float, execution: Execution, report: Report
    ) -> TrainProjectedResult:
        tensors = (
            fleet.types,
            fleet.variance,
            torch.arange(len(fleet.weights), device=fleet.types.device),
            fleet.noise_in,
            fleet.noise_out,
            fleet.seeds,
        )
        adam, read_out = (self.n_steps, rate, *ADAM), (_CLIP_NORM, _RIDGE)
        settings = (*adam, *read_out, CURVE_POINTS, fleet.omit_nan)
        return calls.train_projected(fleet.weights, tensors, settings, execution, report)
