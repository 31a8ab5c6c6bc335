"""Random interleavings of everything that can happen to a conversation, in virtual time: none may die of any.

The conversation is whole and real; its device, its network and its upstreams go by the dice, see `tests/virtual_house`.
Every run ends twice in a calm, in which the upstreams work again and somebody speaks and is silent:

* within 8 s (nobody needs longer in a calm) something is spoken, an answer or an excuse;
* with nobody speaking any more and no packet coming, the conversation comes to rest and is hung up in the end.

Nothing may fail on the way, no task may be left, and whatever device was told to speak must be told to stop.
"""

import argparse
import asyncio
import logging
import multiprocessing
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Final

from tests.virtual_house import (
    ConversationLoop,
    Dead,
    Fate,
    VirtualDevice,
    some_engine,
    virtual_services,
    virtual_settings,
)
from xiaozhi.conversation.context import ConversationContext
from xiaozhi.settings import Settings
from xiaozhi.turn.machine import ListeningMode, TurnState

ANSWER_WITHIN_S: Final = 8.0
"""From the end of speech to the first sound, with upstreams that work."""
_REST_WITHIN_S: Final = 200.0
_IDLE_CLOSE_S: Final = 5.0
_LONGEST_REPLY_S: Final = 60.0
_WAKE_WORD: Final = "你好小智"


def _settings(dice: random.Random) -> Settings:
    return virtual_settings(
        profile=dice.choice(("balanced", "aggressive", "conservative")),
        speculate=dice.random() < 0.8,
        barge_in=dice.random() < 0.8,
        gap_ms=dice.choice((150, 150, 300)),
        greeting=dice.choice(("", "", "你好。")),
        wake_reply=dice.choice(("", "我在。")),
    )


