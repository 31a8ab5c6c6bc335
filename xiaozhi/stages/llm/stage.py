"""The thinking stage: a conversation in, clauses to be spoken out."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from xiaozhi.concurrency.channel import Channel
from xiaozhi.events import Clause, ProviderFields, ToolCall
from xiaozhi.settings import Settings
from xiaozhi.stages.llm.engine import ChatError, Delta
from xiaozhi.text.clauses import ClauseSplitter
from xiaozhi.text.emotions import emotion_in
from xiaozhi.text.language import language_of
from xiaozhi.text.markup import Markup
from xiaozhi.text.messages import message
from xiaozhi.text.repetition import Repetition
from xiaozhi.text.speakable import cleaned
from xiaozhi.text.units import join_pieces, speakable_chars, units

_log = logging.getLogger(__name__)

# Sentences are joined while more speech than this waits to be played: longer pieces sound better, and nobody waits.
_MERGE_ABOVE_MS: Final = 3000.0
MAX_TEXT_CHARS: Final = 200
"""So much text is taken in one go, in about a millisecond: an answer from a cache, or of a server that does not
stream, comes whole."""
# Tags and code that a reply may hold beside its text, as a multiple of the limit of the text.
_UNSEEN_SHARE: Final = 8
# What the user's own language counts for in a reply that has not begun, in units of speech.
_TALKERS_UNITS: Final = 1.0
# How often to look whether joined sentences are needed now, when the model is silent meanwhile.
_LOOK_EVERY_S: Final = 0.1
_WHOLE: Final = re.compile(r"[。！？….!?][\W_]*$")


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What a model's answer came to.

    Attributes:
        text: the reply as shown; empty when the model only wants tools called.
        whole: what the model itself has said, emoji and markup and all; empty when it was ended before its end, or when
            a part of it is no answer of a model.
        tool_calls: what the model wants called before it goes on; empty when the reply is complete.
        provider: what goes back with the calls.
    """

    text: str
    whole: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    provider: ProviderFields | None = None


async def run_llm(
    deltas: AsyncGenerator[Delta, None],
    clauses: Channel[Clause],
    *,
    language: str,
    settings: Settings,
    on_first_token: Callable[[], None],
    on_first_clause: Callable[[], None],
    queued_ms: Callable[[], float],
    more_follows: bool = False,
) -> ModelAnswer:
    """Put an answer as clauses as it arrives; close the channel and the stream at the end, whatever the end.

    The first clause leaves at the first mark, or `tts.first_clause_wait_ms` after the first token; the others are whole
    sentences, joined while much speech is queued. A full channel stops the reading of the model's stream. An answer
    that is too long, or goes round in circles, ends behind the clause before.

    Args:
        deltas: the answer, see `ChatModel.stream`.
        clauses: where the clauses go; the first carries the emotion.
        language: of clauses that do not show theirs.
        settings: limits of clauses and of the reply.
        on_first_token: called when the first visible text has come.
        on_first_clause: called when the first clause has been put.
        queued_ms: how much speech waits to be played now, in milliseconds.
        more_follows: leave the channel open: others have more to put into it.

    An answer of a face alone is a clause without speech. One that can only be read (an address, a key, code) is shown,
    and a sentence says so.

    Returns:
        What was said, and the tools the model wants called.

    Raises:
        ChatError: the model failed, or answered nothing. What was whole before has been put.
        ChannelClosed: nobody reads the clauses any more.
    """
    answer = _Answer(clauses, language, on_first_clause)
    splitter = ClauseSplitter(
        first_min_chars=settings.tts.first_clause_min_chars, first_max_chars=settings.tts.first_clause_max_chars
    )
    stream = _Patient(deltas)
    wait_s = settings.tts.first_clause_wait_ms / 1000.0
    loop = asyncio.get_running_loop()
    markup = Markup()
    repetition = Repetition()
    left = settings.llm.reply_max_chars
    left_unseen = left * _UNSEEN_SHARE
    why_cut = ""
    raw: list[str] = []
    aside = False
    tool_calls: tuple[ToolCall, ...] = ()
    provider: ProviderFields | None = None
    cut_at: float | None = None  # when the first clause is overdue
    try:
        while not why_cut:
            try:
                delta = await stream.next(_look_again_s(splitter, cut_at, loop.time()))
            except TimeoutError:
                delta = Delta()
            if delta is None:
                break
            raw.append(delta.text)
            aside = aside or delta.aside
            tool_calls += delta.tool_calls
            provider = delta.provider or provider
            if cut_at is None and delta.text and not delta.text.isspace():
                on_first_token()
                cut_at = loop.time() + wait_s
            text = markup.push(delta.text)[:left]
            left -= len(text)
            left_unseen -= len(delta.text)
            if left <= 0 or left_unseen <= 0:
                why_cut = f"it has {settings.llm.reply_max_chars} characters"
            elif repetition.push(text):
                why_cut = "it goes round in circles"
            await answer.put(splitter.push(answer.read(text), merge=queued_ms() > _MERGE_ABOVE_MS))
            if cut_at is not None and splitter.waits_for_first and loop.time() >= cut_at:
                await answer.put(splitter.cut_now())
        if why_cut:
            _log.warning("the reply is ended: %s", why_cut)
        rest = [*splitter.push(answer.read(markup.flush()[:left])), *splitter.flush()]
        if why_cut and rest and (answer.said or len(rest) > 1) and not _WHOLE.search(rest[-1]):
            rest.pop()  # the beginning of a sentence
        await answer.put(rest)
        if answer.said or not tool_calls:
            await answer.finish(markup.code)
    except ChatError:
        await answer.put(splitter.release())
        raise
    finally:
        if not more_follows:
            clauses.close()
        await stream.close()
    if answer.is_empty and not tool_calls:
        raise ChatError("the model answered nothing that can be spoken")
    whole = "" if why_cut or aside else "".join(raw)
    return ModelAnswer(join_pieces(answer.said), whole, tool_calls, provider)


