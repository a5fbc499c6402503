"""The poses found for some sequences, in words and as drawings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from micfast.search.pose import Fit

__all__ = ["Poses"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Poses:
    """How the reconstructions of n sequences lie over them.

    A reconstruction is ``gain * drawing(tempo * (t - shift)) + offset`` at step t, of the drawing
    that the module makes from the latent.

    Attributes
    ----------
    shift : ndarray of shape (n,)
        Steps by which the sequence is late; negative where it is early.
    tempo : ndarray of shape (n,)
        Its tempo over the drawing's: below 1 where it is slower.
    gain : ndarray of shape (n,)
        Its size over the drawing's, both in standardised units.
    offset : ndarray of shape (n, n_channels)
        What is added, in standardised units.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.classify.poses import Poses
    >>> ones = np.ones(2)
    >>> poses = Poses(shift=3 * ones, tempo=np.array([1, 0.94]), gain=ones, offset=np.zeros((2, 1)))
    >>> poses.describe(1)  # of the second sequence
    '3 steps late, 6 % slower'
    """

    shift: Floats
    tempo: Floats
    gain: Floats
    offset: Floats

    @classmethod
    def of(cls, fit: Fit, module: NDArray[np.int64]) -> Poses:
        """Those of one module for each sequence."""
        at = np.arange(len(module))
        fields = (fit.shift, fit.tempo, fit.gain, fit.offset)
        return cls(*(one.cpu().numpy().astype(np.float64)[module, at] for one in fields))

    def __len__(self) -> int:
        return len(self.shift)

    def describe(self, index: int) -> str:
        """One sequence's pose in words, such as "3 steps late, 6 % slower".

        Changes below half a step and half a per cent are not mentioned.
        """
        steps, slower = round(float(self.shift[index])), 1 / float(self.tempo[index]) - 1
        larger = float(self.gain[index]) - 1
        parts = []
        if steps:
            unit = "step" if abs(steps) == 1 else "steps"
            parts.append(f"{abs(steps)} {unit} {'late' if steps > 0 else 'early'}")
        if abs(slower) >= 0.005:
            share = slower if slower > 0 else 1 - 1 / (1 + slower)
            parts.append(
                f"{abs(share):.0%} {'slower' if slower > 0 else 'faster'}".replace("%", " %")
            )
        if abs(larger) >= 0.005:
            parts.append(
                f"{abs(larger):.0%} {'larger' if larger > 0 else 'smaller'}".replace("%", " %")
            )
        return ", ".join(parts) or "no change"
