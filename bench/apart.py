"""Devices that talk at once, each with words of its own: nothing of one may ever reach another.

Every device speaks with a marker tone under its voice, of things that only it has a name for; the recogniser, the
language model and the voice are stand-ins on loopback that give back what they were sent: the words that go with the
tone, the names that stood in the prompt, a tone that goes with the names. So whatever the server mixes up shows up as a
foreign word or a foreign tone. Caches, long-term memory and summaries are on, devices come and go, replies are broken
off, and all ask the same common questions in between. Exit code 1 on a leak.
"""

import argparse
import asyncio
import contextlib
import itertools
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from bench import secret_words
from bench.harness import server_process
from bench.progress import Progress
from bench.secret_words import Words, speaks_chinese, texts_in
from bench.spoken import spoken
from bench.standins.chat import ChatMessages, ChatStandIn
from bench.standins.speech import SpeechStandIn
from bench.standins.tables import chat_table, voice_table
from bench.standins.transcription import TranscriptionStandIn
from bench.verdict import Line, broken
from xiaozhi.audio.pcm import PcmFloat, PcmInt, to_float
from xiaozhi.client.device import Device
from xiaozhi.client.microphone import SpokenUtterance
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.client.report import TurnReport

# Shares of turns: typed instead of spoken, a common question, broken off; and turns until a device calls again.
_TYPED: Final = 0.3
_COMMON: Final = 0.25
_BROKEN_OFF: Final = 0.15
_CALLS_AGAIN_AFTER: Final = 5
# Calls until a device is set up anew, with another address: what new devices hear has no memories of its own in it.
_CALLS_OF_A_LIFE: Final = 2
# Time runs faster on a device's microphone than in life: the server decides in audio time.
_SPEED: Final = 2.0
_COMMON_QUESTIONS: Final = (
    ("why do cats purr", "猫为什么会打呼噜"),
    ("how far is the moon", "月亮离地球有多远"),
    ("what do bees eat", "蜜蜂吃什么"),
)
_MAX_LEAKS_SHOWN: Final = 20


@dataclass(slots=True)
class Seen:
    """What was looked at, and every leak that was found in it, in words."""

    turns: int = 0
    spoken: int = 0
    answered: int = 0
    broken_off: int = 0
    cached: int = 0
    messages: int = 0
    prompts: int = 0
    summaries: int = 0
    extractions: int = 0
    windows: int = 0
    rows: int = 0
    own_words: int = 0
    leaks: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[Line]:
        """What must hold; a run that has looked at nothing has shown nothing."""
        looked = f"{self.messages} messages, {self.prompts} prompts, {self.windows} pieces of sound, {self.rows} rows"
        enough = min(self.messages, self.prompts, self.windows, self.rows, self.own_words) > 0
        whole = self.answered >= 0.98 * (self.turns - self.broken_off) and self.turns > self.broken_off
        return [
            Line("no word and no sound of one device reaches another", f"{len(self.leaks)} leaks", not self.leaks),
            Line("every place was looked at", looked, enough),
            Line("turns are answered", f"{self.answered} of {self.turns - self.broken_off}", whole),
        ]


class Upstreams:
    """Scripts of the three stand-ins: they give back what they were sent.

    Args:
        words: whose words they may meet.
        seen: takes the leaks.
    """

    def __init__(self, words: Words, seen: Seen, seed: int = 1) -> None:
        self._words = words
        self._seen = seen
        self._dice = random.Random(seed)
        self.saying = [""] * len(words.of)
        """What each device says now, by its number: the recogniser knows it by the marker tone."""

    def hear(self, sound: PcmInt) -> str:
        """The recogniser."""
        return self.saying[secret_words.speaker_of(sound, len(self.saying))]

    def think(self, messages: ChatMessages) -> str:
        """The model: leans on every name that it finds in the prompt."""
        everything = texts_in(messages)
        found = list(dict.fromkeys(word for text in everything for word in self._words.found(text)))
        self._seen.prompts += 1
        if len(owners := self._words.owners(*everything)) > 1:
            self._seen.leaks.append(f"a prompt holds words of devices {sorted(owners)}: {found}")
        last = str(messages[-1]["content"])
        if "Conversation:" in last or ("对话：\n" in last and "已知：" in last):
            self._seen.extractions += 1
            facts = [{"text": f"{word} 很重要" if not word.isascii() else f"Likes {word}"} for word in found[-2:]]
            return orjson.dumps({"facts": facts, "outdated": []}).decode()
        if "New turns:" in last or "新的对话：" in last:
            self._seen.summaries += 1
            return f"They talked about {', '.join(found[-6:])}."
        asked = self._words.found(last)
        earlier = [word for word in found if word not in asked]
        named = [*asked, *self._dice.sample(earlier, min(2, len(earlier)))] or ["..."]
        if language_is_chinese(last):
            return f"😊 好的，说到{named[0]}。{'，'.join(named)}都很有意思。"
        return f"😊 Yes, about {named[0]}. There is much to say of {' and '.join(named)}."

    def speak(self, text: str) -> PcmInt:
        """The voice."""
        owners = self._words.owners(text)
        if len(owners) > 1:
            self._seen.leaks.append(f"a sentence for the voice holds words of devices {sorted(owners)}: {text}")
        return secret_words.reply_sound(text, owners)


