"""Cuts a reply into pieces to be spoken while it is still being written. Pure: text in, clauses out.

The first clause ends at the first mark of any kind, because somebody is waiting for it; the others are whole sentences,
because they sound better. Every decision looks at the text alone, never at how it arrived in pieces.
"""

import re
from enum import Enum
from typing import Final

from xiaozhi.text.units import is_cjk, speakable_chars, units

# While much is queued, sentences are joined up to this length, about 9 s of speech: longer ones sound no better and
# throw more away when the talker breaks in.
_MERGED_UNITS: Final = 40.0
# Without any mark the first clause may be cut when it holds this share of its greatest length: six characters of 24.
_OVERDUE_SHARE: Final = 0.25

_CJK_STOPS: Final = "。！？…｡︒"
_CJK_MARKS: Final = "，、；：､"
_ASCII_STOPS: Final = "!?"
_ASCII_MARKS: Final = ",;:"
_STOPS: Final = _CJK_STOPS + _ASCII_STOPS + ".\n"
_CLOSERS: Final = "”’」』）)】》〉]}\"'*_"
_QUOTES: Final = "\"'”’"
_OPENERS: Final = {"”": "“", "」": "「", "』": "『", "’": "‘"}
_BRACKETS: Final = (("(", ")"), ("（", "）"), ("[", "]"), ("【", "】"))

