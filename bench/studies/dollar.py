"""The $P recogniser for pen strokes (Vatavu, Anthony and Wobbrock, 2012): nearest point cloud.

Not ``dollarpy``, whose templates grow at each call and which answers nothing where the nearest
template is far away, as it is under noise. The distances are those of that package.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["N_POINTS", "cloud", "cloud_distances"]

N_POINTS = 32
Floats = NDArray[np.float64]


def cloud(stroke: Floats) -> Floats:
    """Points at equal distances along a stroke (T, 2), as large as a unit square and centred."""
    at = np.append(0, np.linalg.norm(np.diff(stroke, axis=0), axis=1).cumsum())
    places = np.linspace(0, at[-1], N_POINTS)
    points = np.stack([np.interp(places, at, channel) for channel in stroke.T], axis=1)
    points /= max(np.ptp(points, axis=0).max(), np.finfo(float).tiny)
    return points - points.mean(axis=0)


def cloud_distances(points: Floats, templates: Floats) -> Floats:
    """Distances (n,) of a cloud (32, 2) to others (n, 32, 2), by greedy matching.

    Beginning at one point, each is matched with the nearest that is still free; earlier matches
    weigh more. The least over several beginnings and both directions counts.
    """
    between = np.linalg.norm(points[:, None] - templates[:, None], axis=-1)
    each, least = np.arange(len(templates)), np.full(len(templates), np.inf)
    for distances in (between, between.swapaxes(1, 2)):
        for start in range(0, N_POINTS, int(N_POINTS**0.5)):
            free: Any = distances.copy()
            total = np.zeros(len(templates))
            for k in range(N_POINTS):
                own = free[:, (start + k) % N_POINTS]
                nearest = own.argmin(axis=1)
                total += (1 - k / N_POINTS) * own[each, nearest]
                free[each, :, nearest] = np.inf
            least = np.minimum(least, total)
    return least
