"""`xiaozhi talk`: a complete device in software that speaks to a server and shows where the time went."""

import argparse
import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xiaozhi.cli.frame import WrongUsage, load
from xiaozhi.program import program

if TYPE_CHECKING:
    from xiaozhi.audio.pcm import PcmFloat
    from xiaozhi.client.device import Device
    from xiaozhi.client.manners import Manners
    from xiaozhi.client.mcp import DeviceMcpServer
    from xiaozhi.client.microphone import SpokenUtterance
    from xiaozhi.client.report import TurnReport
    from xiaozhi.client.soundcard import Loudspeaker
    from xiaozhi.settings import Settings

ABOUT = "A complete device in software. Several texts or files are one conversation, one turn each."
EXAMPLES = """\
examples:
  xiaozhi talk --say "what time is it"            to the server of these settings, found as a device finds it
  xiaozhi talk --serve --say "what time is it"    with no server running
  xiaozhi talk --wav question.wav --out reply.wav
  xiaozhi talk --photo cat.jpg --text "what do you see"
  xiaozhi talk --mic                              a conversation, until Ctrl-C
  xiaozhi talk --url ws://192.168.1.5:8000/xiaozhi/v1/ --token T --text "hello"

exit codes:
  0 every turn was answered    1 one was not    2 wrong usage, or no connection
"""

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_PLAIN_WIDTH = 79


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    speech = parser.add_argument_group("what to say").add_mutually_exclusive_group(required=True)
    speech.add_argument("--wav", nargs="+", type=Path, metavar="FILE", help="recorded speech, any usual sound file")
    speech.add_argument("--say", nargs="+", metavar="TEXT", help="spoken by the embedded voice")
    speech.add_argument("--text", nargs="+", metavar="TEXT", help="typed, as desktop clients do")
    speech.add_argument("--mic", action="store_true", help="your own voice, through the sound card")
    parser.add_argument("--say-language", choices=("zh", "en"), default="en", help="of digits and signs in --say")
    parser.add_argument("--turns", type=_count, metavar="N", help="say it N times (--mic: end after N turns)")
    server = parser.add_argument_group("to whom").add_mutually_exclusive_group()
    server.add_argument("--ota", metavar="URL", help="ask this OTA address where to connect (default: of the settings)")
    server.add_argument("--url", metavar="URL", help="connect straight to this WebSocket")
    server.add_argument("--serve", action="store_true", help="start a server inside, on a free port")
    device = parser.add_argument_group("as which device")
    device.add_argument("--mode", choices=("auto", "manual", "realtime"), default="auto", help="default: auto")
    device.add_argument("--like", choices=("firmware", "old-firmware", "desktop"), default="firmware")
    device.add_argument("--frame-ms", type=int, choices=(20, 40, 60, 120), help="length of microphone packets")
    device.add_argument("--protocol-version", type=int, choices=(1, 2, 3), help="binary framing")
    device.add_argument("--device-id", type=_mac, metavar="MAC", help="default: made from this machine's address")
    device.add_argument("--photo", type=Path, metavar="FILE", help="what its camera sees: a JPEG or PNG picture")
    device.add_argument("--token", default="", help="instead of the one from the OTA address")
    result = parser.add_argument_group("results")
    result.add_argument("--out", type=Path, metavar="FILE", help="write what was heard of the replies as WAV")
    result.add_argument("--quiet", action="store_true", help="do not play the reply")
    result.add_argument("--json", action="store_true", help="one JSON object for each turn instead of text")
    result.add_argument("--timeout", type=float, default=15.0, metavar="S", help="seconds to wait for an answer")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of turns")
    return int(text)


def _mac(text: str) -> str:
    if not _MAC.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a MAC address such as 02:00:00:11:22:33")
    return text


def run(args: argparse.Namespace) -> int:
    """Hold the conversation; the exit code is in `EXAMPLES`."""
    from xiaozhi.audio.wav import WavError
    from xiaozhi.client.errors import ConnectFailed, DeviceError, Unreachable
    from xiaozhi.stages.tts.engine import VoiceError

    settings = load(args).settings
    try:
        if args.out is not None and not args.out.parent.is_dir():
            raise WrongUsage(f"--out: there is no folder {args.out.parent}")
        with _runner() as runner:
            return runner.run(_talk(args, settings))
    except Unreachable as error:
        hint = "" if args.url or args.ota else f"; start one with `{program()} serve`, or add --serve"
        raise WrongUsage(f"no server: {error}{hint}") from error
    except ConnectFailed as error:
        hint = "; ask its OTA address for a token (leave out --url), or give one with --token"
        raise WrongUsage(f"{error}{hint if error.status == 401 else ''}") from error
    except (DeviceError, VoiceError, WavError) as error:
        raise WrongUsage(str(error)) from error