def _look_again_s(splitter: ClauseSplitter, cut_at: float | None, now: float) -> float | None:
    """How long the model may be silent before there is something to do without it; None for ever."""
    if splitter.holds:
        return _LOOK_EVERY_S
    if splitter.waits_for_first and cut_at is not None and cut_at > now:
        return cut_at - now
    return None


class _Answer:
    """Makes clauses of raw text and puts them."""

    def __init__(self, clauses: Channel[Clause], language: str, on_first_clause: Callable[[], None]) -> None:
        self._clauses = clauses
        # Units of speech in each language: a clause that does not show its own is in the prevailing one.
        self._spoken = {language: _TALKERS_UNITS}
        self._on_first_clause = on_first_clause
        self._emotion = ""
        self._unsaid: list[str] = []  # the whole answer, while nothing of it can be said
        self._silent: list[str] = []  # what is only shown, with the next clause
        self.is_empty = True
        self.said: list[str] = []

    def read(self, text: str) -> str:
        """Take note of plain text on its way to the splitter."""
        if not self.said:
            self._unsaid.append(text)
        return text

    @property
    def _prevailing(self) -> str:
        return max(self._spoken, key=lambda language: self._spoken[language])

    async def put(self, pieces: list[str]) -> None:
        """Put the clauses that can be spoken, waiting for room."""
        for raw in pieces:
            self._emotion = self._emotion or emotion_in(raw)
            text, speech = cleaned(raw, language=self._prevailing)
            if not speech:
                self._silent += [text] if speakable_chars(text) else []
            else:
                language = language_of(speech, default=self._prevailing)
                self._spoken[language] = self._spoken.get(language, 0.0) + units(speech)
                await self._put(text, speech, language)

    async def finish(self, code: Sequence[str]) -> None:
        """Show what is left; where nothing could be spoken, say that there is something to read, or show a face."""
        if self.said:
            if self._silent:
                await self._put("", "", self._prevailing)
            return
        self._silent.clear()
        unsaid = "".join(self._unsaid)
        self._emotion = emotion_in(unsaid)
        language = self._prevailing
        text = cleaned(unsaid).text
        if not speakable_chars(text):
            text = "\n".join(code)
        if speakable_chars(text):
            await self._put(text, message("on_screen", language), language)
        elif unsaid.strip():
            await self._put("", "", language)

    async def _put(self, text: str, speech: str, language: str) -> None:
        first, self.is_empty = self.is_empty, False
        text = " ".join(filter(None, [*self._silent, text]))
        self._silent.clear()
        emotion = (self._emotion or "neutral") if first else ""
        await self._clauses.put(Clause(text, speech, language, emotion))
        if text:
            self.said.append(text)
        if first:
            self._on_first_clause()


class _Patient:
    """Reads a stream and can look up meanwhile: a wait that runs out does not cancel the reading."""

    def __init__(self, deltas: AsyncGenerator[Delta, None]) -> None:
        self._deltas = deltas
        self._reading: asyncio.Task[Delta | None] | None = None
        self._rest: Delta | None = None  # of a delta that was too long to be taken in one go

    async def next(self, timeout_s: float | None) -> Delta | None:
        """The next delta, in parts where it is long, or None at the end of the stream.

        Raises:
            TimeoutError: nothing came within `timeout_s`; what comes later is not lost.
        """
        if self._rest is None:
            delta = await self._next(timeout_s)
        else:
            await asyncio.sleep(0.0)  # others have their turn
            delta, self._rest = self._rest, None
        if delta is None or len(delta.text) <= MAX_TEXT_CHARS:
            return delta
        self._rest = replace(delta, text=delta.text[MAX_TEXT_CHARS:])
        return Delta(delta.text[:MAX_TEXT_CHARS], aside=delta.aside)

    async def _next(self, timeout_s: float | None) -> Delta | None:
        if self._reading is None:
            if timeout_s is None:
                return await anext(self._deltas, None)
            self._reading = asyncio.create_task(self._read(), name="llm-read")
        await asyncio.wait({self._reading}, timeout=timeout_s)
        if not self._reading.done():
            raise TimeoutError
        reading, self._reading = self._reading, None
        return reading.result()

    async def close(self) -> None:
        """Stop reading and close the stream."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._deltas.aclose()

    async def _read(self) -> Delta | None:
        return await anext(self._deltas, None)
