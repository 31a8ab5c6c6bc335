"""Home Assistant by its REST interface: what there is in the house, and switching it."""

import asyncio
import re
from typing import Any, Final, NoReturn

from xiaozhi.settings.tools import HomeAssistantSettings
from xiaozhi.tools.declare import tool
from xiaozhi.tools.home_states import Action, Entity, actions, entities, meant, service_call
from xiaozhi.tools.tool import Tool, ToolContext, ToolError
from xiaozhi.tools.web import ServiceAnswers, WebClient, WebError
from xiaozhi.tools.wording import pick

_LISTED: Final = 40
_CHOICES: Final = 6
_DOMAIN: Final = re.compile(r"^[a-z_]+$")


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


def home_tools(settings: HomeAssistantSettings, web: WebClient) -> list[Tool]:
    """`home_states`, `home_control`, and `home_control_guarded` for what needs a yes; none while no address is set."""
    if not settings.url:
        return []
    home = HomeAssistant(settings, web)
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
