"""Find data files in the user's folder, or download them into the cache and check them.

Knows names, addresses and checksums; the loaders check what is inside.
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

from micfast.io import write_text

__all__ = ["DownloadError", "RemoteFile", "data_dir", "download_dir", "locate"]

# Largest archive member to unpack, in bytes. The UCI file has about 8e6, so a larger member is not
# the expected file.
MAX_MEMBER_BYTES = 64 * 2**20
# A server that is silent for so long has stalled. Older versions of pooch would wait forever.
TIMEOUT_S = 30
# Errors of a download and of unpacking its archive.
DOWNLOAD_FAILURES = (OSError, ValueError, zipfile.BadZipFile)


class DownloadError(OSError):
    """A data file could not be downloaded, or the download is not the expected file.

    Examples
    --------
    >>> from micfast.data import DownloadError
    >>> try:
    ...     raise DownloadError("letters: the server did not answer")
    ... except OSError as error:  # as other files that cannot be read
    ...     print(error)
    letters: the server did not answer
    """


@dataclass(frozen=True)
class RemoteFile:
    """A data file and where it is published.

    Attributes
    ----------
    name : str
        Path of the file inside a data folder, with forward slashes.
    url : str
        Where it is published.
    sha256 : str or None
        Checksum of the file; None if unknown (trust on first use, see :func:`locate`).
    in_archive : bool
        Whether `url` is a zip archive that contains the file under its own name.
    """

    name: str
    url: str
    sha256: str | None = None
    in_archive: bool = False

    @property
    def source(self) -> str:
        """Where the file is published, in words."""
        return f"the archive {self.url}" if self.in_archive else self.url


def data_dir(folder: str | os.PathLike[str] | None = None) -> Path:
    """Folder that is searched for data files.

    Parameters
    ----------
    folder : path-like or None, default=None
        The caller's choice.

    Returns
    -------
    path : Path
        `folder`, else the environment variable ``MICFAST_DATA``, else pooch's cache folder for
        micfast. It need not exist.
    """
    return _users_folder(folder) or download_dir()


def download_dir() -> Path:
    """Folder for downloads: pooch's cache folder for micfast."""
    import pooch

    return Path(pooch.os_cache("micfast"))


def locate(
    file: RemoteFile,
    folder: str | os.PathLike[str] | None = None,
    verify: Callable[[Path], object] | None = None,
) -> Path:
    """Path of a data file; downloads it if no data folder is set.

    Parameters
    ----------
    file : RemoteFile
        The file.
    folder : path-like or None, default=None
        Data folder; None means ``MICFAST_DATA``. If either is set, the file must be there (under
        its full name or the last part of it) and nothing is downloaded. Its checksum is not
        compared: the loaders check the content.
    verify : callable or None, default=None
        Called with the path of a file without known checksum before it is trusted for the first
        time; must raise ValueError if the content is wrong.

    Returns
    -------
    path : Path
        An existing file.

    Raises
    ------
    FileNotFoundError
        If a data folder is set and the file is not there.
    DownloadError
        If the download fails, or the checksum or `verify` rejects the file.

    Notes
    -----
    A file without known checksum is trusted on first use: once `verify` has accepted it, its
    sha256 is written next to it (suffix ``.sha256``), and from then on only this file is accepted,
    from the cache or from a new download. The first download itself is therefore protected only by
    the transport and the content check.
    """
    own = _users_folder(folder)
    if own is not None:
        for path in (own / file.name, own / Path(file.name).name):
            if path.is_file():
                return path
        raise FileNotFoundError(
            f"{file.name} is not in the data folder {own} (MICFAST_DATA or data_dir). "
            f"Get it from {file.source}, or unset MICFAST_DATA to let micfast download it."
        )

    path = download_dir() / file.name
    record = path.with_name(path.name + ".sha256")
    known = file.sha256 or read_record(record)
    present = path.is_file()
    try:
        _retrieve(file, path, known)
        if known is None:
            try:
                if verify is not None:
                    verify(path)
            except ValueError:
                # Only delete a fresh download, never a file that the user put there.
                if not present:
                    path.unlink()
                raise
            write_text(record, _sha256(path) + "\n")
    except DOWNLOAD_FAILURES as error:
        raise DownloadError(
            f"{file.name} could not be downloaded from {file.source} ({error}). Download it "
            f"yourself and save it as {path}, or in the folder that MICFAST_DATA names."
        ) from error
    return path


def _users_folder(folder: str | os.PathLike[str] | None) -> Path | None:
    """The folder that the user chose, if any."""
    chosen = folder or os.environ.get("MICFAST_DATA")
    return Path(chosen).expanduser() if chosen else None


def _retrieve(file: RemoteFile, path: Path, known_sha256: str | None) -> None:
    """Let pooch check the cached file or download it; the download is atomic."""
    import pooch

    # pooch itself fails if two processes create the folder at once.
    path.parent.mkdir(parents=True, exist_ok=True)
    pooch.retrieve(
        file.url,
        known_hash=known_sha256,
        fname=path.name,
        path=path.parent,
        downloader=download_member(path.name) if file.in_archive else _http(),
    )


def _http() -> Callable[[str, str | os.PathLike[str], object], None]:
    import pooch

    return pooch.HTTPDownloader(timeout=TIMEOUT_S)


def download_member(member: str) -> Callable[[str, str | os.PathLike[str], object], None]:
    """Return a downloader for pooch that fetches an archive and keeps one member of it.

    The checksum that pooch compares is then the member's: the archive may be repacked, but its
    data may not change.
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
                raise ValueError(f"the archive cannot be unpacked ({reason})") from error

    return download


def _unpack(archive: Path, member: str, output_file: str | os.PathLike[str]) -> None:
    """Write a member of a zip archive to a file."""
    with zipfile.ZipFile(archive) as opened:
        entries = [e for e in opened.infolist() if Path(e.filename).name == member]
        if not entries:
            raise ValueError(f"the archive does not contain {member}")
        size = entries[0].file_size
        if size > MAX_MEMBER_BYTES:
            raise ValueError(f"{member} unpacks to {size} bytes: not the expected file")
        # zipfile reads at most the announced size, so the check above is enough.
        with opened.open(entries[0]) as source, open(output_file, "wb") as target:
            shutil.copyfileobj(source, target)


def read_record(record: Path) -> str | None:
    """The recorded checksum, if there is one."""
    if not record.is_file():
        return None
    text = record.read_text(encoding="ascii", errors="replace").strip()
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise DownloadError(
            f"{record} does not hold a sha256; delete it to trust the file next to it again"
        )
    return text


def _sha256(path: Path) -> str:
    """Checksum of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