def language_is_chinese(text: str) -> bool:
    """Whether there is a Chinese character in it."""
    return any("\u4e00" <= char <= "\u9fff" for char in text)


class User:
    """One device that talks of its own things.

    Args:
        number: which.
        words: its own are said, those of others are looked for.
        upstreams: told what is being said.
        seen: takes what was looked at.
        speech: its voice, float32[n] at 16 kHz.
        seed: the same seed, the same turns.
    """

    def __init__(
        self, number: int, words: Words, upstreams: Upstreams, seen: Seen, speech: PcmFloat, seed: int = 1
    ) -> None:
        self._number = number
        self._words = words
        self._upstreams = upstreams
        self._seen = seen
        self._speech = speech
        self._dice = random.Random(seed * 7919 + number)
        self._looked_ms = 0.0

    async def talk(self, ota_url: str, until_s: float) -> None:
        """Talk without a rest until this time of the loop."""
        loop = asyncio.get_running_loop()
        for call in itertools.count():
            identity = ClientIdentity.numbered(self._number + secret_words.MAX_DEVICES * (call // _CALLS_OF_A_LIFE))
            async with Device(identity, trace=True, speed=_SPEED) as device:
                reply = await device.boot(ota_url)
                await device.connect(reply.url, reply.token)
                self._looked_ms = 0.0
                for _ in range(_CALLS_AGAIN_AFTER):
                    await self._turn(device)
                    self._look_at_messages(device)
                    if loop.time() >= until_s:
                        return
                    if not device.connected:
                        break

    def _sentence(self) -> str:
        chinese = speaks_chinese(self._number)
        if self._dice.random() < _COMMON:
            return self._dice.choice(_COMMON_QUESTIONS)[chinese]
        first, second = self._dice.sample(self._words.of[self._number], 2)
        # Nothing in these words tells that they are somebody's own: what keeps them apart must not lean on that.
        return f"{first}住在{second}旁边" if chinese else f"{first} lives next to {second}"

    async def _turn(self, device: Device) -> None:
        seen, text = self._seen, self._sentence()
        typed = self._dice.random() < _TYPED
        self._upstreams.saying[self._number] = text
        if typed:
            work = device.turn_text(text)
        else:
            sound = secret_words.marked(self._speech, self._number, self._dice)
            work = device.turn(await asyncio.to_thread(SpokenUtterance.encode, sound))
        seen.turns += 1
        seen.spoken += not typed
        if self._dice.random() < _BROKEN_OFF:
            seen.broken_off += 1
            report = await self._broken_off(device, asyncio.ensure_future(work))
        else:
            report = await work
            seen.answered += report.answered
        self._look_at(report, text)

    async def _broken_off(self, device: Device, work: "asyncio.Future[TurnReport]") -> TurnReport:
        after_ms = self._dice.uniform(60.0, 900.0)
        with contextlib.suppress(TimeoutError):
            await device.until(lambda: work.done() or device.manners.speaker.playback.heard_ms > after_ms, 15.0)
        if not work.done():
            device.abort()
        return await work

    def _look_at(self, report: TurnReport, text: str) -> None:
        seen = self._seen
        seen.own_words += len(self._words.found(f"{report.heard} {report.text}"))
        seen.cached += bool(report.trace and report.trace.get("cached"))
        if report.heard and report.heard != text and self._words.found(report.heard):
            seen.leaks.append(f"device {self._number} said {text!r} and {report.heard!r} was heard")
        if report.reply_pcm is not None:
            windows, foreign = secret_words.foreign_windows(report.reply_pcm, self._number)
            seen.windows += windows
            if foreign:
                seen.leaks.append(f"device {self._number} heard {foreign} pieces of sound of another: {report.text}")

    def _look_at_messages(self, device: Device) -> None:
        for at_ms, message in device.received:
            if at_ms <= self._looked_ms:
                continue
            self._looked_ms = at_ms
            self._seen.messages += 1
            if strangers := self._words.strangers(self._number, *texts_in(message)):
                self._seen.leaks.append(f"device {self._number} got {strangers} in {message}")


def look_at_store(file: Path, words: Words, seen: Seen) -> None:
    """Every row that belongs to a device holds its own words alone. Blocking."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for table in ("turns", "memories", "summaries"):
            cursor = connection.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in cursor.description]
            for row in cursor:
                values: dict[str, Any] = dict(zip(names, row, strict=True))
                seen.rows += 1
                owner = int(str(values["device"]).replace(":", "")[4:], 16) % secret_words.MAX_DEVICES
                if strangers := words.strangers(owner, *texts_in(values)):
                    seen.leaks.append(f"a row of {table} of {values['device']} holds {strangers}")


def settings_toml(folder: Path, chat_url: str, speech_url: str, asr: TranscriptionStandIn) -> str:
    """Everything that could mix devices up is on: caches, memory, summaries, conversations."""
    return f"""
[server]
data_dir = "{folder / "data"}"
requests_per_minute = 0
drain_s = 1.0
[models]
auto_pull = false
[console]
enabled = false
[asr]
engine = "openai"
fallback = "pocketsphinx"
language = "auto"
[asr.openai]
base_url = "{asr.base_url}"
api_key = "{asr.key}"
{chat_table(chat_url)}[llm]
history_turns = 6
[memory]
engine = "local"
min_turns = 2
{voice_table(speech_url)}"""


async def apart(devices: int, seconds: float, seed: int = 1) -> Seen:
    """Start everything, let the devices talk at once, stop everything, and look into the store."""
    words, seen, progress = Words(devices, seed), Seen(), Progress()
    upstreams = Upstreams(words, seen, seed)
    # A sentence to hide the marker tones under.
    speech = to_float(await asyncio.to_thread(spoken, "what time is it", "en"))
    with tempfile.TemporaryDirectory(prefix="xiaozhi-apart-") as name:
        folder = Path(name)
        async with (
            ChatStandIn(upstreams.think, first_token_ms=30.0, tokens_per_s=200.0) as chat,
            SpeechStandIn(sound=upstreams.speak) as voice,
            TranscriptionStandIn(upstreams.hear) as ears,
        ):
            toml = settings_toml(folder, chat.url, voice.url, ears)
            async with server_process(toml) as server:
                loop = asyncio.get_running_loop()
                until_s = loop.time() + seconds
                ota_url = f"{server.base_url}/xiaozhi/ota/"
                async with asyncio.TaskGroup() as tasks:
                    users = [
                        tasks.create_task(
                            User(number, words, upstreams, seen, speech, seed).talk(ota_url, until_s),
                        )
                        for number in range(devices)
                    ]
                    while not all(task.done() for task in users):
                        await asyncio.wait(users, timeout=5.0)
                        for standin in (chat, voice, ears):
                            standin.requests.clear()  # they remember every request, for tests
                        left_s = max(0.0, until_s - loop.time())
                        progress.say(f"{left_s:.0f} s left: {seen.turns} turns, {len(seen.leaks)} leaks")
                progress.end()
        await asyncio.to_thread(look_at_store, folder / "data" / "xiaozhi.db", words, seen)
    return seen


def show(seen: Seen, devices: int, took_s: float) -> str:
    """What is printed."""
    return "\n".join(
        [
            f"{devices} devices at once for {took_s:.0f} s: {seen.turns} turns, {seen.spoken} of them spoken, "
            f"{seen.broken_off} broken off, {seen.cached} from the cache",
            f"prompts {seen.prompts}, among them {seen.summaries} for summaries and {seen.extractions} for facts; "
            f"own words met {seen.own_words} times",
            *(f"  LEAK    {leak}" for leak in seen.leaks[:_MAX_LEAKS_SHOWN]),
            *(f"  {line}" for line in seen.lines),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit code 1 on a leak, or when there was nothing to look at."""
    parser = argparse.ArgumentParser(prog="python -m bench.apart", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--devices", type=int, default=2, help=f"2 to {secret_words.MAX_DEVICES}")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    if given.minutes <= 0 or not 2 <= given.devices <= secret_words.MAX_DEVICES:
        parser.error(f"--minutes must be above 0, --devices 2 to {secret_words.MAX_DEVICES}")
    began_s = time.monotonic()
    seen = asyncio.run(apart(given.devices, given.minutes * 60.0, given.seed))
    print(show(seen, given.devices, time.monotonic() - began_s))
    return 1 if broken(seen.lines) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