class _Run:
    """One conversation, or several of one device that reconnects."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.fate = Fate(self.dice)
        self.loop = asyncio.get_running_loop()
        settings = _settings(self.dice)
        self.services = virtual_services(settings, self.fate, some_engine(self.fate, settings))
        self.steps: list[str] = []
        self.device = VirtualDevice(self.fate, self.services)

    async def go(self) -> None:
        await asyncio.sleep(0)
        for most, sentences in ((14, 1), (8, 2)):
            self.fate.calm = False
            for _ in range(self.dice.randint(2, most)):
                await self._act()
            self.fate.calm = True
            await self._calm(sentences)
        await self._rest()
        await self.device.close()

    # In a storm ---------------------------------------------------------------------------------------------------

    async def _reconnect(self) -> None:
        await self.device.close()
        self.device = VirtualDevice(self.fate, self.services)
        await asyncio.sleep(0)

    async def _act(self) -> None:
        if self.device.hung_up:
            await self._reconnect()
        dice, device, talk = self.dice, self.device, self.device.talk
        kind = dice.choice(
            "listen listen stop wake wake blank typed typed abort speak speak speak speak pause pause murmur stall "
            "say say unplug load barge reconnect wait mcp".split()
        )
        self.steps.append(kind)
        wait_s = dice.choice((0.0, 0.0, 0.05, dice.uniform(0.0, 1.0)))
        match kind:
            case "listen":
                device.listen(dice.choice(list(ListeningMode)))
                self.steps[-1] += f" {device.mode.value}"
            case "stop":
                device.stop()
            case "wake":
                if dice.random() < 0.5:
                    device.wake_burst()
                talk.detect(_WAKE_WORD)
                if dice.random() < 0.3:
                    device.listen(device.mode)
            case "blank":
                talk.detect("")
            case "typed":
                talk.detect("现在几点了") if dice.random() < 0.5 else talk.typed("讲个故事")
            case "abort":
                talk.abort(dice.choice(("", "wake_word_detected")))
                if dice.random() < 0.4:
                    device.listen(device.mode)
            case "speak" | "murmur":
                device.sound, wait_s = ("voice" if kind == "speak" else "murmur"), dice.uniform(0.05, 2.0)
                await self._pass(wait_s)
                device.sound, wait_s = dice.choice(("hush", "hush", "hush", "fading")), dice.choice((0.0, 0.2, 1.0))
            case "pause":
                device.sound, wait_s = "hush", dice.uniform(0.1, 2.5)
            case "stall":
                device.stalled = True
                await self._pass(dice.uniform(0.1, 2.5))
                device.stalled = False
            case "say":
                sentence = dice.choice(("茶好了。", "Tea is ready."))
                told = talk.say(sentence, interruptible=dice.random() < 0.5, patience_s=dice.choice((0.1, 2.0)))
                told.add_done_callback(lambda done: done.result())
            case "unplug":  # no packet comes for a while, and none comes late
                device.unplugged, device.sound = True, "hush"
                await self._pass(dice.uniform(0.2, 4.0))
                device.unplugged = False
            case "load":
                self.services.may_speculate = not self.services.may_speculate
            case "barge":
                turn = self.services.settings.turn
                self.services.use(
                    self.services.settings.model_copy(
                        update={"turn": turn.model_copy(update={"barge_in": not turn.barge_in})}
                    )
                )
            case "reconnect":
                await self._reconnect()
            case "mcp":
                device.tools.start_mcp()
        await self._pass(wait_s)

    async def _pass(self, seconds: float) -> None:
        """Let time pass; once a second the server looks after its conversations."""
        until = self.loop.time() + seconds
        while (left := until - self.loop.time()) > 0.0:
            await asyncio.sleep(min(1.0, left))
            if left > 1.0:
                self.device.talk.check_stall()
            self._look()
        self._look()

    def _look(self) -> None:
        talk = self.device.talk
        if self.device.wrong:
            raise Dead(self.device.wrong)
        if self.device.running.done():
            raise Dead(f"the conversation has ended: {self.device.running.exception()!r}")
        control = talk._speech_input._control
        if (control.utterance, control.mic) != (talk._machine.utterance, talk._machine._mic):
            raise Dead("the microphone and the machine are not of one mind")

    # In a calm ----------------------------------------------------------------------------------------------------

    async def _until(self, within_s: float, what: str, reached: Callable[[], bool]) -> None:
        until = self.loop.time() + within_s
        while not reached() and not self.device.hung_up:
            if self.loop.time() >= until:
                machine = self.device.talk._machine
                raise Dead(
                    f"{what}: {within_s:g} s over, {machine.mode.value} {machine.state.value}, "
                    f"device {self.device.state}"
                )
            await self._pass(0.1)

    async def _calm(self, sentences: int) -> None:
        if self.device.hung_up:
            await self._reconnect()
        device = self.device
        device.sound = "hush"
        for attempt in range(sentences):
            if device.hung_up:
                return
            await self._until(_LONGEST_REPLY_S, "speaking without end", self._is_quiet)
            if device.state == "idle" or (attempt and self.dice.random() < 0.3):
                device.listen(self.dice.choice(list(ListeningMode)))
            await self._pass(self.dice.uniform(0.0, 2.0))
            await self._until(_LONGEST_REPLY_S, "speaking without end", self._is_quiet)
            if device.state == "idle":
                device.listen(device.mode)
            self.steps.append(f"calm {device.mode.value}")
            spoke_at = self.loop.time()
            device.sound = "voice"
            await self._pass(self.dice.uniform(0.7, 1.5))
            device.sound = "hush"
            if device.mode is ListeningMode.MANUAL and device.state == "listening":
                device.stop()
            await self._until(ANSWER_WITHIN_S, "no answer", partial(self._answered, spoke_at))

    def _answered(self, spoke_at: float) -> bool:
        return self.device.heard_at > spoke_at

    def _is_quiet(self) -> bool:
        """Nothing sounds, nothing that was said before is still to be answered, and the device may listen."""
        machine = self.device.talk._machine
        return (
            self.device.state != "speaking"
            and machine.state in (TurnState.IDLE, TurnState.WAITING)
            and self.device.talk._reply is None
        )

    async def _rest(self) -> None:
        device, since = self.device, self.loop.time()
        device.sends, device.sound = "gated", self.dice.choice(("hush", "voice"))
        if self.dice.random() < 0.5:
            await self._pass(self.dice.uniform(0.1, 1.0))
        device.state = "idle" if device.state == "listening" else device.state  # it is carried out of range
        device.out_of_range()
        if finishes := self.dice.random() < 0.3:
            device.talk.finish()
        while not device.hung_up:
            await self._pass(1.0)
            if device.talk.idle_s() > _IDLE_CLOSE_S and (finishes or not device.talk.farewell()):
                break
            if self.loop.time() - since > _REST_WITHIN_S:
                raise Dead(f"never at rest: {device.talk.doing}")
        if device.state == "speaking" and not device.hung_up:  # after that nobody is there to be told
            raise Dead("a device that was told to speak was never told to stop")


@contextmanager
def _broken_prompts(fate: Callable[[], Fate | None]) -> Iterator[None]:
    """Now and then a prompt cannot be rendered."""
    whole = ConversationContext._prompt

    def prompt(recall: ConversationContext) -> str:
        if (now := fate()) is not None and now.one_in(15):
            raise TypeError("unsupported operand type(s) for +: 'int' and 'str'")
        return whole(recall)

    ConversationContext._prompt = prompt  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ConversationContext._prompt = whole  # type: ignore[method-assign]


async def _one(seed: int) -> list[str]:
    failures: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(
        lambda _loop, context: failures.append(str(context.get("exception", context["message"])))
    )
    run = _Run(seed)
    with _broken_prompts(lambda: run.fate):
        try:
            await run.go()
        except Exception as error:  # noqa: BLE001 - whatever it is, this conversation has died
            where = "" if isinstance(error, Dead) else traceback.format_exc()
            failures.append(f"{type(error).__name__}: {error}{where}")
            await run.device.close()
    for _ in range(5):
        await asyncio.sleep(0)
    await asyncio.sleep(10.0)  # what was told to end has done so by then
    left = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if left:
        failures.append(f"tasks left: {left}")
    if failures:
        failures.append("steps: " + ", ".join(run.steps))
    return failures


def interleaving(seed: int) -> list[str]:
    """Play one; returns what went wrong, empty where nothing did. The same seed is the same run."""
    with asyncio.Runner(loop_factory=ConversationLoop) as runner:
        return runner.run(_one(seed))


def _some(seeds: range) -> list[tuple[int, list[str]]]:
    logging.disable(logging.CRITICAL)
    return [(seed, failures) for seed in seeds if (failures := interleaving(seed))]


def main() -> int:
    """Play many and say which conversations died, and of what."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    began, dead, step = time.monotonic(), 0, 50
    seeds = [
        range(first, min(first + step, options.first + options.runs))
        for first in range(options.first, options.first + options.runs, step)
    ]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
        for number, found in enumerate(pool.map(_some, seeds), 1):
            for seed, failures in found:
                dead += 1
                print(f"seed {seed}:", *failures, sep="\n  ", flush=True)
            if number % 20 == 0:
                took_s = time.monotonic() - began
                print(f"{number * step} runs in {took_s:.0f} s, {dead} dead", file=sys.stderr, flush=True)
    print(f"{options.runs} interleavings in {time.monotonic() - began:.0f} s: {dead} dead conversations")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
