"""A real headless Chromium for tests, driven by its own protocol (CDP) over a WebSocket: no driver to install."""

import asyncio
import base64
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)")

_START_S = 20.0
_LISTENING = re.compile(rb"DevTools listening on (ws://\S+)")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers, where Chromium's sandbox refuses to
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--mute-audio",
    "--remote-debugging-port=0",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


class PageError(Exception):
    """A script of the test failed in the page."""


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self._socket = socket
        self._session = session
        self._numbers = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.errors: list[str] = []
        """Exceptions, errors on the console and breaches of the content security policy."""
        self.frames: list[tuple[str, str]] = []
        """Text frames of WebSockets: `sent` or `received`, and the text."""

    async def listen(self) -> None:
        """Take what the browser says, until it ends."""
        async for message in self._socket:
            data = json.loads(message.data)
            if "id" in data:
                waiting = self._waiting.pop(data["id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(data)
            else:
                self._note(data.get("method", ""), data.get("params", {}))

    def _note(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Runtime.consoleAPICalled" if params["type"] == "error":
                self.errors.append(" ".join(str(each.get("value", "")) for each in params["args"]))
            case "Network.webSocketFrameSent" | "Network.webSocketFrameReceived":
                if params["response"]["opcode"] == 1:
                    self.frames.append((method[22:].lower(), params["response"]["payloadData"]))

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command. Raises `PageError` when the browser refuses it."""
        self._numbers += 1
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[self._numbers] = waiting
        command = {"id": self._numbers, "method": method, "params": params}
        await self._socket.send_json({**command, "sessionId": self._session} if self._session else command)
        answer = await asyncio.wait_for(waiting, 30.0)
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        result = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    async def until(self, script: str, within_s: float = 12.0) -> Any:
        """Wait until an expression is true in the page; looked at with every frame it draws."""
        looking = (
            f"new Promise((resolve, reject) => {{ const end = performance.now() + {within_s * 1000};"
            f"const look = () => {{ let value; try {{ value = {script}; }} catch (error) {{ value = false; }}"
            "if (value) resolve(value); else if (performance.now() > end) reject(new Error('never came true'));"
            "else setTimeout(look, 20); }; look(); })"
        )
        try:
            try:
                return await self.evaluate(looking)
            except PageError as error:
                if "navigated" not in str(error):
                    raise
                return await self.evaluate(looking)  # another page came while we were looking: look at that one
        except PageError as error:
            words = await self.evaluate("document.body?.innerText.slice(0, 1500)")
            raise AssertionError(f"{script}: {error}; errors: {self.errors}; the page: {words}") from None

    async def open(self, url: str) -> None:
        """Go to an address and wait until it is loaded."""
        await self.send("Page.navigate", url=url)
        await self.until(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    async def reload(self) -> None:
        """Load the page again."""
        await self.evaluate("window.before = true")
        await self.send("Page.reload")
        await self.until("!window.before && document.readyState === 'complete'")

    async def click(self, selector: str) -> None:
        """Click with a real mouse into the middle of an element: it must be visible and not covered."""
        where = await self.until(
            f"(() => {{ const element = document.querySelector({json.dumps(selector)});"
            "if (!element || element.disabled) return false; element.scrollIntoView({block: 'center'});"
            "const box = element.getBoundingClientRect(); if (!box.width) return false;"
            "const x = box.x + box.width / 2, y = box.y + box.height / 2;"
            "return element.contains(document.elementFromPoint(x, y)) ? [x, y] : false; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], button="left", clickCount=1)

    async def type(self, selector: str, text: str, *, enter: bool = False) -> None:
        """Replace what stands in a field by a text, as if typed; `enter` presses that key afterwards."""
        await self.click(selector)
        await self.evaluate(f"document.querySelector({json.dumps(selector)}).select()")
        await self.send("Input.insertText", text=text)
        if enter:
            await self.key("Enter", 13, "\r")

    async def key(self, name: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            await self.send(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, text=text
            )

    async def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """Make the window so large, in CSS pixels; a phone has two pixels for each, and touches."""
        scale = 2 if phone else 1
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    async def look(self, path: Path, width: int = 1440, height: int = 900, *, phone: bool = False) -> None:
        """Take a picture of the page in a window of the given size."""
        await self.size(width, height, phone=phone)
        await self.evaluate("new Promise((resolve) => setTimeout(resolve, 350))")  # charts redraw, pictures settle
        picture = await self.send("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(picture["data"]))


@asynccontextmanager
async def chromium(folder: Path, microphone: Path | None = None) -> AsyncIterator[Page]:
    """A browser with one tab; its microphone plays a WAV file.

    Args:
        folder: for its profile.
        microphone: WAV file that is played once, from when the microphone is opened; without it, beeps.
    """
    assert CHROMIUM is not None
    flags = [*_FLAGS, f"--user-data-dir={folder / 'chromium'}"]
    if microphone is not None:
        flags.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *flags, "about:blank", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    draining: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(_START_S):
            while not (found := _LISTENING.search(await process.stderr.readline())):
                assert process.returncode is None, "Chromium ended at once"
        draining = asyncio.create_task(_drain(process.stderr))  # a full pipe would stop it
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(found.group(1).decode(), max_msg_size=0) as socket,
        ):
            page = Page(socket, "")
            listening = asyncio.create_task(page.listen())
            try:
                target = await page.send("Target.createTarget", url="about:blank")
                attached = await page.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
                page._session = attached["sessionId"]
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await page.send(f"{domain}.enable")
                yield page
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 5.0)
            except TimeoutError:
                process.kill()
                await process.wait()
        if draining is not None:
            await draining


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass
