"""Clauses as Opus packets: from the speech cache, joined while they are made for others, or made now."""

import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import astuple, dataclass, field
from typing import Final

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ
from xiaozhi.cache.speech import SpeechCache, speech_key
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.events import Clause
from xiaozhi.settings import Settings, TtsSettings
from xiaozhi.settings.audio import AudioSettings
from xiaozhi.stages.tts.encoding import FRAME_MS, encode, unheard_ms
from xiaozhi.stages.tts.engine import Voice, VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.reply_voices import ReplyPart, ReplyVoices
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest

_log = logging.getLogger(__name__)

# Nobody listens to what is made ahead: rather wait for another node than have it made twice.
_PREMAKE_WAIT_S: Final = 5.0


@dataclass(slots=True)
class _Making:
    """How a clause was made."""

    voices: list[str] = field(default_factory=list)
    cut: bool = False

    def was_cut(self) -> None:
        self.cut = True


class ClauseSpeech:
    """The voices of a process, behind its speech cache where there is one.

    Args:
        chain: speaks.
        codec: the shared pool that encodes.
        settings: of sound and cache.
        cache: keeps packets; None keeps nothing.
        fingerprints: what the sound of each voice of the chain depends on, see `voice_fingerprints`.
    """

    def __init__(
        self,
        chain: VoiceChain,
        codec: WorkerPool,
        settings: Settings,
        cache: SpeechCache | None = None,
        fingerprints: Mapping[str, str] | None = None,
    ) -> None:
        self.cache = cache
        self._chain = chain
        self._codec = codec
        self._audio = settings.audio
        self._max_chars = settings.cache.speech_max_chars
        self._fingerprints = fingerprints or {}

    def led_by(self, voice: Voice, fingerprints: Mapping[str, str]) -> "ClauseSpeech":
        """The same with this voice first; `fingerprints` has what its sound depends on, where it is a new one."""
        other = copy(self)
        other._chain = self._chain.led_by(voice)
        other._fingerprints = {**self._fingerprints, **fingerprints}
        return other

    def keeps(self, clause: Clause) -> bool:
        """Whether a clause is looked up and kept: it is short enough, and somebody's words."""
        short = len(clause.speech) <= self._max_chars and any(map(str.isalnum, clause.speech))
        return self.cache is not None and clause.sound is None and short

    async def packets(
        self,
        clause: Clause,
        part: ReplyPart | None = None,
        *,
        audio: AudioSettings | None = None,
        urgent: bool = False,
        ahead_ms: Callable[[], float] = unheard_ms,
        on_voice: Callable[[str], None] = lambda _voice: None,
        on_hit: Callable[[], None] = lambda: None,
        wait_s: float | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield a clause as Opus packets of 60 ms, as early as they exist.

        Args:
            clause: what to say, or the sound that it stands for.
            part: its place in a reply, which says how it should sound; None for a clause that stands alone.
            audio: bit rate and complexity; None takes those of the settings. Lesser ones are kept apart from the best.
            urgent: goes first when voices are scarce.
            ahead_ms: for how long there is sound before its next packet is needed.
            on_voice: told whose voice it is, before its first packet.
            on_hit: called when the packets were kept, before the first of them.
            wait_s: how long to wait for another node that is making it already; None: as long as a listener would.

        Raises:
            VoiceError: no voice could speak it.
        """
        audio = audio or self._audio
        if clause.sound is not None:  # music or the like: no voice is asked
            made = encode(clause.sound(), self._codec, audio, urgent=urgent, ahead_ms=ahead_ms)
        elif self.cache is not None and self.keeps(clause):
            made = self._cached(clause, part, self.cache, audio, urgent, ahead_ms, on_voice, on_hit, wait_s)
        else:
            made = self._fresh(clause, part, audio, urgent, ahead_ms, on_voice)
        async with aclosing(made) as packets:
            async for packet in packets:
                yield packet

    def _fresh(
        self,
        clause: Clause,
        part: ReplyPart | None,
        audio: AudioSettings,
        urgent: bool,
        ahead_ms: Callable[[], float],
        on_voice: Callable[[str], None],
    ) -> AsyncGenerator[bytes, None]:
        sound = self._chain.speak(clause.speech, language=clause.language, part=part, urgent=urgent, on_voice=on_voice)
        return encode(sound, self._codec, audio, urgent=urgent, ahead_ms=ahead_ms)

    async def _cached(
        self,
        clause: Clause,
        part: ReplyPart | None,
        cache: SpeechCache,
        audio: AudioSettings,
        urgent: bool,
        ahead_ms: Callable[[], float],
        on_voice: Callable[[str], None],
        on_hit: Callable[[], None],
        wait_s: float | None,
    ) -> AsyncGenerator[bytes, None]:
        first = self._chain.first_in_line()
        # The best voice's clause is good whoever would speak now; below the one in line nobody would be asked.
        names = [state.name for state in self._chain.states]
        names = names[: names.index(first) + 1]
        request = part.reply.request if part is not None else ANY_VOICE
        efforts = (self._audio, audio)  # the best there is
        kept = await cache.find(
            list(dict.fromkeys(self._key(name, clause, request, each) for each in efforts for name in names))
        )
        if kept is not None:
            on_hit()
            on_voice(first)
            for packet in kept:
                yield packet
            return
        if part is not None and self._chain.first_spans_clauses():  # what it says depends on what it said before
            async with aclosing(self._fresh(clause, part, audio, urgent, ahead_ms, on_voice)) as packets:
                async for packet in packets:
                    yield packet
            return
        making = _Making()
        told = 0
        stream = cache.follow(
            self._key(first, clause, request, audio),
            lambda: self._make(clause, request, making, audio, urgent, ahead_ms),
            lambda: self._keep_under(clause, request, making, audio),
            wait_s,
        )
        async with aclosing(stream) as made:
            async for packet in made:
                for name in (making.voices or [first])[told:]:
                    told += 1
                    on_voice(name)
                yield packet

    def _make(
        self,
        clause: Clause,
        request: VoiceRequest,
        making: _Making,
        audio: AudioSettings,
        urgent: bool,
        ahead_ms: Callable[[], float],
    ) -> AsyncGenerator[bytes, None]:
        sound = self._chain.speak(
            clause.speech,
            language=clause.language,
            part=ReplyPart(ReplyVoices(request)),  # others may join who have nothing to do with this reply
            urgent=urgent,
            on_voice=making.voices.append,
            on_cut=making.was_cut,
        )
        return encode(sound, self._codec, audio, urgent=urgent, ahead_ms=ahead_ms)

    async def premake(self, clauses: Iterable[Clause]) -> int:
        """Have clauses made ahead, one after another; those that are kept cost nothing.

        Returns:
            How many are there now. Ends at the first that no voice can speak.
        """
        ready = 0
        for clause in filter(self.keeps, clauses):
            try:
                async with aclosing(self.packets(clause, wait_s=_PREMAKE_WAIT_S)) as packets:
                    async for _ in packets:
                        pass
            except VoiceError as error:
                _log.warning("common phrases are not made ahead: %s", error)
                break
            ready += 1
        return ready

    def _key(self, voice: str, clause: Clause, request: VoiceRequest, audio: AudioSettings) -> bytes:
        return speech_key(
            self._fingerprints.get(voice, voice),
            clause.language,
            clause.speech,
            astuple(request),
            DOWNLINK_RATE_HZ,
            FRAME_MS,
            audio.bitrate_bps,
            audio.complexity,
        )

    def _keep_under(self, clause: Clause, request: VoiceRequest, making: _Making, audio: AudioSettings) -> bytes | None:
        """Under the key of the one voice that spoke all of it; not at all when it was begun anew or broke off."""
        if making.cut or len(making.voices) != 1:
            return None
        return self._key(making.voices[0], clause, request, audio)


def voice_fingerprints(names: Sequence[str], settings: TtsSettings, about: Sequence[str]) -> dict[str, str]:
    """What the sound of each voice depends on, as text for a key; secrets are masked in it.

    Args:
        names: of the voices.
        settings: the `[tts]` table; a voice's own table has its name.
        about: lines about the voices, each beginning with the name: they tell which local model is used.
    """
    prints = {}
    for name in names:
        table = getattr(settings, name, None)
        own = table.model_dump_json() if table is not None else ""
        prints[name] = "\n".join([name, own, *(line for line in about if line.split(" ")[0] == name)])
    return prints
