"""Calls between two devices: asked for by voice, taken by voice, ended by voice or key.

A device whose loudspeaker plays has no microphone (only some cancel their echo), so a call goes like a radio: who
speaks first has the word until a pause. Packets go from one device to the other as they are: an Opus decoder takes any
rate.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np

from xiaozhi.access.guests import is_guest
from xiaozhi.audio.packet_time import packet_ms
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.concurrency.workers import JobDropped
from xiaozhi.conversation.saying import Told
from xiaozhi.conversation.services import Services
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.recogniser import Question
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.tools.wording import pick
from xiaozhi.transport.announcer import GRACE_S, id_of, is_quiet
from xiaozhi.transport.connected_devices import ConnectedDevices
from xiaozhi.transport.notifications import Notifications
from xiaozhi.transport.session import DeviceSession
from xiaozhi.turn.segmenter import Segmenter

_log = logging.getLogger(__name__)

# Until who is called takes the device in hand, and answers when asked.
_RING_S: Final = 45.0
_ANSWER_S: Final = 15.0
_ASKED_TIMES: Final = 2
# A call in which nobody speaks for so long is over.
_SILENT_S: Final = 90.0
# Who has the word loses it after such a pause; where no packets come (a key was released) as well.
_PAUSE_MS: Final = 600.0
_GAP_S: Final = 0.6
# Speech is found after 128 ms of it: that, and what led to it, is sent when it is.
_PRE_ROLL_PACKETS: Final = 8
_MAX_WAITING: Final = 64
# What a device holds (20 packets), and some air: more is not sent.
_MAX_AHEAD_S: Final = 0.9
# Only something short can be an answer or a wish to hang up.
_MAX_SHORT_S: Final = 4.0
_SAYING_S: Final = 10.0
_FREE_WITHIN_S: Final = 20.0
_LOOK_S: Final = 0.25
_GENERATION: Final = 1 << 40  # above those of all replies

_NO: Final = ("不", "别", "拒", "没空", "no", "not", "later", "don't", "can't", "busy")
_YES: Final = ("接", "好", "行", "可以", "嗯", "是", "yes", "yeah", "ok", "okay", "sure", "accept", "answer", "please")
_HANG_UP: Final = ("挂断", "挂了", "挂电话", "结束通话", "hang up", "end the call")


def says(text: str, words: tuple[str, ...]) -> bool:
    """Whether one of these words is in a text: as part of it in Chinese, as a word in English. Pure."""
    text = text.lower()
    return any(re.search(rf"\b{re.escape(word)}\b" if word.isascii() else re.escape(word), text) for word in words)


@dataclass(slots=True)
class _Step:
    """What a packet brought: speech that began with it, or ended before it, with the whole of it."""

    opus: bytes = b""
    began: bool = False
    ended: PcmFloat | None = None


class DeviceLeg:
    """One device's end of a call.

    Args:
        services: finds and understands speech.
        session: the device's; what its microphone gives comes here until `close`.
    """

    def __init__(self, services: Services, session: DeviceSession) -> None:
        vad = services.settings.vad
        self.session = session
        self.hung_up = asyncio.Event()
        """A key was pressed, or the device is gone."""
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._packets: asyncio.Queue[bytes] = asyncio.Queue(_MAX_WAITING)
        self._stream = services.batcher.open()
        self._segmenter = Segmenter(vad.threshold, vad.release_threshold, vad.min_speech_ms)
        self._pcm: deque[PcmFloat] = deque()
        self._recent: deque[bytes] = deque(maxlen=_PRE_ROLL_PACKETS)
        self._plays_until_s = 0.0
        self._speaking = False
        session.leg = self

    def close(self) -> None:
        """Give the microphone back to the conversation."""
        self._stream.close()
        if self.session.leg is self:
            self.session.leg = None

    # Its microphone -------------------------------------------------------------------------------------------------

    def heard(self, opus: bytes) -> None:
        """A packet of its microphone; the oldest is dropped where too many wait."""
        if self._packets.full():
            self._packets.get_nowait()
        self._packets.put_nowait(opus)

    def forget(self) -> None:
        """What it has given up to now was not meant for anybody."""
        while not self._packets.empty():
            self._packets.get_nowait()
        self._segmenter.close()
        self._pcm.clear()
        self._recent.clear()

    async def step(self) -> _Step:
        """Wait for the next packet, and find out what it brings."""
        segmenter = self._segmenter
        try:
            async with asyncio.timeout(_GAP_S if segmenter.in_speech else None):
                opus = await self._packets.get()
        except TimeoutError:
            return _Step(ended=self._end())
        heard = await self._services.batcher.hear(self._stream, [opus])
        self._pcm.append(heard.pcm)
        self._recent.append(opus)
        began = False
        for probability in heard.probabilities:
            began |= segmenter.feed(probability)
        if segmenter.in_speech and segmenter.silence_ms >= _PAUSE_MS:
            return _Step(opus, ended=self._end())
        if not segmenter.in_speech:
            while len(self._pcm) > _PRE_ROLL_PACKETS:
                self._pcm.popleft()
        elif sum(map(len, self._pcm)) > 2.0 * _MAX_SHORT_S * UPLINK_RATE_HZ:
            self._pcm.popleft()
        return _Step(opus, began=began)

    def _end(self) -> PcmFloat:
        pcm = np.concatenate([*self._pcm, np.empty(0, np.float32)])
        self.forget()
        return pcm

    async def text_of(self, pcm: PcmFloat) -> str:
        """What was said; empty for what is too long to be an answer, and where it cannot be understood."""
        if not 0 < len(pcm) <= _MAX_SHORT_S * UPLINK_RATE_HZ:
            return ""
        understanding = asyncio.create_task(_understood(self._services.recognition, pcm), name="call-text")
        self._services.retirement.until(understanding)  # the engine stays until it is over
        return await understanding

    async def answer(self, within_s: float) -> str:
        """The next thing that is said; empty for nothing in time."""
        self.forget()
        try:
            async with asyncio.timeout(within_s):
                while True:
                    if (pcm := (await self.step()).ended) is not None:
                        return await self.text_of(pcm)
        except TimeoutError:
            return ""

    # Its loudspeaker ------------------------------------------------------------------------------------------------

    async def begin(self, packets: list[bytes]) -> None:
        """The other one has begun to speak, with these packets; returns when the device is ready to play."""
        session = self.session
        session.tts_start()
        self._speaking = True
        await asyncio.sleep((self._services.settings.audio.start_gap_ms + session.start_margin_ms) / 1000.0)
        for opus in packets:
            self.play(opus)

    def play(self, opus: bytes) -> None:
        """Have a packet heard; dropped where the device could not hold it, or where it is none."""
        now_s = self._loop.time()
        try:
            duration_s = packet_ms(opus) / 1000.0
        except ValueError:
            return
        self._plays_until_s = max(self._plays_until_s, now_s)
        if self._plays_until_s - now_s < _MAX_AHEAD_S:
            self.session.audio(opus, _GENERATION)
            self._plays_until_s += duration_s

    async def end(self) -> None:
        """The other one has stopped: the device listens again, once it has played what it has."""
        margin_s = (self._services.settings.audio.stop_margin_ms + self.session.stop_margin_ms) / 1000.0
        await asyncio.sleep(max(0.0, self._plays_until_s - self._loop.time()) + margin_s)
        self.stop()
        self.forget()  # with its microphone off it gave nothing, or the echo of the other one

    def stop(self) -> None:
        """Be silent at once."""
        if self._speaking:
            self._speaking = False
            self.session.tts_stop()


async def _understood(recognition: Recognition, pcm: PcmFloat) -> str:
    hearing = recognition.begin()
    try:
        hearing.feed(pcm)
        return (await hearing.transcribe(Question())).text
    except (JobDropped, EngineError) as error:
        _log.warning("what was said in a call cannot be understood: %s", error)
        return ""
    finally:
        hearing.close()


@dataclass(slots=True)
class _Call:
    """One that goes on; `word` is whose turn it is."""

    legs: tuple[DeviceLeg, DeviceLeg]
    heard_at_s: float
    word: DeviceLeg | None = field(default=None)


class Calls:
    """All calls of a server.

    Args:
        services: settings, store, speech.
        devices: who can be called.
        notifications: rings on those that sleep.
    """

    def __init__(self, services: Services, devices: ConnectedDevices, notifications: Notifications) -> None:
        self._services = services
        self._devices = devices
        self._notifications = notifications
        self._loop = asyncio.get_running_loop()
        self._calling: dict[frozenset[str], asyncio.Task[None]] = {}
        self.taken = 0
        """Calls that were answered with yes, since the start."""
        services.call = self.call

    async def close(self) -> None:
        """End all of them."""
        for task in self._calling.values():
            task.cancel()
        await asyncio.gather(*self._calling.values(), return_exceptions=True)

    async def call(self, caller_id: str, name: str, language: str) -> str:
        """Ring on another device of the same owner, for the tool: a stranger's is not even known by its name.

        Returns:
            Why it cannot be called, in the user's language; empty when it rings.

        Raises:
            StoreError: the names of devices cannot be read.
        """
        devices = await self._services.store.devices.list()
        owner = next((device.owner for device in devices if device.id == caller_id), "")
        known = [device for device in devices if device.owner == owner]
        callee = id_of(name, known, self._devices.online() & {device.id for device in known})
        settings = self._services.settings
        zone = ZoneInfo(settings.server.timezone) if settings.server.timezone else None
        if not isinstance(callee, str) or is_guest(callee):
            return pick(language, "没有找到在线的这台设备。", "No connected device is called so.")
        if callee == caller_id:
            return pick(language, "不能呼叫自己。", "A device cannot call itself.")
        if is_quiet(settings.push.quiet_hours, datetime.now(zone)):
            return pick(language, "现在是安静时段。", "These are quiet hours.")
        if any({caller_id, callee} & pair for pair in self._calling):
            return pick(language, "对方正在通话。", "There is a call already.")
        labels = {device.id: device.label for device in known}
        pair = frozenset((caller_id, callee))
        task = self._loop.create_task(self._ring(caller_id, callee, labels.get(caller_id, caller_id)), name="call")
        self._calling[pair] = task
        task.add_done_callback(lambda done: self._over(pair, done))
        return ""

    def _over(self, pair: frozenset[str], task: "asyncio.Task[None]") -> None:
        del self._calling[pair]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a call failed", exc_info=error)

    async def _ring(self, caller_id: str, callee_id: str, caller: str) -> None:
        session = await self._picked_up(callee_id, caller)
        taken = session is not None and await self._consents(session, caller)
        calling = await self._free(caller_id, _FREE_WITHIN_S)
        if calling is None:
            return
        if session is None or not taken or self._devices.find(callee_id) is not session:
            await _say(calling, "对方没有接听。", "The call was not taken.")
            return
        self.taken += 1
        _log.info("a call with %s", callee_id, extra={"device": caller_id})
        legs = DeviceLeg(self._services, calling), DeviceLeg(self._services, session)
        try:
            await asyncio.gather(*(_say(leg.session, "接通了，请讲。", "You are connected.") for leg in legs))
            for leg in legs:
                leg.forget()
            await self._carry(_Call(legs, self._loop.time()))
        finally:
            for leg in legs:
                leg.stop()
                leg.close()
        await asyncio.gather(*(_say(leg.session, "通话结束。", "The call is over.") for leg in legs))

    async def _picked_up(self, device_id: str, caller: str) -> DeviceSession | None:
        """Wait until somebody is at the device that is called."""
        if (sleeper := self._devices.asleep(device_id)) is not None:
            chinese = self._services.settings.asr.language != "en"
            text = f"{caller}在呼叫你，唤醒我就可以接听。" if chinese else f"{caller} is calling. Wake me to answer."
            ringing = asyncio.create_task(self._notifications.speak(sleeper, text), name="call-ring")
            try:
                return await self._free(device_id, _RING_S)
            finally:
                ringing.cancel()
                await asyncio.gather(ringing, return_exceptions=True)
        return await self._free(device_id, _FREE_WITHIN_S)

    async def _free(self, device_id: str, within_s: float) -> DeviceSession | None:
        """A device's session, once nobody is answered there; None where that does not come in time."""
        until_s = self._loop.time() + within_s
        while self._loop.time() < until_s:
            session = self._devices.find(device_id)
            if isinstance(session, DeviceSession) and not session.busy and session.age_s >= GRACE_S:
                return None if session.protocol.bare else session  # what it gives is no Opus
            await asyncio.sleep(_LOOK_S)
        return None

    async def _consents(self, session: DeviceSession, caller: str) -> bool:
        """Ask, and listen to the answer."""
        for _ in range(_ASKED_TIMES):
            if not await _say(session, f"{caller}呼叫你，要接听吗？", f"{caller} is calling. Will you take it?"):
                return False
            leg = DeviceLeg(self._services, session)
            try:
                answering = asyncio.create_task(leg.answer(_ANSWER_S), name="call-answer")
                text = await _unless(leg.hung_up.wait(), answering)
            finally:
                leg.close()
            if text is None or says(text, _NO):
                return False
            if says(text, _YES):
                return True
        return False

    async def _carry(self, call: _Call) -> None:
        """Bring what one says to the other until somebody hangs up."""
        one, other = call.legs
        tasks = [
            asyncio.create_task(self._one_way(call, one, other), name="call-there"),
            asyncio.create_task(self._one_way(call, other, one), name="call-back"),
            asyncio.create_task(one.hung_up.wait(), name="call-end"),
            asyncio.create_task(other.hung_up.wait(), name="call-end"),
            asyncio.create_task(self._silence(call), name="call-silence"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one_way(self, call: _Call, speaker: DeviceLeg, listener: DeviceLeg) -> None:
        phrases = tuple(phrase.lower() for phrase in (*self._services.settings.turn.exit_phrases, *_HANG_UP))
        while True:
            step = await speaker.step()
            if call.word is listener:
                speaker.forget()
                continue
            if step.began and call.word is None:
                call.word, call.heard_at_s = speaker, self._loop.time()
                await listener.begin(list(speaker._recent))
            elif call.word is speaker and step.opus:
                listener.play(step.opus)
            if step.ended is not None:
                if call.word is speaker:
                    await listener.end()
                    call.word, call.heard_at_s = None, self._loop.time()
                if says(await speaker.text_of(step.ended), phrases):
                    return

    async def _silence(self, call: _Call) -> None:
        while call.word is not None or self._loop.time() - call.heard_at_s < _SILENT_S:  # noqa: ASYNC110 - of time
            await asyncio.sleep(1.0)


async def _say(session: DeviceSession, chinese: str, english: str) -> bool:
    """Say a sentence; whether it was heard, at least in part."""
    if session.ended:
        return False
    told = await session.say(pick(session.language, chinese, english), _SAYING_S, interruptible=False)
    return told in (Told.SPOKEN, Told.INTERRUPTED)


async def _unless(other: Coroutine[Any, Any, Any], wanted: "asyncio.Task[str]") -> str | None:
    """What a task brings; None where something else happens first, and the task is cancelled."""
    stopping = asyncio.create_task(other, name="call-stop")
    try:
        await asyncio.wait((stopping, wanted), return_when=asyncio.FIRST_COMPLETED)
        return wanted.result() if wanted.done() else None
    finally:
        for task in (stopping, wanted):
            task.cancel()
        await asyncio.gather(stopping, wanted, return_exceptions=True)
