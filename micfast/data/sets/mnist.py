"""MNIST: images of handwritten digits as sequences of 28 rows."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from micfast.data.dataset import Dataset
from micfast.data.fetch import RemoteFile, locate
from micfast.data.preprocess import images_to_rows, scale_pixels
from micfast.data.sets import registry

__all__ = ["load_mnist"]

SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}
FILES = {
    name: RemoteFile(
        f"mnist/{name}", f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}", sha256
    )
    for name, sha256 in SHA256.items()
}
_MAX_SAMPLES = 60000


@registry.register("mnist")
def load_mnist(
    *, n_test: int | None = 1000, data_dir: str | os.PathLike[str] | None = None
) -> Dataset:
    """Load MNIST as sequences of pixel rows.

    Parameters
    ----------
    n_test : int or None, default=1000
        Take the first `n_test` test images (the paper: 1000); None takes all 10000.
    data_dir : path-like or None, default=None
        Folder that holds the four original ``.gz`` files, directly or in a subfolder ``mnist``.
        None means ``MICFAST_DATA``; if that is not set either, the files are downloaded into
        pooch's cache and their sha256 is checked.

    Returns
    -------
    dataset : Dataset
        Sequences of shape (n, 28, 28), float32 in [0, 1]: step t is row t from the top, 0 is
        background; labels int64 0 to 9. The 60000 training images keep their order.

    Raises
    ------
    ValueError
        If `n_test` is out of range, or a file is damaged, truncated or not an MNIST file.
    FileNotFoundError
        If a data folder is set and a file is not there.
    DownloadError
        If a file cannot be downloaded.

    Notes
    -----
    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning applied to
    document recognition*, Proc. IEEE 86(11), 1998.

    Examples
    --------
    >>> from micfast.data import load_mnist
    >>> load_mnist().X_test.shape  # doctest: +SKIP
    (1000, 28, 28)
    """
    images_train, y_train = _read_pair("train", data_dir)
    images_test, y_test = _read_pair("t10k", data_dir)
    if n_test is not None:
        if not 1 <= n_test <= len(y_test):
            raise ValueError(
                f"load_mnist: n_test must be 1 to {len(y_test)}, the number of test images, "
                f"or None, got {n_test}"
            )
        images_test, y_test = images_test[:n_test], y_test[:n_test]
    return Dataset(
        "mnist",
        images_to_rows(scale_pixels(images_train)),
        y_train,
        images_to_rows(scale_pixels(images_test)),
        y_test,
        np.arange(10),
    )


def _read_pair(
    part: str, data_dir: str | os.PathLike[str] | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 28, 28) and labels (n,) of the training ("train") or test ("t10k") part."""
    image_path = locate(FILES[f"{part}-images-idx3-ubyte.gz"], data_dir)
    label_path = locate(FILES[f"{part}-labels-idx1-ubyte.gz"], data_dir)
    images = read_idx(image_path, (28, 28))
    labels = read_idx(label_path, ())
    if len(images) != len(labels):
        raise ValueError(
            f"{image_path} has {len(images)} images, but {label_path} has {len(labels)} labels"
        )
    if labels.max() > 9:
        raise ValueError(f"{label_path}: labels must be 0 to 9, got {labels.max()}")
    return images, labels.astype(np.int64)


def read_idx(path: Path, item_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Array (n, *item_shape) of a gzipped idx file of bytes.

    The header has two zero bytes, the type (8: unsigned bytes), the number of dimensions, and
    these as big-endian 32-bit numbers. At most the announced size, which is bounded, and one more
    byte (to check that the file ends there) are unpacked: a small file cannot fill the memory.
    """
    n_dims = 1 + len(item_shape)
    try:
        with gzip.open(path) as file:
            header = file.read(4 + 4 * n_dims)
            magic, dims = header[:4], np.frombuffer(header[4:], dtype=">u4").tolist()
            if magic != bytes([0, 0, 8, n_dims]) or len(dims) != n_dims:
                raise ValueError(
                    f"{path} is not an idx file of {n_dims} dimension(s) of bytes: it must start "
                    f"with {bytes([0, 0, 8, n_dims]).hex()} and its sizes, it starts with "
                    f"{header.hex()}"
                )
            if not 1 <= dims[0] <= _MAX_SAMPLES or tuple(dims[1:]) != item_shape:
                raise ValueError(
                    f"{path}: shape must be [1 to {_MAX_SAMPLES}"
                    f"{''.join(f', {size}' for size in item_shape)}], got {dims}"
                )
            size = math.prod(dims)
            content = file.read(size + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged, truncated or not gzipped ({error})") from error
    if len(content) != size:
        found = f"{len(content)}" if len(content) < size else "more"
        raise ValueError(f"{path}: the header announces {size} bytes, the file has {found}")
    return np.frombuffer(content, dtype=np.uint8).reshape(dims)
