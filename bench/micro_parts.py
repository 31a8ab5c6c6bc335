"""The parts of a turn measured alone, in this process: models, codecs, text, messages, queues, the loop."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from bench.first_word import ANSWER
from bench.stats import percentile
from xiaozhi.audio.opus import OpusDecoder, OpusEncoder
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmInt
from xiaozhi.concurrency.channel import Channel
from xiaozhi.concurrency.timing_wheel import TimingWheel
from xiaozhi.conversation.device_link import DeviceLink
from xiaozhi.conversation.pacer import Pacer
from xiaozhi.events import SpeechPacket, SpokenItem
from xiaozhi.settings import Settings, VadSettings
from xiaozhi.stages.asr.model_files import find_sense_voice
from xiaozhi.stages.asr.rewritten import fastest
from xiaozhi.stages.llm.stage import MAX_TEXT_CHARS
from xiaozhi.stages.vad.batcher import VadBatcher
from xiaozhi.stages.vad.silero import CONTEXT_SAMPLES, STATE_WIDTH, WINDOW_SAMPLES, SileroModel, built_in_model
from xiaozhi.text.clauses import ClauseSplitter
from xiaozhi.text.same_words import normal_form
from xiaozhi.transport.protocol import DeviceProtocol

_FRAME_S: Final = 0.06
# Parts are repeated for this long, in rounds; the best round counts, because others on the machine only ever slow down.
_FOR_S: Final = 0.5
_ROUNDS: Final = 5
_REPLY: Final = (
    ANSWER + "今天天气很不错，气温二十三度，微风。It is sunny, about 23.5 degrees, and Dr. Li says hello! "
) * 3


# Nothing that the loop does in one go may take longer; what does is marked.
MAX_PIECE_MS: Final = 2.0
OVER: Final = "over"
_LONG_TEXT_CHARS: Final = 2000
_QUESTION_CHARS: Final = 500
_WAITING: Final = 1000
_REPLIES: Final = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    part: str
    value: float
    unit: str
    note: str = ""


def best_s(call: Callable[[], object], for_s: float = _FOR_S, rounds: int = _ROUNDS) -> float:
    """Seconds that one call takes: the mean of the fastest of several rounds, which together last about `for_s`."""
    call()
    began = time.perf_counter()
    call()
    times = max(1, int(for_s / rounds / max(1e-9, time.perf_counter() - began)))
    found = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(times):
            call()
        found = min(found, (time.perf_counter() - began) / times)
    return found


def voice_activity() -> list[Row]:
    """Silero, each stream's share of a batched run over one window of 32 ms."""
    model = SileroModel(built_in_model(), VadSettings())
    dice = np.random.default_rng(1)
    rows = []
    for batch in (1, 8, 32, 128):
        windows = dice.normal(0.0, 0.1, (batch, CONTEXT_SAMPLES + WINDOW_SAMPLES)).astype(np.float32)
        states = np.zeros((2, batch, STATE_WIDTH), np.float32)
        each_s = best_s(partial(model.probabilities, windows, states)) / batch
        rows.append(Row(f"VAD window of 32 ms, {batch} at once", each_s * 1e6, "us each"))
    return rows


def recognition(model: Path, seconds: float = 3.0) -> list[Row]:
    """SenseVoice's architecture at full size, one thread: audio decoded in a second of one core, both kinds of weight.

    Args:
        model: folder of the full-size model.
        seconds: of audio in one decode.
    """
    from xiaozhi.stages.asr.sense_voice import SenseVoice

    pcm = np.random.default_rng(1).normal(0.0, 0.05, int(seconds * UPLINK_RATE_HZ)).astype(np.float32)
    files = find_sense_voice(model)
    kinds = [("published QUInt8", files.model)]
    copy = fastest(files.model)
    if copy != files.model:
        kinds.append(("rewritten for this CPU", copy))
    rows = []
    for name, path in kinds:
        engine = SenseVoice(replace(files, model=path), language="zh", threads=1)
        used_s = _cpu_s(partial(engine.decode, pcm), 3)
        engine.close()
        note = f"{used_s * 1000:.0f} ms CPU for {seconds:g} s"
        rows.append(Row(f"ASR, {name} weights", seconds / used_s, "s of audio a core-second", note))
    return rows


