"""Comparison with a user's own drawing function and a plain torch loop, before micfast is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from micfast.generators.bank import GeneratorBank
from micfast.generators.dropin.compare import (
    latents_for_probe,
    relative_difference,
    resting_output,
)
from micfast.generators.dropin.parts import Parts, read_fleet
from micfast.generators.dropin.undisturbed import quiet, undisturbed
from micfast.generators.dropin.verdict import likely_weights
from micfast.kernels import reference
from micfast.kernels.decoder import Decoder
from micfast.kernels.execution import Execution
from micfast.search.inversion import best_start, invert
from micfast.search.problem import read_targets
from micfast.search.solvers import SOLVERS, Solver
from micfast.search.solvers.adam import Adam
from micfast.sequences import NanPolicy
from micfast.settings import check_count

__all__ = ["Agreement", "check"]

_TOLERANCE = 1e-3
# Of the targets' mean square: below it, an error is made of roundings.
_LEAST_ERROR = 1e-7
_MOST_STEPS = 1000


@dataclass(frozen=True, eq=False, repr=False)
class Agreement:
    """The result of :func:`check`; print it.

    Attributes
    ----------
    agrees : bool
        Whether drawings, and errors at micfast's latents, agree to 1e-3. A search may still take
        another way where two solutions are almost equally good; see ``loop_errors``.
    differences : array of shape (M,)
        Largest difference between your drawing and micfast's, relative to the largest value.
    n_latents, n_steps : int
        How many latents were drawn, and how many steps.
    errors, latents : arrays of shape (N, m), (N, m, K)
        What :func:`micfast.invert` finds, for the first targets and modules.
    own_errors : array of shape (N, m)
        Errors of your drawings from these latents.
    loop_errors, loop_latents : arrays of shape (N, m), (N, m, K), or None
        What a plain torch loop over your drawing function finds with the same settings; None
        unless the solver is Adam.
    solver : Solver

    Examples
    --------
    >>> import numpy as np
    >>> import micfast
    >>> modules = micfast.GeneratorBank.random(
    ...     1, hidden_size=5, input_size=3, output_size=1, seeds=[0]
    ... ).to_modules()
    >>> doubled = micfast.check(modules, lambda module, z, n: 2 * module(z, n), np.zeros((1, 20)))
    >>> doubled.agrees, bool(doubled.differences[0] > 0.5)
    (False, True)
    """

    agrees: bool
    differences: NDArray[Any]
    n_latents: int
    n_steps: int
    errors: NDArray[Any]
    latents: NDArray[Any] = field(repr=False)
    own_errors: NDArray[Any]
    loop_errors: NDArray[Any] | None
    loop_latents: NDArray[Any] | None = field(repr=False)
    solver: Solver

    def __repr__(self) -> str:
        verdict = "agrees with" if self.agrees else "DIFFERS from"
        M, worst = len(self.differences), int(self.differences.argmax())
        lines = [
            f"micfast {verdict} your drawing function",
            f"  drawings ({M} modules, {self.n_latents} latents, {self.n_steps} steps): they "
            f"differ by at most {self.differences[worst]:.1e} of the largest value (module "
            f"{worst})",
            f"  inversion by {type(self.solver).__name__}, {self.solver.n_iter} iterations:",
            f"  {'target':>8}{'module':>8}{'micfast':>12}{'yours there':>13}",
        ]
        if self.loop_errors is not None and self.loop_latents is not None:
            lines[-1] += f"{'plain loop':>12}{'latents differ':>16}"
        for n, m in np.ndindex(*self.errors.shape):
            line = f"  {n:>8}{m:>8}{self.errors[n, m]:>12.4g}{self.own_errors[n, m]:>13.4g}"
            if self.loop_errors is not None and self.loop_latents is not None:
                apart = np.abs(self.latents[n, m] - self.loop_latents[n, m]).max()
                line += f"{self.loop_errors[n, m]:>12.4g}{apart:>16.1e}"
            lines.append(line)
        lines.append('  ("yours there": the error of your own drawing from micfast\'s latent)')
        return "\n".join(lines)


def check(
    modules: Any,
    draw: Callable[[nn.Module, Tensor, int], Tensor],
    targets: Any,
    *,
    solver: Solver | str = "adam",
    nan_policy: NanPolicy = "propagate",
    n_targets: int = 3,
    n_modules: int = 3,
    decoder: Decoder | None = None,
    execution: Execution | str | None = None,
) -> Agreement:
    """Compare :func:`micfast.invert` with your own drawing function, on a few targets.

    Run it once before you replace a loop: it sees what your loop feeds to the modules, which the
    check within :func:`micfast.invert` cannot always do.

    Parameters
    ----------
    modules : nn.Module, iterable of nn.Module, or mapping of str to nn.Module
        As in :func:`micfast.invert`. They run in the mode they are in, and are left unchanged.
    draw : callable
        ``draw(module, latents, n_steps)`` with latents (n, K), a tensor of the module's dtype and
        device, returns a tensor (n, n_steps, O), differentiable in the latents: what the error is
        computed from in your loop.
    targets : array or sequences
        As in :func:`micfast.invert`.
    solver, nan_policy, decoder, execution
        As in :func:`micfast.invert`; ``tol`` is ignored.
    n_targets, n_modules : int
        How many are inverted, the first ones; drawings are compared for all modules.

    Returns
    -------
    Agreement
        Prints as a table.

    Raises
    ------
    TypeError, ValueError
        If `draw` returns something else, or as :func:`micfast.invert`.

    Examples
    --------
    >>> from micfast import GeneratorBank
    >>> import micfast, numpy as np
    >>> modules = GeneratorBank.random(
    ...     2, hidden_size=5, input_size=3, output_size=1, seeds=range(2)
    ... ).to_modules()
    >>> report = micfast.check(modules, lambda module, z, n: module(z, n), np.zeros((4, 20, 1)))
    >>> report.agrees, report.errors.shape
    (True, (3, 2))
    """
    where = "check"
    if not callable(draw):
        raise TypeError(f"{where}: draw must be callable, got {type(draw).__name__}")
    n_targets = check_count(where, "n_targets", n_targets, 1)
    n_modules = check_count(where, "n_modules", n_modules, 1)
    solver, execution = SOLVERS.resolve(solver), Execution.of(execution)
    if isinstance(solver, Adam):
        solver = solver.replace(tol=0.0)
    fleet = read_fleet(modules, where)
    sequences = read_targets(where, targets, nan_policy, fleet.output_size)
    bank = GeneratorBank(likely_weights(fleet, Decoder.of(where, decoder)), fleet.names)
    chunk = sequences.chunk(0, min(n_targets, len(sequences)), bank.dtype, bank.device)
    n_steps, omit_nan = min(sequences.n_steps, _MOST_STEPS), sequences.omits_nan
    z = latents_for_probe(bank.input_size, bank.dtype, bank.device)
    ours = bank.generate(z, n_steps, execution=execution)
    few = bank.select(indices=slice(0, n_modules))
    found = invert(few, chunk, solver=solver, nan_policy=nan_policy, execution=execution)
    own = _Own(draw, chunk, omit_nan, solver)
    starts = solver.start.prepare(few, len(chunk), omit_nan, execution)[1](0, chunk).to(chunk)
    starts = starts.expand(len(few), len(chunk), -1, -1)
    differences, columns = [], []
    with quiet():
        for m, parts in enumerate(fleet.parts):
            with undisturbed(parts.module, evaluation=False):
                drawn = own.draw(parts, z.clone(), n_steps)
                apart = relative_difference(drawn, ours[m], resting_output(bank.weights)[m])
                differences.append(float(apart.max()))
                if m < len(few):
                    columns.append(
                        (
                            own.errors(parts, found.latents[:, m]),
                            *_plain_loop(own, parts, few.select(indices=m), starts[m : m + 1]),
                        )
                    )
    own_errors, loop_errors, loop_latents = map(_stacked, zip(*columns, strict=True))
    errors = found.errors.cpu().numpy()
    least = _LEAST_ERROR * np.nan_to_num(chunk.cpu().double().square().nanmean().item())
    close = np.isclose(errors, own_errors, rtol=_TOLERANCE, atol=least, equal_nan=True)
    return Agreement(
        agrees=bool(close.all() and max(differences) <= _TOLERANCE),
        differences=np.array(differences),
        n_latents=len(z),
        n_steps=n_steps,
        errors=errors,
        latents=found.latents.cpu().numpy(),
        own_errors=own_errors,
        loop_errors=loop_errors,
        loop_latents=loop_latents,
        solver=solver,
    )


def _stacked(columns: Sequence[Tensor | None]) -> Any:
    tensors = [column for column in columns if column is not None]
    return torch.stack(tensors, dim=1).cpu().numpy() if tensors else None


@dataclass(frozen=True)
class _Own:
    """The user's drawing function and the targets (N, T, O)."""

    function: Callable[[nn.Module, Tensor, int], Tensor]
    targets: Tensor
    omit_nan: bool
    solver: Solver

    def draw(self, parts: Parts, z: Tensor, n_steps: int) -> Tensor:
        """The user's drawing (n, T, O), checked."""
        drawn = self.function(parts.module, z, n_steps)
        shape = (len(z), n_steps, parts.linear.out_features)
        if not isinstance(drawn, Tensor):
            raise TypeError(f"check: draw must return a tensor, got {type(drawn).__name__}")
        if tuple(drawn.shape) != shape:
            raise ValueError(
                "check: draw must return the shape (n_latents, n_steps, n_outputs) = "
                f"{shape}, got {tuple(drawn.shape)}"
            )
        return drawn

    def errors(self, parts: Parts, z: Tensor) -> Tensor:
        """Errors (N,) of the drawings from latents (N, K)."""
        drawn = self.draw(parts, z, self.targets.shape[1])
        objective = self.solver.loss.objective(self.targets, z.shape[1])
        return objective.error(drawn, self.targets, z, self.omit_nan)


def _plain_loop(
    own: _Own, parts: Parts, bank: GeneratorBank, starts: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Errors (N,) and latents (N, K) by Adam through the user's function, as one writes it."""
    solver, targets = own.solver, own.targets
    if not isinstance(solver, Adam):
        return None, None

    def draw(z: Tensor) -> Tensor:
        drawn = own.draw(parts, z[0], targets.shape[1])
        if torch.is_grad_enabled() and not drawn.requires_grad:
            raise ValueError("check: draw must be differentiable in the latents")
        return drawn[None]

    settings, objective, loop = solver.arguments(targets, bank.input_size, False, own.omit_nan)
    arguments = (list(bank.weights), targets, starts, *settings, bank.weights.structure, objective)
    found = reference.invert(*arguments, draw=draw, **loop)
    errors, latents, *_ = best_start(found)
    return errors[0], latents[0]
