"""The hull of a class's types: its mixtures, drawn by no module, and its errors in closed form.

Leaving a type out of its own hull takes no training: what the class would make of a sequence like
it if it had not been an example.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from micfast.search.pose import MOST_GAIN, Pose, grid, warp

__all__ = ["hull_errors", "left_out_errors"]

Floats = NDArray[np.float64]

# At most this many mixtures are enumerated; with more types, only those of fewer types.
_MOST_SUBSETS = 300
_RIDGE = 1e-9
# Numbers of mixtures at work at a time.
_NUMBERS = 2**20


def _subsets(n_types: int) -> list[NDArray[np.int64]]:
    """Which types may have a share in a mixture: for each size, small ones first, all sets."""
    found: list[NDArray[np.int64]] = []
    for size in range(1, n_types + 1):
        if size > 1 and sum(map(len, found)) + math.comb(n_types, size) > _MOST_SUBSETS:
            break
        found.append(np.array([*itertools.combinations(range(n_types), size)]))
    return found


def _held(types: Floats) -> Floats:
    """Types (..., T, O) whose last value is held where they have ended."""
    known = ~np.isnan(types)
    steps = np.where(known, np.arange(types.shape[-2])[:, None], 0)
    last = np.maximum.accumulate(steps, axis=-2)
    return np.nan_to_num(np.take_along_axis(types, last, axis=-2))


def _posed(types: Floats, pose: Pose | None, n_steps: int) -> Floats:
    """Types (C, K, T, O) in the poses of the grid, (C, P, K, T, O)."""
    poses = [(0.0, 1.0)] if pose is None else grid(pose, n_steps)
    t = torch.arange(types.shape[2], dtype=torch.float64)
    u = torch.stack([tempo * (t - shift) for shift, tempo in poses])
    held = torch.from_numpy(_held(types))[:, None]
    C, _, K, T, _ = held.shape
    return warp(held, u[None, :, None].expand(C, -1, K, T))[0].numpy()


def _factors(pose: Pose | None, n_steps: int) -> Floats:
    """By what errors in each pose of the grid are multiplied."""
    if pose is None:
        return np.ones(1)
    shifts, tempos = np.array(grid(pose, n_steps)).T
    return pose.factor(shifts, tempos, n_steps)


def _alike(X: Floats) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Rows of X (n, D) that miss the same values, and which they have."""
    known = ~np.isnan(X)
    if known.all():
        yield np.arange(len(X)), known[0] if len(X) else np.ones(X.shape[1], dtype=bool)
        return
    masks, inverse = np.unique(known, axis=0, return_inverse=True)
    for i, mask in enumerate(masks):
        yield np.flatnonzero(inverse.ravel() == i), mask


