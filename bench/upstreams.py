"""Both stand-in upstreams in a process of their own, with delays like real ones, and with faults when asked for."""

import asyncio
import multiprocessing
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

from bench.first_word import ANSWER, Upstreams
from bench.standins.base import StandIn
from bench.standins.chat import ChatStandIn
from bench.standins.speech import SpeechStandIn

# Refusals, resets and stalls, before the first byte and in the middle.
CHAT_FAULTS: Final = ("refuse", "reset", "hang", "hang-mid", "500", "429", "cut")
SPEECH_FAULTS: Final = ("reset", "reset-midway", "hang", "hang-midway", "error-500", "error-429")


@dataclass(frozen=True, slots=True)
class Faults:
    """When the upstreams go wrong: every so many seconds on average one of them does, for so long."""

    every_s: float
    lasting_s: float
    seed: int = 1


def serve_upstreams(
    upstreams: Upstreams, faults: Faults | None, pipe: Connection, ports: tuple[int, int] = (0, 0)
) -> None:
    """Process body: sends the addresses of chat and speech, serves until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the bench, which ends its processes itself

    async def run() -> None:
        async with (
            ChatStandIn(
                ANSWER,
                first_token_ms=upstreams.first_token_ms,
                tokens_per_s=upstreams.tokens_per_s,
                port=ports[0],
            ) as chat,
            SpeechStandIn(first_byte_ms=upstreams.first_byte_ms, speed=4.0, port=ports[1]) as voice,
        ):
            pipe.send((chat.url, voice.url))
            tasks = [asyncio.create_task(_forget_requests(chat, voice))]
            if faults is not None:
                tasks.append(asyncio.create_task(_go_wrong(chat, voice, faults)))
            await asyncio.to_thread(_until_closed, pipe)
            for task in tasks:
                task.cancel()

    asyncio.run(run())


async def _forget_requests(*standins: StandIn) -> None:
    """A stand-in remembers every request, for tests; here nobody asks."""
    while True:
        await asyncio.sleep(5.0)
        for standin in standins:
            standin.requests.clear()


async def _go_wrong(chat: ChatStandIn, voice: SpeechStandIn, faults: Faults) -> None:
    dice = random.Random(faults.seed)
    while True:
        await asyncio.sleep(dice.uniform(0.5, 1.5) * faults.every_s)
        standin: StandIn
        standin, words = (chat, CHAT_FAULTS) if dice.random() < 0.5 else (voice, SPEECH_FAULTS)
        standin.fault = dice.choice(words)
        await asyncio.sleep(faults.lasting_s)
        standin.fault = ""


def _until_closed(pipe: Connection) -> None:
    try:
        pipe.recv()
    except EOFError:
        return


@asynccontextmanager
async def upstream_process(
    upstreams: Upstreams, faults: Faults | None = None, ports: tuple[int, int] = (0, 0)
) -> AsyncIterator[tuple[str, str]]:
    """Start the stand-ins, on ports of their own where none are given; gives the addresses of chat and speech."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve_upstreams, args=(upstreams, faults, theirs, ports), daemon=True)
    process.start()
    theirs.close()
    try:
        chat_url, speech_url = await asyncio.to_thread(ours.recv)
        yield chat_url, speech_url
    finally:
        ours.close()
        await asyncio.to_thread(process.join, 10)
        if process.is_alive():
            process.terminate()
