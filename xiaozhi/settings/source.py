"""Where the settings of a running server came from, so that they can be read again and changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xiaozhi.settings.load import DEFAULT_FILE, Loaded, Origin, load_settings, local_of, origins, overridden


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
        """The owner's file: the one that was read, or the one that would be found at the next start."""
        return self.file if self.file is not None else DEFAULT_FILE

    @property
    def local(self) -> Path:
        """The file that changes are written to; it wins over the owner's, and need not be there."""
        return local_of(self.path)

    @property
    def _found(self) -> Path | None:
        return self.path if self.path.is_file() else None

    def load(self, local_text: str | None = None) -> Loaded:
        """Read the settings again, as if the local file held `local_text` where that is given. Blocking.

        Raises:
            SettingsError: with every mistake that was found.
        """
        return load_settings(self._found, self.overrides, self.environ, local=self.local, local_text=local_text)

    def without_local(self) -> Loaded:
        """What would hold without the local file. Blocking. Raises `SettingsError`."""
        return self.load("")

    def origins(self) -> dict[str, Origin]:
        """Where each setting comes from that is not at its default. Blocking. Raises `SettingsError`."""
        return origins(self._found, self.overrides, self.environ, self.local)

    def overridden(self) -> dict[str, Any]:
        """What the owner's file says where the local file says something else. Blocking. Raises `SettingsError`."""
        return overridden(self._found, self.local)
