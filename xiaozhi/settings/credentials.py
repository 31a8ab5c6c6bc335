"""Secrets from files: what systemd (LoadCredential), Docker and Kubernetes mount instead of environment variables.

A file in the folder that `CREDENTIALS_DIRECTORY` names counts as the variable of that name: `OPENAI_API_KEY` for an
`api_key_env`, `XIAOZHI_METRICS__TOKEN` for any setting. A variable that is set as well wins.
"""

import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from xiaozhi.settings.errors import SettingsError

FOLDER_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
# Names of environment variables; other files there (a settings file, a certificate) are not secrets of this kind.
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,199}")
# A key has some hundred bytes; the kernel takes 128 KB for one variable.
_MAX_BYTES: Final = 64 * 1024


def adopt_credentials(environ: MutableMapping[str, str]) -> None:
    """Put the files of the credentials folder into the environment. Blocking.

    Raises:
        SettingsError: a file cannot be read, is too large, or is not text; its content is never shown.
    """
    folder = environ.get(FOLDER_VARIABLE, "")
    if not folder:
        return
    errors = []
    try:
        files = sorted(path for path in Path(folder).iterdir() if _NAME.fullmatch(path.name))
    except OSError as error:
        raise SettingsError([f"{FOLDER_VARIABLE}: {folder} cannot be read: {error.strerror}"]) from None
    for path in files:
        if path.name in environ or not path.is_file():
            continue
        try:
            with path.open("rb") as stream:
                content = stream.read(_MAX_BYTES + 1)
            text = content.decode("utf-8-sig").rstrip("\r\n")
        except OSError as error:
            errors.append(f"{path}: cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            errors.append(f"{path}: is not UTF-8 text")
        else:
            if len(content) > _MAX_BYTES or "\0" in text:
                errors.append(f"{path}: is no key: more than {_MAX_BYTES // 1024} KB, or a zero byte in it")
            else:
                environ[path.name] = text
    if errors:
        raise SettingsError(errors)
