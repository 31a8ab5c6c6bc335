"""What of a model's stream is not for people: thoughts, special tokens, other roles' words, calls written as text.

Servers take these out where they know the model's template; where they do not, they arrive as text. Pure.
"""

import re
from collections.abc import Collection, Sequence
from enum import Enum, auto
from typing import Final, TypeAlias

from xiaozhi.text.bare_calls import BareCalls
from xiaozhi.text.call_names import offered_name
from xiaozhi.text.markers import OTHER_ROLES, OWN_ROLES, MarkKind, marker_at
from xiaozhi.text.written_calls import WrittenCall, calls_in_block

MAX_THOUGHT_CHARS: Final = 50_000
"""What is held back at most: reasoning models take some thousand tokens for a question, seldom ten thousand."""
_MAX_CALL_CHARS: Final = 65_536

_BLANKS: Final = re.compile(r"[ \t]+")
_PLAIN: Final = re.compile(r"[^<\[\]{}◁\n]+")
# A line of an object that goes on in the next ends with one of these.
_GOES_ON: Final = re.compile(r"[{\[,}\]\"0-9a-z]\Z", re.ASCII)
_UNMARKED: Final = re.compile(r"[^<\[◁]+")
_HEADER_TEXT: Final = re.compile(r"[\w .=:/-]*", re.ASCII)
_MAX_HEADER_CHARS: Final = 80
_RECIPIENT: Final = re.compile(r"to=([\w.-]+)")
_ROLE: Final = re.compile(rf"\s*(?:(?:{'|'.join(OWN_ROLES)}|final|commentary)\b\s*)+", re.IGNORECASE)

_Step: TypeAlias = tuple[int, str] | None
"""Where to go on, and what is given of that which was passed; None: more has to come first."""


class _Part(Enum):
    UNSURE = auto()  # perhaps a thought that the prompt has opened: nothing is given
    TEXT = auto()
    THOUGHT = auto()
    CALL = auto()
    HEADER = auto()  # a role or a channel is announced
    FOREIGN = auto()  # another role speaks


