"""Preprocessing steps: pure functions on numpy arrays; reads no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Standardizer",
    "cumulate",
    "images_to_rows",
    "pad_with_last",
    "scale_pixels",
    "stratified_split",
]


def cumulate(velocities: ArrayLike) -> NDArray[Any]:
    """Turn velocities into positions by a cumulative sum over time.

    Parameters
    ----------
    velocities : array_like of shape (..., n_timesteps, n_channels)
        Displacement per step.

    Returns
    -------
    positions : ndarray of the same shape
        Position after each step; the start, before the first step, is the origin.

    Raises
    ------
    ValueError
        If there are fewer than two dimensions.

    Examples
    --------
    >>> cumulate([[1.0, 0.0], [1.0, 2.0]]).tolist()
    [[1.0, 0.0], [2.0, 2.0]]
    """
    velocities = np.asarray(velocities)
    if velocities.ndim < 2:
        raise ValueError(
            "cumulate: velocities must have shape [..., n_timesteps, n_channels], "
            f"got {list(velocities.shape)}"
        )
    return np.cumsum(velocities, axis=-2)


def pad_with_last(sequences: Sequence[ArrayLike], n_timesteps: int | None = None) -> NDArray[Any]:
    """Bring sequences to one length by repeating the last step of each.

    Parameters
    ----------
    sequences : sequence of array_like, each of shape (length, n_channels)
        At least one sequence; lengths may differ and are at least 1.
    n_timesteps : int or None, default=None
        Length of the result; None takes that of the longest sequence.

    Returns
    -------
    padded : ndarray of shape (n_samples, n_timesteps, n_channels)
        The padded sequences, in the common dtype of the given ones.

    Raises
    ------
    ValueError
        If there is no sequence, one is empty, not 2-dimensional, longer than `n_timesteps` or has
        another number of channels than the first.

    Notes
    -----
    For positions this equals padding the velocities with zeros before :func:`cumulate`.

    Examples
    --------
    >>> pad_with_last([[[1.0], [2.0]], [[5.0]]])[..., 0].tolist()
    [[1.0, 2.0], [5.0, 5.0]]
    """
    arrays = [np.asarray(sequence) for sequence in sequences]
    if not arrays:
        raise ValueError("pad_with_last: sequences must hold at least one sequence, got none")
    for i, array in enumerate(arrays):
        if array.ndim != 2 or 0 in array.shape or array.shape[1] != arrays[0].shape[1]:
            raise ValueError(
                f"pad_with_last: sequences must have shape [length, n_channels] with length at "
                f"least 1 and equal n_channels, got {list(array.shape)} at place {i} and "
                f"{list(arrays[0].shape)} at place 0"
            )
    longest = max(len(array) for array in arrays)
    if n_timesteps is None:
        n_timesteps = longest
    elif n_timesteps < longest:
        raise ValueError(
            f"pad_with_last: n_timesteps must be at least the longest length {longest}, "
            f"got {n_timesteps}"
        )
    return np.stack(
        [np.pad(array, ((0, n_timesteps - len(array)), (0, 0)), mode="edge") for array in arrays]
    )


@dataclass
class Standardizer:
    """Shift and scale sequences to mean 0 and standard deviation 1.

    Parameters
    ----------
    axis : {"channel", "global"}, default="channel"
        ``"channel"``: each channel has its own mean and standard deviation, over samples and
        steps (what the paper's code does). ``"global"``: one of each over everything (what the
        paper's text says).

    Attributes
    ----------
    mean_ : ndarray of shape (n_channels,) or (1,), float64
        Mean that is subtracted.
    scale_ : ndarray of shape (n_channels,) or (1,), float64
        Population standard deviation that is divided by; 1 where it is 0.

    Raises
    ------
    ValueError
        If `axis` is unknown, an array isn't 3-dimensional, is empty, or has another number of
        channels than the fitted one.
    RuntimeError
        If used before :meth:`fit`.

    Examples
    --------
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
        """Take mean and standard deviation from X.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_timesteps, n_channels)
            Sequences, not empty. NaN, a missing value, doesn't count.

        Returns
        -------
        self : Standardizer
            The fitted object.
        """
        X = np.asarray(X, dtype=np.float64)
        if X.ndim != 3 or X.size == 0:
            raise ValueError(
                "Standardizer.fit: X must have shape [n_samples, n_timesteps, n_channels] and "
                f"not be empty, got {list(X.shape)}"
            )
        over = (0, 1) if self.axis == "channel" else (0, 1, 2)
        if np.isnan(X).any():
            known = np.ma.masked_invalid(X, copy=False)
            if np.ma.getmaskarray(known).all(axis=over).any():
                raise ValueError("Standardizer.fit: X must have a value in every channel")
            mean, scale = np.asarray(known.mean(axis=over)), np.asarray(known.std(axis=over))
        else:
            mean, scale = X.mean(axis=over), X.std(axis=over)
        self.mean_ = np.atleast_1d(mean)
        self.scale_ = np.atleast_1d(np.where(scale == 0, 1.0, scale))
        return self

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
            The sequences in their own units.
        """
        X, mean, scale = self._checked("inverse_transform", X)
        return (X * scale + mean).astype(X.dtype)

    def _checked(
        self, method: str, X: ArrayLike
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
        """X as a floating array of fitting shape, with the fitted values."""
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


def scale_pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale pixels of 0 to 255 to 0 to 1.

    Parameters
    ----------
    images : ndarray of any shape, uint8
        Pixels.

    Returns
    -------
    scaled : ndarray of the same shape, float32
        Pixels divided by 255.

    Raises
    ------
    TypeError
        If `images` isn't uint8: other types don't tell their range.

    Examples
    --------
    >>> scale_pixels(np.array([0, 255], dtype=np.uint8)).tolist()
    [0.0, 1.0]
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(f"scale_pixels: images must be uint8, got {images.dtype}")
    return images.astype(np.float32) / np.float32(255)


def images_to_rows(images: ArrayLike) -> NDArray[Any]:
    """Read each image as a sequence of its rows, from top to bottom.

    Parameters
    ----------
    images : array_like of shape (n_samples, height, width) or (n_samples, height, width, 1)
        Grey images.

    Returns
    -------
    sequences : ndarray of shape (n_samples, height, width)
        The images: a row is a step, a column is a channel.

    Raises
    ------
    ValueError
        If the shape is another.

    Examples
    --------
    >>> images_to_rows(np.zeros((5, 28, 28, 1))).shape
    (5, 28, 28)
    """
    images = np.asarray(images)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim != 3:
        raise ValueError(
            "images_to_rows: images must have shape [n_samples, height, width] (or one trailing "
            f"channel), got {list(images.shape)}"
        )
    return images


def stratified_split(
    y: ArrayLike, test_size: float = 0.2, random_state: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split samples into two parts in which the classes have equal shares.

    Parameters
    ----------
    y : array_like of shape (n_samples,)
        Labels; each class needs at least two samples.
    test_size : float, default=0.2
        Share of the samples in the test part, above 0 and below 1.
    random_state : int or None, default=None
        Seed; None splits differently at each call.

    Returns
    -------
    train, test : ndarray, int64
        Indices of the two parts, ascending, so that the samples keep their order.

    Raises
    ------
    ValueError
        If `test_size` is out of range, or the classes are too small to be split.

    Examples
    --------
    >>> train, test = stratified_split([0, 0, 0, 0, 1, 1, 1, 1], 0.5, random_state=0)
    >>> len(train), len(test)
    (4, 4)
    """
    from sklearn.model_selection import train_test_split

    y = np.asarray(y)
    if not 0 < test_size < 1:
        raise ValueError(
            f"stratified_split: test_size must be above 0 and below 1, got {test_size}"
        )
    train, test = train_test_split(
        np.arange(len(y)), test_size=float(test_size), stratify=y, random_state=random_state
    )
    return np.sort(train), np.sort(test)
