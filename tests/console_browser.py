"""A browser without pages: signs in to the console of a test server and calls it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from xiaozhi.app.server import Server
from xiaozhi.console.password import hash_of, write_hash

PASSWORD = "open sesame, please"

CONSOLE: dict[str, Any] = {"enabled": True}


def set_password(data_dir: Path, password: str = PASSWORD) -> None:
    """A password whose check costs next to nothing."""
    write_hash(data_dir / "console-password", hash_of(password, cost=16))


@dataclass
class Browser:
    """Keeps its cookie, as browsers do."""

    http: aiohttp.ClientSession
    base: str
    csrf: str = ""

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of one call."""
        shown = {"X-CSRF": self.csrf} if self.csrf and method != "GET" else {}
        url = f"{self.base}/console/api/{path}"
        async with self.http.request(method, url, json=body, headers={**shown, **headers}) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str) -> Any:
        """The JSON of a call that succeeds."""
        status, data = await self.call("GET", path)
        assert status == 200, data
        return data

    async def sign_in(self, password: str = PASSWORD) -> tuple[int, Any]:
        """Sign in, and remember what has to be repeated."""
        status, data = await self.call("POST", "sign-in", {"password": password})
        self.csrf = data.get("csrf", "")
        return status, data


@asynccontextmanager
async def browser(server: Server, *, signed_in: bool = True) -> AsyncIterator[Browser]:
    """A browser that has opened the console of a server."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        one = Browser(http, f"http://127.0.0.1:{server.port}")
        if signed_in:
            status, data = await one.sign_in()
            assert status == 200, data
        yield one
