"""The list of language model endpoints: shown without keys, changed without losing them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from xiaozhi.console.credentials import same_place, unknown_variable
from xiaozhi.console.settings_file import SettingsFile
from xiaozhi.reload.reloader import Applied
from xiaozhi.settings import LlmEndpoint, Settings
from xiaozhi.settings.errors import SettingsError, explain, one_line, show
from xiaozhi.settings.presets import PRESETS
from xiaozhi.settings.schema import dotted

_MAX: Final = 50
# Said beside an endpoint's fields, or worked out; not written.
_NOT_FIELDS: Final = frozenset({"was", "api_key_set", "key_found", "place", "is_free"})
_SECRETS: Final = ("api_key", "extra_headers")
_DEFAULTS: Final[Mapping[str, Any]] = {
    name: field.get_default(call_default_factory=True)
    for name, field in LlmEndpoint.model_fields.items()
    if not field.is_required()
}


def shown_endpoints(settings: Settings) -> list[dict[str, Any]]:
    """Every endpoint with all its fields; of its key only whether there is one, of its headers only their names."""
    return [_shown(endpoint) for endpoint in settings.llm.endpoints]


def _shown(endpoint: LlmEndpoint) -> dict[str, Any]:
    fields: dict[str, Any] = endpoint.model_dump(exclude=set(_SECRETS))
    return {
        **fields,
        "extra_headers": dict.fromkeys(endpoint.extra_headers),
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


async def replace_endpoints(file: SettingsFile, rows: object) -> Applied:
    """Write these endpoints into the console's file, instead of those of the files.

    Args:
        file: the console's.
        rows: as `shown_endpoints` shows them; `was` names the endpoint whose key is kept where `api_key` is null.

    Raises:
        SettingsError: with every mistake; nothing is written then.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SettingsError(["llm.endpoints: must be a list of tables, [[llm.endpoints]]"])
    if len(rows) > _MAX:
        raise SettingsError([f"llm.endpoints: at most {_MAX} can be edited here"])

    def make(owners: Settings) -> Mapping[str, Any]:
        before = file.current().llm.endpoints
        endpoints, errors = [], list[str]()
        for index, row in enumerate(rows):
            try:
                endpoints.append(written_fields(merged(row, before, owners.llm.endpoints, index)))
            except SettingsError as error:
                errors += error.errors
        if errors:
            raise SettingsError(errors)
        return {"llm.endpoints": endpoints}

    return await file.write(make)


def was_of(row: Mapping[str, Any]) -> str:
    """The name an endpoint had before."""
    was = row.get("was")
    return was if isinstance(was, str) and was else str(row.get("name") or row.get("preset") or "")


def merged(
    row: Mapping[str, Any], before: Sequence[LlmEndpoint], owners: Sequence[LlmEndpoint] = (), index: int = 0
) -> LlmEndpoint:
    """An endpoint as a page has it, with the key and the headers that were kept back.

    They are kept only for the host they were given for: whoever changes the address has to know them. A variable is
    only read for an address that is known to be its own.

    Args:
        row: its fields; `api_key` null or missing keeps the key of the endpoint that `was` names, and so does a header
            whose value is null.
        before: the endpoints as they are.
        owners: those of the settings file, without what the console wrote.
        index: its place in the list, for messages.

    Raises:
        SettingsError: with every mistake.
    """
    label = f"llm.endpoints[{index}]"
    values = {name: value for name, value in row.items() if name not in _NOT_FIELDS and value is not None}
    old = next((one for one in before if one.name == was_of(row)), None)
    url = values.get("base_url")
    if old is not None and isinstance(url, str) and url == _without_login(old.base_url):
        values["base_url"] = old.base_url
    if old is not None:
        stays = same_place(str(values.get("base_url") or _preset_url(values)), old.base_url)
        _keep(values, old, label, stays=stays)
    try:
        endpoint = LlmEndpoint.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_lines(error, values, index)) from None
    if why := unknown_variable(endpoint, [*before, *owners], label):
        raise SettingsError([why])
    return endpoint


def _keep(values: dict[str, Any], old: LlmEndpoint, label: str, *, stays: bool) -> None:
    """Put the key and the headers that the page does not have where it left them. Raises `SettingsError`."""
    key = old.api_key.get_secret_value()
    if "api_key" not in values and key:
        if not stays:
            raise SettingsError([f"{label}.api_key: give the key again, it was given for another address"])
        values["api_key"] = key
    headers = values.get("extra_headers")
    if isinstance(headers, dict):
        missing = [name for name, value in headers.items() if value is None]
        kept = old.headers() if stays else {}
        if strange := [name for name in missing if name not in kept]:
            raise SettingsError(
                [f"{label}.extra_headers.{name}: give it again, it was given for another address" for name in strange]
            )
        values["extra_headers"] = {**headers, **{name: kept[name] for name in missing}}


def _preset_url(values: Mapping[str, Any]) -> str:
    preset = next((preset for name, preset in PRESETS.items() if name == values.get("preset")), None)
    return preset.base_url if preset is not None else ""


def _lines(error: ValidationError, values: Mapping[str, Any], index: int) -> list[str]:
    lines = []
    for entry in error.errors(include_url=False):
        path, message = explain(entry, ("llm", "endpoints", index, *entry["loc"]))
        value: Any = values.get(str(path[3])) if len(path) == 4 else None
        lines.append(one_line(f"{dotted(path)}{show(path, value) if value is not None else ''}: {message}"))
    return lines


def written_fields(endpoint: LlmEndpoint) -> dict[str, Any]:
    """The fields that stand in the file: those that are neither the default nor the preset's own."""
    values = endpoint.model_dump(exclude=set(_SECRETS))
    values |= {"api_key": endpoint.api_key.get_secret_value(), "extra_headers": endpoint.headers()}
    known: dict[str, Any] = {**_DEFAULTS, "api_key": ""}
    if endpoint.preset is not None:
        known |= {"name": endpoint.preset, **PRESETS[endpoint.preset].fields(), "preset": None}
    return {name: value for name, value in _ordered(values) if name not in known or known[name] != value}


def _ordered(values: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    """As people write them: what it is before how it is used."""
    first = ["preset", "name", "base_url", "model", "api_key", "api_key_env"]
    return [(name, values[name]) for name in first] + [item for item in values.items() if item[0] not in first]
