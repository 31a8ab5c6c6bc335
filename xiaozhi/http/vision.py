"""The eyes: devices post a picture and a question, and get the answer as text.

A device reads only answers with status 200 (it makes "failed to upload" of all others) and hangs on long ones, so
everything is a 200 below 8 KB, and what went wrong is a sentence for the model.
"""

import asyncio
import hashlib
import hmac
import logging
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

import orjson
from aiohttp import web

from xiaozhi.access.addresses import VISION_PATH, Network, base_of
from xiaozhi.access.auth import TokenAuth
from xiaozhi.access.identity import Identity
from xiaozhi.access.own_token import WrongTokens
from xiaozhi.access.rate_limits import too_many
from xiaozhi.access.token_keys import TokenKey
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.conversation.services import Services
from xiaozhi.events import Message
from xiaozhi.http.bodies import BodyTooLong, form_parts, pieces_of
from xiaozhi.http.openapi import takes
from xiaozhi.http.pictures import PictureError, prepared
from xiaozhi.stages.llm.engine import ChatError, ChatRequest
from xiaozhi.text.language import language_of
from xiaozhi.tools.wording import pick

_log = logging.getLogger(__name__)

_MB: Final = 1024 * 1024
# The firmware's HTTP client hangs for ever on more than 8191 bytes; JSON may double what it escapes.
_MAX_ANSWER_BYTES: Final = 7800
_MAX_CHARS: Final = 1500
_MAX_QUESTION_BYTES: Final = 4096
_MAX_PARTS: Final = 8
# Of a form, beside the picture.
_MAX_BESIDE_BYTES: Final = 16 * 1024
# A device gives up its upload after 30 s, and waits as long for the answer; one that dawdles keeps a place from others.
_UPLOAD_S: Final = 25.0
_PLACE_S: Final = 5.0

_TASK_ZH: Final = (
    "你是一个语音小设备的眼睛。根据这张照片回答问题，用口语，一到三句话，不要用 Markdown。看不清就说看不清，不要编造。"
)
_TASK_EN: Final = (
    "You are the eyes of a small voice device. Answer the question about this picture in spoken language, one to three "
    "sentences, without Markdown. Say so when something cannot be made out, and invent nothing."
)

_SENTENCES: Final[dict[str, tuple[str, str]]] = {
    "no_model": (
        "我还没有能看图的模型，请在设置里给一个模型加上 vision = true。",
        "There is no model that can see; mark an endpoint with vision = true in the settings.",
    ),
    "token": ("照片没有通过验证，请重新连接设备。", "The picture was not accepted; connect the device again."),
    "no_picture": ("我没有收到照片。", "No picture has arrived."),
    "large": ("照片太大了。", "The picture is too large."),
    "kind": ("这不是我能看的照片，只能看 JPEG 和 PNG。", "This is no picture that can be read, only JPEG and PNG are."),
    "pixels": ("照片的尺寸不合适。", "The picture has a size that cannot be used."),
    "damaged": ("照片坏了，请再拍一次。", "The picture is damaged; take it again."),
    "busy": ("看照片的人太多了，请过一会儿再试。", "Too many pictures are being looked at; try again in a moment."),
    "slow": ("照片传得太慢了，请再试一次。", "The picture came too slowly; try again."),
    "failed": (
        "我现在看不了照片，请过一会儿再试。",
        "The picture cannot be looked at just now; try again in a moment.",
    ),
}


