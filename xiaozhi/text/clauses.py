"""Cuts a reply into pieces to be spoken while it is still being written. Pure: text in, clauses out.

The first clause ends at the first mark of any kind, because somebody is waiting for it; the others are whole sentences,
because they sound better. Every decision looks at the text alone, never at how it arrived in pieces.
"""

import re
from enum import Enum
from typing import Final

from xiaozhi.text.units import is_cjk, speakable_chars, units

# While much is queued, sentences are joined up to this length, about 9 s of speech: longer ones sound no better and
# throw more away when the user breaks in.
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
_QUOTED: Final = {"“": "”", "「": "」", "『": "』", "‘": "’"}
_BRACKETED: Final = {"(": ")", "（": "）", "[": "]", "【": "】"}
_PAIRED: Final = frozenset("".join(_QUOTED) + "".join(_QUOTED.values()) + "".join(_BRACKETED) + "\"')）]】")

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
_LONGEST_ABBREVIATION: Final = 16
# Inside an address, a file name or code a mark ends nothing unless a blank follows.
_IN_ADDRESS: Final = frozenset("/@=_<>{}\\.")
# With all that is not spoken.
_MAX_CLAUSE_CHARS: Final = 600
# Behind so many marks in a row a clause ends, whatever follows: nobody means them.
_MAX_MARKS: Final = 16

# Where a cut without any mark sounds best: behind a Chinese particle or adverb, not behind an English function word.
_GOOD_BEHIND: Final = frozenset("的了吧呢吗啊呀就是也都会要能说到得着过")
_BAD_BEHIND: Final = frozenset(
    "a an the of to in on at for from with by and or but as is are was were be my your his her its our their this that "
    "very so not no if than into about i you he she it we they can will".split()
)
_LOOK_BACK: Final = 8


class _Verdict(Enum):
    NO = "no"
    WAIT = "wait"


