"""The list of language model endpoints: shown without keys, changed without losing them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from xiaozhi.console.editing import with_endpoints
from xiaozhi.console.moved import same_place
from xiaozhi.console.settings_file import Outcome, SettingsFile
from xiaozhi.settings import LlmEndpoint, Settings
from xiaozhi.settings.errors import SettingsError, explain, one_line, show
from xiaozhi.settings.presets import PRESETS

_MOST: Final = 50
# Said beside an endpoint's fields, or worked out; not written.
_NOT_FIELDS: Final = frozenset({"was", "api_key_set", "key_found", "place", "is_free"})
_DEFAULTS: Final[Mapping[str, Any]] = {
    name: field.get_default(call_default_factory=True)
    for name, field in LlmEndpoint.model_fields.items()
    if not field.is_required()
}


def shown_endpoints(settings: Settings) -> list[dict[str, Any]]:
    """Every endpoint with all its fields; of its key only whether there is one."""
    return [_shown(endpoint) for endpoint in settings.llm.endpoints]


def _shown(endpoint: LlmEndpoint) -> dict[str, Any]:
    fields: dict[str, Any] = endpoint.model_dump(exclude={"api_key"})
    return {
        **fields,
        "base_url": _without_login(endpoint.base_url),
        "api_key": None,
        "api_key_set": bool(endpoint.api_key.get_secret_value()),
        "key_found": bool(endpoint.key()),
        "place": endpoint.place,
        "is_free": endpoint.is_free,
        "was": endpoint.name,
    }


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc="(hidden)@" + parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def shown_presets() -> list[dict[str, Any]]:
    """Every preset with the fields it gives."""
    return [{"name": name, "title": preset.title, **preset.fields()} for name, preset in PRESETS.items()]


class EndpointEditor:
    """Writes lists of endpoints.

    Args:
        file: where they are written.
    """

    def __init__(self, file: SettingsFile) -> None:
        self._file = file

    async def replace(self, rows: object) -> Outcome:
        """Write these endpoints instead of those of the file.

        Args:
            rows: as `shown_endpoints` shows them; `was` names the endpoint whose key is kept where `api_key` is null.

        Raises:
            SettingsError: with every mistake; nothing is written then.
        """
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise SettingsError(["llm.endpoints: must be a list of tables, [[llm.endpoints]]"])
        if len(rows) > _MOST:
            raise SettingsError([f"llm.endpoints: at most {_MOST} can be edited here"])

        def make(text: str) -> str:
            old = {endpoint.name: endpoint for endpoint in self._file.current().llm.endpoints}
            endpoints, errors = [], list[str]()
            for index, row in enumerate(rows):
                try:
                    endpoints.append(written_fields(merged(row, old, index)))
                except SettingsError as error:
                    errors += error.errors
            if errors:
                raise SettingsError(errors)
            names = [str(fields.get("name") or fields.get("preset")) for fields in endpoints]
            renamed = {name: was_of(row) for name, row in zip(names, rows, strict=True)}
            return with_endpoints(text, endpoints, renamed)

        return await self._file.rewrite(make, ["llm.endpoints"])


def was_of(row: Mapping[str, Any]) -> str:
    """The name an endpoint had before."""
    was = row.get("was")
    return was if isinstance(was, str) and was else str(row.get("name") or row.get("preset") or "")


def merged(row: Mapping[str, Any], old: Mapping[str, LlmEndpoint], index: int = 0) -> LlmEndpoint:
    """An endpoint as a page has it, with the key that was kept back.

    A key is kept only for the host it was given for: whoever changes the address has to know the key.

    Args:
        row: its fields; `api_key` null or missing keeps the key of the endpoint that `was` names.
        old: the endpoints of the file, by name.
        index: its place in the list, for messages.

    Raises:
        SettingsError: with every mistake.
    """
    values = {name: value for name, value in row.items() if name not in _NOT_FIELDS and value is not None}
    before = old.get(was_of(row))
    url = values.get("base_url")
    if before is not None and isinstance(url, str) and url == _without_login(before.base_url):
        values["base_url"] = before.base_url
    if "api_key" not in values and before is not None and (kept := before.api_key.get_secret_value()):
        address = str(values.get("base_url") or _preset_url(values))
        if not same_place(address, before.base_url):
            raise SettingsError(
                [f"llm.endpoints[{index}].api_key: give the key again, it was given for another address"]
            )
        values["api_key"] = kept
    try:
        return LlmEndpoint.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_lines(error, values, index)) from None


def _preset_url(values: Mapping[str, Any]) -> str:
    preset = next((preset for name, preset in PRESETS.items() if name == values.get("preset")), None)
    return preset.base_url if preset is not None else ""


def _lines(error: ValidationError, values: Mapping[str, Any], index: int) -> list[str]:
    lines = []
    for entry in error.errors(include_url=False):
        path, message = explain(entry, ("llm", "endpoints", index, *entry["loc"]))
        value: Any = values.get(str(path[3])) if len(path) == 4 else None
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        lines.append(one_line(f"{name}{show(path, value) if value is not None else ''}: {message}"))
    return lines


def written_fields(endpoint: LlmEndpoint) -> dict[str, Any]:
    """The fields that stand in the file: those that are neither the default nor the preset's own."""
    values = endpoint.model_dump(exclude={"api_key"})
    values["api_key"] = endpoint.api_key.get_secret_value()
    known: dict[str, Any] = {**_DEFAULTS, "api_key": ""}
    if endpoint.preset is not None:
        known |= {"name": endpoint.preset, **PRESETS[endpoint.preset].fields(), "preset": None}
    return {name: value for name, value in _ordered(values) if name not in known or known[name] != value}


def _ordered(values: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    """As people write them: what it is before how it is used."""
    first = ["preset", "name", "base_url", "model", "api_key", "api_key_env"]
    return [(name, values[name]) for name in first] + [item for item in values.items() if item[0] not in first]
