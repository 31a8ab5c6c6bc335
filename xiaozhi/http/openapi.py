"""What the HTTP routes take and answer, as OpenAPI 3.1 (spec.openapis.org/oas/v3.1.0).

It is made of the routes themselves: their paths, the words of their handlers, and what `takes` says of a body. A route
that is added is in it.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, create_model

from xiaozhi import __version__
from xiaozhi.access.addresses import OTA_PATH, VISION_PATH, WEBSOCKET_PATH

OPENAPI_PATH: Final = "/api/openapi.json"

H = TypeVar("H", bound=Callable[..., Any])

_TAKES: Final = "takes"
_PLACES: Final = re.compile(r"\{(\w+)\}")
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
# Which of the schemes below lets a request in; the first prefix that fits counts.
_SECURITY: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("/console/api/sign-in", ()),
    ("/console/api/session", ()),
    ("/console/api/", ("session", "csrf")),
    (VISION_PATH, ("token",)),
    (WEBSOCKET_PATH.rstrip("/"), ("token",)),
    ("/mcp", ("token",)),
    ("/api/announce", ("token",)),
)
_SCHEMES: Final = {
    "session": {"type": "apiKey", "in": "cookie", "name": "xiaozhi_console"},
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "X-CSRF",
        "description": "The word that signing in has answered with; wherever something is changed.",
    },
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "Of a device: from the OTA answer or its hello. Of another program: `push.token`, "
        "`mcp_server.token`, or what the server has made in their place below `server.data_dir`.",
    },
}


def takes(
    model: type[BaseModel] | None = None, *, media_type: str = "application/json", **fields: Any
) -> Callable[[H], H]:
    """Say what a handler reads from the body of a request.

    Args:
        model: the body as a model.
        media_type: what kind of body it is.
        fields: or its members as for `pydantic.create_model`: the type and the default, `...` where it is needed.
    """

    def mark(handler: H) -> H:
        setattr(handler, _TAKES, (model or create_model(handler.__name__, **fields), media_type))
        return handler

    return mark


def document(app: web.Application) -> dict[str, Any]:
    """Every route of an application and of those below it, but pages and what other programs may not rely on.

    Raises:
        ValueError: a handler says nothing of itself.
    """
    paths, schemas = dict[str, dict[str, Any]](), dict[str, Any]()
    for path, method, handler in _routes(app):
        paths.setdefault(path, {})[method.lower()] = _operation(path, method, handler, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "XiaoZhi server",
            "version": __version__,
            "description": "A body is at most 64 KB where nothing else is said, and is never compressed.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {"securitySchemes": _SCHEMES, "schemas": schemas},
    }


def _routes(app: web.Application) -> Iterator[tuple[str, str, Any]]:
    seen = set[tuple[str, Any]]()
    for route in app.router.routes():
        path = route.resource.canonical if route.resource is not None else ""
        if route.method not in _METHODS or "{path}" in path or path in ("/", "/console"):
            continue
        if (route.method, route.handler) not in seen:  # every path answers with and without its last slash
            seen.add((route.method, route.handler))
            yield path, route.method, route.handler


def _operation(path: str, method: str, handler: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    text = inspect.getdoc(handler)
    if not text:
        raise ValueError(f"{handler.__qualname__}, which answers {method} {path}, has no docstring")
    summary, _, description = text.partition("\n\n")
    schemes = next((schemes for prefix, schemes in _SECURITY if path.startswith(prefix)), ())
    if method == "GET":
        schemes = tuple(scheme for scheme in schemes if scheme != "csrf")
    operation: dict[str, Any] = {
        "summary": " ".join(summary.split()),
        "description": description,
        "tags": ["console" if path.startswith("/console/") else "device" if path.startswith(OTA_PATH) else "server"],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PLACES.findall(path)
        ],
        "security": [dict.fromkeys(schemes, ())] if schemes else [],
        "responses": {"2XX": {"description": "as asked"}, "4XX": {"description": "what is wrong, in one line"}},
    }
    if (taken := getattr(handler, _TAKES, None)) is not None:
        model, media_type = taken
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        operation["requestBody"] = {"content": {media_type: {"schema": schema}}}
    return operation


class OpenApiRoutes:
    """Answers with the document.

    Args:
        app: whose routes it is about, all of them registered by the first request.
    """

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._body = b""

    async def show(self, _request: web.Request) -> web.Response:
        """This document."""
        self._body = self._body or orjson.dumps(document(self._app))
        return web.Response(body=self._body, content_type="application/json")