def _runner() -> asyncio.Runner:
    """The loop the server runs on, so that --serve measures what serving gives."""
    try:
        import uvloop
    except ImportError:  # not made for Windows
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


# The conversation -----------------------------------------------------------------------------------------------------


async def _talk(args: argparse.Namespace, settings: "Settings") -> int:
    from xiaozhi.client.device import Device
    from xiaozhi.client.microphone import LiveMicrophone, SpeechMicrophone
    from xiaozhi.client.ota import ClientIdentity
    from xiaozhi.client.soundcard import Recorder
    from xiaozhi.turn.machine import ListeningMode

    manners = _manners(args.like)
    frame_ms = args.frame_ms or manners.frame_ms
    lines = _lines(args, settings, frame_ms)
    async with AsyncExitStack() as stack:
        microphone = LiveMicrophone(frame_ms) if args.mic else SpeechMicrophone(frame_ms)
        if isinstance(microphone, LiveMicrophone):
            stack.enter_context(Recorder(microphone))
        loudspeaker, unplayed = _loudspeaker(args, stack)
        ota_url = await _ota_url(args, settings, stack)
        device = await stack.enter_async_context(
            Device(
                ClientIdentity.of(args.device_id) if args.device_id else ClientIdentity.of_this_machine(),
                manners=manners,
                microphone=microphone,
                version=args.protocol_version or 1,
                mode=ListeningMode(args.mode),
                trace=True,
                decode_reply=args.out is not None,
                sink=loudspeaker,
                tools=_gear(args.photo),
            )
        )
        await _connect(device, args, ota_url)
        if unplayed:
            print(f"the reply is not played: {unplayed}; --out FILE writes it", file=sys.stderr)
        results = _Results(args, device.identity.device_id)
        try:
            async for report in _turns(device, args, lines):
                results.show(report)
                if loudspeaker is not None:
                    await loudspeaker.drain()
                if not device.connected:
                    break
        finally:  # a conversation ended by Ctrl-C was one too
            code = results.finish()
        return code


def _gear(photo: Path | None) -> "DeviceMcpServer":
    """What the device can do; with a picture, it has a camera."""
    from xiaozhi.client.mcp import DeviceMcpServer

    if photo is None:
        return DeviceMcpServer()
    from xiaozhi.http.pictures import PictureError, picture_in

    try:
        data = photo.read_bytes()
        picture_in(data, sys.maxsize)  # whether it is too large is for the server to say
    except OSError as error:
        raise WrongUsage(f"--photo: {photo}: {error.strerror}") from error
    except PictureError:
        raise WrongUsage(f"--photo: {photo} is no JPEG or PNG picture that can be used") from None
    return DeviceMcpServer(photo=data)


async def _connect(device: "Device", args: argparse.Namespace, ota_url: str) -> None:
    url, token = args.url, args.token
    if url is None:
        reply = await device.boot(ota_url)
        url, token = reply.url, token or reply.token
    device.version = args.protocol_version or device.version
    await device.connect(url, token)


async def _ota_url(args: argparse.Namespace, settings: "Settings", stack: AsyncExitStack) -> str:
    """Where the device asks for its server; with --serve, one is started first."""
    if args.ota or args.url:
        return str(args.ota or "")
    host, port = settings.server.host, settings.server.port
    if args.serve:
        from xiaozhi.app.ports import CannotServe
        from xiaozhi.app.server import serving
        from xiaozhi.logs import set_up_logging

        inside = {"host": "127.0.0.1", "port": 0, "public_url": ""}
        settings = settings.model_copy(update={"server": settings.server.model_copy(update=inside)})
        set_up_logging(settings.log.model_copy(update={"level": "warning"}))
        try:
            server = await stack.enter_async_context(serving(settings))
        except CannotServe as error:
            raise WrongUsage(f"no server inside: {error}") from error
        for line in () if args.json else server.services.banner:
            print(line, file=sys.stderr)
        host, port = "127.0.0.1", server.port
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::', '') else host}:{port}/xiaozhi/ota/"


@dataclass(frozen=True, slots=True)
class _Line:
    """One thing to say: prepared speech, or a text to type."""

    speech: "SpokenUtterance | None" = None
    text: str = ""


def _lines(args: argparse.Namespace, settings: "Settings", frame_ms: int) -> "list[_Line]":
    """Everything that will be said, in order; empty with a live microphone."""
    if args.mic:
        return []
    if args.text:
        return [_Line(text=text) for text in args.text] * (args.turns or 1)
    from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, to_int16
    from xiaozhi.audio.resample import StreamResampler
    from xiaozhi.audio.wav import read_wav
    from xiaozhi.client.microphone import SpokenUtterance
    from xiaozhi.stages.tts.espeak import say

    lines = []
    for source in args.wav or args.say:
        if isinstance(source, Path):
            pcm = to_int16(read_wav(source))
        else:
            resampler = StreamResampler(DOWNLINK_RATE_HZ, UPLINK_RATE_HZ)
            import numpy as np

            spoken = resampler.feed(say(source, args.say_language, settings.tts.espeak))
            pcm = np.concatenate([spoken, resampler.flush()])
        if not pcm.any():
            raise WrongUsage(f"{source}: there is nothing to hear in it")
        lines.append(_Line(SpokenUtterance.encode(pcm, frame_ms)))
    return lines * (args.turns or 1)


