"""Levenberg-Marquardt with the read-out solved exactly: for modules that Adam leaves unfinished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from micfast.arrays import to_numpy
from micfast.kernels import calls
from micfast.kernels.execution import Execution
from micfast.kernels.weights import Weights
from micfast.progress import Report
from micfast.settings import check_count
from micfast.training.methods import METHODS, Fleet, Learned, Method
from micfast.training.methods.projected import ProjectedAdam

__all__ = ["ProjectedLM"]

_DAMPING, _RIDGE = 0.1, 1e-7


@METHODS.register("lm")
@dataclass(frozen=True)
class ProjectedLM(Method):
    """The Levenberg-Marquardt method, with the read-out eliminated.

    It stops at the training's ``goal``, after ``max_jacobians``, or where it gains less than 1 %
    in 10 of them. With input noise it minimises the mean error over fixed noisy latents. Noise on
    the types, which moves no minimum, is ignored.

    Parameters
    ----------
    max_jacobians : int
    n_noisy : int
        Noisy latents of each type, beside its one-hot code, where there is input noise.

    Examples
    --------
    >>> from micfast import Training
    >>> from micfast.training.methods.lm import ProjectedLM
    >>> Training(method=ProjectedLM(max_jacobians=60), goal=1e-3).method
    ProjectedLM(max_jacobians=60, n_noisy=1)
    """

    name: ClassVar[str] = "lm"
    max_jacobians: int = 30
    n_noisy: int = 1

    def __post_init__(self) -> None:
        where = type(self).__name__
        for name in ("max_jacobians", "n_noisy"):
            self.set(name, check_count(where, name, getattr(self, name), 1, 10**6))

    def train(self, fleet: Fleet, execution: Execution, report: Report) -> Learned:
        """See :meth:`Method.train`; losses are relative errors, with noise."""
        M = len(fleet.weights)
        latents, shown = self._latents(fleet)
        which = torch.arange(M, device=fleet.types.device)
        tensors = (fleet.types, fleet.variance, which, latents, shown)
        settings = (fleet.goal, self.max_jacobians, _DAMPING, _RIDGE, True, fleet.omit_nan)
        found = calls.train_lm(fleet.weights, tensors, settings, execution, report)
        weights, counts = Weights(*found[:5]), found.n_jacobians.tolist()
        if len(shown) > fleet.types.shape[1]:
            # The read-out is that of the noisy latents: solve it for the one-hot codes.
            read_out = ProjectedAdam(n_steps=0)
            weights = read_out.train(fleet.starting_at(weights), execution, None).weights
        curves = [
            curve[: count + 1]
            for curve, count in zip(to_numpy(found.error_curve), counts, strict=True)
        ]
        return Learned(weights, [{self.name: count} for count in counts], curves)

    def _latents(self, fleet: Fleet) -> tuple[Tensor, Tensor]:
        """Latents (M, L, K) and the type that each shows (L,)."""
        K, like = fleet.types.shape[1], fleet.weights.W_ih
        one_hot = np.broadcast_to(np.eye(K), (len(fleet.weights), K, K))
        sets = [one_hot]
        if bool((fleet.noise_in > 0).any()):
            levels = zip(fleet.noise_in.tolist(), fleet.seeds.tolist(), strict=True)
            draws = [
                level * np.random.default_rng(seed % 2**64).standard_normal((self.n_noisy, K, K))
                for level, seed in levels
            ]
            noise = np.stack(draws)
            sets += [np.clip(one_hot + noise[:, j], 0, 1) for j in range(self.n_noisy)]
        latents = torch.from_numpy(np.concatenate(sets, axis=1)).to(like)
        shown = torch.arange(K, device=like.device).repeat(len(sets))
        return latents, shown
