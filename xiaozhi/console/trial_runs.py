"""What the trials of the stages run: a spoken sample, and each stage once, timed."""

import base64
import io
import time
import wave
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmFloat, PcmInt, to_float
from xiaozhi.audio.resample import StreamResampler
from xiaozhi.settings import EspeakVoiceSettings, Settings
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.recogniser import Question
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.llm.engine import ChatError, ChatModel, ChatRequest, Message
from xiaozhi.stages.tts.espeak import say
from xiaozhi.stages.vad.silero import CONTEXT_SAMPLES, STATE_WIDTH, WINDOW_SAMPLES, load_silero
from xiaozhi.text.language import language_of
from xiaozhi.upstream.failure import FailureKind

ENGLISH = "what time is it"


@dataclass(frozen=True, slots=True)
class Result:
    """What a trial found.

    Attributes:
        ok: the stage works.
        latency_ms: until its first useful output; None where there was none.
        detail: one line: what came out, or what is wrong and what to do.
        audio: int16[n] at 24 kHz, of a voice.
        trouble: which advice fits, in the words of the pages; empty for none.
    """

    ok: bool
    latency_ms: float | None
    detail: str
    audio: PcmInt | None = None
    trouble: str = ""

    def message(self) -> dict[str, Any]:
        """As JSON."""
        shown: dict[str, Any] = {
            "ok": self.ok,
            "latency_ms": None if self.latency_ms is None else round(self.latency_ms, 1),
            "detail": " ".join(self.detail.split()),
            "trouble": self.trouble,
        }
        if self.audio is not None:
            shown["audio"] = base64.b64encode(_wav(self.audio)).decode()
        return shown


_TROUBLES: Final = {
    FailureKind.CONNECTION: "network",
    FailureKind.FIRST_BYTE: "time",
    FailureKind.BROKEN: "answer",
    FailureKind.NONSENSE: "answer",
    FailureKind.BUSY: "busy",
    FailureKind.SERVER: "server",
    FailureKind.REQUEST: "request",
}
_STATUSES: Final = {401: "key", 403: "key", 402: "money", 404: "address", 405: "address"}


def trouble_of(error: ChatError) -> str:
    """Which advice fits the failure of an endpoint: `key`, `address`, `network` and the like."""
    if "it redirects to" in str(error):
        return "address"
    if error.kind in _TROUBLES:
        return _TROUBLES[error.kind]
    if not error.status:  # a key that no service can have given
        return "key" if error.kind is FailureKind.REFUSED else "request"
    return _STATUSES.get(error.status, "address" if 300 <= error.status < 400 else "request")


def spoken(text: str) -> PcmFloat:
    """A synthetic voice, float32[n] at 16 kHz, with a little silence around it; never twice exactly the same.

    What is exactly the same would be answered from the cache of recognised sounds. Blocking.
    """
    pcm = say(text, language_of(text), EspeakVoiceSettings())
    resampler = StreamResampler(DOWNLINK_RATE_HZ, UPLINK_RATE_HZ)
    voice = to_float(np.concatenate([resampler.feed(pcm), resampler.flush()]))
    quiet = np.zeros(UPLINK_RATE_HZ // 5, np.float32)
    whole = np.concatenate([quiet, voice, quiet])
    noise = np.random.default_rng().normal(0.0, 3e-4, len(whole)).astype(np.float32)
    sound: PcmFloat = np.clip(whole + noise, -1.0, 1.0).astype(np.float32)
    return sound


def try_vad(settings: Settings) -> Result:
    """Blocking."""
    model = load_silero(settings.vad, settings.models.dir)
    pcm = spoken(ENGLISH)
    states = np.zeros((2, 1, STATE_WIDTH), np.float32)
    context = np.zeros(CONTEXT_SAMPLES, np.float32)
    found: list[float] = []
    began_s = time.perf_counter()
    for start in range(0, len(pcm) - WINDOW_SAMPLES + 1, WINDOW_SAMPLES):
        window = pcm[start : start + WINDOW_SAMPLES]
        judged, states = model.probabilities(np.concatenate([context, window])[None, :], states)
        context = window[-CONTEXT_SAMPLES:]
        found.append(float(judged[0]))
    each_ms = (time.perf_counter() - began_s) * 1000.0 / len(found)
    voiced = sum(probability >= settings.vad.threshold for probability in found)
    detail = (
        f"{model.name}: speech in {voiced} of {len(found)} windows of 32 ms, highest probability {max(found):.2f},"
        f" {each_ms:.2f} ms a window"
    )
    if not voiced:
        return Result(False, each_ms, f"{detail}; nothing reached vad.threshold = {settings.vad.threshold:g}: lower it")
    return Result(True, each_ms, detail)


async def decoded(recognition: Recognition, pcm: PcmFloat) -> tuple[Transcript, float]:
    """The text of a sound, and how long it took in seconds."""
    utterance = recognition.begin()
    try:
        utterance.feed(pcm)
        began_s = time.monotonic()
        found = await utterance.transcribe(Question())
        return found, time.monotonic() - began_s
    finally:
        utterance.close()


async def asked(chat: ChatModel, name: str, text: str) -> Result:
    """The first words of a chat model."""
    request = ChatRequest([Message("user", text)], language_of(text))
    began_s = time.monotonic()
    async with aclosing(chat.stream(request)) as deltas:
        async for delta in deltas:
            if delta.text.strip():
                return Result(
                    True, (time.monotonic() - began_s) * 1000.0, f"{name} begins: “{delta.text.strip()[:80]}”"
                )
    return Result(False, None, f"{name} answered nothing")


def _wav(pcm: PcmInt) -> bytes:
    with io.BytesIO() as held:
        with wave.open(held, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(DOWNLINK_RATE_HZ)
            file.writeframes(pcm.astype("<i2", copy=False).tobytes())
        return held.getvalue()
