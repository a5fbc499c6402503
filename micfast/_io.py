"""Files that are either whole or absent: the one way in which micfast writes to disk.

And the one way in which it reads NumPy's files, which may be damaged or made to do harm.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import secrets
import stat
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "atomic_path",
    "check_output_path",
    "load_array_or_arrays",
    "load_arrays",
    "write_text",
]

# What a compressed archive may unpack to: so many bytes, and so many per byte of the file.
_UNPACKED_BYTES, _UNPACKED_RATIO = 2**28, 64

# What a write() can end with; such an error names no file.
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file so that nobody ever sees half of it.

    Gives a new, empty temporary file in the folder of ``path``. When the block ends it takes the
    place of ``path`` in one step; when the block raises (Ctrl-C included) it is removed and what
    was at ``path`` before stays untouched.

    Parameters
    ----------
    path : str or path-like
        Where the file shall be. A symbolic link is followed. A device or pipe (``/dev/stdout``)
        can't be replaced and is given back as it is.

    Yields
    ------
    pathlib.Path
        Where to write; has the suffix of ``path``.

    Raises
    ------
    OSError
        If the folder doesn't exist or can't be written, or ``path`` is a folder.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = Path(os.path.realpath(path))
    mode = _replaceable_mode(target)
    if mode is not None and not stat.S_ISREG(mode):
        yield target
        return
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(6)}.tmp{target.suffix}")
    made = False
    try:
        # Not tempfile.mkstemp: its files are readable by their owner only, umask or not.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        made = True
        yield temporary
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        _flush_to_disk(temporary)
        os.replace(temporary, target)
    except FileNotFoundError as error:
        if error.filename == str(temporary) and not target.parent.is_dir():
            raise _no_folder(target) from None
        raise
    except OSError as error:
        if not _is_about(error, temporary):
            raise
        # By the name that the caller knows: some say none, the others a name that is gone.
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        if made:  # after os.replace there is nothing left to remove
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 file by :func:`atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_output_path(path: str | os.PathLike[str]) -> None:
    """Raise the error that writing ``path`` would end with, before the work that leads there.

    Parameters
    ----------
    path : str or path-like
        A file that will be written later.

    Raises
    ------
    OSError
        If the folder doesn't exist or can't be written, or ``path`` is a folder.
    """
    target = Path(os.path.realpath(path))
    mode = _replaceable_mode(target)
    if mode is not None and not stat.S_ISREG(mode):
        return
    if not target.parent.is_dir():
        raise _no_folder(target)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "folder can't be written", str(target.parent))


def load_array_or_arrays(path: str | os.PathLike[str]) -> Any:
    """Read a .npy file, or all of a .npz file, without pickle; sizes are checked before they are
    believed.

    Parameters
    ----------
    path : str or path-like
        The file; which of the two it is is seen from its first bytes.

    Returns
    -------
    ndarray, or dict of str to ndarray

    Raises
    ------
    OSError
        If the file can't be opened.
    ValueError
        If it is neither, damaged, holds Python objects, announces more than it has, or unpacks to
        more than 256 MiB and 64 times its size.
    """
    import zipfile

    with open(path, "rb") as file, warnings.catch_warnings():
        # numpy warns of files that Python 2 wrote.
        warnings.simplefilter("ignore")
        size = os.fstat(file.fileno()).st_size
        try:
            if not file.read(4).startswith(b"PK"):
                return _read_npy(file, size)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                # zipfile reads no more of a member than it announces.
                unpacked = sum(member.file_size for member in members)
                if unpacked > _UNPACKED_BYTES + _UNPACKED_RATIO * size:
                    raise ValueError(
                        f"it unpacks to {unpacked} bytes, of a file of {size} bytes at most "
                        f"{_UNPACKED_BYTES + _UNPACKED_RATIO * size} are taken: numpy.savez, "
                        "without compression, writes what can be read"
                    )
                arrays = {}
                for member in members:
                    with archive.open(member) as content:
                        name = member.filename.removesuffix(".npy")
                        arrays[name] = _read_npy(content, member.file_size)
                return arrays
        except (ValueError, MemoryError):
            raise
        # Damage makes numpy, zipfile and the decompressors raise almost anything.
        except Exception as error:
            raise ValueError(f"damaged ({type(error).__name__}: {error})") from error


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """As :func:`load_array_or_arrays`, of a .npz file alone."""
    arrays = load_array_or_arrays(path)
    if not isinstance(arrays, dict):
        raise ValueError("it holds a single array, not named ones")
    return arrays


def _read_npy(file: IO[bytes], size: int) -> np.ndarray:
    """The array of a .npy file or member of so many bytes."""
    import numpy as np
    from numpy.lib import format as npy

    file.seek(0)
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version} of the .npy format is not read, 1.0 and 2.0 are")
    if dtype.kind not in "biufcSUmM":
        what = "Python objects" if dtype.hasobject else f"dtype {dtype}"
        raise ValueError(f"it holds {what}; numbers and text are read")
    announced = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or dtype.itemsize < 1 or announced > size - file.tell():
        raise ValueError(
            f"an array of shape {list(shape)} and dtype {dtype} is announced, {size - file.tell()} "
            "bytes follow"
        )
    file.seek(0)
    array = npy.read_array(file, allow_pickle=False)
    # A str of such a character would be an error inside the interpreter.
    if dtype.kind == "U" and array.size:
        codes = np.ascontiguousarray(array).reshape(-1).view(dtype.byteorder + "u4")
        if codes.max() > sys.maxunicode:
            raise ValueError(f"its text has a character of code {codes.max()}, no Unicode")
    return array


def _replaceable_mode(target: Path) -> int | None:
    """Mode of what is at ``target``, None if there is nothing; a folder is an error."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a file must be named, not a folder", str(target))
    return mode


def _is_about(error: OSError, temporary: Path) -> bool:
    """Whether this is about writing the temporary file, be it named or not."""
    if error.filename is None:
        return error.errno in _WRITE_ERRORS
    return error.errno is not None and os.fspath(error.filename) == str(temporary)


def _no_folder(target: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "folder doesn't exist", str(target.parent))


def _flush_to_disk(path: Path) -> None:
    """Bring the content to disk before the name points to it: a power cut must not empty it."""
    # O_RDWR: Windows flushes only what may be written.
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
