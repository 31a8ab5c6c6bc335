"""pocketsphinx: the recogniser that is always there. US English, plain; its model is inside the wheel.

It knows the phrases of the built-in responder by a grammar and takes anything else for open speech. Word errors on
clean read English: 31 % (measured, RTF 0.16). Decoding runs in a child process, because the binding holds the GIL.
"""

import json
import logging
import math
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat, to_int16
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.known_languages import EMBEDDED, is_doubtful
from xiaozhi.stages.asr.offline import OfflineRecognizer
from xiaozhi.stages.asr.phrase_fit import Segment, fits
from xiaozhi.stages.asr.pocketsphinx_child import CHILD_ARGUMENT
from xiaozhi.stages.asr.recogniser import RecognizerContext
from xiaozhi.text.one_line import one_line

_log = logging.getLogger(__name__)
_CHILD: Final = Path(__file__).with_name("pocketsphinx_child.py")
_START_S: Final = 30.0
# A child that takes longer than this hangs: open vocabulary runs at 0.4 times real time at worst (measured).
_LIMIT_S: Final = 10.0
_LIMIT_PER_AUDIO_S: Final = 3.0
_END_S: Final = 2.0


def _command() -> list[str]:
    """What starts the child: its file in this Python, or the single executable under another role."""
    if getattr(sys, "frozen", False):
        return [sys.executable, CHILD_ARGUMENT]
    return [sys.executable, "-P", str(_CHILD)]


class _ChildDied(Exception):
    """The child ended instead of answering."""


class _Child:
    """One child process and its pipe. `ask` must not overlap with itself; `kill` may come from any thread."""

    def __init__(self, phrases: Sequence[str]) -> None:
        # A session of its own: Ctrl-C in the server's terminal is not for it. -P: import only what is installed.
        self._process = subprocess.Popen(
            _command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            setup = self.ask(json.dumps({"phrases": list(phrases)}).encode(), _START_S)
        except BaseException:
            self.end()
            raise
        for phrase in setup["skipped"]:
            _log.warning("pocketsphinx does not know a word of the phrase %r; it is left out of the grammar", phrase)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: bytes, limit_s: float) -> dict[str, Any]:
        """Send a request and wait for its answer; a child that takes longer than `limit_s` is killed.

        Raises:
            _ChildDied: it ended, by itself or killed.
            EngineError: it answered that it cannot.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        watchdog = threading.Timer(limit_s, self._process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            self._process.stdin.write(struct.pack("<I", len(request)) + request)
            self._process.stdin.flush()
            head = self._process.stdout.read(4)
            body = self._process.stdout.read(struct.unpack("<I", head)[0]) if len(head) == 4 else b""
        except (OSError, ValueError) as error:  # a broken pipe; a pipe closed by `end`
            raise _ChildDied from error
        finally:
            watchdog.cancel()
        if not body:
            raise _ChildDied
        answer: dict[str, Any] = json.loads(body)
        if "error" in answer:
            raise EngineError(f"pocketsphinx: {one_line(answer['error'])}; reinstall the package pocketsphinx")
        return answer

    def end(self) -> None:
        """End the process and reap it. Safe from any thread, more than once."""
        self._process.kill()
        self._process.wait(_END_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not flushed has nowhere to go
                    continue


class Pocketsphinx(OfflineRecognizer):
    """The embedded recogniser, one child process for all conversations.

    Args:
        phrases: what the grammar accepts, such as `turn the volume up`.

    Raises:
        EngineError: the child cannot start (the package or its model is broken).
    """

    name = "pocketsphinx"
    languages = EMBEDDED

    def __init__(self, phrases: Sequence[str]) -> None:
        plain = (" ".join(re.sub(r"[^a-z' ]", " ", phrase.lower()).split()) for phrase in phrases)
        self._phrases = tuple(dict.fromkeys(phrase for phrase in plain if phrase))
        self._lock = threading.Lock()
        self._closed = False
        self._child: _Child | None = None
        try:
            self._start()
        except _ChildDied as error:
            raise EngineError("pocketsphinx ended before it was ready; reinstall the package pocketsphinx") from error

    @classmethod
    def build(cls, context: RecognizerContext) -> "Pocketsphinx":
        """With the phrases of the built-in responder."""
        return cls(context.phrases)

    @property
    def child_pid(self) -> int | None:
        """The process id of the child, None while there is none."""
        return self._child.pid if self._child is not None else None

    def decode(self, pcm: PcmFloat) -> Transcript:
        """Recognise float32[n] at 16 kHz. Blocking; calls from several threads wait for each other.

        A child that dies is restarted once and the utterance decoded again.

        Raises:
            EngineError: the child died twice, hangs or refuses; or the engine is closed.
        """
        if not len(pcm):
            return Transcript("")
        samples = to_int16(pcm).tobytes()
        limit_s = _LIMIT_S + _LIMIT_PER_AUDIO_S * len(pcm) / UPLINK_RATE_HZ
        with self._lock:
            if self._phrases:
                heard = self._ask(b"g" + samples, limit_s)
                segments = [
                    Segment(start, frames, -math.inf if score is None else score, phones)
                    for start, frames, score, phones in heard["segments"]
                ]
                if heard["text"] and fits(segments, pcm):
                    return Transcript(heard["text"], language="en", confidence="sure")
            heard = self._ask(b"o" + samples, limit_s)
        if not (text := heard["text"]):
            return Transcript("")
        if is_doubtful(heard["log_probability"], heard["speech_frames"] / 100.0):
            return Transcript(text, confidence="doubtful")
        return Transcript(text, language="en")

    def _ask(self, request: bytes, limit_s: float) -> dict[str, Any]:
        for last in (False, True):
            try:
                if self._child is None:
                    self._start()
                assert self._child is not None
                return self._child.ask(request, limit_s)
            except _ChildDied as error:
                self._end_child()
                if self._closed:
                    raise EngineError("pocketsphinx is closed") from error
                if last:
                    raise EngineError("pocketsphinx ended twice on one utterance, or took too long") from error
                _log.warning("pocketsphinx ended unexpectedly; it is started again")
        raise AssertionError("unreachable")

    def _start(self) -> None:
        if self._closed:
            raise EngineError("pocketsphinx is closed")
        try:
            self._child = _Child(self._phrases)
        except OSError as error:
            raise EngineError(f"pocketsphinx: cannot start its process ({one_line(error)})") from error

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def close(self) -> None:
        """End the child at once; a decode that waits for it raises `EngineError`."""
        self._closed = True
        self._end_child()