class _Seen:
    """What the splitter remembers of the characters that it has judged, so that none is looked at again and again."""

    __slots__ = ("address", "counts", "numbers", "spoken", "units", "words")

    def __init__(self) -> None:
        self.units = 0.0
        self.spoken = 0  # letters, digits and Chinese characters
        self.words = 0  # of them, those that are no digits, and underscores
        self.numbers = 0  # runs of digits
        self.address = False  # the newest characters may belong to an address
        self.counts: dict[str, int] = {}  # of quotes and brackets

    def add(self, char: str, previous: str) -> None:
        """Take in the next character."""
        if char.isalnum() or char == "_":
            self.units += units(char)
            self.spoken += char != "_"
            digit = char.isdecimal()
            self.words += not digit
            self.numbers += digit and not previous.isdecimal()
        if char in _IN_ADDRESS:
            self.address = True
        elif char.isspace() or "\u3000" <= char <= "\u303f" or "\uff00" <= char <= "\uffef":
            self.address = False
        if char in _PAIRED:
            self.counts[char] = self.counts.get(char, 0) + 1

    @property
    def is_list_number(self) -> bool:
        """Nothing but the number of a list item: not finished."""
        return self.numbers == 1 and not self.words

    @property
    def in_brackets(self) -> bool:
        """A bracket is open."""
        return bool(self.counts) and any(self._open(pair) for pair in _BRACKETED.items())

    @property
    def in_quotes(self) -> bool:
        """A quote or a bracket is open."""
        return bool(self.counts) and (
            self.counts.get('"', 0) % 2 == 1 or any(map(self._open, _QUOTED.items())) or self.in_brackets
        )

    def _open(self, pair: tuple[str, str]) -> bool:
        return self.counts.get(pair[0], 0) > self.counts.get(pair[1], 0)


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
        self._seen = _Seen()  # what they were
        self._held = ""  # whole sentences that wait to be joined by the next

    @property
    def waits_for_first(self) -> bool:
        """No clause has been cut yet, but there is something to be spoken."""
        return self._first and (self._seen.spoken > 0 or speakable_chars(self._text[self._at :]) > 0)

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
        least = self._first_max * _OVERDUE_SHARE
        if not self._first or self._seen.in_brackets or self._seen.units + units(self._text[self._at :]) < least:
            return []
        cut = _least_bad_cut(self._text, "")
        if units(self._text[:cut]) < least:
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
        self._seen = _Seen()
        self._first = self._first and not speakable_chars(clause)
        return clause

    def _scan(self, *, final: bool) -> list[str]:
        clauses = []
        while self._at < len(self._text):
            char = self._text[self._at]
            most = self._first_max if self._first else self._max
            if self._seen.units + units(char) > most or self._at >= _MAX_CLAUSE_CHARS:
                clause = self._take(self._forced_cut())
                clauses += [clause] if speakable_chars(clause) else []
                continue
            long_enough = self._seen.spoken >= (self._first_min if self._first else 1)
            verdict = self._end_at(self._at, final) if long_enough else _Verdict.NO
            if verdict is _Verdict.WAIT:
                break
            if isinstance(verdict, int):
                clauses.append(self._take(verdict))
            else:
                self._seen.add(char, self._text[self._at - 1] if self._at else "")
                self._at += 1
        return clauses

    def _forced_cut(self) -> int:
        """Where to cut a clause that has become too long: behind its last mark, or where it hurts least."""
        text = self._text[: self._at]
        mark = max(map(text.rfind, (*_CJK_MARKS, ", ", "; "))) + 1
        if mark and units(text[:mark]) * 3 >= units(text):
            return mark
        return _least_bad_cut(text, self._text[self._at])

    # Where a clause ends --------------------------------------------------------------------------------------------

    def _end_at(self, i: int, final: bool) -> int | _Verdict:
        """Judge the character at `i`: the end of the clause, or no end, or not to be judged before more has come."""
        char = self._text[i]
        if char == "\n":
            return _Verdict.NO if self._seen.is_list_number else i + 1
        if char == ".":
            return self._end_at_dots(i, final)
        if char in _CJK_STOPS or char in _ASCII_STOPS:
            return self._end_at_stop(i, final)
        if self._first and (char in _CJK_MARKS or char in _ASCII_MARKS):
            return self._end_at_mark(i, final)
        return _Verdict.NO

    def _end_at_mark(self, i: int, final: bool) -> int | _Verdict:
        """A comma or the like, which ends only a first clause."""
        if self._seen.is_list_number or self._seen.in_brackets:
            return _Verdict.NO
        previous, char = self._text[i - 1] if i else "", self._text[i]
        if char in _CJK_MARKS:
            needs_next = previous.isascii() and previous.isdigit()
        else:
            needs_next = not (is_cjk(previous) or (previous.isalpha() and char != ":")) or self._seen.address
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
        previous, char = self._text[i - 1] if i else "", self._text[i]
        needs_next = char in _ASCII_STOPS and (previous.isspace() or self._seen.address)
        if self._first and not needs_next and not self._seen.in_quotes:
            return i + 1
        end = self._past_closers(i + 1)
        if end - i > _MAX_MARKS:
            return end
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
        while text[end : end + 1] == "." and end - i < _MAX_MARKS:
            end += 1
        dots = end - i
        if dots == _MAX_MARKS:
            return end
        end = self._past_closers(end)
        following = text[end : end + 1]
        if not following and not final:
            return _Verdict.WAIT
        if following and not following.isspace() and not is_cjk(following):
            return _Verdict.NO
        if dots > 1:
            return end
        if self._seen.is_list_number:
            return _Verdict.NO
        match = _WORD_BEFORE.search(text, max(0, i - _LONGEST_ABBREVIATION), i)
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
        text, begin = self._text, end
        closing = {char: self._seen.counts.get(char, 0) % 2 == 1 for char in "\"'"}
        while end < len(text) and end - begin < _MAX_MARKS:
            char = text[end]
            if char in closing:
                if not closing[char]:
                    break
                closing[char] = False
            elif char not in _CLOSERS and (char not in _STOPS or char == "\n"):
                break
            end += 1
        return end


def _least_bad_cut(text: str, following: str) -> int:
    """Where to cut a text that has no mark: the end of the part before the cut.

    Never inside a word of letters or a number. `following` is the character after the text, empty when unknown: then
    a last word of letters may go on. Returns the whole length when there is no better place and the end is allowed,
    or when nothing is allowed and the text cannot grow.
    """
    best = 0
    behind = 0.0
    whole = units(text)
    for cut in range(len(text), 0, -1):
        left, right = text[cut - 1], text[cut : cut + 1] or following
        if _fits(left, right):
            if best and (behind > _LOOK_BACK or (whole - behind) * 2 < whole):
                break
            if _sounds_finished(text, cut):
                return cut
            best = best or cut
        behind += units(left)
    if best or not following:
        return best
    return max(map(text.rfind, ",;:/&")) + 1 or len(text)


def _fits(left: str, right: str) -> bool:
    """Whether a text may be cut between two characters, the second of which may be unknown yet."""
    if not right:
        return is_cjk(left) or left.isspace()
    if right in _CJK_MARKS + _STOPS + _ASCII_MARKS or right in _CLOSERS:
        return False
    return left.isspace() or right.isspace() or is_cjk(left) or is_cjk(right)


def _sounds_finished(text: str, end: int) -> bool:
    end = len(text[:end].rstrip())
    if not end or is_cjk(text[end - 1]):
        return bool(end) and text[end - 1] in _GOOD_BEHIND
    begin = end
    while begin and not text[begin - 1].isspace() and end - begin < _LONGEST_ABBREVIATION:
        begin -= 1
    return text[begin:end].lower() not in _BAD_BEHIND
