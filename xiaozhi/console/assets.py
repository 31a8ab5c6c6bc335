"""The pages' files: a fixed table built at start, so that no request ever becomes a path. Blocking."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

_TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".wav": "audio/wav",
    ".txt": "text/plain; charset=utf-8",
}
_COMPRESSIBLE: Final = frozenset({".html", ".js", ".css", ".svg", ".json", ".webmanifest", ".txt"})
# Below this the answer fits into one packet anyway.
_MIN_GZIP_BYTES: Final = 600
_DEEPEST: Final = 4


@dataclass(frozen=True, slots=True)
class Asset:
    """One file.

    Attributes:
        body: its bytes.
        packed: the same with gzip; None where that gains nothing.
        content_type: for the header.
        etag: in quotes; another one means another content.
    """

    body: bytes
    packed: bytes | None
    content_type: str
    etag: str


def load_assets() -> dict[str, Asset]:
    """Every file of the pages by its path below `/console/`; `index.html` also stands for the empty path."""
    assets: dict[str, Asset] = {}
    folder = resources.files("xiaozhi.console") / "static"
    if folder.is_dir():
        _collect(folder, "", assets, 0)
    if "index.html" in assets:
        assets[""] = assets["index.html"]
    return assets


def _collect(folder: Traversable, prefix: str, assets: dict[str, Asset], depth: int) -> None:
    for entry in folder.iterdir():
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_dir():
            if depth < _DEEPEST:
                _collect(entry, f"{prefix}{entry.name}/", assets, depth + 1)
            continue
        suffix = "." + entry.name.rpartition(".")[2].lower()
        if suffix in _TYPES:
            assets[prefix + entry.name] = make_asset(entry.read_bytes(), suffix)


def make_asset(body: bytes, suffix: str) -> Asset:
    """A file as it is served; `suffix` is that of its name, such as `.js`."""
    packed = None
    if suffix in _COMPRESSIBLE and len(body) >= _MIN_GZIP_BYTES:
        smaller = gzip.compress(body, 9, mtime=0)
        packed = smaller if len(smaller) < len(body) else None
    digest = hashlib.sha256(body).hexdigest()[:20]
    return Asset(body, packed, _TYPES.get(suffix, "application/octet-stream"), f'"{digest}"')
