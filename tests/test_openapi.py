"""The description of the HTTP routes: of all of them, by the standard, and of what they really take."""

from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from openapi_spec_validator import validate

from tests.house import house
from xiaozhi.http.openapi import document, takes


async def test_every_route_of_a_server_with_everything_is_described_as_the_standard_wants(tmp_path: Path) -> None:
    on = {"enabled": True}
    async with house(tmp_path, push=on, mcp_server=on, vision=on, console=on, metrics=on) as home:
        url = f"http://127.0.0.1:{home.server.port}"
        async with aiohttp.ClientSession() as session, session.get(url + "/api/openapi.json") as response:
            assert response.status == 200
            told = await response.json()
        validate(told)
        described = {(path.rstrip("/"), method.upper()) for path, each in told["paths"].items() for method in each}
        assert {
            ("/xiaozhi/ota", "POST"),
            ("/xiaozhi/ota/activate", "POST"),
            ("/xiaozhi/v1", "GET"),
            ("/api/announce", "POST"),
            ("/mcp", "POST"),
            ("/mcp/vision/explain", "POST"),
            ("/metrics", "GET"),
            ("/health/ready", "GET"),
            ("/console/api/settings", "PUT"),
            ("/console/api/devices/{id}/memories/{number}", "DELETE"),
        } <= described
        async with aiohttp.ClientSession() as session:  # whatever has a method has that method
            for path, method in described:
                asked = url + path.replace("{", "").replace("}", "")
                async with session.request(method, asked, allow_redirects=False) as response:
                    assert response.status != 405, (path, method)
                    if told["paths"].get(path, {}).get(method.lower(), {}).get("security"):
                        assert response.status in (400, 401, 403, 200), (path, method, response.status)


async def test_a_body_is_described_by_the_model_that_reads_it() -> None:
    @takes(text=(str, ...), volume=(int, 50))
    async def say(_request: web.Request) -> web.Response:
        """Say it.

        Then go on.
        """
        return web.Response()

    app = web.Application()
    app.router.add_post("/say/{id}", say)
    told = document(app)["paths"]["/say/{id}"]["post"]
    assert (told["summary"], told["description"]) == ("Say it.", "Then go on.")
    assert [one["name"] for one in told["parameters"]] == ["id"]
    schema = told["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["text"] and schema["properties"]["volume"]["default"] == 50


async def test_a_handler_that_says_nothing_of_itself_is_found() -> None:
    async def silent(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/quiet", silent)
    with pytest.raises(ValueError, match="GET /quiet"):
        document(app)
