"""Reading and writing files: atomic writes, and NumPy files that may be damaged or malicious."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import secrets
import stat
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import zipfile

    import numpy as np

__all__ = [
    "array_names",
    "atomic_path",
    "cache_dir",
    "check_not_input",
    "check_output_path",
    "load_arrays",
    "write_text",
]

# Most bytes that an archive may unpack to: a constant, plus a multiple of the file's size.
_UNPACKED_BYTES, _UNPACKED_RATIO = 2**28, 64

# Errors of write(), which name no file.
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file atomically.

    Yields a new, empty temporary file in the folder of ``path``. When the block ends, it replaces
    ``path`` in one step; when the block raises (Ctrl-C included), it is removed and ``path`` stays
    as it was.

    Parameters
    ----------
    path : str or path-like
        The file to write. Symbolic links are followed. A device or pipe (``/dev/stdout``) cannot
        be replaced and is yielded itself.

    Yields
    ------
    pathlib.Path
        The file to write to; has the suffix of ``path``.

    Raises
    ------
    OSError
        If the folder does not exist or is not writable, or ``path`` is a folder.

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
        # Name the file that the caller knows, not the temporary one.
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        if made:  # after os.replace there is nothing left to remove
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 file by :func:`atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_output_path(path: str | os.PathLike[str]) -> None:
    """Check, before a long computation, that its result can be written to ``path``.

    Parameters
    ----------
    path : str or path-like
        A file that will be written later.

    Raises
    ------
    OSError
        If the folder does not exist or is not writable, or ``path`` is a folder.
    """
    target = Path(os.path.realpath(path))
    mode = _replaceable_mode(target)
    if mode is not None and not stat.S_ISREG(mode):
        return
    if not target.parent.is_dir():
        raise _no_folder(target)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "folder is not writable", str(target.parent))


def check_not_input(output: str | os.PathLike[str], *inputs: str | os.PathLike[str] | None) -> None:
    """Refuse an output that would overwrite an input of the same command.

    Parameters
    ----------
    output : str or path-like
        A file that will be written later.
    *inputs : str, path-like or None
        Files that are read; None is skipped. Links of both kinds and relative paths are
        followed. Devices and pipes are never overwritten, so they may be both.

    Raises
    ------
    ValueError
        If `output` is one of `inputs`.
    """
    target = os.path.realpath(output)
    if os.path.exists(target) and not os.path.isfile(target):
        return
    for source in inputs:
        if source is None:
            continue
        same = target == os.path.realpath(source)
        if not same and os.path.exists(target) and os.path.exists(source):
            same = os.path.samefile(target, source)
        if same:
            raise ValueError(
                f"{os.fspath(output)} would overwrite {os.fspath(source)}, which this command "
                "uses: choose another name for the output"
            )


def load_arrays(
    path: str | os.PathLike[str], names: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """Read a .npz or .npy file without pickle, checking every size before allocating memory.

    Parameters
    ----------
    path : str or path-like
        The file; its first bytes tell which of the two it is.
    names : iterable of str, optional
        Arrays to read from a .npz file; the others may be unreadable. Default: all.

    Returns
    -------
    dict of str to ndarray
        The arrays by name. The one array of a .npy file has the name ``""``.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If the file is damaged or neither of the two, lacks one of `names`, or an array to be read
        holds Python objects, is larger than its file, or unpacks to more than 256 MiB and 64
        times the file's size.
    """
    import zipfile

    with _opened(path) as (file, size):
        if not _is_archive(file):
            if names is not None:
                raise ValueError("a .npy file holds a single array without a name")
            return {"": _read_npy(file, size)}
        with zipfile.ZipFile(file) as archive:
            members = {_array_name(member): member for member in archive.infolist()}
            wanted = list(members) if names is None else list(names)
            for name in wanted:
                if name not in members:
                    there = ", ".join(members) or "nothing"
                    raise ValueError(f"it has no array {name!r}; it has {there}")
            # zipfile reads no more of a member than its header announces.
            unpacked = sum(members[name].file_size for name in wanted)
            limit = _UNPACKED_BYTES + _UNPACKED_RATIO * size
            if unpacked > limit:
                raise ValueError(
                    f"it unpacks to {unpacked} bytes, more than the limit of {limit} for a file "
                    f"of {size} bytes: write it with numpy.savez, which does not compress"
                )
            arrays = {}
            for name in wanted:
                try:
                    with archive.open(members[name]) as content:
                        arrays[name] = _read_npy(content, members[name].file_size)
                except MemoryError:
                    raise
                except Exception as error:
                    raise ValueError(f"array {name!r}: {_reason(error)}") from error
            return arrays


def array_names(path: str | os.PathLike[str]) -> list[str]:
    """Names of the arrays in a .npz file, ``[""]`` for a .npy file; no array is read."""
    import zipfile

    with _opened(path) as (file, _):
        if not _is_archive(file):
            return [""]
        with zipfile.ZipFile(file) as archive:
            return [_array_name(member) for member in archive.infolist()]


def cache_dir() -> Path:
    """Folder for computed results and downloads.

    Returns
    -------
    path : Path
        The environment variable ``MICFAST_CACHE``, else pooch's cache folder for micfast; never
        ``MICFAST_DATA``, which may be shared and read-only. It need not exist.
    """
    chosen = os.environ.get("MICFAST_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import pooch

    return Path(pooch.os_cache("micfast"))


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[IO[bytes], int]]:
    """A file and its size; damage of any kind becomes a ValueError."""
    with open(path, "rb") as file, warnings.catch_warnings():
        # numpy warns of files that Python 2 wrote.
        warnings.simplefilter("ignore")
        try:
            yield file, os.fstat(file.fileno()).st_size
        except (ValueError, MemoryError):
            raise
        # Damage makes numpy, zipfile and the decompressors raise almost anything.
        except Exception as error:
            raise ValueError(_reason(error)) from error


def _reason(error: Exception) -> str:
    return (
        str(error)
        if isinstance(error, ValueError)
        else (f"damaged ({type(error).__name__}: {error})")
    )


def _is_archive(file: IO[bytes]) -> bool:
    magic = file.read(2)
    file.seek(0)
    return magic == b"PK"


def _array_name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _read_npy(file: IO[bytes], size: int) -> np.ndarray:
    """Read the array of a .npy file or archive member of `size` bytes."""
    import numpy as np
    from numpy.lib import format as npy

    file.seek(0)
    try:
        version = npy.read_magic(file)
    except ValueError:
        raise ValueError("not a .npz or .npy file, or truncated") from None
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"it has version {version} of the .npy format; only 1.0 and 2.0 are read")
    if dtype.hasobject:
        raise ValueError(
            "it holds Python objects (dtype=object), which are never unpickled: save text as "
            "array.astype(str), and sequences of unequal lengths as numbers padded with NaN"
        )
    if dtype.kind not in "biufcSUmM":
        raise ValueError(f"it has dtype {dtype}; only numbers and text are read")
    announced = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or dtype.itemsize < 1 or announced > size - file.tell():
        raise ValueError(
            f"damaged: its header announces shape {list(shape)} and dtype {dtype}, but only "
            f"{size - file.tell()} bytes follow"
        )
    file.seek(0)
    array = npy.read_array(file, allow_pickle=False)
    # Such a character would crash the interpreter when it becomes a str.
    if dtype.kind == "U" and array.size:
        codes = np.ascontiguousarray(array).reshape(-1).view(dtype.byteorder + "u4")
        if codes.max() > sys.maxunicode:
            raise ValueError(
                f"damaged: its text has a character of code {codes.max()}, which is not Unicode"
            )
    return array


def _replaceable_mode(target: Path) -> int | None:
    """Mode of an existing ``target``, None if there is none; a folder is an error."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(target))
    return mode


def _is_about(error: OSError, temporary: Path) -> bool:
    """Whether the error is about writing the temporary file, which it may not name."""
    if error.filename is None:
        return error.errno in _WRITE_ERRORS
    return error.errno is not None and os.fspath(error.filename) == str(temporary)


def _no_folder(target: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "folder does not exist", str(target.parent))


def _flush_to_disk(path: Path) -> None:
    """Flush the content before the rename: a power cut must not leave an empty file."""
    # O_RDWR because Windows flushes only files open for writing.
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
