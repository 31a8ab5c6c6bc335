"""`xiaozhi check`: everything the settings name is tried, one line each."""

import argparse
import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xiaozhi.cli.frame import add_address, load
from xiaozhi.program import program

if TYPE_CHECKING:
    from xiaozhi.checks.finding import Finding
    from xiaozhi.settings.load import Loaded

ABOUT = (
    "Try everything the settings name: one line each, good or bad, with what to do. Asks each language "
    "model for a few words and each voice for two syllables, as a turn does."
)
EXAMPLES = "exit codes: 0 serving would work, 1 it would fail"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_address(parser)
    parser.add_argument(
        "--applies", action="store_true", help="only print when a change of each setting takes effect while serving"
    )
    parser.add_argument(
        "--measure", action="store_true", help="measure now how quick this box is (up to a minute), and keep it"
    )


def run(args: argparse.Namespace) -> int:
    """Print what was found; 1 when serving would fail."""
    if args.applies:
        from xiaozhi.settings.documents import readme_table

        print(readme_table(), end="")
        return 0
    from xiaozhi.checks.finding import bad, serving_fails
    from xiaozhi.checks.machine import ALREADY_SERVING
    from xiaozhi.settings.errors import SettingsError

    log = logging.getLogger("xiaozhi")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what the engines would log is in the findings
    try:
        findings = asyncio.run(findings_of(load(args), measure=args.measure))
    except SettingsError as mistakes:
        findings = [bad("settings", line) for line in mistakes.errors]
    finally:
        log.setLevel(level)
    for finding in findings:
        print(finding)
    failing = serving_fails(findings)
    running = any(finding.text.endswith(ALREADY_SERVING) for finding in findings)
    ready = "ready: already serving here" if running else f"ready: {program()} serve"
    print("serving would fail: mend what is BAD" if failing else ready)
    return 1 if failing else 0


async def findings_of(loaded: "Loaded", *, measure: bool = False) -> "list[Finding]":
    """Everything that was found, in the order of the settings file; what waits for a network waits together.

    Args:
        loaded: what is looked at.
        measure: measure how quick this box is, whether that was done before or not.
    """
    from xiaozhi.checks import access, machine, stages, upstream
    from xiaozhi.checks.agents import agents
    from xiaozhi.checks.finding import ok, warn

    settings = loaded.settings
    models_dir = settings.models.dir
    asking = asyncio.ensure_future(stages.remote_recognition(settings.asr))
    voices, endpoints, recognition, activity, libraries = await asyncio.gather(
        stages.voices(settings.tts, models_dir),
        upstream.endpoints(settings.llm),
        asyncio.to_thread(stages.recognition, settings.asr, models_dir),
        asyncio.to_thread(stages.voice_activity, settings.vad),
        asyncio.to_thread(machine.libraries, settings),
    )
    remote = await asking
    found: Sequence[Finding | None] = [
        ok("settings", loaded.sources),
        *(warn("settings", line) for line in loaded.warnings),
        await asyncio.to_thread(machine.port, settings.server),
        await asyncio.to_thread(machine.tls_port, settings.server),
        machine.public_url(settings.server),
        machine.folder("server.data_dir", settings.server.data_dir),
        machine.auth(settings),
        await asyncio.to_thread(access.certificate, settings.server),
        access.pages(settings.server),
        await asyncio.to_thread(access.firmware, settings.ota),
        machine.disk(settings.server.data_dir),
        machine.cpu(settings),
        *await asyncio.to_thread(machine.capacity, settings, measured_now=measure),
        machine.descriptors(settings.server),
        libraries,
        activity,
        recognition,
        remote,
        *endpoints,
        *voices,
        stages.last_resort(settings.tts, voices),
        *await agents(settings),
    ]
    return [finding for finding in found if finding is not None]
