"""Turns as the pages show them: the newest from memory, older ones from the store."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from xiaozhi.store.turns import TurnRecord
from xiaozhi.turn.trace import TurnTrace


def live_record(number: int, device_id: str, trace: TurnTrace, *, transcripts: bool) -> dict[str, Any]:
    """A turn that has just been finished."""
    return {
        "id": str(number),
        "at": round(time.time(), 3),
        "device": device_id,
        "device_name": "",
        "heard": trace.heard if transcripts else "",
        "said": trace.said if transcripts else "",
        "interrupted": trace.interrupted is not None,
        "trace": trace.message(),
    }


def stored_record(turn: TurnRecord, *, transcripts: bool) -> dict[str, Any]:
    """A turn of the store."""
    return {
        "id": str(turn.id),
        "at": turn.at,
        "device": turn.device,
        "device_name": "",
        "heard": turn.heard if transcripts else "",
        "said": turn.said if transcripts else "",
        "interrupted": turn.interrupted,
        "agent": turn.agent,
        "trace": dict(turn.trace),
    }


def named(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The record with the name of its device."""
    return {**record, "device_name": name}


class TurnRing:
    """The newest turns of all devices.

    Args:
        most: turns that are kept.
    """

    def __init__(self, most: int) -> None:
        self._turns: deque[dict[str, Any]] = deque(maxlen=most)

    def add(self, record: dict[str, Any]) -> None:
        """Keep a turn."""
        self._turns.append(record)

    def forget(self, device_id: str) -> None:
        """Keep nothing of a device that was removed or whose history was cleared."""
        kept = [record for record in self._turns if record["device"] != device_id]
        self._turns.clear()
        self._turns.extend(kept)

    def find(self, device_id: str = "", before: int = 0) -> list[dict[str, Any]]:
        """Turns of a device, or of all, with lower numbers than `before` (0: the newest), the newest first."""
        return [
            record
            for record in reversed(self._turns)
            if (not device_id or record["device"] == device_id) and (not before or int(record["id"]) < before)
        ]


def joined(ring: Iterable[dict[str, Any]], stored: Iterable[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """Turns of both places, each once, the newest first."""
    by_number = {int(record["id"]): record for record in stored}
    by_number |= {int(record["id"]): {**by_number.get(int(record["id"]), {}), **record} for record in ring}
    return [by_number[number] for number in sorted(by_number, reverse=True)[:limit]]
