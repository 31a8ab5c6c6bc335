"""A device that leaves its echo to the server, in a room: it does not answer itself, and it can be interrupted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.mqtt_device import MqttDevice
from bench.room import RoomMicrophone, read_room
from bench.word_errors import edits, words
from tests.house import House, house
from tests.speech import SPEECH_DIR, needs_speech, read_wav, recordings
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmFloat, PcmInt, to_int16
from xiaozhi.client.device import Device
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.turn.machine import ListeningMode

pytestmark = needs_speech
ANSWER = "Once upon a time there was a mill by a river and the miller had three sons."


def voices(_text: str) -> PcmInt:
    """A reply of 10 s by real people, at 24 kHz."""
    said = np.concatenate([read_wav(one.path) for one in recordings("en", "read")[:4]])[: 10 * UPLINK_RATE_HZ]
    places = np.arange(0, len(said), UPLINK_RATE_HZ / DOWNLINK_RATE_HZ)
    return to_int16((np.interp(places, np.arange(len(said)), said) * 0.6).astype(np.float32))


def question() -> PcmFloat:
    """What a real person says over it."""
    (path,) = (one.path for one in recordings("en", "intent") if one.path.stem == "barista_04")
    return read_wav(path)


@asynccontextmanager
async def echo_house(folder: Path, **tables: Any) -> AsyncIterator[House]:
    recogniser = {"engine": "zipformer", "model_dir": SPEECH_DIR / "models" / "zipformer-en"}
    async with house(folder, ANSWER, asr=recogniser, **tables) as home:
        home.speech.sound = voices
        yield home


@asynccontextmanager
async def in_room(home: House, room: RoomMicrophone, **options: Any) -> AsyncIterator[Device]:
    """A device by framing 2, or by MQTT and UDP, whose microphone is open."""
    given: dict[str, Any] = {"mode": ListeningMode.REALTIME, "aec": True, "version": 2, **options}
    kind = MqttDevice if given.pop("udp", False) else Device
    async with kind(ClientIdentity.of("02:00:00:00:00:01"), microphone=room, **given) as device:
        room.hears(device.manners.speaker)
        if isinstance(device, MqttDevice):
            await device.start(home.server.ota_url)
            await device.open_channel()
        else:
            await device.connect(home.url)
        device.listen()
        await device.until(lambda: device.manners.microphone_from_ms is not None)
        yield device


def room(echo_db: float | None, delay_ms: float = 120.0, response: str = "rir1") -> RoomMicrophone:
    return RoomMicrophone(echo_db, delay_ms, read_room(SPEECH_DIR / "noise" / f"{response}.wav"))


async def told(device: Device) -> None:
    """A reply from its question to its end."""
    assert (await device.turn_text("tell me a story")).answered


async def interrupted(device: Device, microphone: RoomMicrophone, sentence: PcmFloat) -> str:
    """Say this into the middle of a reply; what the server shows as heard, empty where it is not noticed."""
    device.begin_turn()
    device.detect("tell me a story")
    await device.until(lambda: device.manners.speaker.playback.heard_ms > 4000.0)
    device.begin_turn()
    microphone.talk(sentence)
    try:
        await device.until(lambda: device.turn_log.heard != "" and device.turn_log.tts_start_ms is not None, 15.0)
    except TimeoutError:
        return ""
    device.abort()
    return device.turn_log.heard


@pytest.mark.parametrize(
    ("udp", "echo_db", "delay_ms", "response"),
    [(False, -12.0, 120.0, "rir1"), (False, -20.0, 330.0, "rir3"), (True, -16.0, 60.0, "rir3")],
)
async def test_no_reply_is_answered_by_its_echo(
    tmp_path: Path, udp: bool, echo_db: float, delay_ms: float, response: str
) -> None:
    tables = {"mqtt": {"enabled": True, "port": 0, "udp_port": 0}} if udp else {}
    async with (
        echo_house(tmp_path, **tables) as home,
        in_room(home, room(echo_db, delay_ms, response), udp=udp) as device,
    ):
        for number in (1, 2, 3):
            await told(device)
            assert len(home.asked) == number
            assert device.manners.speaker.playback.heard_ms > 9000.0, "nothing stopped it"
        assert home.server.devices._services.echoes.held_back <= 2, "the guard behind it is hardly asked"


async def test_what_is_said_over_a_reply_is_understood(tmp_path: Path) -> None:
    async with echo_house(tmp_path) as home:
        microphone = room(-12.0)
        async with in_room(home, microphone) as device:
            await told(device)
            device.begin_turn()
            microphone.talk(question())
            await device.until(lambda: device.turn_log.tts_start_ms is not None, 20.0)
            device.abort()
            clean = words(device.turn_log.heard)
            await device.until(lambda: device.manners.settled and not device.manners.replying, 20.0)
            over_echo = words(await interrupted(device, microphone, question()))
    assert len(clean) >= 8
    assert edits(clean, over_echo) <= len(clean) // 3, (clean, over_echo)


async def test_without_cancellation_the_same_echo_is_found_in_the_microphone(tmp_path: Path) -> None:
    async with (
        echo_house(tmp_path, audio={"echo_cancellation": False}) as home,
        in_room(home, room(-12.0)) as device,
    ):
        await told(device)
        assert home.server.devices._services.echoes.held_back > 0


async def test_under_load_nobody_is_found_over_a_reply_and_everybody_after_it(tmp_path: Path) -> None:
    async with echo_house(tmp_path) as home:
        home.server.devices._services.batcher.half_duplex = True
        microphone = room(-12.0)
        async with in_room(home, microphone) as device:
            assert await interrupted(device, microphone, question()) == ""
            await device.until(lambda: device.manners.settled and not device.manners.replying, 20.0)
            device.begin_turn()
            microphone.talk(question())
            await device.until(lambda: device.turn_log.tts_start_ms is not None)
            assert len(words(device.turn_log.heard)) >= 4


async def test_a_device_that_leaves_its_echo_to_the_server_is_told_to_use_timestamps_from_its_next_start_on(
    tmp_path: Path,
) -> None:
    async with echo_house(tmp_path) as home:
        for aec, before, after in ((True, 1, 2), (False, 2, 1)):
            async with Device(ClientIdentity.of("02:00:00:00:00:01"), aec=aec) as device:
                assert (await device.boot(home.server.ota_url)).version == before
                await device.connect(home.url)
                await told(device)
                assert (await device.boot(home.server.ota_url)).version == after
