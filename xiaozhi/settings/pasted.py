"""Addresses and keys as people paste them: mended where there is no doubt, named where there is. Pure."""

import ipaddress
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, SecretStr

from xiaozhi.settings.section import Section

_LOGIN: Final = re.compile(r"//[^/@\s]*@")
_QUOTES: Final = "\"'`“”‘’「」<>《》"
_TRAILING: Final = ",;，；。、"
_BEARER: Final = re.compile(r"(?:authorization\s*:\s*)?bearer[\s:]+(?=\S)", re.IGNORECASE)
_SCHEME: Final = re.compile(r"(https?|wss?)(?::/{0,2}|//+)", re.IGNORECASE)
# What services append to their base address, and what their documents show people.
_OPERATION: Final = re.compile(
    r"/+(?:chat/completions|completions|responses|models|audio/speech|audio/transcriptions|embeddings"
    r"|chat-messages|v3/chat|api/conversation/process)/*$",
    re.IGNORECASE,
)
_HOST: Final = re.compile(r"(?:[^\W]|[-.])+|[0-9a-f:.]+(?:%\w+)?", re.IGNORECASE)
# What is an address without a scheme, and not just a word.
_WHERE: Final = re.compile(
    r"(?:localhost|[\w-]+(?:\.[\w-]+)+|[\w-]+(?=:\d)|\[[0-9a-f:]+\])(?::\d+)?(?:/|$)", re.IGNORECASE
)


def mended_whole_address(text: str) -> str:
    """An address without what cannot belong to it: blanks, quotes, full-width marks.

    A scheme that is missing is added: `http` on this machine and in this network, `https` everywhere else.
    """
    plain = "".join(
        unicodedata.normalize("NFKC", char) if "\uff01" <= char <= "\uff5e" else {"。": ".", "\\": "/"}.get(char, char)
        for char in text.strip().rstrip(_TRAILING)
        if not char.isspace() and unicodedata.category(char) not in ("Cc", "Cf")
    ).strip(_QUOTES)
    while (found := _SCHEME.match(plain)) is not None and _SCHEME.match(plain[found.end() :]):
        plain = plain[found.end() :]  # pasted behind a scheme that stood there already
    if found is not None:
        plain = f"{found[1].lower()}://{plain[found.end() :]}"
    elif _WHERE.match(plain):
        plain = f"{'http' if is_near(urlsplit(f'//{plain}').hostname or '') else 'https'}://{plain}"
    return plain


def mended_address(text: str) -> str:
    """The same without the operation at its end, for a service that has several."""
    address, mark, query = mended_whole_address(text).partition("?")
    return _OPERATION.sub("", address) + mark + query


