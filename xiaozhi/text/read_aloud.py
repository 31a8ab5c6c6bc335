"""Formulas and composed units as they are read aloud, in Chinese and English. Pure.

Numbers, dates, prices and plain sums are left as they are: voices read them. What they stumble over is written out:
powers, roots, fractions, Greek letters, signs of comparison, metres per second squared.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

_SUPERSCRIPTS: Final = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni", strict=True))
_SUBSCRIPTS: Final = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_RAISED: Final = "".join(_SUPERSCRIPTS)

# Said wherever they stand: in Chinese, in English.
_SIGNS: Final[dict[str, tuple[str, str]]] = {
    "≤": ("小于等于", "is less than or equal to"),
    "≥": ("大于等于", "is greater than or equal to"),
    "≠": ("不等于", "is not equal to"),
    "≈": ("约等于", "is about"),
    "≡": ("恒等于", "is identical to"),
    "∝": ("正比于", "is proportional to"),
    "∞": ("无穷大", "infinity"),
    "∂": ("偏", "partial"),
    "∇": ("梯度", "nabla"),
    "∈": ("属于", "is in"),
    "∉": ("不属于", "is not in"),
    "⊂": ("包含于", "is a subset of"),
    "⊆": ("包含于", "is a subset of"),
    "∪": ("并", "union"),
    "∩": ("交", "intersection"),
    "∅": ("空集", "the empty set"),
    "∀": ("任意", "for all"),
    "∃": ("存在", "there exists"),
    "∠": ("角", "angle"),
    "⊥": ("垂直于", "is perpendicular to"),
    "∥": ("平行于", "is parallel to"),
    "∴": ("所以", "therefore"),
    "∵": ("因为", "because"),
    "∓": ("负正", "minus or plus"),
    "∑": ("求和", "the sum of"),
    "∏": ("求积", "the product of"),
    "∫": ("积分", "the integral of"),
    "≪": ("远小于", "is much less than"),
    "≫": ("远大于", "is much greater than"),
    "△": ("三角形", "triangle"),
    "≌": ("全等于", "is congruent to"),
}
# Said between two things to calculate with or to compare.
_OPERATORS: Final[dict[str, tuple[str, str]]] = {
    "<=": ("小于等于", "is less than or equal to"),
    ">=": ("大于等于", "is greater than or equal to"),
    "!=": ("不等于", "is not equal to"),
    "<>": ("不等于", "is not equal to"),
    "==": ("等于", "equals"),
    "<": ("小于", "is less than"),
    ">": ("大于", "is greater than"),
    "=": ("等于", "equals"),
    "+": ("加", "plus"),
    "−": ("减", "minus"),
    "±": ("加减", "plus or minus"),
    "×": ("×", "times"),
    "*": ("乘", "times"),
    "∗": ("乘", "times"),
    "·": ("乘", "times"),
    "÷": ("除以", "divided by"),
}
_COMPARISONS: Final = frozenset({"<", ">", "<=", ">=", "<>", "!=", "=="})
_OPERATOR: Final = re.compile(r"<<+|>>+|<=|>=|<>|!=|==|[<>=+−±×*∗·÷-]")
_GREEK: Final[dict[str, tuple[str, str]]] = {
    char: (chinese, english)
    for char, chinese, english in zip(
        "αβγδεζηθικλμνξοπρσςτυφχψω",
        "阿尔法 贝塔 伽马 德尔塔 艾普西隆 泽塔 伊塔 西塔 约塔 卡帕 兰姆达 缪 纽 克西 奥密克戎 派 柔 西格玛 西格玛 陶 "
        "宇普西隆 斐 希 普西 欧米伽".split(),
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma sigma tau "
        "upsilon phi chi psi omega".split(),
        strict=True,
    )
}

# Chinese and English names of units, the English ones of one and of several.
_UNITS: Final[dict[str, tuple[str, str, str]]] = {
    unit: (chinese, one, many)
    for unit, chinese, one, many in (
        entry.split(" ")
        for entry in (
            "m 米 meter meters|km 公里 kilometer kilometers|dm 分米 decimeter decimeters|"
            "cm 厘米 centimeter centimeters|mm 毫米 millimeter millimeters|μm 微米 micrometer micrometers|"
            "nm 纳米 nanometer nanometers|ft 英尺 foot feet|in 英寸 inch inches|mi 英里 mile miles|"
            "g 克 gram grams|kg 千克 kilogram kilograms|mg 毫克 milligram milligrams|"
            "μg 微克 microgram micrograms|t 吨 ton tons|s 秒 second seconds|ms 毫秒 millisecond milliseconds|"
            "μs 微秒 microsecond microseconds|min 分钟 minute minutes|h 小时 hour hours|L 升 liter liters|"
            "mL 毫升 milliliter milliliters|ml 毫升 milliliter milliliters|μL 微升 microliter microliters|"
            "mol 摩尔 mole moles|N 牛 newton newtons|J 焦耳 joule joules|kJ 千焦 kilojoule kilojoules|"
            "W 瓦 watt watts|kW 千瓦 kilowatt kilowatts|V 伏 volt volts|K 开尔文 kelvin kelvins|"
            "Ω 欧姆 ohm ohms|kΩ 千欧 kilohm kilohms|MΩ 兆欧 megohm megohms|μF 微法 microfarad microfarads|"
            "μA 微安 microampere microamperes|MB 兆字节 megabyte megabytes|GB 吉字节 gigabyte gigabytes|"
            "kB 千字节 kilobyte kilobytes"
        ).split("|")
    )
}
_UNIT: Final = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_POWER: Final = r"[²³]|\^[23]|\^\{[23]\}"
_COMPOSED: Final = re.compile(
    rf"(?<![\d.])(?P<number>\d++(?:\.\d++)?)(?P<blank>\s?)(?P<unit>{_UNIT})(?P<power>{_POWER})?"
    rf"(?:/(?P<per>{_UNIT})(?P<per_power>{_POWER})?)?(?![A-Za-z0-9_^²³/])"
)

_SHORT_POWER: Final = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?![\w.])")  # 6.02e23
_X_FOR_TIMES: Final = re.compile(r"(?<=\d)\s?[xX]\s?(?=10(?:\^|[⁰¹²³⁴-⁹⁻]))")
_LIMIT: Final = re.compile(r"\blim_?[({]([^(){}→]{1,20})→([^(){}→]{1,20})[)}]")
_VULGAR: Final = re.compile("[¼-¾⅐-⅞]")
_STYLED: Final = re.compile("[\U0001d400-\U0001d7ff]+")
_MARK: Final = re.compile(f"[\\^√∛∜⁄−∗±×÷<>µΑ-Ωα-ω{_RAISED}{''.join(_SUBSCRIPTS)}{''.join(_SIGNS)}]|=[=]|!=")
_ATOM: Final = re.compile(r"[0-9A-Za-z]+(?:[.,][0-9]+)*")
_EXPONENT: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?|[A-Za-z]")
_GREEK_WORD: Final = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]+")
_FOLLOWS: Final = re.compile(r"\s*[0-9A-Za-zΑ-Ωα-ω(\[{√∛∜−-]")
_TYPE: Final = re.compile("[A-Z][a-z]")
_SMALL: Final = re.compile(r"(?:[A-Za-zα-ω]|.*[0-9)²³])", re.DOTALL)
_SMALL_FOLLOWS: Final = re.compile(r"\s*(?:[−-]?[0-9]|[A-Za-zα-ω](?![A-Za-z])|[(√])")
_POWERS_ZH: Final = {"2": "平方", "3": "立方"}
_POWERS_EN: Final = {"2": "squared", "3": "cubed"}
_ROOTS: Final = {"√": "2", "∛": "3", "∜": "4"}
_ROOTS_EN: Final = {"2": "square root", "3": "cube root"}
_CLOSERS: Final = {"(": ")", "[": "]", "{": "}"}
# Deeper brackets are left as they are.
_MAX_DEPTH: Final = 6
# Longer names have no index: snake_case.
_MAX_INDEXED: Final = 3


def read_aloud(text: str, *, chinese: bool) -> str:
    """The text with its formulas in words; everything else as it is.

    Args:
        text: one line, with the signs of `xiaozhi.text.latex` where a formula was marked as one.
        chinese: the language of the words.
    """
    text = _COMPOSED.sub(lambda match: _composed(match, chinese=chinese), text.replace("㎡", "m²").replace("㎥", "m³"))
    text = _SHORT_POWER.sub(lambda match: f"{match[1]}×10^{match[2].removeprefix('+')}", text)
    text = _STYLED.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    text = _VULGAR.sub(lambda match: f" {unicodedata.normalize('NFKC', match[0])}", text)
    if not _MARK.search(text):
        return text
    text = _X_FOR_TIMES.sub("×", text)
    text = _LIMIT.sub(r"\1趋于\2时的极限" if chinese else r"the limit as \1 goes to \2 of ", text)
    return _Reader(text, _closings(text), 0, len(text), 0, chinese=chinese).read()


def _closings(text: str) -> dict[int, int]:
    """Where the bracket that is opened at a place is closed."""
    found: dict[int, int] = {}
    open_: list[int] = []
    for at, char in enumerate(text):
        if char in _CLOSERS:
            open_.append(at)
        elif open_ and char == _CLOSERS[text[open_[-1]]]:
            found[open_.pop()] = at
    return found


def _composed(match: re.Match[str], *, chinese: bool) -> str:
    number, unit, per = match["number"], match["unit"], match["per"]
    if not (match["power"] or per or unit[0] == "μ" or unit[-1] == "Ω"):
        return match[0]  # voices know kilograms
    if chinese:
        said = _with_power(_UNITS[unit][0], match["power"], "平方", "立方")
        if per:
            said += "每" + _with_power(_UNITS[per][0], match["per_power"], "平方", "立方")
        return number + said
    said = _with_power(_UNITS[unit][1 if number == "1" else 2], match["power"], "square ", "cubic ")
    if per and per in {"s", "h", "min"} and match["per_power"]:
        said += (
            f" per {_UNITS[per][1]} {'squared' if '2' in match['per_power'] or '²' in match['per_power'] else 'cubed'}"
        )
    elif per:
        said += " per " + _with_power(_UNITS[per][1], match["per_power"], "square ", "cubic ")
    return f"{number} {said}"


def _with_power(unit: str, power: str | None, square: str, cubic: str) -> str:
    if not power:
        return unit
    return (square if "2" in power or "²" in power else cubic) + unit


class _Reader:
    """Reads a part of one line from left to right; what stands in brackets is a part of its own.

    Args:
        text: the line.
        closings: where the bracket that is opened at a place is closed.
        begin, end: the part.
        depth: brackets around it.
        chinese: the language of the words.
    """

    def __init__(
        self, text: str, closings: Mapping[int, int], begin: int, end: int, depth: int, *, chinese: bool
    ) -> None:
        self._text = text
        self._closings = closings
        self._at = begin
        self._end = end
        self._depth = depth
        self._chinese = chinese
        self._said: list[str] = []
        self._atom = False  # the newest is a number, a letter or a bracket: a power or a sign may belong to it
        self._formula = depth > 0  # the newest can only be a formula: a hyphen behind it is a minus

    def read(self) -> str:
        """The whole line."""
        while self._at < self._end:
            self._next()
        return "".join(self._said)

    def _char(self, at: int) -> str:
        return self._text[at] if at < self._end else ""

    def _next(self) -> None:
        text, at = self._text, self._at
        char = text[at]
        if match := _ATOM.match(text, at, self._end):
            self._at = match.end()
            self._add(match[0], formula=self._depth > 0)
        elif match := _GREEK_WORD.match(text, at, self._end):
            self._at = match.end()
            if not self._chinese and self._said and self._said[-1][-1:].isalnum():
                self._said.append(" ")  # two pi
            self._add(_greek(match[0], chinese=self._chinese), formula=len(match[0]) == 1)
        elif end := self._group_end(at):
            self._at = end
            inner = self._inside(at + 1, end - 1)
            self._add(inner if char == "{" else f"{char}{inner}{text[end - 1]}", formula=self._depth > 0)
        elif char in _ROOTS:
            self._at += 1
            self._root(_ROOTS[char])
        elif char in _SUPERSCRIPTS:
            self._raised()
        elif char in _SUBSCRIPTS:
            self._at += 1
            gap = " " if self._char(self._at).isdecimal() else ""  # log₂8
            self._said.append(_SUBSCRIPTS[char] + gap)
            self._atom, self._formula = True, False
        elif char == "^" and self._atom and (power := self._operand(at + 1, _EXPONENT)):
            self._power(power)
        elif (
            char == "_"
            and self._atom
            and len(self._said[-1]) <= _MAX_INDEXED
            and (index := self._operand(at + 1, _EXPONENT))
        ):
            self._said[-1] += index
        elif char == "⁄" and self._atom and (below := self._operand(at + 1)):
            self._fraction(below)
        elif char in "∑∏∫" and self._char(at + 1) in ("_", "^"):
            self._sum(char)
        elif match := _OPERATOR.match(text, at, self._end):
            self._operator(match[0])
        elif char in _SIGNS:
            self._at += 1
            self._word(_SIGNS[char][0 if self._chinese else 1])
        else:
            self._at += 1
            self._said.append(char)
            self._atom = self._atom and (char.isspace() or char in "|°%′!")
            self._formula = self._formula and char.isspace()

    # What can be calculated with ----------------------------------------------------------------------------------

    def _add(self, said: str, *, formula: bool) -> None:
        if not self._chinese and self._said and self._formula and self._said[-1][-1:].isalnum():
            said = f" {said}"  # two pi r
        self._said.append(said)
        self._atom, self._formula = True, formula

    def _inside(self, begin: int, end: int) -> str:
        return _Reader(self._text, self._closings, begin, end, self._depth + 1, chinese=self._chinese).read()

    def _group_end(self, at: int) -> int:
        """Behind the bracket that closes the one at `at`; 0 where there is none, or it is too deep."""
        return self._closings.get(at, -1) + 1 if self._depth < _MAX_DEPTH else 0

    def _operand(self, at: int, atom: re.Pattern[str] = _ATOM) -> str:
        """What a sign in front belongs to, as it is read; where nothing fits it is empty, and nothing has been read."""
        while self._char(at) == " ":
            at += 1
        sign = self._char(at) if self._char(at) in ("-", "−", "+") else ""
        at += len(sign)
        if end := self._group_end(at):
            said = self._inside(at + 1, end - 1)
        elif self._char(at) in _ROOTS and self._depth < _MAX_DEPTH:
            root = _Reader(self._text, self._closings, at, self._end, self._depth + 1, chinese=self._chinese)
            root._next()
            said, end = "".join(root._said), root._at
        elif match := atom.match(self._text, at, self._end) or _GREEK_WORD.match(self._text, at, self._end):
            said, end = _greek(match[0], chinese=self._chinese), match.end()
        else:
            return ""
        self._at = end
        return f"{'负' if self._chinese else 'minus '}{said}" if sign in ("-", "−") else said

    def _root(self, degree: str) -> None:
        body = self._operand(self._at)
        if self._chinese:
            of = "根号" if _ATOM.fullmatch(body) else "根号下"
            self._add(f"{of}{body}" if degree == "2" else f"{degree}次{of}{body}", formula=True)
        else:
            if self._said and self._said[-1][-1:].isalnum():
                self._said.append(" ")
            self._add(f"the {_ROOTS_EN.get(degree, f'{degree}th root')} of {body}", formula=True)

    def _raised(self) -> None:
        end = self._at
        while self._char(end) in _SUPERSCRIPTS:
            end += 1
        raised, self._at = self._text[self._at : end], end
        power = "".join(map(_SUPERSCRIPTS.__getitem__, raised))
        if self._char(end) == "√":
            self._at += 1
            self._root(power)
        elif self._atom:
            self._power(power.replace("-", "负" if self._chinese else "minus ").replace("+", ""))
        else:
            self._said.append(power)

    def _power(self, power: str) -> None:
        if self._chinese:
            self._said[-1] += f"的{_POWERS_ZH.get(power, f'{power}次方')}"
        else:
            self._said[-1] += f" {_POWERS_EN.get(power, f'to the power of {power}')}"
        self._formula = True

    def _fraction(self, below: str) -> None:
        above = self._said[-1]
        if above[:1] == "(" and above[-1:] == ")":
            above = above[1:-1]
        if self._chinese:
            self._said[-1] = f"{below}分之{above}"
            if above.isdigit() and "".join(self._said[-3:-1]).rstrip()[-1:].isdigit():
                self._said[-2:-1] = ["又"]
        else:
            self._said[-1] = f"{above}/{below}" if above.isdigit() and below.isdigit() else f"{above} over {below}"
        self._formula = True

    def _sum(self, sign: str) -> None:
        self._at += 1
        bounds = {"_": "", "^": ""}
        while (script := self._char(self._at)) in ("_", "^"):
            bound = self._operand(self._at + 1, _EXPONENT)
            if not bound:
                self._at += 1
                break
            bounds[script] = bound
        name = _SIGNS[sign][0 if self._chinese else 1]
        if self._chinese:
            self._word("".join([f"从{bounds['_']}" * bool(bounds["_"]), f"到{bounds['^']}" * bool(bounds["^"]), name]))
        else:
            span = f" from {bounds['_']}" * bool(bounds["_"]) + f" to {bounds['^']}" * bool(bounds["^"])
            self._word(f"{name.removesuffix(' of')}{span} of")

    # Signs between ------------------------------------------------------------------------------------------------

    def _operator(self, sign: str) -> None:
        text, begin, end = self._text, self._at, self._at + len(sign)
        before = self._said[-1] if self._said and not self._said[-1].isspace() else "".join(self._said[-2:]).rstrip()
        follows = bool(_FOLLOWS.match(text, end, self._end))
        self._at = end
        if sign == "-" and (self._depth or (self._atom and self._formula)):
            sign = "−"
        if sign in {"−", "±"} and not self._atom:
            self._word({"−": ("负", "minus"), "±": ("正负", "plus or minus")}[sign][0 if self._chinese else 1])
            return
        names = sign == "·" and not (self._atom and before.isascii())  # 列奥纳多·达·芬奇
        if names or sign == "-" or sign[:2] in {"<<", ">>"}:
            sign = ""
        elif sign == ">" and not (_SMALL.fullmatch(before) or _SMALL_FOLLOWS.match(text, end, self._end)):
            sign = ""  # Settings > General
        elif sign == "<" and _TYPE.match(text, end, self._end):
            sign = ""  # List<String>
        elif sign in _COMPARISONS and (before[-1:].isalnum() or _SMALL_FOLLOWS.match(text, end, self._end)):
            self._atom = True  # 速度<60, <60
        if sign and self._atom and follows:
            self._word(_OPERATORS[sign][0 if self._chinese else 1])
        else:
            self._said.append(sign or text[begin:end])
            self._atom = False
        self._formula = self._formula and not self._atom

    def _word(self, word: str) -> None:
        """Words for a sign: without blanks in Chinese, between blanks in English."""
        while self._said and self._said[-1].isspace():
            self._said.pop()
        while self._char(self._at).isspace():
            self._at += 1
        self._said.append(word if self._chinese else f"{' ' if self._said else ''}{word} ")
        self._atom = False
        self._formula = False


def _greek(word: str, *, chinese: bool) -> str:
    """The name of a letter; a word of several is Greek."""
    name = _GREEK.get(word.lower()) if len(word) == 1 else None
    return word if name is None else name[0 if chinese else 1]
