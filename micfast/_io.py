"""Files that are either whole or absent: the one way in which micfast writes to disk."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_path", "check_output_path"]

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
