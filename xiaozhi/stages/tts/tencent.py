"""Tencent Cloud's speech with streamed text (`stream_wsv2`): a WebSocket with a signed address for each clause.

The messages are those of Tencent's SDK `tencentcloud-speech-sdk-python`, `tts/flowing_speech_synthesizer.py`: a query
with voice, rate and session, `ready` 1, `ACTION_SYNTHESIS` with a text, `ACTION_COMPLETE`, sound in binary messages,
`final` 1. Nothing in them says where the sound of one text ends and that of the next begins, so a session has one text;
the connection for the next is opened while this one speaks.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import aiohttp
import numpy as np
import orjson
from yarl import URL

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.settings.tts import TencentVoiceSettings
from xiaozhi.stages.tts.engine import ClauseVoice, VoiceError
from xiaozhi.stages.tts.errors import short
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest, bilingual
from xiaozhi.text import bounded_json
from xiaozhi.upstream.connections import Connections, NotOpened, reason
from xiaozhi.upstream.signing import tencent_url

Values: TypeAlias = dict[str, str | int]

_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_MAX_GREETINGS: Final = 10
_VALID_S: Final = 3600
# How long a connection waits for a text at most. What the service allows is not written down; one that it has closed
# is noticed when the text is sent, which costs a new one.
_SPARE_S: Final = 20.0
# `Speed` by how fast it is, as the table of Tencent's page on parameters (document/product/1073/37995) has it.
_FACTORS: Final = (0.6, 0.8, 1.0, 1.2, 1.5, 2.5)
_SPEEDS: Final = (-2.0, -1.0, 0.0, 1.0, 2.0, 6.0)


@dataclass(frozen=True, slots=True)
class _Line:
    """A connection that is ready for a text."""

    socket: aiohttp.ClientWebSocketResponse
    values: Values
    session_id: str
    since_s: float


class TencentVoice(ClauseVoice):
    """Speaks through Tencent Cloud.

    Args:
        settings: account, voices and rate.
        timeout_s: longest silence of the connection.
    """

    name = "tencent"
    warm_s = _SPARE_S

    def __init__(self, settings: TencentVoiceSettings, timeout_s: float) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self.about = f"{settings.voice} ({settings.url})"
        self._connections = Connections(timeout_s)
        self._spare: _Line | None = None
        self._opening = False
        self._background: set[asyncio.Task[None]] = set()

    def values(self, text: str, language: str, request: VoiceRequest = ANY_VOICE) -> Values:
        """What the address says of a text's sound."""
        settings = self._settings
        rate = settings.rate_percent + request.rate_percent
        return {
            "Action": "TextToStreamAudioWSv2",
            "ModelType": 1,
            "VoiceType": bilingual(self.name, request, text, language, settings.voice, settings.voice_en),
            "Codec": "pcm",
            "SampleRate": DOWNLINK_RATE_HZ,
            "Speed": f"{np.interp(1.0 + rate / 100.0, _FACTORS, _SPEEDS):.2f}",
            "Volume": settings.volume,
        }

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        """Yield the sound as it arrives.

        Raises:
            VoiceError: refused, timed out, broke, or sent something that is not sound.
        """
        values = self.values(text, language, request)
        line, heard = self._take(values), False
        if line is not None:
            try:
                async with aclosing(self._say(line, text)) as pieces:
                    async for pcm in pieces:
                        heard = True
                        yield pcm
                return
            except VoiceError:
                if heard:
                    raise
        async with aclosing(self._say(await self._dial(values), text)) as pieces:
            async for pcm in pieces:
                yield pcm

    async def warm(self) -> None:
        """Open a connection for the first text; only texts cost money.

        Raises:
            VoiceError: it cannot be reached, or refuses the key or the voice.
        """
        self._keep(await self._dial(self.values("你好", "zh")))

    async def close(self) -> None:
        """Close what is open."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._spare is not None:
            await self._spare.socket.close()
            self._spare = None
        await self._connections.close()

    def _take(self, values: Values) -> _Line | None:
        """The spare connection, where there is one for such a text."""
        line, self._spare = self._spare, None
        if line is None or (line.values == values and time.monotonic() - line.since_s <= _SPARE_S):
            return line
        self._do(_close(line))
        return None

    def _keep(self, line: _Line) -> None:
        if self._spare is not None:
            self._do(_close(self._spare))
        self._spare = line

    async def _open_ahead(self, values: Values) -> None:
        self._opening = True
        try:
            with suppress(VoiceError):  # the next text will be told
                self._keep(await self._dial(values))
        finally:
            self._opening = False

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="tts-tencent")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _dial(self, values: Values) -> _Line:
        settings = self._settings
        if missing := settings.missing("tts.tencent"):
            raise VoiceError(f"{self.name}: {missing}")
        now_s, session_id = int(time.time()), str(uuid.uuid4())
        account: Values = {"AppId": settings.credential("app_id"), "SecretId": settings.credential("secret_id")}
        of_session: Values = {"SessionId": session_id, "Timestamp": now_s, "Expired": now_s + _VALID_S}
        secret = settings.credential("secret_key")
        url = tencent_url(settings.url, {**values, **account, **of_session}, secret, method="GET", field="Signature")
        try:
            socket = await self._connections.websocket(URL(url, encoded=True), max_bytes=_MAX_MESSAGE_BYTES)
        except NotOpened as error:
            raise VoiceError(f"{self.name}: {error}") from error
        line = _Line(socket, values, session_id, time.monotonic())
        try:
            for _ in range(_MAX_GREETINGS):
                message = await self._receive(line)
                if isinstance(message, dict) and message.get("ready") == 1:
                    return line
            raise VoiceError(f"{self.name}: is not ready for a text")
        except BaseException:
            self._do(_close(line))
            raise

    async def _say(self, line: _Line, text: str) -> AsyncGenerator[PcmInt, None]:
        """The sound of a text; closes the connection."""
        if not self._opening and self._spare is None:
            self._do(self._open_ahead(line.values))
        odd = b""
        try:
            for action, data in (("ACTION_SYNTHESIS", text), ("ACTION_COMPLETE", "")):
                ids = {"session_id": line.session_id, "message_id": str(uuid.uuid4())}
                said = {**ids, "action": action, "data": data.encode("utf-8", "ignore").decode()}
                await line.socket.send_str(orjson.dumps(said).decode())
            while True:
                message = await self._receive(line)
                if isinstance(message, dict):
                    if message.get("final") == 1:
                        return
                    continue
                message = odd + message
                even = len(message) & ~1
                odd = message[even:]
                if even:
                    yield np.frombuffer(message[:even], "<i2").astype(np.int16, copy=False)
        except (aiohttp.ClientError, OSError) as error:
            raise VoiceError(f"{self.name}: {reason(error)}") from error
        finally:
            self._do(_close(line))

    async def _receive(self, line: _Line) -> bytes | dict[str, Any]:
        """Sound, or what the service says.

        Raises:
            VoiceError: it tells of an error, is silent or gone.
        """
        try:
            message = await line.socket.receive(self._timeout_s)
        except TimeoutError as error:
            raise VoiceError(f"{self.name}: no answer in time") from error
        if message.type is aiohttp.WSMsgType.BINARY:
            data: bytes = message.data
            return data
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise VoiceError(f"{self.name}: the connection ended before the sound")
        return said_in(message.data)


def said_in(message: str) -> dict[str, Any]:
    """What a message in JSON says.

    Raises:
        VoiceError: it tells of an error, or is none of the service's.
    """
    try:
        said: dict[str, Any] = bounded_json.loads(message)
        code, why = int(said["code"]), short(str(said.get("message", "")))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise VoiceError(f"tencent: sent something that is not an answer: {short(message)}") from error
    if code:
        raise VoiceError(f"tencent: error {code}: {why}: see tts.tencent and https://console.cloud.tencent.com/tts")
    return said


async def _close(line: _Line) -> None:
    await line.socket.close()