def is_near(host: str) -> bool:
    """Whether a host is on this machine or in this network."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".lan", ".internal"))


def require_address(address: str) -> str:
    """An address that can be asked, or none.

    Raises:
        ValueError: it cannot; says what to write.
    """
    if not address:
        return address
    if not address.startswith(("http://", "https://")):
        raise ValueError('must begin with "http://" or "https://"')
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 - raises
        host = parts.hostname or ""
        host.encode("idna" if not host.isascii() else "ascii")
    except ValueError:  # a bracket that is not closed, a port that is no number, a name that is no name
        host = ""
    if not _HOST.fullmatch(host) or "://" in address.partition("://")[2]:
        raise ValueError('must be one address with a host, such as "https://api.example.com/v1"')
    return address


def require_socket_address(address: str) -> str:
    """An address of a WebSocket, or none.

    Raises:
        ValueError: it cannot be one; says what to write.
    """
    if address and not address.startswith(("ws://", "wss://")):
        raise ValueError('must begin with "ws://" or "wss://"')
    return address


def mended_key(text: str) -> str:
    """A key without blanks and quotes around it and without the word `Bearer` in front."""
    key = text
    for _ in range(3):  # quotes within quotes, and the word within them
        key = key.strip().strip("\ufeff\u200b\u200c\u200d\u2060").strip(_QUOTES)
        if found := _BEARER.match(key):
            key = key[found.end() :]
    return key


def key_fault(key: str) -> str:
    """Why no service can have given this key, in words that follow "the key"; empty where one can.

    A header of HTTP takes printable ASCII (RFC 9110, 5.5), and a key is sent in one.
    """
    wrong = next((char for char in key if not " " <= char <= "~"), "")
    if not wrong:
        return ""
    kind = "a line break or another control character" if wrong < " " or wrong == "\x7f" else "characters"
    return f"holds {kind} that no key has" + (f" ({wrong!a})" if kind != "characters" else "")


def key_of(given: SecretStr, variable: str) -> str:
    """The key from the settings, or from the environment variable that they name; empty when neither is set."""
    return given.get_secret_value() or (mended_key(os.environ.get(variable, "")) if variable else "")


@dataclass(frozen=True, slots=True)
class Mended:
    """Marks a setting that may hold something else than what was written."""

    mend: Callable[[str], str]

    def __call__(self, value: Any) -> Any:
        """The value mended; what is no text is left to others."""
        if isinstance(value, SecretStr):
            return SecretStr(self.mend(value.get_secret_value()))
        return self.mend(value) if isinstance(value, str) else value


_ADDRESS: Final = Mended(mended_address)
_WHOLE_ADDRESS: Final = Mended(mended_whole_address)
_KEY: Final = Mended(mended_key)


def mended_settings(settings: BaseModel, given: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], Any, str]]:
    """What was mended in the settings, and keys that cannot be: where, what was given, what became of it.

    Args:
        settings: as they hold.
        given: the tables that they were made of.
    """
    for name, info in type(settings).model_fields.items():
        value, raw = getattr(settings, name), given.get(name)
        inner: list[tuple[tuple[str | int, ...], Any, Any]] = []
        if isinstance(value, BaseModel):
            inner = [((name,), value, raw)]
        elif isinstance(value, tuple) and isinstance(raw, list):
            inner = [((name, index), *each) for index, each in enumerate(zip(value, raw, strict=False))]
        for where, model, table in inner:
            if isinstance(model, BaseModel) and isinstance(table, Mapping):
                yield from (((*where, *path), old, what) for path, old, what in mended_settings(model, table))
        if isinstance(raw, str) and any(isinstance(each, Mended) for each in info.metadata):
            if isinstance(value, SecretStr):
                fault = key_fault(value.get_secret_value())
                if fault:
                    yield (name,), raw, f"{fault}; it cannot be used"
                elif value.get_secret_value() != raw:
                    yield (name,), raw, 'read without the blanks, quotes or "Bearer" around it'
            elif value != raw:
                yield (name,), raw, f"read as {_LOGIN.sub('//(hidden)@', value)}"


Address: TypeAlias = Annotated[str, _ADDRESS, BeforeValidator(_ADDRESS), AfterValidator(require_address)]
"""The address of a service; empty where there may be none."""
WholeAddress: TypeAlias = Annotated[
    str, _WHOLE_ADDRESS, BeforeValidator(_WHOLE_ADDRESS), AfterValidator(require_address)
]
"""The address of one operation of a service; empty where there may be none."""
SocketAddress: TypeAlias = Annotated[str, _ADDRESS, BeforeValidator(_ADDRESS), AfterValidator(require_socket_address)]
"""The address of a service that is spoken to through a WebSocket; empty where there may be none."""
ApiKey: TypeAlias = Annotated[SecretStr, _KEY, BeforeValidator(_KEY)]
"""A key that is sent to a service."""


class KeyedSection(Section):
    """A table with the key of a service: written down, or in the environment variable that it names."""

    if TYPE_CHECKING:  # declared by each table, among its other settings
        api_key: ApiKey
        """The key: from an environment variable, or written down here.
        zh: 密钥，直接写在这里；不想写进文件，就用环境变量。"""
        api_key_env: str
        """zh: 存放密钥的环境变量名。"""

    def key(self) -> str:
        """The key; empty where there is none."""
        return key_of(self.api_key, self.api_key_env)
