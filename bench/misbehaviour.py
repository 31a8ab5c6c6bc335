"""What real devices and strangers do to a server: break off, press keys, vanish, and send what means nothing."""

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

# Where in a turn a prank may strike: anywhere from the first word to some way into the reply.
_REPLY_S: Final = 3.0

PRANKS: Final = ("abort", "drop", "garbage")
"""Their names, as in `Mischief`."""


@dataclass(frozen=True, slots=True)
class Mischief:
    """Shares of turns, 0 to 1, in which each thing happens; at most one of them in a turn.

    Attributes:
        abort: the key is pressed while the device speaks.
        drop: TCP ends in the midst of the turn and the device comes back.
        garbage: frames that are no Opus, texts that are no JSON or mean nothing, while talking.
    """

    abort: float = 0.0
    drop: float = 0.0
    garbage: float = 0.0


NO_MISCHIEF: Final = Mischief()


class Victim(Protocol):
    """What a prankster needs of a device."""

    def abort(self, reason: str = "") -> None:
        """Ask the server to stop."""
        ...

    def send_raw(self, message: str | bytes) -> None:
        """Put anything on the wire."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


def garbage(dice: random.Random) -> str | bytes:
    """One message that no device should send."""
    choices: list[str | bytes] = [
        dice.randbytes(dice.randint(1, 400)),
        b"\xff" * 3999,
        b"",
        "not JSON {",
        "[]",
        "null",
        '{"type": 7}',
        '{"type": "listen", "state": {"a": []}}',
        '{"type": "iot", "descriptors": []}',
        '{"type": "mcp", "payload": {"jsonrpc": "2.0", "id": "x", "result": []}}',
        '{"type": "hello", "version": "none", "audio_params": null}',
        '{"type": "friend", "of": ' + "[" * 200 + "]" * 200 + "}",
        '{"type": "ping", "text": "' + "字" * 3000 + '"}',
    ]
    return dice.choice(choices)


class Prankster:
    """Spoils a device's turns.

    Args:
        mischief: how often.
        victim: the device.
        dice: decides when.
    """

    def __init__(self, mischief: Mischief, victim: Victim, dice: random.Random) -> None:
        self._mischief = mischief
        self._victim = victim
        self._dice = dice
        self.played: Counter[str] = Counter()
        """How often each prank was played."""

    def choose(self) -> str:
        """The prank for the next turn; empty for none."""
        roll = self._dice.random()
        for prank in PRANKS:
            roll -= getattr(self._mischief, prank)
            if roll < 0.0:
                return prank
        return ""

    @staticmethod
    def breaks_off(prank: str) -> bool:
        """The turn cannot be expected to be answered in full; garbage must not hurt."""
        return prank in ("abort", "drop")

    async def spoil(self, prank: str, turn: Coroutine[Any, Any, T], speech_ms: float) -> T:
        """Let a turn run and strike somewhere in it; returns what the turn returns."""
        talking = asyncio.ensure_future(turn)
        self.played[prank] += 1
        if prank == "garbage":
            for _ in range(self._dice.randint(1, 6)):
                await asyncio.wait((talking,), timeout=self._dice.uniform(0.0, speech_ms / 3000.0))
                self._victim.send_raw(garbage(self._dice))
            return await talking
        early_s = speech_ms / 1000.0 if prank == "abort" else 0.0
        await asyncio.wait((talking,), timeout=self._dice.uniform(early_s, speech_ms / 1000.0 + _REPLY_S))
        if prank == "abort":
            self._victim.abort()
        else:
            await self._victim.close()
        return await talking
