"""Which web pages may use the device protocol: the decision, and whole servers that browsers ask."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.browser import chromium, needs_chromium
from tests.console_browser import CONSOLE, browser, set_password
from tests.house import House, house
from xiaozhi.access.loopback import is_loopback_host
from xiaozhi.access.origins import Origins, hosts_of, names_of, page_of
from xiaozhi.checks.access import pages
from xiaozhi.settings import Settings
from xiaozhi.settings.origins import as_sent

# The decision --------------------------------------------------------------------------------------------------------

BOX = "192.168.1.5:8000"
HERE, NEIGHBOUR, UNKNOWN = "127.0.0.1", "192.168.1.9", ""
AT_HOME = Origins(names=names_of("Box"), ports=(8000, 8443))
PUBLIC = Origins(public=("https://xiaozhi.example.org/",), names=names_of("Box"), ports=(8000,))
LISTED = Origins(("https://app.example.com", "http://10.0.0.7:3000", "capacitor://localhost"), ports=(8000,))
EVERYBODY = Origins(("*",))
NULL = Origins(("null",))

CASES: list[tuple[str, Origins, str, str, str, bool]] = [
    # No page at all.
    ("a device", AT_HOME, "", BOX, NEIGHBOUR, True),
    ("a device that asks for a strange name", AT_HOME, "", "evil.example", NEIGHBOUR, True),
    ("a library of microcontrollers", AT_HOME, "https://github.com/gilmaimon/TinyWebsockets", BOX, NEIGHBOUR, True),
    ("the page that this library names", AT_HOME, "https://github.com", BOX, NEIGHBOUR, False),
    ("what only looks like it", AT_HOME, "https://github.com/gilmaimon/tinywebsockets", BOX, NEIGHBOUR, False),
    # Pages of this server.
    ("by address", AT_HOME, "http://192.168.1.5:8000", BOX, NEIGHBOUR, True),
    ("by address, where the ports are others outside", AT_HOME, "http://192.168.1.5:9", "192.168.1.5:9", UNKNOWN, True),
    ("its TLS port from its plain one", AT_HOME, "http://192.168.1.5:8000", "192.168.1.5:8443", NEIGHBOUR, True),
    ("another program of the same machine", AT_HOME, "http://192.168.1.5:5000", BOX, NEIGHBOUR, False),
    ("another program on the usual port", AT_HOME, "http://192.168.1.5", BOX, NEIGHBOUR, False),
    ("the usual port, not named in either", AT_HOME, "http://192.168.1.5", "192.168.1.5", NEIGHBOUR, True),
    ("the usual port of TLS, not named", AT_HOME, "https://192.168.1.5", "192.168.1.5", NEIGHBOUR, True),
    ("the usual port of TLS, named once", AT_HOME, "https://192.168.1.5", "192.168.1.5:443", NEIGHBOUR, True),
    ("another machine", AT_HOME, "http://192.168.1.6:8000", BOX, NEIGHBOUR, False),
    ("IPv6", AT_HOME, "http://[fd00::5]:8000", "[FD00:0::5]:8000", NEIGHBOUR, True),
    ("another IPv6", AT_HOME, "http://[fd00::6]:8000", "[fd00::5]:8000", NEIGHBOUR, False),
    ("mDNS", AT_HOME, "http://box.local:8000", "BOX.local:8000", NEIGHBOUR, True),
    ("mDNS with the dot of the root", AT_HOME, "http://box.local.:8000", "box.local:8000", NEIGHBOUR, True),
    ("its name", AT_HOME, "http://box:8000", "box:8000", NEIGHBOUR, True),
    ("its name as a router completes it", AT_HOME, "http://box.lan:8000", "box.lan:8000", NEIGHBOUR, True),
    ("its name in a strange domain", AT_HOME, "http://box.evil.example:8000", "box.evil.example:8000", UNKNOWN, False),
    ("a tunnel to localhost", AT_HOME, "http://localhost:8000", "localhost:8000", NEIGHBOUR, True),
    ("no host", AT_HOME, "http://192.168.1.5:8000", "", NEIGHBOUR, False),
    ("no host that is one", AT_HOME, "http://192.168.1.5:8000", "192.168.1.5:8000/x", NEIGHBOUR, False),
    # Names that anybody may point to this machine.
    ("rebinding", AT_HOME, "http://evil.example:8000", "evil.example:8000", NEIGHBOUR, False),
    ("rebinding to this machine itself", AT_HOME, "http://evil.example:8000", "evil.example:8000", HERE, False),
    ("rebinding that ends like a good name", AT_HOME, "http://evillocal:8000", "evillocal:8000", NEIGHBOUR, False),
    ("rebinding to a begun address", AT_HOME, "http://192.168.1.5.evil.example", "192.168.1.5.evil.example", "", False),
    ("rebinding of what is named", LISTED, "http://app.example.com:8000", "app.example.com:8000", NEIGHBOUR, False),
    ("the public name on another server", AT_HOME, "https://xiaozhi.example.org", "xiaozhi.example.org", "", False),
    # With public_url.
    ("the public address", PUBLIC, "https://xiaozhi.example.org", "xiaozhi.example.org", NEIGHBOUR, True),
    ("a proxy that passes no host on", PUBLIC, "https://xiaozhi.example.org", "127.0.0.1:8000", HERE, True),
    ("our port below the public name", PUBLIC, "http://xiaozhi.example.org:8000", "x", NEIGHBOUR, True),
    ("another port of the public name", PUBLIC, "https://xiaozhi.example.org:444", "x", NEIGHBOUR, False),
    ("the public name without encryption", PUBLIC, "http://xiaozhi.example.org", "x", NEIGHBOUR, False),
    ("rebinding with a public name", PUBLIC, "http://evil.example:8000", "evil.example:8000", NEIGHBOUR, False),
    ("by address with a public name", PUBLIC, "http://192.168.1.5:8000", BOX, NEIGHBOUR, False),
    ("its name inside with a public name", PUBLIC, "http://box:8000", "box:8000", NEIGHBOUR, False),
    # Test pages of developers.
    ("localhost, here", AT_HOME, "http://localhost:8006", "127.0.0.1:8000", HERE, True),
    ("localhost without a port, here", AT_HOME, "https://localhost", BOX, "::1", True),
    ("127.9.9.9, here", AT_HOME, "http://127.9.9.9:1", BOX, "::ffff:127.0.0.1", True),
    ("::1, here", PUBLIC, "http://[::1]:8006", BOX, HERE, True),
    ("localhost of a neighbour", AT_HOME, "http://localhost:8006", BOX, NEIGHBOUR, False),
    ("localhost of somebody behind a proxy", AT_HOME, "http://localhost:8006", BOX, UNKNOWN, False),
    ("127.0.0.1 of a neighbour", AT_HOME, "http://127.0.0.1:8006", BOX, NEIGHBOUR, False),
    ("a name that only begins so, here", AT_HOME, "http://localhost.evil.example", BOX, HERE, False),
    ("an address that is written oddly, here", AT_HOME, "http://127.1:8006", BOX, HERE, False),
    ("a stranger's page, here", AT_HOME, "http://evil.example", "127.0.0.1:8000", HERE, False),
    ("another machine's page, here", AT_HOME, "http://192.168.1.9:8006", BOX, HERE, False),
    # What the owner has named.
    ("named", LISTED, "https://app.example.com", BOX, NEIGHBOUR, True),
    ("named, with its default port", LISTED, "https://app.example.com:443", BOX, NEIGHBOUR, True),
    ("named with another scheme", LISTED, "http://app.example.com", BOX, NEIGHBOUR, False),
    ("named with another port", LISTED, "https://app.example.com:8443", BOX, NEIGHBOUR, False),
    ("below what is named", LISTED, "https://x.app.example.com", BOX, NEIGHBOUR, False),
    ("what begins like it", LISTED, "https://app.example.com.evil.example", BOX, NEIGHBOUR, False),
    ("named with a port", LISTED, "http://10.0.0.7:3000", BOX, NEIGHBOUR, True),
    ("an app's own scheme", LISTED, "capacitor://localhost", BOX, NEIGHBOUR, True),
    ("an app that is not named", AT_HOME, "capacitor://localhost", BOX, HERE, False),
    ("a browser's extension", AT_HOME, "chrome-extension://abcdefgh", BOX, HERE, False),
    ("a file", AT_HOME, "file://", BOX, HERE, False),
    ("a file, named", Origins(("file://",)), "file://", BOX, NEIGHBOUR, True),
    ("everybody", EVERYBODY, "http://evil.example", BOX, NEIGHBOUR, True),
    ("everybody, rebound", EVERYBODY, "http://evil.example:8000", "evil.example:8000", NEIGHBOUR, True),
    ("everybody who has a name", EVERYBODY, "null", BOX, NEIGHBOUR, False),
    ("null", AT_HOME, "null", BOX, HERE, False),
    ("null to a host of that name", Origins(names=("null",)), "null", "null", HERE, False),
    ("null, named", NULL, "null", BOX, NEIGHBOUR, True),
    ("only null is named", NULL, "http://evil.example", BOX, NEIGHBOUR, False),
    # What no browser sends.
    ("two at once", LISTED, "https://app.example.com, http://evil.example", BOX, NEIGHBOUR, False),
    ("two at once, the other way", LISTED, "http://evil.example, https://app.example.com", BOX, NEIGHBOUR, False),
    ("a name before the host", LISTED, "https://app.example.com@evil.example", BOX, NEIGHBOUR, False),
    ("a path", AT_HOME, "http://192.168.1.5:8000/x", BOX, NEIGHBOUR, False),
    ("port 0", AT_HOME, "http://192.168.1.5:0", "192.168.1.5:0", NEIGHBOUR, False),
    ("a port that is none", AT_HOME, "http://192.168.1.5:80000", "192.168.1.5:80000", NEIGHBOUR, False),
    ("a letter that becomes a k when it is small", LISTED, "http\u017f://app.example.com", BOX, NEIGHBOUR, False),
    ("a star", AT_HOME, "*", BOX, HERE, False),
    ("very long", AT_HOME, "http://" + "a" * 9000, BOX, HERE, False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "origin", "host", "peer", "allowed"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_page_is_admitted_only_for_a_reason(rules: Origins, origin: str, host: str, peer: str, allowed: bool) -> None:
    assert rules.allows(origin, host, peer) is allowed


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=40))
def test_whatever_is_sent_only_a_reason_admits_it(origin: str, host: str, peer: str) -> None:
    if Origins(ports=(8000,)).allows(origin, host, peer):
        page = page_of(origin)
        assert not origin or (page is not None and (is_loopback_host(peer) or page.host in host.lower()))


_LABELS = st.sampled_from(("box", "evil", "local", "localhost", "lan", "home", "xiaozhi", "example", "a1", "xn--fsq"))


@given(
    st.lists(_LABELS, min_size=2, max_size=4), st.sampled_from(("com", "box", "io", "example")), st.integers(1, 65535)
)
def test_no_name_of_the_public_dns_is_ours_only_because_it_was_asked_for(parts: list[str], top: str, port: int) -> None:
    place = f"{'.'.join(parts)}.{top}:{port}"
    for peer in (HERE, NEIGHBOUR):
        assert not AT_HOME.allows(f"http://{place}", place, peer)
        assert not PUBLIC.allows(f"http://{place}", place, peer)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://app.example.com", "https://app.example.com"),
        (" HTTPS://App.Example.com:443/ ", "https://app.example.com"),
        ("http://10.0.0.7:080", "http://10.0.0.7"),
        ("http://[FD00::5]:8000", "http://[fd00::5]:8000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("file://", "file://"),
        ("*", "*"),
        ("NULL", "null"),
    ],
)
def test_a_page_may_be_written_as_people_write_it(written: str, sent: str) -> None:
    assert Settings.model_validate({"server": {"origins": [written]}}).server.origins == (sent,)
    assert as_sent(sent) == sent


@pytest.mark.parametrize(
    "written",
    ["", "app.example.com", "https://", "https:///", "https://app.example.com/page", "https://*.example.com", "//a",
     "https://a b", "https://a:0", "https://a:99999", "https://u@a", "https://例子.cn", "https://a\nb", "**",
     "https://a,https://b", "http\u017f://a"],
)  # fmt: skip
def test_what_can_be_no_page_is_a_mistake_that_says_what_to_write(written: str) -> None:
    with pytest.raises(ValueError, match=r'such as "https://app\.example\.com"'):
        Settings.model_validate({"server": {"origins": [written]}})


def test_a_machine_is_known_by_its_names() -> None:
    assert names_of("Box.Example.org.") >= {"box.example.org", "box", "box.lan", "box.home.arpa"}
    assert "box.fritz.box" not in names_of("box") and names_of("") == names_of(" ") == frozenset()
    urls = ("wss://node-1.example.org/x", "box", "0.0.0.0", "::", "", "http://a:x")
    assert hosts_of(urls) == {"node-1.example.org", "box", "0.0.0.0"}


@pytest.mark.parametrize(
    ("origins", "warned"), [([], ""), (["https://a.example"], ""), (["*"], "every"), (["null"], "any")]
)
def test_the_check_warns_of_what_lets_strangers_in(origins: list[str], warned: str) -> None:
    finding = pages(Settings.model_validate({"server": {"origins": origins}}).server)
    assert (finding is not None and warned in finding.text) if warned else finding is None


# Whole servers -------------------------------------------------------------------------------------------------------

DEVICE = {"Device-Id": "02:00:00:00:00:01", "Client-Id": "client-1"}
EVIL = "http://evil.example"
PATHS = [
    ("POST", "/xiaozhi/ota/"),
    ("POST", "/xiaozhi/ota"),
    ("GET", "/xiaozhi/ota/"),
    ("POST", "/xiaozhi/ota/activate"),
    ("GET", "/xiaozhi/ota/firmware/board/1.0.0.bin"),
    ("POST", "/mcp/vision/explain"),
    ("GET", "/xiaozhi/v1/"),
]


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    tables: dict[str, Any] = {"auth": {"mode": "token"}, "server": {"origins": ["https://app.example.com"]}}
    async with house(tmp_path, **tables) as home:
        yield home


@pytest.fixture
async def http(home: House) -> AsyncIterator[aiohttp.ClientSession]:
    async with session_of(home) as session:
        yield session


def session_of(home: House) -> aiohttp.ClientSession:
    """A client that follows no rules of browsers and can say what they say."""
    return aiohttp.ClientSession(f"http://127.0.0.1:{home.server.port}")


async def upgrade(http: aiohttp.ClientSession, path: str, headers: Mapping[str, str]) -> int:
    """The status of a WebSocket's request; 101 where it was opened and says hello."""
    try:
        async with http.ws_connect(path, headers=headers) as socket:
            await socket.send_json({"type": "hello"})
            assert (await asyncio.wait_for(socket.receive_json(), 5))["type"] == "hello"
            return 101
    except aiohttp.WSServerHandshakeError as error:
        return error.status


