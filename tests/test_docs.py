"""What the documentation names is there: files, commands, settings and routes."""

import re
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from pydantic import BaseModel

from tests.house import house
from xiaozhi.cli import COMMANDS
from xiaozhi.settings import Settings

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = [
    page for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]) if page.name != "CHANGELOG.md"
]
_LINK: Final = re.compile(r"\]\((?!https?:)([^)#]+)")
_COMMAND: Final = re.compile(r"(?:^|[`/])xiaozhi ([a-z]+)", re.MULTILINE)
_SETTING: Final = re.compile(r"`([a-z_0-9]+(?:\.[a-z_0-9]+)+)(?: = [^`]*)?`")
_ROUTE: Final = re.compile(r"`(?:GET |POST )?(/(?:api|health|metrics|xiaozhi|mcp)[a-z_/.]*)`")


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


def exists(path: str, model: type[BaseModel] = Settings) -> bool:
    """Whether a dotted name is a setting or a table."""
    head, _, rest = path.partition(".")
    field = model.model_fields.get(head)
    if field is None or not rest:
        return field is not None
    return (
        isinstance(field.annotation, type)
        and issubclass(field.annotation, BaseModel)
        and exists(rest, field.annotation)
    )


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_file_that_a_page_links_to_is_there(page: Path) -> None:
    missing = [link for link in _LINK.findall(page.read_text("utf-8")) if not (page.parent / link.strip()).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_setting_that_a_page_names_is_there(page: Path) -> None:
    tables = set(Settings.model_fields)
    named = [path for path in _SETTING.findall(page.read_text("utf-8")) if path.split(".")[0] in tables]
    assert [path for path in named if not exists(path) and not path.endswith((".py", ".js", ".md"))] == []


def test_every_page_for_owners_is_there_in_both_languages() -> None:
    chinese = {page.name for page in (ROOT / "docs/zh-CN").glob("*.md")}
    assert chinese == {"first-device.md", "clouds.md", "turn-taking.md", "operations.md"}
    for name in chinese:
        english = (ROOT / "docs" / name).read_text("utf-8")
        other = (ROOT / "docs/zh-CN" / name).read_text("utf-8")
        assert set(_SETTING.findall(english)) == set(_SETTING.findall(other)), name
        assert english.count("\n#") == other.count("\n#"), name


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_command_that_a_page_names_is_there(page: Path) -> None:
    assert set(_COMMAND.findall(page.read_text("utf-8"))) <= set(COMMANDS)


async def test_every_route_that_a_page_names_is_described(tmp_path: Path) -> None:
    on = {"enabled": True}
    async with house(tmp_path, push=on, mcp_server=on, vision=on, console=on, metrics=on) as home:
        url = f"http://127.0.0.1:{home.server.port}/api/openapi.json"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            described = list((await response.json())["paths"])
    for page in PAGES:
        for route in _ROUTE.findall(page.read_text("utf-8")):
            assert any(path.rstrip("/").startswith(route.rstrip("/")) for path in described), (page.name, route)
