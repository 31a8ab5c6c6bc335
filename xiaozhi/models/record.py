"""Sizes and SHA-256 of the files of every first good pull, beside the models, so that a later pull can be compared."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD = "models.lock.json"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a file was: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


def fingerprint(path: Path) -> Fingerprint:
    """Read a file once. Blocking; releases the GIL while it hashes.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Fingerprint(path.stat().st_size, digest)


def recorded(models_dir: Path, model: str) -> dict[str, Fingerprint]:
    """The fingerprints of a model's files; empty when none were recorded.

    Raises:
        OSError: the record cannot be read.
        ValueError: it is damaged.
    """
    try:
        files = _read(models_dir).get(model, {})
        return {file: Fingerprint(int(entry["size"]), str(entry["sha256"])) for file, entry in files.items()}
    except (AttributeError, KeyError, TypeError):
        raise _damaged(models_dir) from None


def record(models_dir: Path, model: str, files: dict[str, Fingerprint]) -> None:
    """Keep the fingerprints of a model's files.

    Raises:
        OSError: the record cannot be read or written.
        ValueError: it is damaged.
    """
    everything = _read(models_dir)
    everything[model] = {file: {"size": found.size, "sha256": found.sha256} for file, found in sorted(files.items())}
    _write(models_dir, everything)


def forget(models_dir: Path, model: str) -> bool:
    """Drop what was recorded of a model; whether there was anything.

    Raises:
        OSError: the record cannot be read or written.
        ValueError: it is damaged.
    """
    everything = _read(models_dir)
    if everything.pop(model, None) is None:
        return False
    _write(models_dir, everything)
    return True


def _read(models_dir: Path) -> dict[str, Any]:
    path = models_dir / RECORD
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise _damaged(models_dir) from None
    if not isinstance(content, dict):
        raise _damaged(models_dir)
    return content


def _damaged(models_dir: Path) -> ValueError:
    return ValueError(f"{models_dir / RECORD} is damaged: delete it, and the next pull records anew")


def _write(models_dir: Path, everything: dict[str, Any]) -> None:
    new = models_dir / f"{RECORD}.new"
    new.write_text(json.dumps(everything, indent=2) + "\n", "utf-8")
    new.replace(models_dir / RECORD)