# A full stop behind these never ends a sentence.
_ABBREVIATIONS: Final = frozenset(
    "mr mrs ms dr prof st mt rev gen sen rep gov capt lt sgt col messrs mme mlle vs viz cf approx e.g i.e".split()
)
# Behind these it does unless a number follows: "No. 5", but "No. I won't."
_BEFORE_NUMBERS: Final = frozenset(
    "no nos fig figs eq vol pp ch sec jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
# Behind these it does when a capital letter follows.
_PERHAPS_FINAL: Final = frozenset("etc inc ltd co corp jr sr a.m p.m al bros ph.d m.d b.a m.a esq".split())
_UNSURE: Final = _PERHAPS_FINAL | _BEFORE_NUMBERS
_WORD_BEFORE: Final = re.compile(r"[A-Za-z]+(?:\.[A-Za-z]+)*$")
# A clause that is nothing but the number of a list item is not finished.
_LIST_NUMBER: Final = re.compile(r"\W*\d+\W*", re.UNICODE)
# Inside an address, a file name or code a mark ends nothing unless a blank follows.
_ADDRESS: Final = re.compile(r"[/@=_<>{}\\.][^\s\u3000-\u303f\uff00-\uffef]*$")
# What is looked back at, and what a clause has at most with all that is not spoken: judging a mark takes time by both.
_MAX_ADDRESS_CHARS: Final = 120
_MAX_CLAUSE_CHARS: Final = 600

# Where a cut without any mark sounds best: behind a Chinese particle or adverb, not behind an English function word.
_GOOD_BEHIND: Final = frozenset("的了吧呢吗啊呀就是也都会要能说到得着过")
_BAD_BEHIND: Final = frozenset(
    "a an the of to in on at for from with by and or but as is are was were be my your his her its our their this that "
    "very so not no if than into about i you he she it we they can will".split()
)
_LOOK_BACK: Final = 8
_LOOK_BACK_CHARS: Final = 60  # with what is not spoken; and as far ahead, for marks that belong together


class _Verdict(Enum):
    NO = "no"
    WAIT = "wait"


class ClauseSplitter:
    """Cuts one reply.

    Lengths are units of one Chinese character (`xiaozhi.text.units`): three letters count as one.

    Args:
        first_min_chars: letters or characters the first clause must have.
        first_max_chars: the first clause is cut at this many units when no mark comes.
        max_chars: any other clause is cut at this many units.
    """

    def __init__(self, *, first_min_chars: int = 2, first_max_chars: int = 24, max_chars: int = 100) -> None:
        self._first_min = first_min_chars
        self._first_max = first_max_chars
        self._max = max_chars
        self._first = True  # the rules of the first clause still count
        self._begun = False  # the first clause has been handed out
        self._text = ""
        self._at = 0  # every character before this one has been judged
        self._units = 0.0  # their length
        self._held = ""  # whole sentences that wait to be joined by the next

    @property
    def waits_for_first(self) -> bool:
        """No clause has been cut yet, but there is something to be spoken."""
        return self._first and speakable_chars(self._text) > 0

    @property
    def holds(self) -> bool:
        """Whole sentences wait to be joined by the next; `release` lets them go."""
        return bool(self._held)

    def push(self, text: str, *, merge: bool = False) -> list[str]:
        """Take the next piece of text and return the clauses that are complete.

        Args:
            text: any piece of the reply.
            merge: much is queued already, so sentences may be held back and joined to longer ones.
        """
        self._text += text
        return self._collect(self._scan(final=False), merge)

    def cut_now(self) -> list[str]:
        """Cut a first clause that is overdue where it hurts least; nothing when there is too little to speak."""
        if not self._first or any(_is_open(self._text, pair) for pair in _BRACKETS):
            return []
        cut = _least_bad_cut(self._text, "")
        if units(self._text[:cut]) < self._first_max * _OVERDUE_SHARE:
            return []
        return self._collect([self._take(cut)], False)

    def release(self) -> list[str]:
        """Let go of what is held to be joined."""
        return self._collect([], False)

    def flush(self) -> list[str]:
        """End the reply: everything that is left and can be spoken."""
        clauses = self._scan(final=True)
        if speakable_chars(self._text):
            clauses.append(self._take(len(self._text)))
        return self._collect(clauses, False)

    def _collect(self, clauses: list[str], merge: bool) -> list[str]:
        ready = []
        if clauses and not self._begun:  # somebody waits for the first
            ready.append(clauses[0])
            clauses = clauses[1:]
            self._begun = True
        for clause in clauses:
            if self._held and units(self._held) + units(clause) > max(_MERGED_UNITS, self._first_max):
                ready.append(self._held)
                self._held = ""
            self._held += clause
            if not merge or units(self._held) >= _MERGED_UNITS:
                ready.append(self._held)
                self._held = ""
        if self._held and not merge:
            ready.append(self._held)
            self._held = ""
        return [clause.strip() for clause in ready]

    def _take(self, end: int) -> str:
        clause, self._text = self._text[:end], self._text[end:]
        self._at = 0
        self._units = 0.0
        self._first = False
        return clause

    def _scan(self, *, final: bool) -> list[str]:
        clauses = []
        while self._at < len(self._text):
            most = self._first_max if self._first else self._max
            length = units(self._text[self._at])
            if self._units + length > most or self._at >= _MAX_CLAUSE_CHARS:
                clauses.append(self._take(self._forced_cut()))
                continue
            verdict = self._end_at(self._at, final)
            if verdict is _Verdict.WAIT:
                break
            if isinstance(verdict, int) and speakable_chars(self._text[:verdict]) >= (
                self._first_min if self._first else 1
            ):
                clauses.append(self._take(verdict))
            else:
                self._at += 1
                self._units += length
        return clauses

    def _forced_cut(self) -> int:
        """Where to cut a clause that has become too long: behind its last mark, or where it hurts least."""
        text = self._text[: self._at]
        marks = [
            i + 1 for i, char in enumerate(text) if char in _CJK_MARKS or (char in ",;" and text[i + 1 :][:1] == " ")
        ]
        if marks and units(text[: marks[-1]]) * 3 >= units(text):
            return marks[-1]
        return _least_bad_cut(text, self._text[self._at])

    # Where a clause ends --------------------------------------------------------------------------------------------

    def _end_at(self, i: int, final: bool) -> int | _Verdict:
        """Judge the character at `i`: the end of the clause, or no end, or not to be judged before more has come."""
        char = self._text[i]
        if char == "\n":
            return _Verdict.NO if _LIST_NUMBER.fullmatch(self._text[:i]) else i + 1
        if char == ".":
            return self._end_at_dots(i, final)
        if char in _CJK_STOPS or char in _ASCII_STOPS:
            return self._end_at_stop(i, final)
        if self._first and (char in _CJK_MARKS or char in _ASCII_MARKS):
            return self._end_at_mark(i, final)
        return _Verdict.NO

    def _end_at_mark(self, i: int, final: bool) -> int | _Verdict:
        """A comma or the like, which ends only a first clause."""
        before = self._text[:i]
        if _LIST_NUMBER.fullmatch(before) or any(_is_open(before, pair) for pair in _BRACKETS):
            return _Verdict.NO
        previous, char = before[-1:], self._text[i]
        if char in _CJK_MARKS:
            needs_next = previous.isascii() and previous.isdigit()
        else:
            needs_next = not (is_cjk(previous) or (previous.isalpha() and char != ":")) or _in_address(before)
        if not needs_next:
            return i + 1
        following = self._text[i + 1 : i + 2]
        if not following and not final:
            return _Verdict.WAIT
        if char in _CJK_MARKS:
            return _Verdict.NO if following.isdigit() else i + 1
        ends = not following or following.isspace() or (is_cjk(following) and previous not in "\t ")
        return i + 1 if ends and previous.strip() else _Verdict.NO

    def _end_at_stop(self, i: int, final: bool) -> int | _Verdict:
        """An exclamation mark, a question mark, a Chinese full stop or an ellipsis."""
        before, char = self._text[:i], self._text[i]
        needs_next = char in _ASCII_STOPS and (before[-1:].isspace() or _in_address(before))
        if self._first and not needs_next and not _has_open_quote(before):
            return i + 1
        end = self._past_closers(i + 1)
        following = self._text[end : end + 1]
        if not following and not final:
            return _Verdict.WAIT
        if char in _ASCII_STOPS:
            if following and not following.isspace() and following.isascii():
                return _Verdict.NO
            if self._text[end - 1] in _QUOTES:  # "Go!" he said.
                rest = self._text[end:].lstrip(" ")
                if not rest and not final:
                    return _Verdict.WAIT
                if rest[:1].islower():
                    return _Verdict.NO
        return end

    def _end_at_dots(self, i: int, final: bool) -> int | _Verdict:
        """A full stop or three, or a dot inside a number, an address, an abbreviation."""
        text = self._text
        if i and text[i - 1] == ".":
            return _Verdict.NO  # judged with the first of them
        end = i + 1
        while text[end : end + 1] == "." and end - i < _LOOK_BACK_CHARS:
            end += 1
        dots = end - i
        end = self._past_closers(end)
        following = text[end : end + 1]
        if not following and not final:
            return _Verdict.WAIT
        if following and not following.isspace() and not is_cjk(following):
            return _Verdict.NO
        before = text[:i]
        if dots > 1:
            return end
        if _LIST_NUMBER.fullmatch(before):
            return _Verdict.NO
        match = _WORD_BEFORE.search(before)
        word = match.group() if match else ""
        if word.lower() in _ABBREVIATIONS:
            return _Verdict.NO
        initials = "." in word or (len(word) == 1 and word.isupper() and word != "I")
        if initials or word.lower() in _UNSURE:
            return self._end_at_abbreviation(word, end, final)
        return end

    def _end_at_abbreviation(self, word: str, end: int, final: bool) -> int | _Verdict:
        """A full stop that belongs to an abbreviation and may end the sentence too: what follows tells."""
        rest = self._text[end:].lstrip(" ")
        if not rest:
            return end if final else _Verdict.WAIT
        if rest[0] == "\n" or is_cjk(rest[0]):
            return end
        if word.lower() in _BEFORE_NUMBERS:
            return _Verdict.NO if rest[0].isdigit() else end
        # "U.S. Army", "J. Smith": a capital letter says nothing behind initials.
        return end if word.lower() in _PERHAPS_FINAL and rest[0].isupper() else _Verdict.NO

    def _past_closers(self, end: int) -> int:
        """Past further stops, and past quotes and brackets that close what the clause opened."""
        text, most = self._text, min(len(self._text), end + _LOOK_BACK_CHARS)
        while end < most:
            char = text[end]
            if char in "\"'" and text.count(char, 0, end) % 2 == 0:
                break
            if char not in _CLOSERS and (char not in _STOPS or char == "\n"):
                break
            end += 1
        return end


def _in_address(text: str) -> bool:
    """Whether a text ends inside an address, a file name or code."""
    return _ADDRESS.search(text, max(0, len(text) - _MAX_ADDRESS_CHARS)) is not None


def _has_open_quote(text: str) -> bool:
    return (
        text.count('"') % 2 == 1
        or any(text.count(opener) > text.count(closer) for closer, opener in _OPENERS.items())
        or any(_is_open(text, pair) for pair in _BRACKETS)
    )


def _is_open(text: str, pair: tuple[str, str]) -> bool:
    return text.count(pair[0]) > text.count(pair[1])


def _least_bad_cut(text: str, following: str) -> int:
    """Where to cut a text that has no mark: the end of the part before the cut.

    Never inside a word of letters or a number. `following` is the character after the text, empty when unknown: then
    a last word of letters may go on. Returns the whole length when there is no better place and the end is allowed,
    or when nothing is allowed and the text cannot grow.
    """
    allowed = []
    for cut in range(len(text), 0, -1):
        left, right = text[cut - 1], text[cut : cut + 1] or following
        if not right:
            fits = is_cjk(left) or left.isspace()
        else:
            fits = left.isspace() or right.isspace() or is_cjk(left) or is_cjk(right)
        if fits and not (right and (right in _CJK_MARKS + _STOPS + _ASCII_MARKS or right in _CLOSERS)):
            allowed.append(cut)
    if not allowed:
        return len(text) if following else 0
    for cut in allowed[:_LOOK_BACK_CHARS]:
        if units(text[cut:]) > _LOOK_BACK or units(text[:cut]) * 2 < units(text):
            break
        if _sounds_finished(text[:cut]):
            return cut
    return allowed[0]


def _sounds_finished(text: str) -> bool:
    text = text.rstrip()
    if not text:
        return False
    if is_cjk(text[-1]):
        return text[-1] in _GOOD_BEHIND
    words = text.split()
    return words[-1].lower() not in _BAD_BEHIND
