"""Arithmetic as it is spoken, in Chinese and English: "三加五等于几", "what is twelve times three". Pure."""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Final, TypeAlias

from xiaozhi.text.numbers import chinese_number, english_number

_Token: TypeAlias = Fraction | str

# Questions around the expression, longest first.
_QUESTION: Final = re.compile(
    r"请问一下|请问|帮我|给我|算一算|算一下|计算一下|计算|算算|算|等于多少|等于几|是多少|得多少|得几|等于|多少|是几|呢|呀|啊|"
    r"\b(?:what is|what's|whats|how much is|how much are|calculate|compute|tell me|please|can you|equals?|makes?)\b|"
    r"[=?？。！!，,]+(?!\d)"
)
_OPERATORS: Final = (
    (r"\bto the power of\b|\*\*", "^"),
    (r"\bmultiplied by\b|\btimes\b|乘以|乘上|乘|×|\*|(?<=[\d\s])x(?=[\d\s])", "*"),
    (r"\bdivided by\b|\bover\b|除以|÷|/", "/"),
    (r"\bplus\b|加上|加|\+", "+"),
    (r"\bminus\b|\bsubtract\b|减去|减|−|-", "-"),
)
_LEXEMES: Final = re.compile(
    r"(?P<operator>[+*/()^])|(?P<minus>-)|(?P<reverse>除)|(?P<number>\d[\d,]*(?:\.\d+)?)"
    r"|(?P<chinese>[零〇一二两三四五六七八九十百千万亿]+(?:点[零〇一二三四五六七八九]+)?)|(?P<words>[a-z]+(?:\s+[a-z]+)*)|\s+"
)
_HYPHEN: Final = re.compile(r"(?<=[a-z])-(?=[a-z])")  # twenty-three
_MAX: Final = Fraction(10) ** 18
_MAX_POWER: Final = 64
_MAX_BITS: Final = 1024
"""Of either half of a fraction that is raised to a power: a power of a power of a small one may be of any length."""


def calculate(text: str) -> Fraction | None:
    """The result of the calculation that a user asks for.

    Returns:
        The exact result, or None when the text is no calculation: there must be an operator, and nothing but numbers,
        operators and the words of the question.

    Raises:
        ZeroDivisionError: something is divided by zero.
        OverflowError: a number or the result is above 10**18.
    """
    if len(text) > 200:
        return None
    expression = _HYPHEN.sub(" ", _QUESTION.sub(" ", text.lower()))
    for pattern, sign in _OPERATORS:
        expression = re.sub(pattern, f" {sign} ", expression)
    tokens = _tokens(expression)
    if tokens is None or not any(isinstance(token, str) and token in "+-*/^除" for token in tokens[1:]):
        return None
    parser = _Parser(tokens)
    try:
        result = parser.sum()
    except ValueError:
        return None
    return result if parser.at_end else None


def spoken_number(value: Fraction) -> str:
    """A result with digits, as voices read it: whole, or with at most four decimals."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.4f}".rstrip("0").rstrip(".")


def _tokens(expression: str) -> list[_Token] | None:
    """Numbers and operators, or None when anything else is in the text."""
    tokens: list[_Token] = []
    at = 0
    while at < len(expression):
        match = _LEXEMES.match(expression, at)
        if match is None:
            return None
        at = match.end()
        match match.lastgroup:
            case "number":
                tokens.append(Fraction(match["number"].replace(",", "")))
            case "chinese" | "words":
                try:
                    tokens.append(_number_in(match))
                except ValueError:
                    return None
            case "operator" | "minus" | "reverse":
                tokens.append(match.group())
    return tokens


def _number_in(match: re.Match[str]) -> Fraction:
    if match["chinese"]:
        return chinese_number(match["chinese"])
    return english_number(match["words"].split())


class _Parser:
    """Recursive descent over tokens; multiplication before addition, powers first."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens: Iterator[_Token] = iter(tokens)
        self._next: _Token | None = next(self._tokens, None)

    @property
    def at_end(self) -> bool:
        return self._next is None

    def sum(self) -> Fraction:
        value = self._product()
        while self._next in ("+", "-"):
            value = _bounded(value + self._product() if self._advance() == "+" else value - self._product())
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while self._next in ("*", "/", "除"):
            operator = self._advance()
            other = self._signed()
            if operator == "除":  # "三除六" is six divided by three
                value, other = other, value
            value = _bounded(value * other if operator == "*" else value / other)
        return value

    def _signed(self) -> Fraction:
        if self._next == "-":
            self._advance()
            return -self._signed()
        return self._power()

    def _power(self) -> Fraction:
        base = self._atom()
        if self._next != "^":
            return base
        self._advance()
        exponent = self._signed()
        digits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator != 1 or abs(exponent) > _MAX_POWER or digits > _MAX_BITS:
            raise OverflowError("the power is too high")
        return _bounded(Fraction(base ** int(exponent)))

    def _atom(self) -> Fraction:
        token = self._advance()
        if isinstance(token, Fraction):
            return _bounded(token)
        if token != "(":
            raise ValueError("a number was expected")
        value = self.sum()
        if self._advance() != ")":
            raise ValueError("a bracket is open")
        return value

    def _advance(self) -> _Token | None:
        token, self._next = self._next, next(self._tokens, None)
        return token


def _bounded(value: Fraction) -> Fraction:
    if abs(value) > _MAX:
        raise OverflowError("the number is too large")
    return value
