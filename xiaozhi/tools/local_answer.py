"""Questions that need no model: sums and units, exact and at once. Also offered to models, which miscalculate."""

from fractions import Fraction
from typing import Annotated

from pydantic import Field

from xiaozhi.text.arithmetic import calculate, spoken_number
from xiaozhi.text.language import is_chinese
from xiaozhi.tools import units
from xiaozhi.tools.declare import tool
from xiaozhi.tools.tool import Tool, ToolContext, ToolError
from xiaozhi.tools.wording import pick


def local_answer(text: str, language: str) -> str | None:
    """The answer to a calculation or a conversion of units; None when the text is anything else. Pure.

    Args:
        text: what was said.
        language: of the answer.
    """
    try:
        value = calculate(text)
    except ZeroDivisionError:
        return pick(language, "零不能做除数。", "Nothing can be divided by zero.")
    except OverflowError:
        return pick(language, "这个数太大了，我算不过来。", "That number is too big for me.")
    if value is not None:
        return _result(value, language)
    conversion = units.asked(text)
    return None if conversion is None else conversion.spoken(is_chinese(language))


def calculator_tools() -> list[Tool]:
    """`calculate` and `convert_units`."""

    @tool(name="calculate")
    async def calculator(context: ToolContext, expression: str) -> str:
        """Exact arithmetic with + - * / ^ and brackets.

        Takes:
            expression: such as (3.5 + 2) * 12 / 7.
        """
        try:
            value = calculate(expression)
        except (ZeroDivisionError, OverflowError):
            answer = local_answer(expression, context.language)
            raise ToolError(answer or expression) from None
        if value is None:
            raise ToolError("That is no calculation; use numbers, + - * / ^ and brackets.")
        return spoken_number(value)

    @tool(name="convert_units")
    async def convert_units(
        context: ToolContext, value: Annotated[float, Field(ge=-1e15, le=1e15)], from_unit: str, to_unit: str
    ) -> str:
        """Convert length, mass, volume, area, speed, temperature, time, data, energy or power.

        Takes:
            value: how much.
            from_unit: its unit, such as mile, kg, 斤, fahrenheit.
            to_unit: the unit wanted.
        """
        source, target = units.find_unit(from_unit), units.find_unit(to_unit)
        if source is None or target is None:
            raise ToolError(f"The unit {(from_unit if source is None else to_unit)[:40]!r} is not known.")
        exact = Fraction(str(value))
        result = units.convert(exact, source, target)
        if result is None:
            raise ToolError(f"{source.english} and {target.english} measure different things.")
        return units.Conversion(exact, source, target, result).spoken(is_chinese(context.language))

    return [calculator, convert_units]


def _result(value: Fraction, language: str) -> str:
    number = spoken_number(value)
    exact = Fraction(number) == value
    return pick(
        language,
        f"{'等于' if exact else '大约等于'}{number}。",
        f"That makes {number}." if exact else f"That makes about {number}.",
    )
