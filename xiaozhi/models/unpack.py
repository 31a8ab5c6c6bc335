"""Take the wanted files out of an archive, and nothing else."""

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO


class ArchiveError(Exception):
    """The archive is damaged or does not hold what it should; one line."""


def unpack(archive: Path, folder: Path, wanted: Iterable[str]) -> None:
    """Write members of a tar or zip file into `folder`.

    Only regular files with exactly these names are read, and they are written under names of ours: links, devices,
    absolute paths, `..` and modes in the archive have no effect. Blocking; the decompression releases the GIL.

    Args:
        archive: the file.
        folder: where to.
        wanted: the names of the files, below the one top folder of a tar file.

    Raises:
        ArchiveError: damaged, or a file is missing.
        OSError: `folder` cannot be written.
    """
    left = set(wanted)
    try:
        if zipfile.is_zipfile(archive):
            _from_zip(archive, folder, left)
        else:
            _from_tar(archive, folder, left)
    except (tarfile.TarError, zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, LZMAError) as error:
        raise ArchiveError(f"{archive.name} is damaged: {str(error).partition(chr(10))[0]}") from None
    except OSError as error:
        if error.errno is None:  # how bz2 says "invalid data stream"
            raise ArchiveError(f"{archive.name} is damaged: {error}") from None
        raise
    if left:
        raise ArchiveError(f"{archive.name} does not hold {', '.join(sorted(left))}")


def _from_tar(archive: Path, folder: Path, left: set[str]) -> None:
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            inner = "/".join(PurePosixPath(member.name.removeprefix("./")).parts[1:])
            if inner not in left or not member.isreg():
                continue
            if (content := tar.extractfile(member)) is None:
                continue
            _copy(content, folder / inner)
            left.remove(inner)
            if not left:  # the rest of the archive is of no interest
                return


def _from_zip(archive: Path, folder: Path, left: set[str]) -> None:
    with zipfile.ZipFile(archive) as packed:
        for inner in left & set(packed.namelist()):
            _copy(packed.open(inner), folder / inner)
            left.remove(inner)


def _copy(content: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