async def _turns(device: "Device", args: argparse.Namespace, lines: "Sequence[_Line]") -> "AsyncIterator[TurnReport]":
    if args.mic:
        print("speak; Ctrl-C ends", file=sys.stderr)
        done = 0
        while args.turns is None or done < args.turns:
            yield await device.turn_live()
            done += 1
    for line in lines:
        if line.speech is not None:
            yield await device.turn(line.speech, answer_timeout_s=args.timeout)
        else:
            yield await device.turn_text(line.text, answer_timeout_s=args.timeout)


def _manners(like: str) -> "Manners":
    from xiaozhi.client.manners import DesktopManners, Manners

    return DesktopManners() if like == "desktop" else Manners(plays_out=like != "old-firmware")


def _loudspeaker(args: argparse.Namespace, stack: AsyncExitStack) -> "tuple[Loudspeaker | None, str]":
    """The sound card and nothing, or no sound card and why; no reason where the reply is not meant to be played."""
    if args.out is not None or args.quiet or args.json:
        return None, ""
    from xiaozhi.client.errors import NoSoundCard
    from xiaozhi.client.soundcard import Loudspeaker

    try:
        return stack.enter_context(Loudspeaker()), ""
    except NoSoundCard as error:
        return None, str(error)


# What is shown --------------------------------------------------------------------------------------------------------


class _Results:
    """Prints turns and collects their sound."""

    def __init__(self, args: argparse.Namespace, device_id: str) -> None:
        self._json: bool = args.json
        self._out: Path | None = args.out
        self._answered = True
        self._sound: list[PcmFloat] = []
        self._shown = 0
        encoding = (sys.stdout.encoding or "").lower().replace("-", "")
        self._plain = not (sys.stdout.isatty() and encoding == "utf8")
        self._width = _PLAIN_WIDTH if self._plain else shutil.get_terminal_size().columns
        if not self._json:
            self._print(f"connected as {device_id}")

    def show(self, report: "TurnReport") -> None:
        """Print one turn."""
        self._shown += 1
        self._answered = self._answered and report.answered
        if report.reply_pcm is not None:
            self._sound.append(report.reply_pcm)
        if self._json:
            import orjson

            self._print(orjson.dumps(report.as_dict()).decode())
            return
        from xiaozhi.client.waterfall import waterfall

        lines = ["", f"heard     {report.heard or '(nothing)'}"]
        for number, sentence in enumerate(report.said):
            lines.append(f"{'answered' if number == 0 else '':<9} {sentence.text}")
        if report.emotion:
            lines.append(f"emotion   {report.emotion}")
        drawing = waterfall(report, self._width, plain=self._plain)
        if drawing:
            lines += ["", "ms after the last voiced sample", *drawing]
        lines += ["", _summary(report)]
        self._print("\n".join(lines))

    def finish(self) -> int:
        """Write the sound and return the exit code."""
        if self._out is not None and any(len(piece) for piece in self._sound):
            import numpy as np

            from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ
            from xiaozhi.audio.wav import write_wav

            try:
                write_wav(self._out, np.concatenate(self._sound), DOWNLINK_RATE_HZ)
            except OSError as error:
                raise WrongUsage(f"--out: {self._out}: {error.strerror}") from error
            if not self._json:
                self._print(f"written to {self._out}")
        return 0 if self._shown and self._answered else 1

    def _print(self, text: str) -> None:
        """Characters that the terminal does not know become question marks, not a traceback."""
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), flush=True)


def _summary(report: "TurnReport") -> str:
    """The turn in one line: how it ended and what went wrong with the sound."""
    if report.answered:
        parts = [f"first sound after {report.first_heard_ms:.0f} ms", f"{report.reply_ms / 1000.0:.1f} s heard"]
    else:
        parts = [report.outcome.value if report.heard else f"{report.outcome.value} (nothing was understood)"]
    if report.starved_count:
        parts.append(f"starved {report.starved_count} times, {report.starved_ms:.0f} ms")
    parts += [f"{count} packets lost: {reason}" for reason, count in report.dropped.items()]
    if report.cut_off_ms > 0.0:
        parts.append(f"the user was cut off, {report.cut_off_ms:.0f} ms of speech unheard")
    return ", ".join(parts)
