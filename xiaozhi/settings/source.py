"""Where the settings of a running server came from, so that they can be read again and changed in their file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xiaozhi.settings.load import DEFAULT_FILE, Loaded, Origin, load_settings, origins


@dataclass(frozen=True, slots=True)
class SettingsSource:
    """What `xiaozhi serve` was started with.

    Attributes:
        file: the settings file that was read; None where there was none and the defaults hold.
        overrides: of the command line, `{"asr.workers": "3"}`; a short option such as `--port` is one of them.
        environ: the environment.
    """

    file: Path | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def path(self) -> Path:
        """The file to write changes to: the one that was read, or the one that would be found at the next start."""
        return self.file if self.file is not None else DEFAULT_FILE

    def load(self, path: Path | None = None) -> Loaded:
        """Read the settings again, from another file where `path` is given. Blocking.

        Raises:
            SettingsError: with every mistake that was found.
        """
        chosen = path if path is not None else self.path if self.path.is_file() else None
        return load_settings(chosen, self.overrides, self.environ)

    def origins(self) -> dict[str, Origin]:
        """Where each setting comes from that is not at its default. Blocking. Raises `SettingsError`."""
        return origins(self.path if self.path.is_file() else None, self.overrides, self.environ)
