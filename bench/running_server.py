"""Judging a server that runs already, in real time, with devices in software: `--server URL` of other benches.

URL is its WebSocket (`ws://…`), or its OTA address (`http://…`), which names the WebSocket and gives a token.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.endpointing_material import Utterance
from bench.endpointing_run import Outcome
from bench.room import RoomMicrophone
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.client.device import Device
from xiaozhi.client.errors import ChannelLost, ConnectFailed
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.turn.machine import ListeningMode

_ANSWER_S: Final = 10.0
_REPLY_S: Final = 120.0
_SPEAKS_AFTER_MS: Final = 3000.0
# Of the room behind the speech so much is sent: more than any commit takes.
_BEHIND_MS: Final = 4000.0


class ServerUnfit(Exception):
    """The server cannot be judged; one line says why."""


async def connect(device: Device, url: str) -> None:
    """Open a device's channel to the server at a WebSocket or OTA address.

    Raises:
        ServerUnfit: it cannot be reached, or lets the device not in.
    """
    try:
        if url.startswith(("ws://", "wss://")):
            await device.connect(url)
        else:
            reply = await device.boot(url)
            await device.connect(reply.url, reply.token)
    except ConnectFailed as error:
        raise ServerUnfit(str(error)) from error


async def hear_all(url: str, utterances: Sequence[Utterance], at_once: int = 4) -> list[Outcome]:
    """Say every utterance to the server, each by a device of its own, and find out when its turn was over."""
    places = asyncio.Semaphore(at_once)

    async def one(number: int, utterance: Utterance) -> Outcome:
        async with places:
            return await _hear(url, number, utterance)

    return await asyncio.gather(*(one(number, utterance) for number, utterance in enumerate(utterances, 1)))


async def _hear(url: str, number: int, utterance: Utterance) -> Outcome:
    pcm = utterance.pcm[: round((utterance.last_voiced_ms + _BEHIND_MS) * UPLINK_RATE_HZ / 1000.0)]
    spoken = await asyncio.to_thread(SpokenUtterance.encode, to_int16(pcm), 60, utterance.last_voiced_ms)
    async with Device(ClientIdentity.numbered(number), decode_reply=False) as device:
        await connect(device, url)
        device.listen()
        await device.until(lambda: device.manners.microphone_from_ms is not None)
        device.begin_turn()
        device.say(spoken)
        log = device.turn_log
        try:
            await device.until(
                lambda: log.tts_start_ms is not None and device.manners.microphone_from_ms is None,
                spoken.duration_ms / 1000.0 + _ANSWER_S,
            )
            if log.anchor_ms is None or log.cut_off_ms > 0.0:
                return Outcome(cut_off=True, replies=1)
            await device.until(lambda: log.first_packet_ms is not None, _ANSWER_S)
        except (TimeoutError, ChannelLost):
            return Outcome(missed=True)
        assert log.tts_start_ms is not None and log.first_packet_ms is not None
        return Outcome(
            commit_ms=log.tts_start_ms - log.anchor_ms, first_audio_ms=log.first_packet_ms - log.anchor_ms, replies=1
        )


@dataclass(slots=True)
class OverReplies:
    """A device in its realtime mode that hears itself.

    Attributes:
        replies: in which nobody spoke.
        answered: of these, replies that were stopped or answered by their own echo.
        said: sentences over other replies.
        noticed: of these, sentences that stopped the reply.
        silent_after_ms: from the first sample of the sentence to the last sound of the reply.
        heard: what was understood of each sentence; empty for nothing.
    """

    replies: int = 0
    answered: int = 0
    said: int = 0
    noticed: int = 0
    silent_after_ms: list[float] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)


async def talk_over(
    url: str, room: RoomMicrophone, question: str, sentences: Sequence[PcmFloat], replies: int, *, aec: bool = True
) -> OverReplies:
    """Ask for replies in writing and let them sound; then ask again and say a sentence over each.

    Args:
        url: of the server.
        room: where the device stands.
        question: what is asked; the answer should be long.
        sentences: float32[n] at 16 kHz.
        replies: in which nobody speaks.
        aec: the device leaves its echo to the server.
    """
    found = OverReplies()
    device = Device(
        ClientIdentity.numbered(1),
        mode=ListeningMode.REALTIME,
        microphone=room,
        decode_reply=False,
        version=2,
        aec=aec,
    )
    room.hears(device.manners.speaker)
    async with device:
        await connect(device, url)
        device.listen()
        await device.until(lambda: device.manners.microphone_from_ms is not None)
        for _ in range(replies):
            found.replies += 1
            from_ms = device.now_ms()
            await device.turn_text(question, reply_timeout_s=_REPLY_S)
            await asyncio.sleep(2.0)  # in which an echo would be answered
            found.answered += _count(device, "stt", from_ms) > 1
            await device.until(lambda: device.manners.settled and not device.manners.replying, _REPLY_S)
        for sentence in sentences:
            found.said += 1
            await _say_over(device, room, question, sentence, found)
    return found


def _count(device: Device, kind: str, from_ms: float) -> int:
    return sum(at_ms >= from_ms and message.get("type") == kind for at_ms, message in device.received)


async def _say_over(
    device: Device, room: RoomMicrophone, question: str, sentence: PcmFloat, found: OverReplies
) -> None:
    device.begin_turn()
    device.detect(question)
    try:
        await device.until(lambda: device.manners.speaker.playback.heard_ms >= _SPEAKS_AFTER_MS, _ANSWER_S)
    except TimeoutError:
        raise ServerUnfit(f"the answer to {question!r} is too short to speak over, or none comes") from None
    device.begin_turn()
    began_ms, log = device.now_ms(), device.turn_log
    room.talk(sentence)
    try:
        await device.until(lambda: log.tts_stop_ms is not None, len(sentence) / UPLINK_RATE_HZ + _ANSWER_S)
        await device.until(lambda: not device.manners.speaker.busy, _ANSWER_S)
        ended_ms = device.now_ms()
        await device.until(lambda: bool(log.heard), len(sentence) / UPLINK_RATE_HZ + _ANSWER_S)
        found.noticed += 1
        found.silent_after_ms.append(ended_ms - began_ms)
    except TimeoutError:
        pass
    found.heard.append(log.heard)
    device.abort()
    await device.until(lambda: device.manners.settled and not device.manners.replying, _REPLY_S)
    await asyncio.sleep(1.0)