def _by_subsets(A: Floats, X: Floats, gain: float) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Errors (B, S, n) of the best mixture in the inner of S faces; infinite where there is none.

    Parameters
    ----------
    A : ndarray of shape (B, K, D)
    X : ndarray of shape (n, D)
    gain : float
        The shares' sum may be from 1 / gain to gain.

    Yields
    ------
    tuple of ndarray
        The faces' types (S, k), and the errors.
    """
    G = A @ A.swapaxes(1, 2)
    G += _RIDGE * np.trace(G, axis1=1, axis2=2)[:, None, None] * np.eye(
        A.shape[1]
    ) + 1e-12 * np.eye(A.shape[1])
    b = A @ X.T  # (B, K, n)
    squares = (X * X).sum(axis=1)
    for all_of_size in _subsets(A.shape[1]):
        n_parts = 1 + all_of_size.size * len(A) * len(X) // _NUMBERS
        for subsets in np.array_split(all_of_size, min(n_parts, len(all_of_size))):
            inverse = np.linalg.inv(G[:, subsets[:, :, None], subsets[:, None]])  # (B, S, k, k)
            own = b[:, subsets]  # (B, S, k, n)
            free = inverse @ own
            ones = inverse.sum(axis=3)
            total = free.sum(axis=2)
            wanted = np.clip(total, 1 / gain, gain)
            away, norm = wanted - total, ones.sum(axis=2)[..., None]
            w = free + ones[..., None] * (away / norm)[:, :, None]
            # The minimum on the face: the free one's, and what leads away from it.
            error = squares - (free * own).sum(axis=2) + np.square(away) / norm
            inside = (w >= -1e-9).all(axis=2)
            yield subsets, np.where(inside, np.maximum(error, 0), np.inf)


def _prepared(
    types: Floats, X: Floats, pose: Pose | None, n_steps: int, gains: bool
) -> Iterator[tuple[NDArray[np.int64], Floats, Floats, float]]:
    """Rows, posed types (C P, K, D), sequences (m, D) and the largest gain, for each mask."""
    K, T, O = types.shape[1:]
    gain = MOST_GAIN if pose is not None and gains and pose.gain is True else 1.0
    length = X.shape[1]
    if length > T:
        types = np.pad(types, ((0, 0), (0, 0), (0, length - T), (0, 0)), constant_values=np.nan)
    elif length < T:
        X = np.pad(X, ((0, 0), (0, T - length), (0, 0)), constant_values=np.nan)
    posed = _posed(types, pose, n_steps)
    flat = posed.reshape(-1, K, posed.shape[3] * O)
    for rows, mask in _alike(X.reshape(len(X), -1)):
        yield rows, flat[..., mask], X[rows].reshape(len(rows), -1)[:, mask], gain


def hull_errors(
    types: Floats, X: Floats, pose: Pose | None = None, n_steps: int = 1, gains: bool = False
) -> Floats:
    """Mean squared errors of sequences to the nearest mixture of each class's types.

    Parameters
    ----------
    types : ndarray of shape (C, K, T, O), float64
        NaN after the end of shorter ones.
    X : ndarray of shape (n, T', O), float64
        NaN is a missing value.
    pose : Pose, optional
        Mixtures are tried in its coarse poses.
    n_steps : int
        Length of which ``pose.shift`` is a part.
    gains : bool
        Whether size can change in this view.

    Returns
    -------
    ndarray of shape (n, C)
    """
    errors, factor = np.empty((len(X), len(types))), _factors(pose, n_steps)
    for rows, A, x, gain in _prepared(types, X, pose, n_steps, gains):
        best = np.full((len(A), len(rows)), np.inf)
        for _, error in _by_subsets(A, x, gain):
            best = np.minimum(best, error.min(axis=1))
        best = best.reshape(len(types), -1, len(rows)) * factor[:, None]
        errors[rows] = best.min(axis=1).T / max(x.shape[1], 1)
    return errors


def left_out_errors(
    types: Floats,
    X: Floats,
    own: NDArray[np.int64],
    left_out: NDArray[np.bool_],
    pose: Pose | None = None,
    n_steps: int = 1,
    gains: bool = False,
) -> Floats:
    """As :func:`hull_errors`, but some types are left out of each sequence's own class.

    Parameters
    ----------
    types, X, pose, n_steps, gains
        As there.
    own : ndarray of shape (n,)
        The class of each sequence.
    left_out : ndarray of shape (n, K)
        Which of its types count for nothing.

    Returns
    -------
    ndarray of shape (n, C)
        Infinite where no type is left.
    """
    C = len(types)
    errors, factor = np.empty((len(X), C)), _factors(pose, n_steps)
    for rows, A, x, gain in _prepared(types, X, pose, n_steps, gains):
        m = len(rows)
        best = np.full((C, len(A) // C, m), np.inf)
        without = np.full((len(A) // C, m), np.inf)
        mine, gone, at = own[rows], left_out[rows], np.arange(m)
        for subsets, error in _by_subsets(A, x, gain):
            error = error.reshape(C, -1, len(subsets), m)
            best = np.minimum(best, error.min(axis=2))
            forbidden = np.asarray(gone[:, subsets].any(axis=2))  # (m, S)
            own_errors = np.where(forbidden[:, None], np.inf, error[mine, :, :, at])
            without = np.minimum(without, own_errors.min(axis=2).T)
        best[mine, :, at] = without.T
        errors[rows] = (best * factor[:, None]).min(axis=1).T / max(x.shape[1], 1)
    return errors