async def raw(home: House, line: str, *origins: str) -> bytes:
    """The answer to a request that no HTTP client would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", home.server.port)
    headers = [
        "Host: 127.0.0.1",
        *(f"Origin: {origin}" for origin in origins),
        "Content-Length: 0",
        "Connection: close",
    ]
    writer.write(("\r\n".join([f"{line} HTTP/1.1", *headers]) + "\r\n\r\n").encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def refused(http: aiohttp.ClientSession) -> int:
    """How often a page was turned away, as the metrics have it."""
    async with http.get("/metrics") as response:
        lines = [line for line in (await response.text()).splitlines() if 'why="origin"' in line]
    assert len(lines) == 1, lines
    return int(float(lines[0].split()[-1]))


async def token_of(http: aiohttp.ClientSession, **headers: str) -> str:
    async with http.post("/xiaozhi/ota/", json={}, headers={**DEVICE, **headers}) as response:
        assert response.status == 200, await response.text()
        token: str = (await response.json())["websocket"]["token"]
        return token


async def test_a_strangers_page_reaches_nothing_that_devices_use(http: aiohttp.ClientSession) -> None:
    for method, path in (*PATHS, *(("OPTIONS", path) for _, path in PATHS)):
        for origin in (EVIL, "null"):
            async with http.request(method, path, headers={**DEVICE, "Origin": origin}) as response:
                text = await response.text()
                assert response.status == 403
                assert origin in text and "server.origins" in text and text.count("\n") == 1
                assert not [name for name in response.headers if name.startswith("Access-Control")]
                assert response.headers["Vary"] == "Origin"


async def test_a_page_that_is_named_is_told_that_it_may(http: aiohttp.ClientSession) -> None:
    origin = "https://app.example.com"
    for method, path in PATHS:
        preflight = {"Origin": origin, "Access-Control-Request-Method": method}
        async with http.options(path, headers=preflight) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == origin
            assert "authorization" in response.headers["Access-Control-Allow-Headers"].lower()
            assert response.headers["Vary"] == "Origin"
        async with http.request(method, path, headers={**DEVICE, "Origin": origin}) as response:
            assert response.status != 403
            assert response.headers["Access-Control-Allow-Origin"] == origin, "also where something else is wrong"
            assert response.headers["Vary"] == "Origin"


async def test_a_device_is_answered_as_ever_and_without_headers_for_browsers(http: aiohttp.ClientSession) -> None:
    async with http.post("/xiaozhi/ota/", json={}, headers=DEVICE) as response:
        assert response.status == 200
        assert not [name for name in response.headers if name.startswith("Access-Control")]
        assert response.headers["Vary"] == "Origin"
    async with http.options("/xiaozhi/ota/") as response:
        assert response.status == 204
        assert not [name for name in response.headers if name.startswith("Access-Control")]


async def test_a_socket_opens_for_devices_and_admitted_pages_only(home: House, http: aiohttp.ClientSession) -> None:
    shown = {**DEVICE, "Authorization": f"Bearer {await token_of(http)}"}
    for path in ("/xiaozhi/v1/", "/xiaozhi/v1", "/"):
        assert await upgrade(http, path, shown) == 101
        assert await upgrade(http, path, {**shown, "Origin": "https://app.example.com"}) == 101
        assert await upgrade(http, path, {**shown, "Origin": EVIL}) == 403
    path = "/xiaozhi/v1/"
    for origin in ("http://localhost:8006", f"http://127.0.0.1:{home.server.port}"):
        assert await upgrade(http, path, {**shown, "Origin": origin}) == 101
    for origin in ("null", "https://app.example.com.evil.example"):
        assert await upgrade(http, path, {**shown, "Origin": origin}) == 403
    rebound = {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}
    assert await upgrade(http, path, {**shown, **rebound}) == 403
    assert await upgrade(http, path, {**shown, "Host": "evil.example:8000"}) == 101, "a device may use any name"


async def test_an_open_server_is_not_open_to_pages(tmp_path: Path) -> None:
    async with house(tmp_path, auth={"mode": "open"}) as home, session_of(home) as http:
        assert await upgrade(http, "/xiaozhi/v1/", DEVICE) == 101
        assert await upgrade(http, "/xiaozhi/v1/", {**DEVICE, "Origin": EVIL}) == 403
        names = {"Origin": EVIL, "Device-Id": "anonymous-console-x"}
        assert await upgrade(http, "/xiaozhi/v1/", names) == 401, "who says it is the talk page must show its pass"
        async with http.post("/xiaozhi/ota/", json={}, headers=names) as response:
            assert response.status == 403


async def test_a_path_or_a_header_written_in_another_way_is_no_way_round(home: House) -> None:
    listed, refused = "https://app.example.com", (b"HTTP/1.1 403", b"HTTP/1.1 404", b"HTTP/1.1 400")
    assert (await raw(home, "POST /xiaozhi/ota/", listed)).startswith(b"HTTP/1.1 200")
    for path in ("%6fta/", "./ota/", "ota%2F", "/ota/", "x/../ota/", "OTA/", "ota/?device-id=anonymous-console-x"):
        answer = await raw(home, f"POST /xiaozhi/{path}", EVIL)
        assert answer.startswith(refused) and b"token" not in answer, path
    for both in ((EVIL, listed), (listed, EVIL), (f"{listed}, {EVIL}",), (f"{listed} {EVIL}",)):
        assert (await raw(home, "POST /xiaozhi/ota/", *both)).startswith(refused)


async def test_everybody_may_where_the_owner_says_so(tmp_path: Path) -> None:
    async with house(tmp_path, auth={"mode": "token"}, server={"origins": ["*"]}) as home, session_of(home) as http:
        async with http.post("/xiaozhi/ota/", json={}, headers={**DEVICE, "Origin": EVIL}) as response:
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            token = (await response.json())["websocket"]["token"]
        shown = {**DEVICE, "Authorization": f"Bearer {token}", "Origin": EVIL}
        assert await upgrade(http, "/xiaozhi/v1/", shown) == 101


async def test_behind_a_proxy_its_word_counts_if_it_is_trusted(tmp_path: Path) -> None:
    mine, name = {"Origin": "http://localhost:8006"}, "box.local"
    page = {"Origin": f"https://{name}", "X-Forwarded-Host": name}

    async def status(http: aiohttp.ClientSession, headers: Mapping[str, str]) -> int:
        async with http.post("/xiaozhi/ota/", json={}, headers={**DEVICE, **headers}) as response:
            return response.status

    async with house(tmp_path) as home, session_of(home) as http:
        assert await status(http, page) == 403, "anybody can say for which host he asks"
        assert await status(http, {**page, "Host": name}) == 200
        assert await status(http, mine) == 200
        for word in ("X-Forwarded-For", "X-Real-IP", "Via", "Forwarded"):
            assert await status(http, {**mine, word: "127.0.0.1"}) == 403, "the browser is somewhere else"
    async with house(tmp_path, server={"trusted_proxies": ["127.0.0.1"]}) as home, session_of(home) as http:
        assert await status(http, page) == 200
        assert await status(http, {**page, "X-Forwarded-Host": "other.local"}) == 403
        assert await status(http, {**mine, "X-Forwarded-For": "127.0.0.1"}) == 200
        for hops in ("192.168.1.9", "127.0.0.1, 192.168.1.9", "unknown", ""):
            assert await status(http, {**mine, "X-Forwarded-For": hops}) == 403
        assert await status(http, mine) == 403, "the proxy does not say who asks"


async def test_with_a_public_address_only_its_pages_are_the_servers_own(tmp_path: Path) -> None:
    server = {"public_url": "https://xiaozhi.example.org", "requests_per_minute": 0}
    async with house(tmp_path, server=server) as home, session_of(home) as http:
        assert await upgrade(http, "/xiaozhi/v1/", {**DEVICE, "Origin": "https://xiaozhi.example.org"}) == 101
        rebound = {"Host": "evil.example", "Origin": "https://evil.example"}
        assert await upgrade(http, "/xiaozhi/v1/", {**DEVICE, **rebound}) == 403


async def test_the_talk_page_of_the_console_talks_behind_a_proxy_too(tmp_path: Path) -> None:
    """Its pass says whose it is, so it needs no setting, whatever name the proxy is reached by."""
    set_password(tmp_path / "data")
    server = {"trusted_proxies": ["127.0.0.1"]}
    async with (
        house(tmp_path, console=CONSOLE, auth={"mode": "token"}, server=server) as home,
        browser(home.server) as page,
    ):
        for way in ({"Host": "talk.example.org"}, {"X-Forwarded-Host": "talk.example.org"}):
            talk = await page.get("talk")
            own = {**way, "Origin": "https://talk.example.org", "X-Forwarded-For": "203.0.113.7"}
            url = f"{home.url}?" + "&".join(f"{key}={value}" for key, value in talk["query"].items())
            assert await upgrade(page.http, url, own) == 101
            assert await upgrade(page.http, url, {**own, "Origin": EVIL}) == 401


async def test_a_refusal_is_logged_once_a_minute_in_one_clean_line(
    home: House, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    nasty = "http://e\x1b[2Jvil\u2028.example/" + "x" * 3000
    with caplog.at_level(logging.WARNING, "xiaozhi"):
        for origin in (EVIL, EVIL, nasty, EVIL, nasty, nasty.replace("\x1b", "")):
            answer = await raw(home, "POST /xiaozhi/ota/", origin)
            assert answer.split()[1] in (b"403", b"400") and answer.isascii() and b"\x1b" not in answer
        told = [record.getMessage() for record in caplog.records if "web page" in record.getMessage()]
        assert len(told) >= 2
        assert len([line for line in told if EVIL in line]) == 1
        assert "127.0.0.1" in told[0] and "server.origins" in told[0]
        assert all(line.isprintable() and line.isascii() and len(line) < 400 for line in told)
        for number in range(50):
            async with http.post("/xiaozhi/ota/", json={}, headers={"Origin": f"http://a{number}.evil.example"}):
                pass
        told = [record.getMessage() for record in caplog.records if "web page" in record.getMessage()]
        assert len(told) <= 10, "a page can give itself as many names as it likes"
    assert await refused(http) >= 54


async def test_a_page_may_from_the_moment_the_setting_names_it(home: House, http: aiohttp.ClientSession) -> None:
    shown = {**DEVICE, "Authorization": f"Bearer {await token_of(http)}", "Origin": "https://new.example"}
    assert await upgrade(http, "/xiaozhi/v1/", shown) == 403
    settings = home.server.services.settings
    server = settings.server.model_copy(update={"origins": ("https://new.example",)})
    applied = await home.server.reloader.apply(settings.model_copy(update={"server": server}))
    assert not applied.restart
    assert await upgrade(http, "/xiaozhi/v1/", shown) == 101
    assert await upgrade(http, "/xiaozhi/v1/", {**shown, "Origin": "https://app.example.com"}) == 403


# A real browser ------------------------------------------------------------------------------------------------------

_ASK = """(async () => {
  let asked;
  try {
    const answer = await fetch(%r + '/xiaozhi/ota/', { method: 'POST', body: '{}',
      headers: { 'Content-Type': 'application/json', 'Device-Id': '02:00:00:00:00:01', 'Client-Id': 'c' } });
    asked = answer.ok ? (await answer.json()).websocket.token : '';
  } catch (error) { asked = ''; }
  const socket = new WebSocket(%r + '/xiaozhi/v1/?device-id=02:00:00:00:00:01&client-id=c');
  const opened = await new Promise((resolve) => {
    socket.onopen = () => resolve(true); socket.onerror = () => resolve(false); });
  socket.close();
  return [asked !== '', opened];
})()"""


@asynccontextmanager
async def blank_page() -> AsyncIterator[int]:
    """A web server with nothing but an empty page, on a port of the loopback interface."""

    async def show(_request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>a page</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", show)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@pytest.mark.real_time
@needs_chromium
async def test_a_real_browser_keeps_strangers_out_and_lets_the_developers_page_in(tmp_path: Path) -> None:
    async with house(tmp_path, auth={"mode": "open"}) as home, blank_page() as port, chromium(tmp_path) as page:
        here = f"127.0.0.1:{home.server.port}"
        ask = _ASK % (f"http://{here}", f"ws://{here}")
        await page.open(f"http://localhost:{port}/")
        assert await page.evaluate(ask) == [True, True], "a test page on this machine"
        script = json.dumps(f"{ask}.then((said) => parent.postMessage(said, '*'))")
        framed = (
            "new Promise((resolve) => { window.onmessage = (event) => resolve(event.data);"
            "const frame = document.createElement('iframe'); frame.sandbox = 'allow-scripts';"
            f"frame.srcdoc = '<script>' + {script} + '</scr' + 'ipt>'; document.body.append(frame); }})"
        )
        assert await page.evaluate(framed) == [False, False], "a sandboxed frame in it"
        # Browsers lead every name below .localhost here, as a stranger's DNS may lead his.
        await page.open(f"http://evil.localhost:{port}/")
        assert await page.evaluate(ask) == [False, False], "a stranger's page"
        rebound = f"evil.localhost:{home.server.port}"
        await page.open(f"http://{rebound}/health")
        assert await page.evaluate(_ASK % (f"http://{rebound}", f"ws://{rebound}")) == [False, False], "rebinding"
        await page.open(f"http://{here}/health")
        assert await page.evaluate(ask) == [True, True], "a page of the server itself"
        async with session_of(home) as http:
            # Asked whether it may ask, and the socket, twice; of a page of the same place only the request itself.
            assert await refused(http) == 6
