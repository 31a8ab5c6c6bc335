"""Home Assistant's entities: which of them a user means, and what can be done with each kind. Pure."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from xiaozhi.tools.music_library import plain

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
