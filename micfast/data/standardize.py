"""Standardisation of sequences, and channels that it would make vanish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Standardizer", "negligible_channels"]

# Below this, no value is taken for a fill value.
_SMALLEST_FILL_VALUE = 1e15


@dataclass
class Standardizer:
    """Shift and scale sequences to mean 0 and standard deviation 1.

    Parameters
    ----------
    axis : {"channel", "global"}, default="channel"
        ``"channel"``: a mean and standard deviation per channel, over samples and steps (as in the
        paper's code). ``"global"``: one of each for all channels (as in the paper's text).

    Attributes
    ----------
    mean_ : ndarray of shape (n_channels,) or (1,), float64
        Mean that is subtracted.
    scale_ : ndarray of shape (n_channels,) or (1,), float64
        Population standard deviation that is divided by; 1 where the values are constant up to
        rounding.

    Raises
    ------
    ValueError
        If `axis` is unknown; if an array is not 3-dimensional, is empty, or has another number of
        channels than the fitted one; or if, in :meth:`fit`, values are infinite, a standard
        deviation overflows or underflows, or values of 1e15 or more make all others vanish.
    RuntimeError
        If used before :meth:`fit`.

    Notes
    -----
    Values are constant up to rounding if their range is at most ``eps max(32, 2 sqrt(n)) max|x|``
    with the `eps` of float64 (a few operations on each value, or the rounding error of a mean of
    `n` values), or at most ``eps max|x|`` with the `eps` of their own floating type (one step
    between neighbouring numbers).

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.data import Standardizer
    >>> X = np.array([[[0.0, 10.0], [2.0, 30.0]]])
    >>> Standardizer().fit(X).transform(X).tolist()
    [[[-1.0, -1.0], [1.0, 1.0]]]
    """

    axis: Literal["channel", "global"] = "channel"
    mean_: NDArray[np.float64] | None = None
    scale_: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.axis not in ("channel", "global"):
            raise ValueError(f"Standardizer: axis must be 'channel' or 'global', got {self.axis!r}")

    def fit(self, X: ArrayLike) -> Standardizer:
        """Compute mean and standard deviation of X.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_timesteps, n_channels)
            Sequences, not empty. Missing values (NaN) do not count.

        Returns
        -------
        self : Standardizer
            The fitted object.
        """
        X, own_eps = _numbers("Standardizer.fit", X)
        over = (0, 1) if self.axis == "channel" else (0, 1, 2)
        # The checks below find what overflows, whatever the caller's numpy.seterr says.
        with np.errstate(all="ignore"):
            has_gaps = np.isnan(X).any()
            if has_gaps and np.isnan(X).all(axis=over).any():
                raise ValueError("Standardizer.fit: X must have a value in every channel")
            lowest, highest = np.nanmin(X, axis=over), np.nanmax(X, axis=over)
            largest = np.maximum(np.abs(lowest), np.abs(highest))
            self._check_finite(X, largest)
            if has_gaps:
                known = np.ma.masked_invalid(X, copy=False)
                mean, scale = np.asarray(known.mean(axis=over)), np.asarray(known.std(axis=over))
            else:
                mean, scale = X.mean(axis=over), X.std(axis=over)
            constant = _is_constant(lowest, highest, X.size // np.size(mean), own_eps)
            # Where rounding moved the mean of a constant, put it back.
            self.mean_ = np.atleast_1d(np.clip(mean, lowest, highest))
            self.scale_ = np.atleast_1d(np.where(constant, 1.0, scale))
            self._check_scale(X, np.atleast_1d(constant), np.atleast_1d(largest))
        return self

    def _check_finite(self, X: NDArray[np.float64], largest: NDArray[np.float64]) -> None:
        """Refuse infinite values and those whose squares overflow."""
        if not np.isfinite(largest).all():
            raise ValueError(
                f"Standardizer.fit: channel {_largest_channel(X)} holds infinite values; "
                "missing values must be NaN"
            )
        if not np.isfinite(largest**2).all():
            raise ValueError(
                "Standardizer.fit: the standard deviation overflows, as channel "
                f"{_largest_channel(X)} holds values up to {largest.max():.3g}: replace values "
                "that mean 'missing' by NaN, or use another unit"
            )

    def _check_scale(
        self, X: NDArray[np.float64], constant: NDArray[np.bool_], largest: NDArray[np.float64]
    ) -> None:
        """Refuse a standard deviation that does not describe the values."""
        assert self.scale_ is not None
        for channel, scale in enumerate(self.scale_):
            if constant[channel]:
                continue
            where = f"channel {channel}" if self.axis == "channel" else "X"
            if not np.isfinite(scale):
                raise ValueError(
                    f"Standardizer.fit: the standard deviation of {where} overflows "
                    f"(values up to {largest[channel]:.3g}): use another unit"
                )
            # Below this its square is not a normal number and has lost digits.
            if scale < np.sqrt(np.finfo(np.float64).tiny):
                raise ValueError(
                    f"Standardizer.fit: the standard deviation of {where} underflows "
                    f"(values up to {largest[channel]:.3g}): use another unit"
                )
            values = X[..., channel] if self.axis == "channel" else X
            if largest[channel] >= _SMALLEST_FILL_VALUE and _has_fill_values(values):
                where = where if self.axis == "channel" else f"channel {_largest_channel(X)}"
                raise ValueError(
                    f"Standardizer.fit: {where} holds values up to {largest[channel]:.3g}, next "
                    "to which its other values vanish: replace values that mean 'missing' by NaN"
                )

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Standardise X.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_timesteps, n_channels)
            Sequences; a floating dtype is kept, others give float64.

        Returns
        -------
        X : ndarray of the same shape
            The standardised sequences.
        """
        X, mean, scale = self._checked("transform", X)
        return ((X - mean) / scale).astype(X.dtype)

    def inverse_transform(self, X: ArrayLike) -> NDArray[Any]:
        """Undo :meth:`transform`.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_timesteps, n_channels)
            Standardised sequences; a floating dtype is kept, others give float64.

        Returns
        -------
        X : ndarray of the same shape
            The sequences in their original units.
        """
        X, mean, scale = self._checked("inverse_transform", X)
        return (X * scale + mean).astype(X.dtype)

    def _checked(
        self, method: str, X: ArrayLike
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
        """X as a floating array of matching shape, with the fitted values."""
        if self.mean_ is None or self.scale_ is None:
            raise RuntimeError(f"Standardizer.{method}: call fit first")
        X = np.asarray(X)
        if X.dtype.kind != "f":
            X = X.astype(np.float64)
        if X.ndim != 3 or len(self.mean_) not in (1, X.shape[2]):
            raise ValueError(
                f"Standardizer.{method}: X must have shape [n_samples, n_timesteps, "
                f"{len(self.mean_) if self.axis == 'channel' else 'n_channels'}], "
                f"got {list(X.shape)}"
            )
        return X, self.mean_, self.scale_


def _numbers(where: str, X: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """X as float64 of shape (n, T, C), and the relative rounding of its own type."""
    given = np.asarray(X)
    if given.dtype.kind not in "fiubO":
        raise TypeError(f"{where}: X must hold real numbers, got dtype {given.dtype}")
    if given.ndim != 3 or given.size == 0:
        raise ValueError(
            f"{where}: X must have shape [n_samples, n_timesteps, n_channels] and not be empty, "
            f"got {list(given.shape)}"
        )
    eps = float(np.finfo(given.dtype).eps) if given.dtype.kind == "f" else 0.0
    return given.astype(np.float64, copy=False), eps


def _is_constant(
    lowest: NDArray[np.float64], highest: NDArray[np.float64], n: int, own_eps: float
) -> NDArray[np.bool_]:
    """Whether values differ by rounding only; the bound is explained in :class:`Standardizer`."""
    largest = np.maximum(np.abs(lowest), np.abs(highest))
    eps = max(np.finfo(np.float64).eps * max(32.0, 2 * n**0.5), own_eps)
    return np.asarray(highest - lowest <= eps * largest)


def _has_fill_values(values: NDArray[np.float64]) -> bool:
    """Whether a few huge values (netCDF's 9.97e36, float32's largest, ...) stand in for missing
    ones: far above varying numbers, which would be equal after standardisation, and a gap between.
    """
    magnitudes = np.abs(values)
    largest = np.nanmax(magnitudes)
    ordinary = values[magnitudes < 1e-12 * largest]
    gap = not ((magnitudes >= 1e-12 * largest) & (magnitudes < 1e-3 * largest)).any()
    return gap and ordinary.size > 0 and bool(np.ptp(ordinary) > 0)


def _largest_channel(X: NDArray[np.float64]) -> int:
    """Channel of the value of largest magnitude."""
    return int(np.nanargmax(np.abs(X)) % X.shape[2])


def negligible_channels(X: ArrayLike) -> list[int]:
    """Channels that almost vanish when all channels share one scale.

    Under ``Standardizer("global")`` a channel of small numbers, such as an acceleration next to a
    pressure in Pa, is divided by the scale of the large ones, and next to nothing remains of it.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_timesteps, n_channels)
        Sequences in their original units; missing values (NaN) do not count.

    Returns
    -------
    channels : list of int
        Channels that are not constant, but whose standard deviation is below 1/50 of that of all
        values together (1/2500 of the variance) and whose range is below 1/10 of it. The range
        spares channels that are rarely active, such as the border pixels of an image.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.data import negligible_channels
    >>> acceleration = np.array([-1.0, 1.0, -1.0, 1.0])
    >>> pressure = np.array([90000.0, 90000.0, 110000.0, 110000.0])
    >>> negligible_channels(np.stack([acceleration, pressure], axis=-1)[None])
    [0]
    """
    X, own_eps = _numbers("negligible_channels", X)
    n_channels = X.shape[2]
    if n_channels == 1:
        return []
    together = Standardizer("global").fit(X).scale_
    assert together is not None
    found = []
    for channel in range(n_channels):
        values = X[..., channel][np.logical_not(np.isnan(X[..., channel]))]
        if not values.size:
            continue
        lowest, highest = values.min(), values.max()
        small = values.std() < together[0] / 50 and highest - lowest < together[0] / 10
        if small and not _is_constant(lowest, highest, values.size, own_eps):
            found.append(channel)
    return found
