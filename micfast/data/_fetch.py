"""Where data files come from: a folder of the user's, or a download into the cache.

Knows names, addresses and checksums; what is inside the files is the loaders' business.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from micfast._io import write_text

__all__ = ["DownloadError", "RemoteFile", "cache_dir", "data_dir", "locate"]

# Largest archive member that is unpacked, in bytes: the UCI file has about 8e6, so a member that
# unpacks to more than this is not the one that was asked for.
_MAX_MEMBER_BYTES = 64 * 2**20
# A server that sends nothing for so long has stalled. Older versions of pooch would wait forever.
_TIMEOUT_S = 30
# What a download and the unpacking of its archive can end with.
DOWNLOAD_FAILURES = (OSError, ValueError, zipfile.BadZipFile)


class DownloadError(OSError):
    """A data file could not be downloaded, or the download was not the file."""


@dataclass(frozen=True)
class RemoteFile:
    """A data file and its public place.

    Attributes
    ----------
    name : str
        Path of the file inside a data folder, with forward slashes.
    url : str
        Where it is published.
    sha256 : str or None
        Checksum of the file; None if it isn't known (trust on first use, see :func:`locate`).
    in_archive : bool
        Whether `url` is a zip archive that contains the file under its own name.
    """

    name: str
    url: str
    sha256: str | None = None
    in_archive: bool = False

    @property
    def source(self) -> str:
        """Where the file can be had, in words."""
        return f"the archive {self.url}" if self.in_archive else self.url


def data_dir(folder: str | os.PathLike[str] | None = None) -> Path:
    """Folder in which data files are looked for.

    Parameters
    ----------
    folder : path-like or None, default=None
        An explicit choice.

    Returns
    -------
    path : Path
        `folder`, else the environment variable ``MICFAST_DATA``, else pooch's cache folder for
        micfast. It need not exist.
    """
    return _own_folder(folder) or _default_cache()


def cache_dir() -> Path:
    """Folder for computed results.

    Returns
    -------
    path : Path
        The environment variable ``MICFAST_CACHE``, else pooch's cache folder for micfast; never
        ``MICFAST_DATA``, which may be read-only and shared. It need not exist.
    """
    chosen = os.environ.get("MICFAST_CACHE")
    return Path(chosen).expanduser() if chosen else _default_cache()


def locate(
    file: RemoteFile,
    folder: str | os.PathLike[str] | None = None,
    verify: Callable[[Path], object] | None = None,
) -> Path:
    """Path of a data file, which is downloaded if no data folder is set.

    Parameters
    ----------
    file : RemoteFile
        The file.
    folder : path-like or None, default=None
        Data folder; None means ``MICFAST_DATA``. If either is set, the file must lie there (under
        its name or just its last part) and nothing is downloaded. Its checksum is not compared:
        the loaders check the content.
    verify : callable or None, default=None
        Called with the path of a file without known checksum when it is trusted for the first
        time; raises ValueError if the content is wrong.

    Returns
    -------
    path : Path
        An existing file.

    Raises
    ------
    FileNotFoundError
        If a data folder is set and the file isn't there.
    DownloadError
        If the download fails, or gives another file than the checksum or `verify` ask for.

    Notes
    -----
    A file without known checksum is trusted on first use: once `verify` has accepted it, its
    sha256 is written beside it (suffix ``.sha256``), and from then on only this very file is
    accepted, from the cache and from a new download. The first download itself is thus protected
    by the transport and the content check only.
    """
    own = _own_folder(folder)
    if own is not None:
        for path in (own / file.name, own / Path(file.name).name):
            if path.is_file():
                return path
        raise FileNotFoundError(
            f"{file.name} is not in the data folder {own} (MICFAST_DATA or data_dir). "
            f"It can be had from {file.source}; or unset MICFAST_DATA to let micfast download it."
        )

    path = _default_cache() / file.name
    record = path.with_name(path.name + ".sha256")
    known = file.sha256 or _read_record(record)
    present = path.is_file()
    try:
        _retrieve(file, path, known)
        if known is None:
            try:
                if verify is not None:
                    verify(path)
            except ValueError:
                # Only what was fetched just now: a file that the user put there is the user's.
                if not present:
                    path.unlink()
                raise
            write_text(record, _sha256(path) + "\n")
    except DOWNLOAD_FAILURES as error:
        raise DownloadError(
            f"{file.name} could not be fetched from {file.source} ({error}). Fetch it in another "
            f"way and put it at {path}, or into any folder that MICFAST_DATA names."
        ) from error
    return path


def _own_folder(folder: str | os.PathLike[str] | None) -> Path | None:
    """The folder the user chose, if any."""
    chosen = folder or os.environ.get("MICFAST_DATA")
    return Path(chosen).expanduser() if chosen else None


def _default_cache() -> Path:
    """Pooch's cache folder for micfast."""
    import pooch

    return Path(pooch.os_cache("micfast"))


def _retrieve(file: RemoteFile, path: Path, known_sha256: str | None) -> None:
    """Let pooch check the cached file or download it; the download is atomic."""
    import pooch

    # Not left to pooch, which fails where two processes make the folder at once.
    path.parent.mkdir(parents=True, exist_ok=True)
    pooch.retrieve(
        file.url,
        known_hash=known_sha256,
        fname=path.name,
        path=path.parent,
        downloader=_download_member(path.name) if file.in_archive else _http(),
    )


def _http() -> Callable[[str, str | os.PathLike[str], object], None]:
    import pooch

    return pooch.HTTPDownloader(timeout=_TIMEOUT_S)


def _download_member(member: str) -> Callable[[str, str | os.PathLike[str], object], None]:
    """Downloader for pooch that fetches an archive and keeps one member of it.

    So the checksum that pooch compares is the member's: an archive can be packed anew, the data
    can't change.
    """

    def download(url: str, output_file: str | os.PathLike[str], pooch_object: object) -> None:
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "archive.zip"
            _http()(url, archive, pooch_object)
            try:
                _unpack(archive, member, output_file)
            except DOWNLOAD_FAILURES:
                raise
            # Damage makes zipfile and the decompressors raise almost anything.
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                raise ValueError(f"the archive can't be unpacked ({reason})") from error

    return download


def _unpack(archive: Path, member: str, output_file: str | os.PathLike[str]) -> None:
    """Write a member of a zip archive to a file."""
    with zipfile.ZipFile(archive) as opened:
        entries = [e for e in opened.infolist() if Path(e.filename).name == member]
        if not entries:
            raise ValueError(f"the archive does not contain {member}")
        size = entries[0].file_size
        if size > _MAX_MEMBER_BYTES:
            raise ValueError(f"{member} unpacks to {size} bytes: not the expected file")
        # zipfile reads no more than the announced size, so the check above is enough.
        with opened.open(entries[0]) as source, open(output_file, "wb") as target:
            shutil.copyfileobj(source, target)


def _read_record(record: Path) -> str | None:
    """The recorded checksum, if there is one."""
    if not record.is_file():
        return None
    text = record.read_text(encoding="ascii", errors="replace").strip()
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise DownloadError(
            f"{record} does not hold a sha256; delete it to trust the file beside it anew"
        )
    return text


def _sha256(path: Path) -> str:
    """Checksum of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
