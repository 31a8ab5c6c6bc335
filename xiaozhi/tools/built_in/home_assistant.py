"""Home Assistant by its REST interface: what there is in the house, which of it a user means, and switching it."""

import asyncio
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, TypeAlias

from xiaozhi.settings.tools import HomeAssistantSettings
from xiaozhi.tools.declare import tool
from xiaozhi.tools.host import ToolHost
from xiaozhi.tools.tool import Tool, ToolContext, ToolError
from xiaozhi.tools.web import ServiceAnswers, WebClient, WebError
from xiaozhi.tools.wording import pick, plain

_LISTED: Final = 40
_CHOICES: Final = 6
_DOMAIN: Final = re.compile(r"^[a-z_]+$")
Action: TypeAlias = Literal[
    "turn_on",
    "turn_off",
    "toggle",
    "open",
    "close",
    "stop",
    "lock",
    "unlock",
    "arm",
    "disarm",
    "play",
    "pause",
    "next",
    "previous",
    "set_brightness",
    "set_temperature",
    "set_volume",
    "set_position",
]
_GOOD_ENOUGH: Final = 0.6
_MAX_NAME_CHARS: Final = 100  # of an entity, and so of what a user calls it: comparing takes one length by the other

_ON_OFF: Final = {"turn_on": "turn_on", "turn_off": "turn_off", "toggle": "toggle"}
_SERVICES: Final[dict[str, dict[str, str]]] = {
    "light": _ON_OFF | {"set_brightness": "turn_on"},
    "switch": _ON_OFF,
    "input_boolean": _ON_OFF,
    "fan": _ON_OFF | {"set_position": "set_percentage"},
    "climate": {"turn_on": "turn_on", "turn_off": "turn_off", "set_temperature": "set_temperature"},
    "cover": {
        "open": "open_cover",
        "close": "close_cover",
        "stop": "stop_cover",
        "turn_on": "open_cover",
        "turn_off": "close_cover",
        "toggle": "toggle",
        "set_position": "set_cover_position",
    },
    "media_player": _ON_OFF
    | {
        "play": "media_play",
        "pause": "media_pause",
        "stop": "media_stop",
        "next": "media_next_track",
        "previous": "media_previous_track",
        "set_volume": "volume_set",
    },
    "scene": {"turn_on": "turn_on"},
    "script": _ON_OFF,
    "vacuum": {"turn_on": "start", "turn_off": "return_to_base", "stop": "stop", "pause": "pause"},
    "lock": {"lock": "lock", "unlock": "unlock", "open": "open"},
    "alarm_control_panel": {"arm": "alarm_arm_away", "disarm": "alarm_disarm"},
}
"""Service of each action by domain: https://www.home-assistant.io/integrations/light/ and the others."""
_VALUES: Final[dict[str, tuple[str, float]]] = {
    "set_brightness": ("brightness_pct", 1.0),
    "set_temperature": ("temperature", 1.0),
    "set_volume": ("volume_level", 0.01),
    "set_position": ("position", 1.0),
}


@dataclass(frozen=True, slots=True)
class Entity:
    """One thing in the house: `id` as `light.kitchen`, its name for people, its state and unit."""

    id: str
    name: str
    state: str
    unit: str = ""

    @property
    def domain(self) -> str:
        """The kind of thing: `light`."""
        return self.id.partition(".")[0]

    def line(self) -> str:
        """As the model gets it."""
        return f"{self.name} ({self.id}): {self.state}{self.unit}"


def entities(states: Any, domains: Iterable[str]) -> list[Entity]:
    """The entities of some domains in an answer of `/api/states`; what makes no sense is left out."""
    wanted = frozenset(domains)
    found = []
    for state in states if isinstance(states, list) else ():
        if not isinstance(state, Mapping) or not isinstance(state.get("entity_id"), str):
            continue
        attributes = state.get("attributes")
        attributes = attributes if isinstance(attributes, Mapping) else {}
        entity_id = state["entity_id"]
        entity = Entity(
            entity_id,
            str(attributes.get("friendly_name") or entity_id)[:_MAX_NAME_CHARS],
            str(state.get("state", ""))[:_MAX_NAME_CHARS],
            str(attributes.get("unit_of_measurement") or "")[:20],
        )
        if entity.domain in wanted:
            found.append(entity)
    return sorted(found, key=lambda each: each.id)


def meant(found: Sequence[Entity], name: str) -> list[Entity]:
    """The entities a user may mean by a name, the best fits only: several when they fit equally well.

    Takes 60 us for each entity where none is called quite so: not for the loop.
    """
    exact = [each for each in found if each.id == name.strip()]
    if exact:
        return exact
    wanted = plain(name[:_MAX_NAME_CHARS])
    if not wanted:
        return []
    scored = [(score, each) for each in found if (score := _likeness(wanted, each)) > 0]
    best = max((score for score, _ in scored), default=0.0)
    return [each for score, each in scored if score >= best - 0.01]


def service_call(entity: Entity, action: str, value: float | None) -> tuple[str, dict[str, Any]] | None:
    """The service and its data that do an action with an entity; None when that kind of thing cannot do it.

    Raises:
        ValueError: the action needs a value.
    """
    service = _SERVICES.get(entity.domain, {}).get(action)
    if service is None:
        return None
    data: dict[str, Any] = {"entity_id": entity.id}
    if action in _VALUES:
        if value is None:
            raise ValueError(action)
        name, scale = _VALUES[action]
        if service == "set_percentage":
            name = "percentage"
        data[name] = round(value * scale, 4)
    return service, data