class _Refused(Exception):
    """Answered with one of `_SENTENCES`."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class VisionRoutes:
    """Hands out the address for pictures, and answers what is asked about them.

    Args:
        services: the chat model and the settings.
        token_auth: its keys sign the tokens.
        lan_host: this machine's address on the network.
        proxies: whose word about a caller's address counts.
        now_s: wall time in seconds.
    """

    def __init__(
        self,
        services: Services,
        token_auth: TokenAuth,
        lan_host: str,
        proxies: Sequence[Network] = (),
        now_s: Callable[[], float] = time.time,
    ) -> None:
        settings = services.settings.vision
        self._services = services
        self._gatekeeper = token_auth
        self._lan_host = lan_host
        self._now_s = now_s
        self._settings = settings
        self._wrong = WrongTokens(proxies)
        self._places = asyncio.Semaphore(settings.max_concurrent)
        self._waiting = Counter[str]()
        self._pool = WorkerPool(1, "picture", niceness=5)
        self.answered = 0
        """Pictures that were explained."""
        self.refused = 0
        """Requests without a valid token, or with something that is no picture."""
        self.failed = 0
        """Pictures that no model could explain in time."""

    def close(self) -> None:
        """End the worker."""
        self._pool.close()

    # The address --------------------------------------------------------------------------------------------------

    def address(self, request: web.Request, identity: Identity) -> tuple[str, str]:
        """Where the camera of a connected device sends pictures, and the token it shows there.

        Args:
            request: its WebSocket upgrade: the picture goes to the host it came to.
            identity: the token is for this device only, and expires.
        """
        return self.place(base_of(request, self._services.settings.server, self._lan_host), identity)

    def place(self, base: str, identity: Identity) -> tuple[str, str]:
        """As `address`, for a device that reaches this server by `base`."""
        return base.split("/xiaozhi/")[0].rstrip("/") + VISION_PATH, self._token(identity.device_id)

    def _token(self, device_id: str) -> str:
        expires_s = int(self._now_s() + self._settings.token_hours * 3600.0)
        key = self._gatekeeper.ring.newest
        # Some clients send the token and nothing else about themselves, so it says whose it is.
        device = urlsafe_b64encode(device_id.encode()).rstrip(b"=").decode()
        return f"{key.generation}.{expires_s}.{device}.{_signature(key, device_id, expires_s)}"

    def _admitted(self, identity: Identity) -> Identity | None:
        """Who shows a valid token, by its words; None without one, or with one of another device."""
        parts = identity.token.split(".")
        if len(parts) != 4 or not all(part.isascii() and part.isdecimal() and len(part) <= 12 for part in parts[:2]):
            return None
        device_id = _device_of(parts[2])
        if not (identity.is_anonymous or hmac.compare_digest(device_id.encode(), identity.device_id.encode())):
            return None
        now_s, expires_s = self._now_s(), int(parts[1])
        ring = self._gatekeeper.ring
        key = ring.find(int(parts[0]), now_s)
        expected = _signature(key or ring.newest, device_id, expires_s)
        right = hmac.compare_digest(parts[3].encode(), expected.encode())
        if not right or key is None or key.is_over(expires_s, now_s):
            return None
        return Identity(device_id, identity.client_id, identity.token)

    # The answer ---------------------------------------------------------------------------------------------------

    @takes(media_type="multipart/form-data", question=(str, ""), file=(bytes, ...))
    async def explain(self, request: web.Request) -> web.Response:
        """POST multipart/form-data with `question` and `file`, in any order, with or without a length."""
        named = Identity.of(request.headers, {})
        identity = self._admitted(named)
        if identity is None and (wait_s := self._wrong.wait_s(request)):
            return too_many(wait_s)
        question = ""
        language = "en" if self._services.settings.asr.language == "en" else "zh"
        try:
            if identity is None:
                raise _Refused("token")
            async with self._place(identity.device_id):
                picture, question = await self._received(request)
                language = language_of(question, default=language)
                answer = await self._looked_at(picture, question, language)
        except (_Refused, PictureError) as refused:
            self.refused += refused.key not in {"busy", "failed", "no_model"}
            self.failed += refused.key in {"busy", "failed"}
            _log.info("picture not explained: %s", refused.key, extra={"device": (identity or named).device_id})
            return _json({"success": False, "message": pick(language, *_SENTENCES[refused.key])})
        self.answered += 1
        return _json({"success": True, "response": answer})

    async def show(self, _request: web.Request) -> web.Response:
        """GET: for people who open the address in a browser."""
        return web.Response(text="Devices with a camera post their pictures here.\n")

    @asynccontextmanager
    async def _place(self, device_id: str) -> AsyncIterator[None]:
        """One of those whose picture is looked at now; no device has more than half of the places."""
        if self._waiting[device_id] >= max(1, self._settings.max_concurrent // 2):
            raise _Refused("busy")
        self._waiting[device_id] += 1
        try:
            try:
                async with asyncio.timeout(_PLACE_S):
                    await self._places.acquire()
            except TimeoutError:
                raise _Refused("busy") from None
            try:
                yield
            finally:
                self._places.release()
        finally:
            self._waiting[device_id] -= 1
            self._waiting += Counter()  # forgets those that have nothing here

    async def _received(self, request: web.Request) -> tuple[bytes, str]:
        """The picture and the question."""
        picture, question = b"", ""
        try:
            async with asyncio.timeout(_UPLOAD_S):
                pieces = pieces_of(request, int(self._settings.max_mb * _MB) + _MAX_BESIDE_BYTES)
                async for head, content in form_parts(request.headers.get("Content-Type", ""), pieces, _MAX_PARTS):
                    name = head.get_param("name", header="Content-Disposition")
                    if name == "question":
                        question = content[:_MAX_QUESTION_BYTES].decode("utf-8", "replace").strip()
                    elif name == "file" or head.get_filename():
                        picture = picture or content
        except BodyTooLong:
            raise _Refused("large") from None
        except TimeoutError:
            raise _Refused("slow") from None
        except (ValueError, web.RequestPayloadError):  # no boundary, a part without headers, a body that breaks off
            raise _Refused("no_picture") from None
        if not picture:
            raise _Refused("no_picture")
        return picture, question

    async def _looked_at(self, picture: bytes, question: str, language: str) -> str:
        settings, services = self._settings, self._services
        if not any(endpoint.vision for endpoint in services.settings.llm.endpoints):
            raise _Refused("no_model")
        try:
            async with asyncio.timeout(settings.timeout_s):
                url = await self._pool.run(prepared, picture, settings.side, settings.max_pixels)
        except TimeoutError:
            raise _Refused("busy") from None
        question = question or pick(language, "你看到了什么？", "What do you see?")
        messages = [Message("system", pick(language, _TASK_ZH, _TASK_EN)), Message("user", question, image=url)]
        asking = asyncio.create_task(self._ask(messages, language), name="look-at-picture")
        services.retirement.until(asking)
        try:
            async with asyncio.timeout(settings.timeout_s):
                answer = await asking
        except (ChatError, TimeoutError) as error:
            _log.warning("picture: %s", error or "no answer in time")
            raise _Refused("failed") from None
        if not answer:
            raise _Refused("failed")
        return answer

    async def _ask(self, messages: Sequence[Message], language: str) -> str:
        answer = ""
        async with aclosing(self._services.chat.stream(ChatRequest(messages, language, has_image=True))) as deltas:
            async for delta in deltas:
                answer += delta.text
                if len(answer) >= _MAX_CHARS:
                    break
        return answer.strip()[:_MAX_CHARS]


def _signature(key: TokenKey, device_id: str, expires_s: int) -> str:
    # "vision" keeps these apart from the tokens that open connections.
    words = f"vision|{key.generation}|{device_id}|{expires_s}"
    digest = hmac.new(key.secret, words.encode(), hashlib.sha256).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def _device_of(words: str) -> str:
    """The device id in a token; empty for what is none."""
    try:
        return urlsafe_b64decode(words + "=" * (-len(words) % 4)).decode()
    except ValueError:  # no base64, no UTF-8
        return ""


def _json(answer: dict[str, object]) -> web.Response:
    body = orjson.dumps(answer)
    while len(body) > _MAX_ANSWER_BYTES:  # Chinese takes three bytes a character, control characters six
        text = str(answer["response"])
        answer = {**answer, "response": text[: len(text) * 3 // 4]}
        body = orjson.dumps(answer)
    return web.Response(body=body, content_type="application/json")