class HiddenParts:
    """Takes the text of one answer in pieces and gives what is for people; where the pieces were cut is no matter.

    Args:
        unsure: the answer may begin in the middle of a thought: nothing is given before the thought has ended, or the
            answer shows that there is none.
        tools: names of those that the model may call.
    """

    def __init__(self, *, unsure: bool = False, tools: Collection[str] = ()) -> None:
        self.opened_by_prompt: bool | None = None
        """Whether this answer began in the middle of a thought; None while it does not show it."""
        self._part = _Part.UNSURE if unsure else _Part.TEXT
        self._tools = frozenset(tools)
        self._bare = BareCalls(tools)
        self._rest = ""  # not judged yet
        self._scanned = 0  # of what is held in doubt
        self._line_start = True
        self._nesting = 0  # of the brackets in the text: what stands in another object is no call
        self._newest = ""
        self._given = False  # something that can be seen
        self._thinks = False  # it is a thought, and not a tool's made-up answer
        self._in_channel = False  # the thought has a channel of its own
        self._header = ""
        self._block: list[str] = []  # of a call
        self._block_chars = self._open = 0
        self._behind_call = _Part.TEXT
        self._calls: list[WrittenCall] = []
        self._called = False
        self._considered: list[WrittenCall] = []  # inside a thought
        self._unknown: list[WrittenCall] = []

    @property
    def overfull(self) -> bool:
        """More than `MAX_THOUGHT_CHARS` are held back, and no thought has ended."""
        return self._part is _Part.UNSURE and len(self._rest) > MAX_THOUGHT_CHARS

    def push(self, text: str) -> str:
        """Take the next piece and return what can be given by now."""
        self._rest += text
        return self._read(final=False)

    def release(self) -> str:
        """The thoughts of this answer come apart: what was held back for one is none. Returns it."""
        if self._part is not _Part.UNSURE:
            return ""
        self._part = _Part.TEXT
        return self._read(final=False)

    def take_calls(self) -> list[WrittenCall]:
        """The calls of offered tools that have been found since the last time."""
        calls, self._calls = self._calls, []
        return calls

    def finish(self, *, whole: bool = True) -> str:
        """End the answer and return what of the rest is for people.

        Args:
            whole: the model has ended by itself: what has no end of a thought in it is the answer.
        """
        unsure = self._part is _Part.UNSURE
        if unsure and not whole:
            return ""
        self._part = _Part.TEXT if unsure else self._part
        given = self._read(final=True)
        if self._part is _Part.CALL:
            given += self._call_ended(closed=False)
        elif self._part is _Part.HEADER:
            given += self._header_ended()
        if self._part is _Part.THOUGHT:  # it ended with a call
            self._part = _Part.TEXT
            self._take(self._considered)
        if unsure and self._called:
            return ""  # the thought before the call
        if unsure and self.opened_by_prompt is None and given.strip():
            self.opened_by_prompt = False
        if not self._called and not self._given and not given.strip() and self._tools:
            self._calls += self._unknown  # whoever carries them out says which there are
        return given

    def _read(self, *, final: bool) -> str:
        steps = {
            _Part.UNSURE: self._in_doubt,
            _Part.TEXT: self._in_text,
            _Part.HEADER: self._in_header,
            _Part.THOUGHT: self._unheard,
            _Part.CALL: self._unheard,
            _Part.FOREIGN: self._unheard,
        }
        given: list[str] = []
        text, at = self._rest, 0
        while at < len(text) and (step := steps[self._part](text, at, final)) is not None:
            at, piece = step
            given.append(piece)
        self._rest = text[at:]
        joined = "".join(given)
        self._given = self._given or bool(joined.strip())
        return joined

    # What is given ------------------------------------------------------------------------------------------------

    def _in_doubt(self, text: str, at: int, final: bool) -> _Step:
        """Look in what is held for the end of a thought."""
        if not self._scanned:
            head = marker_at(text, len(text) - len(text.lstrip()), final=final) if text.strip() else None
            if head is None:
                return None
            if head.kind in {MarkKind.THOUGHT, MarkKind.HEADER, MarkKind.OWN_ROLE}:
                self._part = _Part.TEXT
                return at, ""
        while self._scanned < len(text):
            if plain := _PLAIN.match(text, self._scanned):
                self._scanned = plain.end()
                continue
            marker = marker_at(text, self._scanned, final=final)
            if marker is None:
                break
            self._scanned = marker.end
            if marker.kind is MarkKind.THOUGHT_END and marker.thinks:
                self._part, self.opened_by_prompt = _Part.TEXT, True
                return marker.end, ""
        return None

    def _in_text(self, text: str, at: int, final: bool) -> _Step:
        char = text[at]
        if self._line_start and (blanks := _BLANKS.match(text, at)):
            return blanks.end(), blanks[0]
        if char == "`" if self._nesting else self._line_start or char in "{[":
            found = self._bare.at(text, at, line_start=self._line_start, final=final)
            if found is None:
                return None
            end, calls = found
            self._take(calls)
            if end > at:
                return end, ""
        self._line_start = char == "\n"
        if char == "\n" and not _GOES_ON.match(self._newest):
            self._nesting = 0
        if plain := _PLAIN.match(text, at):
            self._newest = plain[0].rstrip()[-1:] or self._newest
            return plain.end(), plain[0]
        if char in "]}\n":
            self._nesting = max(0, self._nesting - (char != "\n"))
            self._newest = self._newest if char == "\n" else char
            return at + 1, char
        marker = marker_at(text, at, final=final)
        if marker is None:
            return None
        if marker.kind is MarkKind.NONE:
            self._nesting += char in "{["
            self._newest = char
            return at + 1, char
        self._marked(marker.kind, text[at : marker.end], thinks=marker.thinks)
        return marker.end, ""

    def _marked(self, kind: MarkKind, mark: str, *, thinks: bool = False) -> None:
        """Go on behind a mark that stands in the text."""
        match kind:
            case MarkKind.THOUGHT:
                self._part, self._in_channel, self._thinks = _Part.THOUGHT, False, thinks
            case MarkKind.THOUGHT_END:
                self.opened_by_prompt = thinks or self.opened_by_prompt
            case MarkKind.CALL:
                self._begin_call(mark, _Part.TEXT)
            case MarkKind.HEADER:
                self._part, self._header = _Part.HEADER, ""
            case MarkKind.OTHER_ROLE:
                self._part = _Part.FOREIGN
            case MarkKind.OWN_ROLE | MarkKind.END:
                self._part, self._line_start = _Part.TEXT, True

    def _in_header(self, text: str, at: int, final: bool) -> _Step:
        if text[at] == "\n":
            return at + 1, self._header_ended()
        if text[at] != "<":
            match = _HEADER_TEXT.match(text, at, at + _MAX_HEADER_CHARS - len(self._header))
            assert match is not None
            self._header += match[0]
            full = len(self._header) == _MAX_HEADER_CHARS
            if full or (match.end() < len(text) and text[match.end()] not in "<\n"):  # somebody has begun to speak
                self._part = _Part.TEXT
                return match.end(), _ROLE.sub("", self._header)
            return match.end(), ""
        marker = marker_at(text, at, final=final)
        if marker is None:
            return None
        if (
            marker.kind in {MarkKind.TOKEN, MarkKind.HEADER} and self._header
        ):  # <|start|>assistant<|channel|>final<|message|>
            self._header += " "
            return marker.end, ""
        given = self._header_ended()
        return (marker.end if marker.kind is MarkKind.HEADER_END else at), given

    def _header_ended(self) -> str:
        """Go on as the role or the channel says; returns what was none."""
        header, self._header = self._header, ""
        words = header.lower().split()
        recipient = _RECIPIENT.search(header)
        self._part, self._line_start = _Part.TEXT, True
        if recipient and recipient[1] not in {"user", "assistant", "all"}:
            self._begin_call(f"{recipient[1]} ", _Part.TEXT)
        elif "analysis" in words:
            self._part, self._in_channel = _Part.THOUGHT, True
        elif words and (words[0] in OTHER_ROLES or words[0].startswith("functions.")):
            self._part = _Part.FOREIGN
        return _ROLE.sub("", header) if self._part is _Part.TEXT else ""

    # What is not --------------------------------------------------------------------------------------------------

    def _unheard(self, text: str, at: int, final: bool) -> _Step:
        """Pass over a thought, a call or another role's words."""
        if passed := _UNMARKED.match(text, at):
            self._keep(passed[0])
            return passed.end(), ""
        marker = marker_at(text, at, final=final)
        if marker is None:
            return None
        kind, mark = marker.kind, text[at : marker.end]
        if self._part is _Part.CALL:
            return self._in_call(kind, mark, at, marker.end)
        if self._part is _Part.FOREIGN:
            if kind in {MarkKind.OWN_ROLE, MarkKind.HEADER}:
                self._marked(kind, mark)
        elif self._in_channel:
            if kind in {MarkKind.END, MarkKind.HEADER, MarkKind.OWN_ROLE, MarkKind.OTHER_ROLE}:
                self._marked(kind, mark)
        elif kind is MarkKind.THOUGHT_END and marker.thinks == self._thinks:
            self._part = _Part.TEXT
            self._considered.clear()
        elif kind is MarkKind.CALL:
            self._begin_call(mark, _Part.THOUGHT)
        return marker.end, ""

    def _begin_call(self, mark: str, behind: _Part) -> None:
        self._part, self._behind_call = _Part.CALL, behind
        self._block, self._block_chars, self._open = [], 0, 1
        self._keep(mark if " " in mark or "=" in mark else "")  # it may name the tool

    def _keep(self, text: str) -> None:
        if self._part is _Part.CALL and self._block_chars + len(text) <= _MAX_CALL_CHARS:
            self._block.append(text)
            self._block_chars += len(text)

    def _in_call(self, kind: MarkKind, mark: str, at: int, end: int) -> tuple[int, str]:
        if kind is MarkKind.THOUGHT_END and self._behind_call is _Part.THOUGHT:
            return at, self._call_ended(closed=True)
        if kind in {MarkKind.HEADER, MarkKind.OWN_ROLE, MarkKind.OTHER_ROLE}:
            return at, self._call_ended(closed=False)
        if kind is MarkKind.END:
            return end, self._call_ended(closed=False)
        self._open += (kind is MarkKind.CALL) - (kind is MarkKind.CALL_END)
        if not self._open:
            return end, self._call_ended(closed=True)
        self._keep("\x1f" if kind is MarkKind.TOKEN else mark)
        return end, ""

    def _call_ended(self, *, closed: bool) -> str:
        """Take the calls; returns what was none, where the end of them was not marked."""
        block, self._part = "".join(self._block), self._behind_call
        calls, rest = calls_in_block(block, self._tools)
        self._take(calls)
        self._line_start = True
        if closed or self._part is not _Part.TEXT:
            return ""
        return rest.replace("\x1f", "") if calls or not any(sign in block for sign in "{[(<") else ""

    def _take(self, calls: Sequence[WrittenCall]) -> None:
        if self._part is _Part.THOUGHT:
            self._considered += calls
            return
        calls = [call._replace(name=offered_name(call.name, self._tools) or call.name) for call in calls]
        offered = [call for call in calls if call.name in self._tools]
        self._calls += offered
        self._called = self._called or bool(offered)
        self._unknown += [call for call in calls if call not in offered]
