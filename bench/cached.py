"""How soon a repeated question is answered: the same words again, from the caches, in real time.

One device asks a question that stands alone; the first time is not counted. Upstreams are stand-ins with the delays of
`bench.first_word`, the recogniser is a full-size SenseVoice-shaped int8 model that hears that question. Counted as the
user hears it: from the last voiced sample to the first audio packet.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from bench.first_word import CACHE, Upstreams, measure, settings_toml, show, summary, utterances
from bench.harness import server_process
from bench.sense_voice_model import build_full
from bench.standins.chat import ChatStandIn
from bench.standins.speech import SpeechStandIn
from xiaozhi.client.report import TurnReport

QUESTION = "法国的首都是哪里"
ANSWER = "😊 法国的首都是巴黎，一座很美的城市。"
TARGET_MS = 450.0
"""A repeated question is heard before this."""


async def run(turns: int, profile: str, upstreams: Upstreams) -> list[TurnReport]:
    """Start everything, ask once and then `turns` times, stop everything."""
    model = CACHE / "sense-voice-cached"
    await asyncio.to_thread(build_full, model, QUESTION)
    speech = await asyncio.to_thread(utterances, [])
    extra = f'[turn]\nprofile = "{profile}"\n[cache]\npremake = false\n'
    async with (
        ChatStandIn(ANSWER, first_token_ms=upstreams.first_token_ms, tokens_per_s=upstreams.tokens_per_s) as chat,
        SpeechStandIn(first_byte_ms=upstreams.first_byte_ms, speed=4.0) as voice,
        server_process(settings_toml(chat.url, voice.url, model, extra)) as server,
    ):
        reports = await measure(server, speech, turns, profile)
        print(f"asked: {len([r for r in chat.requests if r.body])} times the model, {len(voice.requests)} the voice")
    return reports


def main() -> int:
    """Run from the command line; exit code 1 when a repeated question was not answered from the cache in time."""
    parser = argparse.ArgumentParser(prog="python -m bench.cached", description=__doc__)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--profile", choices=("conservative", "balanced", "aggressive"), default="balanced")
    parser.add_argument("--json", type=Path, help="write every turn here")
    given = parser.parse_args()
    upstreams = Upstreams()
    reports = asyncio.run(run(given.turns, given.profile, upstreams))
    result = summary(reports, upstreams)
    del result["own share"]  # there is no upstream in these turns
    print(show(result))
    cached = sum(bool(report.trace and report.trace["cached"]) for report in reports)
    soon = sum(report.first_packet_ms is not None and report.first_packet_ms < TARGET_MS for report in reports)
    print(f"\n{cached} of {len(reports)} turns from the cache, {soon} heard in under {TARGET_MS:.0f} ms")
    if given.json:
        given.json.write_text(json.dumps([report.as_dict() for report in reports], ensure_ascii=False, indent=1))
    return 0 if cached == soon == len(reports) else 1


if __name__ == "__main__":
    sys.exit(main())
