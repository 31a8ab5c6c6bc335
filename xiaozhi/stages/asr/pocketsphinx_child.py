"""The process in which pocketsphinx runs: its Python binding holds the GIL for a whole decode.

Run as a script by the engine, so it imports nothing of this project. Speaks over standard input and output in frames
(little-endian uint32 length, then the bytes):

* first in: JSON `{"phrases": [...]}`; out: JSON `{"skipped": [...]}`, phrases with words unknown to the dictionary
* then in: `g` (grammar) or `o` (open vocabulary) and PCM s16le at 16 kHz; out: JSON
  `{"text": ..., "segments": [[first frame, frames, log score or null, phones], ...]}`, for open vocabulary without
  segments and with `log_probability` of the words and `speech_frames` of 10 ms in them
* any out may be `{"error": ...}` instead

Ends when standard input does, so it never outlives the server.
"""

import json
import math
import os
import signal
import struct
import sys
import warnings
from typing import Any, BinaryIO

CHILD_ARGUMENT = "pocketsphinx-child"
"""The only argument of the single executable when it is to be this process; it has no Python that could run a file."""

_GRAMMAR = "phrases"
# Grammar scores are kept at a 2**-10th (SENSCR_SHIFT in pocketsphinx); only the best-path pass would scale them up.
_SCORE_SCALE = 1024


def _read(stream: BinaryIO) -> bytes | None:
    head = stream.read(4)
    if len(head) < 4:
        return None
    (size,) = struct.unpack("<I", head)
    body = stream.read(size)
    return body if len(body) == size else None


def _write(stream: BinaryIO, answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    stream.write(struct.pack("<I", len(body)) + body)
    stream.flush()


class Decoders:
    """A decoder for the grammar and one for the open vocabulary, US English, from the wheel's own model.

    Args:
        phrases: what the grammar accepts; small letters.
    """

    def __init__(self, phrases: list[str]) -> None:
        from pocketsphinx import Decoder, get_model_path

        model = get_model_path("en-us")
        acoustic = {
            "hmm": os.path.join(model, "en-us"),  # noqa: PTH118 - the child starts faster without pathlib
            "dict": os.path.join(model, "cmudict-en-us.dict"),  # noqa: PTH118
            "lm": None,
            "loglevel": "FATAL",
            "cmn": "batch",  # the mean of this utterance; nothing is left over from the last user
        }
        # All senones are scored, so that scores are relative to the best one of the frame and can be judged.
        # Without the best-path pass 34 of 36 synthetic phrases are right, with it 28 (measured).
        self._grammar = Decoder(**acoustic, compallsen=True, bestpath=False)
        self._phones = {
            word: len((self._grammar.lookup_word(word) or "").split()) for phrase in phrases for word in phrase.split()
        }
        known = [phrase for phrase in phrases if phrase and all(self._phones[word] for word in phrase.split())]
        self.skipped = [phrase for phrase in phrases if phrase not in known]
        self._phrases = frozenset(known)
        if known:
            rule = " | ".join(sorted(self._phrases))
            self._grammar.add_jsgf_string(_GRAMMAR, f"#JSGF V1.0;\ngrammar {_GRAMMAR};\npublic <phrase> = {rule};\n")
            self._grammar.activate_search(_GRAMMAR)
        # At most 3000 HMMs a frame: a quarter less CPU than with 30000, word errors 31 % for 30 % (measured).
        self._open = Decoder(**acoustic, maxhmmpf=3000)
        self._open.add_lm_file("open", os.path.join(model, "en-us.lm.bin"))  # noqa: PTH118
        self._open.activate_search("open")

    def decode(self, request: bytes) -> dict[str, Any]:
        """Answer one request."""
        grammar = request[:1] == b"g"
        if grammar and not self._phrases:
            return {"text": "", "segments": []}
        decoder = self._grammar if grammar else self._open
        decoder.start_stream()  # forget the last user's noise
        decoder.start_utt()
        decoder.process_raw(request[1:], full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        text = hypothesis.hypstr if hypothesis else ""
        if not grammar:
            words = [word for word in decoder.seg() or () if word.word[:1] not in "<["] if hypothesis else []
            certain = hypothesis.prob if hypothesis else 0.0
            return {
                "text": text,
                "log_probability": math.log(certain) if certain > 0.0 else -1000.0,
                "speech_frames": sum(word.end_frame - word.start_frame + 1 for word in words),
            }
        if text not in self._phrases:  # nothing, or the beginning of a phrase
            return {"text": "", "segments": []}
        return {"text": text, "segments": [one for word in decoder.seg() if (one := self._segment(word))]}

    def _segment(self, word: Any) -> list[Any] | None:
        if word.word in ("<s>", "</s>"):
            return None
        frames = word.end_frame - word.start_frame + 1
        phones = self._phones.get(word.word.split("(")[0], 0)  # 0: silence and other fillers
        score = math.log(word.ascore) * _SCORE_SCALE if word.ascore > 0 else None
        return [word.start_frame, frames, score, phones]


def main() -> None:
    """Serve requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when this ends
    warnings.simplefilter("ignore", DeprecationWarning)  # start_stream
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the C library prints goes to standard error
    requests = sys.stdin.buffer
    setup = _read(requests)
    if setup is None:
        return
    try:
        decoders = Decoders(json.loads(setup)["phrases"])
    except (ImportError, RuntimeError, ValueError, OSError) as error:
        _write(answers, {"error": f"{type(error).__name__}: {error}"})
        return
    _write(answers, {"skipped": decoders.skipped})
    while (request := _read(requests)) is not None:
        try:
            answer = decoders.decode(request)
        except (RuntimeError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        _write(answers, answer)


if __name__ == "__main__":
    main()