def _cpu_s(call: Callable[[], object], rounds: int) -> float:
    """Processor time of one call in seconds, the least of several."""
    call()
    found = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        call()
        found = min(found, time.process_time() - began)
    return found


def opus() -> list[Row]:
    """Both directions, for a packet of 60 ms."""
    speech = voice_like(DOWNLINK_RATE_HZ)
    rows = []
    for complexity in (0, 5, 10):
        encoder = OpusEncoder(complexity=complexity)
        frames = len(speech) // encoder.frame_samples
        each_s = best_s(partial(encoder.encode, speech)) / frames
        rows.append(Row(f"Opus encode 60 ms, complexity {complexity}", each_s * 1e6, "us"))
    packets = OpusEncoder(UPLINK_RATE_HZ, bitrate_bps=16_000, complexity=0).encode(voice_like(UPLINK_RATE_HZ))
    decoder = OpusDecoder()

    def decode() -> None:
        for packet in packets:
            decoder.decode(packet)

    rows.append(Row("Opus decode 60 ms, resampled to 16 kHz", best_s(decode) / len(packets) * 1e6, "us"))
    return rows


def voice_like(rate_hz: int, seconds: float = 1.2) -> PcmInt:
    """Something with a voice's harmonics and breaks, int16[n]: a codec works harder on it than on a tone."""
    at_s = np.arange(int(rate_hz * seconds)) / rate_hz
    pitch_hz = 140.0 + 30.0 * np.sin(2 * np.pi * 1.7 * at_s)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate_hz
    voiced = sum(np.sin(number * phase) / number for number in range(1, 20))
    noise = np.random.default_rng(1).normal(0.0, 0.05, len(at_s))
    return (4000.0 * (voiced + noise) * (0.55 + 0.45 * np.sin(2 * np.pi * 3.1 * at_s))).astype(np.int16)


def text() -> list[Row]:
    """Clauses, fed a token of two characters at a time; JSON and binary messages."""
    tokens = [_REPLY[start : start + 2] for start in range(0, len(_REPLY), 2)]

    def split() -> None:
        splitter = ClauseSplitter()
        for token in tokens:
            splitter.push(token)
        splitter.flush()

    protocol = DeviceProtocol(1, "0123456789ab")
    message = '{"session_id":"0123456789ab","type":"listen","state":"start","mode":"auto"}'
    second = DeviceProtocol(2)
    frame = second.pack(bytes(range(100)), 1234)
    return [
        Row("clause splitter", best_s(split) / len(tokens) * 1e6, "us a token"),
        Row("protocol, a JSON message", best_s(lambda: protocol.receive_text(message)) * 1e6, "us"),
        Row("protocol, an audio frame of version 2", best_s(lambda: second.receive_binary(frame)) * 1e6, "us"),
    ]


