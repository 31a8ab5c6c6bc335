"""Take the wanted files out of an archive, and nothing else."""

import shutil
import tarfile
import zlib
from collections.abc import Collection
from lzma import LZMAError
from pathlib import Path, PurePosixPath


class ArchiveError(Exception):
    """The archive is damaged or does not hold what it should; one line."""


def unpack(archive: Path, folder: Path, wanted: Collection[str]) -> None:
    """Write the members named `wanted` (below the archive's one top folder) into `folder`.

    Only regular files with exactly these names are read, and they are written under names of ours: links, devices,
    absolute paths, `..` and modes in the archive have no effect. Blocking; the decompression releases the GIL.

    Raises:
        ArchiveError: damaged, or a file is missing.
        OSError: `folder` cannot be written.
    """
    left = set(wanted)
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                inner = "/".join(PurePosixPath(member.name.removeprefix("./")).parts[1:])
                if inner not in left or not member.isreg():
                    continue
                content = tar.extractfile(member)
                if content is None:
                    continue
                target = folder / inner
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("wb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
                left.discard(inner)
                if not left:  # the rest of the archive is of no interest
                    return
    except (tarfile.TarError, EOFError, zlib.error, LZMAError) as error:
        raise ArchiveError(f"{archive.name} is damaged: {error}") from None
    except OSError as error:
        if error.errno is None:  # how bz2 says "invalid data stream"
            raise ArchiveError(f"{archive.name} is damaged: {error}") from None
        raise
    if left:
        raise ArchiveError(f"{archive.name} does not hold {', '.join(sorted(left))}")
