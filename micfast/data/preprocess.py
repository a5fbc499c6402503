"""Preparation of sequences: functions on NumPy arrays; no files are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
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
    >>> from micfast.data import cumulate
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
    """Pad sequences to one length by repeating the last step of each.

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
        If there is no sequence, or one is empty, not 2-dimensional, longer than `n_timesteps`, or
        has another number of channels than the first.

    Notes
    -----
    For positions this equals padding the velocities with zeros before :func:`cumulate`.

    Examples
    --------
    >>> from micfast.data import pad_with_last
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
        If `images` is not uint8: the range of other types is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.data import scale_pixels
    >>> scale_pixels(np.array([0, 255], dtype=np.uint8)).tolist()
    [0.0, 1.0]
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(f"scale_pixels: images must be uint8, got {images.dtype}")
    return images.astype(np.float32) / np.float32(255)


def images_to_rows(images: ArrayLike) -> NDArray[Any]:
    """Turn each image into the sequence of its rows, from top to bottom.

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
        If `images` has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.data import images_to_rows
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
        Seed; None gives a different split at each call.

    Returns
    -------
    train, test : ndarray, int64
        Indices of the two parts, ascending, so that the samples keep their order.

    Raises
    ------
    ValueError
        If `test_size` is out of range, or a class is too small to be split.

    Examples
    --------
    >>> from micfast.data import stratified_split
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
