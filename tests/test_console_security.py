"""The console as a scanner of web faults meets it."""

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yarl

from tests.console_browser import CONSOLE, PASSWORD, browser, set_password
from tests.house import House, house

_PLACES = {"{number}": "1", "{stage}": "vad", "{id}": "x", "{name}": "x", "{tail}": "no-such-call", "{path}": ""}


def calls_of(home: House) -> list[tuple[str, str]]:
    """Every call that the console has, so that none is forgotten here."""
    assert home.server.console is not None
    found = []
    for route in home.server.console.app.router.routes():
        assert route.resource is not None
        path = route.resource.canonical
        for place, word in _PLACES.items():
            path = path.replace(place, word)
        assert "{" not in path
        found.append(("DELETE" if route.method == "*" else route.method, path.partition("/api/")[2]))
    return [call for call in found if call[1] not in ("", "session", "sign-in")]


async def raw(home: House, request: str) -> str:
    """What the server answers to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", home.server.port)
    writer.write(request.encode("latin-1"))
    await writer.drain()
    async with asyncio.timeout(5.0):
        answer = await reader.read(200_000)
    writer.close()
    return answer.decode("latin-1")


async def test_nothing_is_told_and_nothing_is_done_for_strangers(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home, browser(home.server, signed_in=False) as stranger:
        calls = calls_of(home)
        assert len(calls) > 30 and ("POST", "devices/x/say") in calls
        for method, path in calls:
            async with stranger.http.request(method, f"{stranger.base}/console/api/{path}") as answer:
                assert answer.status == 401, (method, path)
                assert await answer.text() == ("" if method == "HEAD" else '{"error":"sign in first"}')
        session = await stranger.get("session")
        assert not session.pop("program").startswith("/"), "no path of this machine"
        assert session == {"signed_in": False, "csrf": None, "version": "0.1.0"}
        stranger.http.cookie_jar.update_cookies({"xiaozhi_console": "A" * 43})
        assert (await stranger.call("GET", "overview"))[0] == 401
        for path in ("", "index.html"):
            async with stranger.http.get(f"{stranger.base}/console/{path}") as page:
                assert page.status == 200 and "text/html" in page.headers["Content-Type"]
                assert "stand-in" not in await page.text()


async def test_every_answer_is_hardened(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home, browser(home.server) as page:
        calls = ("session", "overview", "no-such-call", "turns?limit=x", "events")
        for path in ("", "no-such-page", *(f"api/{call}" for call in calls)):
            async with page.http.get(f"{page.base}/console/{path}") as answer:
                headers = answer.headers
                whole = headers["Content-Security-Policy"]
                policy = dict(part.strip().partition(" ")[::2] for part in whole.split(";"))
                assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
                assert policy["frame-ancestors"] == "'none'" and policy["base-uri"] == "'none'"
                host = f"127.0.0.1:{home.server.port}"
                assert policy["connect-src"] == f"'self' ws://{host} wss://{host}"
                assert "unsafe" not in whole and "*" not in whole
                assert headers["X-Frame-Options"] == "DENY" and headers["X-Content-Type-Options"] == "nosniff"
                assert headers["Referrer-Policy"] == "no-referrer"
                assert headers["Cache-Control"] == ("no-cache" if path == "" else "no-store")
                assert "Access-Control-Allow-Origin" not in headers
        async with page.http.get(f"{page.base}/console", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (301, "/console/")
        async with page.http.post(f"{page.base}/console/index.html") as answer:
            assert answer.status == 405


async def test_the_cookie_is_for_this_server_only(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with (
        house(tmp_path, console=CONSOLE, server={"trusted_proxies": ["127.0.0.1"]}) as home,
        aiohttp.ClientSession() as http,
    ):
        url = f"http://127.0.0.1:{home.server.port}/console/api/sign-in"
        async with http.post(url, json={"password": PASSWORD}) as answer:
            cookie = answer.headers["Set-Cookie"]
            words = {word.strip() for word in cookie.split(";")}
            assert {"HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age=43200"} <= words and "Secure" not in words
            assert "Domain" not in cookie and (await answer.json()).keys() == {"csrf"}
        over_tls = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.0.0.9"}
        async with http.post(url, json={"password": PASSWORD}, headers=over_tls) as answer:
            assert "Secure" in answer.headers["Set-Cookie"]
        async with http.post(url, json={"password": PASSWORD}, headers={"X-Forwarded-For": "8.8.8.8"}) as answer:
            assert answer.status == 403, "the proxy says that it asks for a stranger"


@pytest.mark.parametrize(
    "asked", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "a b", "\xff"]
)
async def test_a_strangers_name_that_leads_here_opens_nothing(tmp_path: Path, asked: str) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home, browser(home.server) as page:
        cookies = page.http.cookie_jar.filter_cookies(yarl.URL(f"{page.base}/console/"))
        words = f"Cookie: xiaozhi_console={cookies['xiaozhi_console'].value}\r\nX-CSRF: {page.csrf}\r\n"
        for host in (asked, f"{asked}:{home.server.port}"):
            for line in (
                "GET /console/",
                "GET /console/api/settings",
                "POST /console/api/sign-in",
                "GET /console/api/session",
            ):
                head = f"{line} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n{words}Content-Length: 0\r\n"
                answer = await raw(home, f"{head}Connection: close\r\n\r\n")
                assert answer.split(" ", 2)[1] in ("400", "403"), (line, host)
                assert "server.public_url" in answer or " 400 " in answer.splitlines()[0]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "127.0.0.1",
        "192.168.1.20",
        "[::1]",
        "voice.example",
        "app.example",
        "box.local",
        socket.gethostname(),
    ],
)
async def test_the_console_is_found_under_every_name_of_this_server(tmp_path: Path, host: str) -> None:
    set_password(tmp_path / "data")
    server = {"public_url": "https://voice.example", "origins": ["https://app.example"]}
    async with house(tmp_path, console=CONSOLE, server=server) as home:
        for shown in (host, f"{host}:{home.server.port}"):
            answer = await raw(home, f"GET /console/ HTTP/1.1\r\nHost: {shown}\r\nConnection: close\r\n\r\n")
            assert answer.startswith("HTTP/1.1 200 "), shown


async def test_pages_of_other_sites_can_do_nothing(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home, browser(home.server) as page:
        csrf, change = page.csrf, {"changes": {"asr.workers": 3}}
        for word in ("", "wrong", csrf[:-1], csrf + "x"):
            page.csrf = ""
            status, data = await page.call("PUT", "settings", change, **({"X-CSRF": word} if word else {}))
            assert status == 403 and "X-CSRF" in data["error"]
        page.csrf = csrf
        for strange in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            status, data = await page.call("PUT", "settings", change, **strange)
            assert status == 403 and data["error"].startswith("this request comes from a page of another site")
            status, _ = await page.call("POST", "sign-in", {"password": PASSWORD}, **strange)
            assert status == 403, "nor sign somebody in as somebody else"
        own = {"Origin": page.base, "Sec-Fetch-Site": "same-origin"}
        assert (await page.call("POST", "devices/bind", {"code": "000000"}, **own))[0] == 422
        async with page.http.post(
            f"{page.base}/console/api/devices/bind", data='{"code": "1"}', headers={"X-CSRF": csrf}
        ) as answer:
            assert answer.status == 415, "what forms can send is not taken"


async def test_no_call_that_changes_something_is_taken_without_the_sessions_word(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home, browser(home.server) as page:
        changing = [call for call in calls_of(home) if call[0] not in ("GET", "HEAD")]
        assert len(changing) >= 15 and ("POST", "sign-out") in changing
        assert home.server.console is not None
        for method, path in changing:
            async with page.http.request(method, f"{page.base}/console/api/{path}", json={}) as answer:
                assert answer.status == 403 and "X-CSRF" in await answer.text(), (method, path)
        assert (await page.get("session"))["signed_in"]


async def test_guessing_the_password_is_slow_and_the_right_one_ends_older_sessions(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home, browser(home.server) as owner:
        async with browser(home.server, signed_in=False) as thief:
            for guess in ("", "password", PASSWORD.upper(), PASSWORD + " "):
                assert await thief.sign_in(guess) == (401, {"error": "wrong password"})
            async with thief.http.post(f"{thief.base}/console/api/sign-in", json={"password": PASSWORD}) as answer:
                assert answer.status == 429 and int(answer.headers["Retry-After"]) >= 1
            bodies: list[Any] = [{"password": 5}, {}, {"password": "x" * 5000}, [], "x"]
            for body in bodies:
                assert (await thief.call("POST", "sign-in", body))[0] in (400, 422)
        assert (await owner.get("session"))["signed_in"], "whoever is signed in stays so"
        assert home.server.console is not None and home.server.console.access.failures == 4


async def test_signing_out_and_another_password_end_sessions(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home, browser(home.server) as one, browser(home.server) as other:
        assert (await one.call("POST", "password", {"old": "wrong", "new": "long enough"}))[0] == 403
        status, data = await one.call("POST", "password", {"old": PASSWORD, "new": "short"})
        assert status == 422 and "8 to 256" in data["error"]
        assert (await one.call("POST", "password", {"old": PASSWORD, "new": "long enough"}))[0] == 200
        assert (await one.get("session"))["signed_in"] and not (await other.get("session"))["signed_in"]
        assert (await other.sign_in())[0] == 401
        assert (await other.sign_in("long enough"))[0] == 200
        assert (await other.call("POST", "sign-out"))[0] == 200
        assert not (await other.get("session"))["signed_in"]


async def test_only_the_pages_own_files_are_served(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    (tmp_path / "secret.txt").write_text("TOP SECRET")
    async with house(tmp_path, console=CONSOLE) as home:
        tricks = [
            "/console/../settings.toml", "/console/../../../../etc/passwd", "/console/%2e%2e/%2e%2e/etc/passwd",
            "/console/..%2f..%2fetc%2fpasswd", "/console//etc/passwd", "/console/%00index.html", "/console/js/../../x",
            "/console/..\\..\\etc\\passwd", "/console/api/../../etc/passwd", "/console/js/", "/console/__init__.py",
            "/console/static/index.html", "/console/index.html/", "/console/." + "/" * 3000,
        ]  # fmt: skip
        for path in tricks:
            answer = await raw(home, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert answer.split(" ", 2)[1] in ("400", "401", "404"), (path, answer[:100])
            assert "root:" not in answer and "TOP SECRET" not in answer


async def test_nothing_of_a_request_becomes_a_header(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home:
        for host in ("x; script-src *", "a b", "evil.example\tx", "[::1", "x'*'", "-x", "x" * 300):
            answer = await raw(home, f"GET /console/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
            head = answer.partition("\r\n\r\n")[0]
            assert (host not in head and "connect-src 'self';" in head) or " 400 " in head.splitlines()[0], host
        answer = await raw(
            home, "GET /console/%0d%0aSet-Cookie:x=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert " 404 " in answer.splitlines()[0] and "\r\nSet-Cookie" not in answer


async def test_large_deep_slow_and_broken_bodies_are_refused(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home, browser(home.server) as page:
        headers = {"X-CSRF": page.csrf, "Content-Type": "application/json"}
        wrong: list[tuple[bytes, int]] = [
            (b'{"x": "' + b"y" * 300_000 + b'"}', 413), (b"[" * 60_000, 400), (b"{", 400), (b"\xff\xfe", 400),
            (b"[]", 400), (b"null", 400), (b'{"changes": []}', 422), (b'{"changes": {}, "unset": [1]}', 422),
            (b'{"changes": {"asr.workers": 1e400}}', 400), (b"{}", 422),
        ]  # fmt: skip
        for body, status in wrong:
            async with page.http.put(f"{page.base}/console/api/settings", data=body, headers=headers) as answer:
                assert answer.status == status, body[:40]
                assert answer.headers["Content-Type"].startswith("application/json")
        assert (await page.call("GET", "overview"))[0] == 200
        for path in ("turns?limit=-1", "turns?before=x", "logs?level=loud", "turns?limit=99999999999999999999"):
            assert (await page.call("GET", path))[0] == 400
        many = {f"asr.x{number}": 1 for number in range(300)}
        assert (await page.call("PUT", "settings", {"changes": many}))[0] == 422


async def test_it_can_be_switched_off_and_kept_to_some_networks(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    far: dict[str, Any] = {"enabled": True, "allow": ["10.0.0.0/8"]}
    async with house(tmp_path, console=far) as home, browser(home.server, signed_in=False) as page:
        for path in ("", "api/session"):
            async with page.http.get(f"{page.base}/console/{path}", headers={"X-Forwarded-For": "10.0.0.1"}) as answer:
                assert answer.status == 403
        assert (await page.sign_in())[0] == 403
    async with (
        house(tmp_path, console={"enabled": False}) as home,
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{home.server.port}/console/") as answer,
    ):
        assert answer.status == 404


async def test_whoever_is_refused_reads_as_whom_they_are_seen_and_what_to_set(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    few: dict[str, Any] = {"enabled": True, "allow": ["10.0.0.0/8"]}
    async with house(tmp_path, console=few) as home, browser(home.server, signed_in=False) as page:
        async with page.http.get(f"{page.base}/console/") as answer:
            text = await answer.text()
            assert (answer.status, answer.content_type) == (403, "text/plain")
            assert "127.0.0.1 不能打开控制台" in text and "The address 127.0.0.1 may not open the console" in text
            assert "[console] allow in settings.toml" in text
        async with page.http.get(f"{page.base}/console/", headers={"X-Forwarded-For": "10.1.2.3"}) as answer:
            text = await answer.text()
            assert answer.status == 403 and "if 127.0.0.1 is your proxy, name it in server.trusted_proxies" in text
        status, data = await page.call("GET", "session")
        assert status == 403 and data["error"].startswith("the address 127.0.0.1 may not open the console")


async def test_this_machine_by_any_of_its_addresses_and_a_tailnet_may_open_it(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    own: dict[str, Any] = {"enabled": True, "allow": ["self"]}
    async with house(tmp_path, console=own) as home, browser(home.server, signed_in=False) as page:
        assert (await page.call("GET", "session"))[0] == 200
        through_a_proxy = {"X-Forwarded-For": "127.0.0.1"}
        assert (await page.call("GET", "session", **through_a_proxy))[0] == 403, "a proxy here may ask for anybody"
    proxied: dict[str, Any] = {"trusted_proxies": ["127.0.0.1"]}
    async with house(tmp_path, console=CONSOLE, server=proxied) as home, browser(home.server) as page:
        for address, status in (("100.101.102.103", 200), ("fe80::1", 200), ("100.128.0.1", 403), ("8.8.8.8", 403)):
            assert (await page.call("GET", "session", **{"X-Forwarded-For": address}))[0] == status, address


async def test_a_proxy_that_nobody_trusts_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with house(tmp_path) as home, aiohttp.ClientSession() as http:
        with caplog.at_level(logging.WARNING, "xiaozhi"):
            for _ in range(3):
                async with http.get(f"http://127.0.0.1:{home.server.port}/", headers={"X-Forwarded-For": "8.8.8.8"}):
                    pass
        lines = [record.getMessage() for record in caplog.records if "trusted_proxies" in record.getMessage()]
    assert len(lines) == 1 and 'server.trusted_proxies = ["127.0.0.1"]' in lines[0]


async def test_at_most_sixteen_pages_listen(tmp_path: Path) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE) as home, browser(home.server) as page:
        streams = [await page.http.get(f"{page.base}/console/api/events") for _ in range(17)]
        assert [stream.status for stream in streams] == [200] * 16 + [503]
        for stream in streams:
            stream.close()


@pytest.mark.parametrize("mode", ["open", "token", "activate"])
async def test_the_talk_page_may_connect_and_nobody_else_under_its_name(tmp_path: Path, mode: str) -> None:
    set_password(tmp_path / "data")
    async with house(tmp_path, console=CONSOLE, auth={"mode": mode}) as home, browser(home.server) as page:
        talk = await page.get("talk")
        own = {"Origin": page.base}

        async def status_of(query: dict[str, str], headers: dict[str, str]) -> int:
            try:
                async with page.http.ws_connect(talk["websocket"], params=query, headers=headers):
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

        good = talk["query"]
        assert await status_of({**good, "token": "wrong"}, own) == 401
        assert await status_of({**good, "device-id": "anonymous-console-other"}, own) == 401
        assert await status_of(good, {"Origin": "http://evil.example"}) == 401
        assert await status_of(good, {}) == 401
        assert await status_of(good, own) == 101
        assert (await page.call("POST", "sign-out"))[0] == 200
        assert await status_of(good, own) == 401, "it ends with the session"