def actions(domain: str) -> list[str]:
    """What can be done with a kind of thing."""
    return sorted(_SERVICES.get(domain, ()))


def _likeness(wanted: str, entity: Entity) -> float:
    name, own = plain(entity.name), plain(entity.id.partition(".")[2])
    if wanted in (name, own):
        return 5.0
    if wanted in name:
        return 3.0  # "light" fits every light equally: the user is asked which
    if name and name in wanted:
        return 2.0 + len(name) / len(wanted)
    ratio = difflib.SequenceMatcher(None, wanted, name, autojunk=False).ratio()
    return ratio if ratio >= _GOOD_ENOUGH else 0.0


class HomeAssistant:
    """One installation.

    Args:
        settings: address, token, which entities.
        web: how to get there.
    """

    def __init__(self, settings: HomeAssistantSettings, web: WebClient) -> None:
        self._settings = settings
        self._web = web
        self._url = settings.url.rstrip("/")
        self._cache: ServiceAnswers[str, list[Entity]] = ServiceAnswers(settings.cache_s, 1)

    async def entities(self) -> list[Entity]:
        """Everything of the chosen domains, states at most `cache_s` old. Raises `WebError`."""
        return await self._cache.get("states", self._states)

    async def call(self, domain: str, service: str, data: dict[str, Any]) -> None:
        """Call a service; the states are asked for anew afterwards. Raises `WebError`."""
        if not _DOMAIN.match(domain) or not _DOMAIN.match(service):
            raise ValueError(f"{domain}.{service} is no service")
        await self._web.post_json(f"{self._url}/api/services/{domain}/{service}", data, self._headers())
        self._cache.clear()

    async def _states(self) -> list[Entity]:
        states = await self._web.get_json(f"{self._url}/api/states", headers=self._headers())
        return entities(states, self._settings.domains)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._settings.key()}"}


def tools(host: ToolHost) -> list[Tool]:
    """`home_states`, `home_control`, and `home_control_guarded` for what needs a yes; none while no address is set."""
    settings = host.settings.home_assistant
    if not settings.url:
        return []
    home = HomeAssistant(settings, host.web)
    guarded = frozenset(settings.dangerous_domains)

    async def found(name: str, language: str) -> list[Entity]:
        try:
            everything = await home.entities()
        except WebError as error:
            _unreachable(error, language)
        return await asyncio.to_thread(meant, everything, name) if name.strip() else everything

    async def control(context: ToolContext, name: str, action: str, value: float | None, dangerous: bool) -> str:
        language = context.language
        chosen = await found(name, language)
        able = [each for each in chosen if action in actions(each.domain)] or chosen
        if not chosen or not name.strip():
            raise ToolError(
                pick(language, f"家里没有叫“{name[:40]}”的设备。", f"Nothing in the house is called {name[:40]!r}.")
            )
        if len(able) > 1:
            names = "、".join(f"{each.name} ({each.id})" for each in able[:_CHOICES])
            raise ToolError(pick(language, f"是哪一个？{names}", f"Which one? {names}"))
        entity = able[0]
        if (entity.domain in guarded) is not dangerous:
            other = "home_control_guarded" if not dangerous else "home_control"
            raise ToolError(f"Not done: call {other} for {entity.id}.")
        try:
            call = service_call(entity, action, value)
        except ValueError:
            raise ToolError(f"Not done: {action} needs a value.") from None
        if call is None:
            able_to = ", ".join(actions(entity.domain)) or "nothing"
            raise ToolError(
                pick(language, f"{entity.name}不能这样操作。", f"{entity.name} cannot do that; it can: {able_to}.")
            )
        try:
            await home.call(entity.domain, *call)
        except WebError as error:
            _unreachable(error, language)
        return pick(language, f"好的，{entity.name}：{action}。", f"Done: {entity.name}, {action}.")

    @tool(repeats=True)
    async def home_states(context: ToolContext, name: str = "") -> str:
        """What there is in the smart home and in which state: lights, switches, sensors, blinds, locks.

        Takes:
            name: a thing or a room in the user's words; empty for everything.
        """
        chosen = await found(name, context.language)
        if not chosen:
            return pick(context.language, "没有找到这个设备。", "Nothing of that name was found.")
        lines = [each.line() for each in chosen[:_LISTED]]
        if len(chosen) > _LISTED:
            lines.append(f"… {len(chosen) - _LISTED} more; ask by name")
        return "\n".join(lines)

    @tool()
    async def home_control(context: ToolContext, name: str, action: Action, value: float | None = None) -> str:
        """Switch or adjust a thing in the smart home.

        Takes:
            name: the thing in the user's words, with its room, or its entity id.
            action: what to do.
            value: for set_ actions: percent, or degrees Celsius for set_temperature.
        """
        return await control(context, name, action, value, False)

    @tool(dangerous=True)
    async def home_control_guarded(context: ToolContext, name: str, action: Action, value: float | None = None) -> str:
        """Like home_control for locks and alarm systems; the user is asked first.

        Takes:
            name: the thing in the user's words, with its room, or its entity id.
            action: what to do.
            value: for set_ actions: percent.
        """
        return await control(context, name, action, value, True)

    return [home_states, home_control, *([home_control_guarded] if guarded else [])]


def _unreachable(error: WebError, language: str) -> NoReturn:
    if error.status in (401, 403):
        raise ToolError(
            pick(language, "智能家居拒绝了访问，请检查令牌。", "Home Assistant refuses its token; check the settings.")
        ) from error
    raise ToolError(pick(language, "现在连不上智能家居。", "Home Assistant cannot be reached right now.")) from error
