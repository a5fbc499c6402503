"""How far each expert is to be trusted, from sequences that no module has learned."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micfast.classify import calibration
from micfast.classify.experts import Expectation, Experts, fit_experts
from micfast.classify.panel import Panel, Panelled, left_out_errors
from micfast.classify.seeds import seed_sequence
from micfast.generators.labels import Label
from micfast.search.hull import Hull, InPoses
from micfast.search.pose import Pose

__all__ = ["Ask", "own_errors", "weigh", "with_decided_pose", "with_noise"]

Floats = NDArray[np.float64]
# What all experts say of standardised sequences.
Ask = Callable[[NDArray[Any]], Panelled]

# Noise, in standardised units, under which the experts are asked as well: a view that only works on
# clean sequences must not get the vote.
NOISE = (0.2, 0.5)
# Samples of a class that are left out in turns to decide on the pose, at most; the choices, of
# which the first wins a tie.
_MOST_LEFT_OUT = 4
_CHOICES: dict[str, tuple[Any, ...]] = {
    "penalty": (0.3, 0.0, 1.0),
    "gain": (False, True),
    "offset": (False, True),
}


def _left_out(types: Floats) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]:
    """All types as sequences, their classes, and which types of these equal them."""
    C, K = types.shape[:2]
    same = (types[:, :, None] == types[:, None]) | np.isnan(types[:, :, None]) & np.isnan(
        types[:, None]
    )
    left_out = same.all(axis=(3, 4)).reshape(C * K, K)
    return types.reshape(C * K, *types.shape[2:]), np.repeat(np.arange(C), K), left_out


def with_noise(Z: NDArray[Any], entropy: NDArray[np.uint32]) -> list[NDArray[Any]]:
    """Sequences (n, T, O) without noise, and with each level of :data:`NOISE`."""
    rng = np.random.default_rng(seed_sequence(entropy, None, "noise"))
    return [Z, *(Z + sigma * rng.standard_normal(Z.shape).astype(Z.dtype) for sigma in NOISE)]


def with_decided_pose(
    panel: Panel, parts: Sequence[NDArray[Any]], entropy: NDArray[np.uint32]
) -> Panel:
    """The panel with what is "auto" of its pose decided.

    As leaving each of a few samples out of the hull of its class's others says.

    Parameters
    ----------
    panel : Panel
    parts : sequence of ndarray, each of shape (n_samples, T, O)
        Each class's samples, standardised.
    entropy : ndarray
    """
    pose = panel.pose
    if pose is None or "auto" not in (pose.gain, pose.offset, pose.penalty):
        return panel
    K = min(_MOST_LEFT_OUT, *map(len, parts))
    rng = np.random.default_rng(seed_sequence(entropy, None, "pose"))
    types = np.stack([part[rng.permutation(len(part))[:K]] for part in parts]).astype(np.float64)
    sequences, own, left_out = _left_out(types)
    levels = with_noise(sequences, entropy)[:2]

    drawn = dataclasses.replace(panel, views=panel.views.drawn, voting=())

    @functools.cache
    def hulls_of(pose: Pose) -> list[Hull]:
        return dataclasses.replace(drawn, pose=pose).hulls(types)

    @functools.cache
    def in_poses(pose: Pose) -> list[list[InPoses]]:
        return [drawn.leaving_out(hulls_of(pose), one, own, left_out) for one in levels]

    def log_loss(pose: Pose) -> float:
        # Neither the penalty nor the offset matters to what is left in a pose.
        found = in_poses(pose.replace(penalty=0.0, offset=False))
        errors = [left_out_errors(hulls_of(pose), one) for one in found]
        _, expected = fit_experts(drawn.names, errors, own, "left out")
        return np.inf if expected is None else expected.log_loss

    # One after the other: each as the ones before it were decided.
    automatic = [name for name in _CHOICES if getattr(pose, name) == "auto"]
    pose = pose.replace(**{name: _CHOICES[name][0] for name in automatic})
    for name in automatic:
        pose = min((pose.replace(**{name: value}) for value in _CHOICES[name]), key=log_loss)
    return dataclasses.replace(panel, pose=pose)


def weigh(
    panel: Panel,
    types: Floats,
    labels: Sequence[Label],
    parts: Sequence[NDArray[Any]],
    ask: Ask,
    entropy: NDArray[np.uint32],
) -> tuple[Experts, Expectation | None]:
    """Fit the experts' temperatures.

    On training samples that are not types, if there are enough; else on the types, each left out of
    its class's hull, which stands in for the modules.

    Parameters
    ----------
    panel : Panel
    types : ndarray of shape (C, K, T, O), float64
        In standardised units.
    labels : sequence of labels
    parts : sequence of ndarray, each of shape (n_samples, T, O)
        Each class's samples, standardised.
    ask : callable
    entropy : ndarray
    """
    others = [
        part[~calibration.are_types(part, own)] for part, own in zip(parts, types, strict=True)
    ]
    if min(map(len, others)) >= calibration.ENOUGH:
        seeds = [seed_sequence(entropy, label, "temperature") for label in labels]
        rngs = [np.random.default_rng(seed) for seed in seeds]
        Z, codes = calibration.temperature_samples(others, rngs)
        errors = [ask(level).errors for level in with_noise(Z, entropy)]
        return fit_experts(panel.names, errors, codes, "held out")
    sequences, own, left_out = _left_out(types)
    errors = _stand_ins(panel, types, with_noise(sequences, entropy), own, left_out)
    return fit_experts(panel.names, errors, own, "left out")


def _stand_ins(
    panel: Panel,
    types: Floats,
    levels: Sequence[NDArray[Any]],
    own: NDArray[np.int64],
    left_out: NDArray[np.bool_],
) -> list[Floats]:
    """What hulls without the left-out types say in the experts' place: errors (E, n, C) by level.

    The same for both experts of a view, the hull and the modules.
    """
    hulls = panel.hulls(types)
    views = [left_out_errors(hulls, panel.leaving_out(hulls, Z, own, left_out)) for Z in levels]
    return [panel.stand_ins(one) for one in views]


def own_errors(
    panel: Panel,
    types: Sequence[Floats],
    samples: Sequence[NDArray[Any]],
    ask: Callable[[Sequence[int]], list[Floats]],
) -> list[Floats]:
    """Errors (E, n) that the experts of each class make on its samples.

    Parameters
    ----------
    panel : Panel
    types : sequence of ndarray, each of shape (K, T, O), float64
        Each class's, in standardised units.
    samples : sequence of ndarray, each of shape (n, T, O), float32
    ask : callable
        What the own experts of classes of these numbers say of the samples.
    """
    found = {}
    for c, (own, Z) in enumerate(zip(types, samples, strict=True)):
        if calibration.are_types(Z, own).any():
            sequences, numbers, left_out = _left_out(own[None])
            (errors,) = _stand_ins(panel, own[None], [sequences], numbers, left_out)
            errors = errors[..., 0]
            known = np.isfinite(errors).all(axis=0)
            if known.any():
                found[c] = errors[:, known]
    rest = [c for c in range(len(types)) if c not in found]
    found |= dict(zip(rest, ask(rest) if rest else [], strict=True))
    return [found[c] for c in range(len(types))]