def pieces() -> list[Row]:
    """What the loop does in one go, where it has the most to do; processor time, which others do not change."""
    tokens = [".."] * (_LONG_TEXT_CHARS // 2)
    times_s = {
        "clauses, the slowest token of 2000 dots": min(_slowest_push_s(tokens) for _ in range(_ROUNDS)),
        "clauses, as much text as is taken at once": _cpu_s(lambda: ClauseSplitter().push("天" * MAX_TEXT_CHARS), 20),
        "a question's normal form": _cpu_s(lambda: normal_form("." * _QUESTION_CHARS), 20),
        "VAD, a packet with 1000 devices waiting": on_the_server_loop(_hand_over_s()),
        "pacing, a packet each of 100 replies": on_the_server_loop(_pace_s()),
    }
    return [
        Row(part, time_s * 1e3, "ms", "" if time_s * 1e3 <= MAX_PIECE_MS else f"{OVER} {MAX_PIECE_MS:g} ms")
        for part, time_s in times_s.items()
    ]


def _slowest_push_s(tokens: list[str]) -> float:
    splitter, slowest_s = ClauseSplitter(), 0.0
    for token in tokens:
        began = time.thread_time()
        splitter.push(token)
        slowest_s = max(slowest_s, time.thread_time() - began)
    return slowest_s


async def _hand_over_s() -> float:
    """Seconds for one device more, where so many wait for the next batch."""
    batcher = VadBatcher(SileroModel(built_in_model(), VadSettings()), VadSettings())
    found, waiting = float("inf"), []
    for number in range(_WAITING + _ROUNDS):
        hearing = batcher.hear(batcher.open(), [b""])
        began = time.thread_time()
        waiting.append((hearing, hearing.send(None)))
        if number >= _WAITING:
            found = min(found, time.thread_time() - began)
    for hearing, future in waiting:
        future.cancel()
        hearing.close()
    batcher.close()
    return found


class _Wheel(TimingWheel):
    """Keeps what it is to call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], None]] = []

    def at(self, due_s: float, call: Callable[[], None]) -> None:
        """Keep it."""
        self.calls.append(call)


class _Link:
    """Packs packets, for nobody."""

    def __init__(self) -> None:
        self._protocol = DeviceProtocol()

    def audio(self, opus: bytes, _generation: int) -> None:
        """Pack one."""
        self._protocol.pack(opus, 1)


async def _pace_s() -> float:
    """Seconds for a packet each of so many replies, due at once, less what sockets take."""
    wheel, found = _Wheel(), float("inf")
    async with asyncio.TaskGroup() as tasks:
        playing = []
        for _ in range(_REPLIES):
            items: Channel[SpokenItem] = Channel(float("inf"))
            for _ in range(50):
                items.put_nowait(SpeechPacket(bytes(180), 60))
            pacer = Pacer(cast(DeviceLink, _Link()), wheel, 1, 180.0, 60_000.0)
            playing.append(tasks.create_task(pacer.play(items, lambda: None)))
        for _ in range(_ROUNDS):
            await asyncio.sleep(0.1)  # longer than a packet: all are due
            due, wheel.calls = wheel.calls, []
            began = time.thread_time()
            for call in due:
                call()
            found = min(found, time.thread_time() - began)
        for one in playing:
            one.cancel()
    return found


async def _hops(count: int) -> float:
    """Seconds for one item from one task to another through a channel that holds two."""
    channel: Channel[int] = Channel(2)

    async def write() -> None:
        for number in range(count):
            await channel.put(number)
        channel.close()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        async for _ in channel:
            pass
    return (time.perf_counter() - began) / count


async def _lag(seconds: float, settings: Settings) -> list[float]:
    """Milliseconds by which timers of this loop came late while a server without devices ran on it."""
    from xiaozhi.app.server import serving

    late_ms = []
    async with serving(settings):
        end_s = time.perf_counter() + seconds  # not the loop's clock: uvloop's stands still between rounds
        while time.perf_counter() < end_s:
            due_s = time.perf_counter() + 0.005
            await asyncio.sleep(0.005)
            late_ms.append(max(0.0, time.perf_counter() - due_s) * 1000.0)
    return late_ms


def on_the_server_loop(call: Coroutine[Any, Any, Any]) -> Any:
    """Run on the kind of loop that the server takes."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(call)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(call)


def loop(settings: Settings, seconds: float = 3.0) -> list[Row]:
    """A hop through a channel, and how late timers are on a server's loop when nothing happens."""
    hop_s = min(on_the_server_loop(_hops(20_000)) for _ in range(_ROUNDS))
    late_ms = on_the_server_loop(_lag(seconds, settings))
    return [
        Row("channel, a hop between two tasks", hop_s * 1e6, "us"),
        Row("loop lag without devices, p50", percentile(late_ms, 0.5), "ms"),
        Row(
            "loop lag without devices, p99",
            percentile(late_ms, 0.99),
            "ms",
            "its timers count whole milliseconds",
        ),
        Row("loop lag without devices, worst", max(late_ms), "ms"),
    ]
