"""Sums and units, exact and at once: answered without a model, and offered to models, which miscalculate.

Factors are the legal definitions (international yard and pound 1959, 市制 of 1959); a month and a year are left out,
they have no fixed length.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Final

from pydantic import Field

from xiaozhi.text.arithmetic import calculate, spoken_number
from xiaozhi.text.language import is_chinese
from xiaozhi.text.numbers import chinese_number, english_number
from xiaozhi.tools.declare import tool
from xiaozhi.tools.host import ToolHost
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
    conversion = asked_conversion(text)
    return None if conversion is None else conversion.spoken(is_chinese(language))


def tools(host: ToolHost) -> list[Tool]:
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
        source, target = find_unit(from_unit), find_unit(to_unit)
        if source is None or target is None:
            raise ToolError(f"The unit {(from_unit if source is None else to_unit)[:40]!r} is not known.")
        exact = Fraction(str(value))
        result = convert(exact, source, target)
        if result is None:
            raise ToolError(f"{source.english} and {target.english} measure different things.")
        return Conversion(exact, source, target, result).spoken(is_chinese(context.language))

    return [calculator, convert_units]


def _result(value: Fraction, language: str) -> str:
    number = spoken_number(value)
    exact = Fraction(number) == value
    return pick(
        language,
        f"{'等于' if exact else '大约等于'}{number}。",
        f"That makes {number}." if exact else f"That makes about {number}.",
    )


# Units ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unit:
    """`factor` of the base unit of its kind; `offset` is added first (temperatures). Names as they are spoken."""

    kind: str
    factor: Fraction
    chinese: str
    english: str
    words: tuple[str, ...]
    offset: Fraction = Fraction(0)


def _unit(kind: str, factor: str, chinese: str, english: str, words: str, offset: str = "0") -> Unit:
    return Unit(kind, Fraction(factor), chinese, english, tuple(words.split(",")), Fraction(offset))


UNITS: Final = (
    _unit("length", "0.001", "毫米", "millimetres", "毫米,mm,millimetre,millimeter"),
    _unit("length", "0.01", "厘米", "centimetres", "厘米,公分,cm,centimetre,centimeter"),
    _unit("length", "1", "米", "metres", "米,公尺,m,metre,meter"),
    _unit("length", "1000", "公里", "kilometres", "公里,千米,km,kilometre,kilometer"),
    _unit("length", "500", "里", "li", "里,里路,华里"),
    _unit("length", "1/3", "尺", "chi", "尺,市尺"),
    _unit("length", "1/30", "寸", "cun", "寸,市寸"),
    _unit("length", "10/3", "丈", "zhang", "丈"),
    _unit("length", "0.0254", "英寸", "inches", "英寸,吋,inch,inches,in"),
    _unit("length", "0.3048", "英尺", "feet", "英尺,呎,foot,feet,ft"),
    _unit("length", "0.9144", "码", "yards", "码,yard,yd"),
    _unit("length", "1609.344", "英里", "miles", "英里,哩,mile,mi"),
    _unit("length", "1852", "海里", "nautical miles", "海里,nautical mile"),
    _unit("mass", "0.001", "克", "grams", "克,公克,g,gram,gramme"),
    _unit("mass", "0.000001", "毫克", "milligrams", "毫克,mg,milligram"),
    _unit("mass", "1", "公斤", "kilograms", "公斤,千克,kg,kilo,kilogram"),
    _unit("mass", "1000", "吨", "tonnes", "吨,公吨,t,tonne,metric ton"),
    _unit("mass", "0.5", "斤", "jin", "斤,市斤,jin"),
    _unit("mass", "0.05", "两", "liang", "两,市两"),
    _unit("mass", "0.45359237", "磅", "pounds", "磅,pound,lb,lbs"),
    _unit("mass", "0.028349523125", "盎司", "ounces", "盎司,安士,ounce,oz"),
    _unit("mass", "6.35029318", "英石", "stone", "英石,stone"),
    _unit("volume", "0.001", "毫升", "millilitres", "毫升,ml,millilitre,milliliter"),
    _unit("volume", "1", "升", "litres", "升,公升,l,litre,liter"),
    _unit("volume", "1000", "立方米", "cubic metres", "立方米,cubic metre,cubic meter"),
    _unit("volume", "3.785411784", "加仑", "gallons", "加仑,美制加仑,gallon,us gallon"),
    _unit("volume", "0.2365882365", "杯", "cups", "杯,cup"),
    _unit("volume", "0.01478676478125", "汤匙", "tablespoons", "汤匙,大勺,tablespoon,tbsp"),
    _unit("volume", "0.00492892159375", "茶匙", "teaspoons", "茶匙,小勺,teaspoon,tsp"),
    _unit("volume", "0.473176473", "品脱", "pints", "品脱,pint"),
    _unit("area", "1", "平方米", "square metres", "平方米,平米,平方,square metre,square meter"),
    _unit("area", "1000000", "平方公里", "square kilometres", "平方公里,平方千米,square kilometre,square kilometer"),
    _unit("area", "10000", "公顷", "hectares", "公顷,hectare"),
    _unit("area", "2000/3", "亩", "mu", "亩,mu"),
    _unit("area", "4046.8564224", "英亩", "acres", "英亩,acre"),
    _unit("area", "0.09290304", "平方英尺", "square feet", "平方英尺,square foot,square feet"),
    _unit(
        "speed", "5/18", "公里每小时", "kilometres an hour",
        "公里每小时,千米每小时,km/h,kmh,kph,kilometres per hour,kilometers per hour",
    ),
    _unit("speed", "1", "米每秒", "metres a second", "米每秒,m/s,metres per second,meters per second"),
    _unit("speed", "0.44704", "英里每小时", "miles an hour", "英里每小时,mph,miles per hour"),
    _unit("speed", "463/900", "节", "knots", "节,knot"),
    _unit(
        "temperature", "1", "摄氏度", "degrees Celsius",
        "摄氏度,摄氏,度,celsius,degrees celsius,°c,c,degree celsius",
    ),
    _unit(
        "temperature", "5/9", "华氏度", "degrees Fahrenheit",
        "华氏度,华氏,fahrenheit,degrees fahrenheit,°f,f,degree fahrenheit", "-32",
    ),
    _unit("temperature", "1", "开尔文", "kelvin", "开尔文,kelvin", "-273.15"),
    _unit("time", "1", "秒", "seconds", "秒,秒钟,second,sec"),
    _unit("time", "60", "分钟", "minutes", "分钟,minute,min"),
    _unit("time", "3600", "小时", "hours", "小时,钟头,hour"),
    _unit("time", "86400", "天", "days", "天,日,day"),
    _unit("time", "604800", "周", "weeks", "周,星期,礼拜,week"),
    _unit("data", "1", "字节", "bytes", "字节,byte"),
    _unit("data", "1000", "KB", "kilobytes", "kb,kilobyte"),
    _unit("data", "1000000", "MB", "megabytes", "mb,megabyte,兆"),
    _unit("data", "1000000000", "GB", "gigabytes", "gb,gigabyte"),
    _unit("data", "1000000000000", "TB", "terabytes", "tb,terabyte"),
    _unit("energy", "1", "焦耳", "joules", "焦耳,joule,j"),
    _unit("energy", "4.184", "卡", "calories", "卡,卡路里,calorie,cal"),
    _unit("energy", "4184", "大卡", "kilocalories", "大卡,千卡,kilocalorie,kcal"),
    _unit("energy", "1000", "千焦", "kilojoules", "千焦,kilojoule,kj"),
    _unit("energy", "3600000", "度电", "kilowatt hours", "度电,千瓦时,kwh,kilowatt hour"),
    _unit("power", "1", "瓦", "watts", "瓦,瓦特,w,watt"),
    _unit("power", "1000", "千瓦", "kilowatts", "千瓦,kw,kilowatt"),
    _unit("power", "735.49875", "马力", "horsepower", "马力,匹,horsepower,hp"),
)  # fmt: skip

_BY_WORD: Final = {word: unit for unit in UNITS for word in unit.words} | {
    f"{word}s": unit for unit in UNITS for word in unit.words if word.isascii() and len(word) > 2 and word[-1] != "s"
}
_WORDS: Final = "|".join(sorted(map(re.escape, _BY_WORD), key=len, reverse=True))
_ZH_VALUE: Final = (
    r"(?P<value>-?\d[\d,]*(?:\.\d+)?|(?:零下)?[零〇一二两三四五六七八九十百千万亿]+(?:点[零〇一二三四五六七八九]+)?)"
)
_EN_VALUE: Final = r"(?P<value>-?\d[\d,]*(?:\.\d+)?|(?:minus )?[a-z]+(?:[ -][a-z]+)*?)"
_ZH_ASKED: Final = re.compile(
    rf"^(?:请问|帮我|把|算一下|换算一下|换算)*{_ZH_VALUE}个?(?P<from>{_WORDS})"
    rf"(?:换算成|换算为|转换成|转换为|转成|换成|等于|相当于|相当|合|是|为|有|折合)(?:多少|几)?个?(?P<to>{_WORDS})(?:呢|啊|吗)?$"
)
_EN_ASKED: Final = (
    re.compile(
        rf"^(?:please )?(?:convert |what is |what's |how much is )?{_EN_VALUE} ?(?P<from>{_WORDS}) "
        rf"(?:to|in|into|as|equals how many|is how many) (?P<to>{_WORDS})$"
    ),
    re.compile(
        rf"^how many (?P<to>{_WORDS}) (?:are|is|make|are there|is there|in|are in|is in)(?: in)? "
        rf"{_EN_VALUE} ?(?P<from>{_WORDS})$"
    ),
)
_MAX_ASKED_CHARS: Final = 80


@dataclass(frozen=True, slots=True)
class Conversion:
    """`value` of a unit in another: `result`."""

    value: Fraction
    source: Unit
    target: Unit
    result: Fraction

    def spoken(self, chinese: bool) -> str:
        """As a sentence."""
        shown = round(self.result, 2) if abs(self.result) >= 1 else self.result  # nobody wants to hear 37.7778
        value, result = spoken_number(self.value), spoken_number(shown)
        exact = Fraction(result) == self.result
        if chinese:
            return f"{value}{self.source.chinese}{'等于' if exact else '大约是'}{result}{self.target.chinese}。"
        source, target = _counted(self.value, self.source.english), _counted(shown, self.target.english)
        return f"{value} {source} {'is' if exact else 'is about'} {result} {target}."


def find_unit(word: str) -> Unit | None:
    """A unit by any of its names."""
    return _BY_WORD.get(" ".join(word.lower().split()).rstrip("."))


def convert(value: Fraction, source: Unit, target: Unit) -> Fraction | None:
    """The value in another unit; None where the two measure different things."""
    if source.kind != target.kind:
        return None
    return (value + source.offset) * source.factor / target.factor - target.offset


def asked_conversion(text: str) -> Conversion | None:
    """The conversion that a user asks for: "3英里是多少公里", "how many grams are in two pounds"; else None."""
    if len(text) > _MAX_ASKED_CHARS:
        return None
    plain = " ".join(re.sub(r"[，。,.!！?？、]+(?!\d)", " ", text.lower()).split())
    match = _ZH_ASKED.match(plain.replace(" ", ""))
    for pattern in _EN_ASKED:
        match = match or pattern.match(plain)
    if match is None:
        return None
    try:
        value = _value(match["value"])
    except (ValueError, KeyError):
        return None
    source, target = _BY_WORD[match["from"]], _BY_WORD[match["to"]]
    result = convert(value, source, target)
    return None if result is None else Conversion(value, source, target, result)


def _counted(value: Fraction, name: str) -> str:
    """`1 mile`, `2 miles`."""
    if value != 1:
        return name
    singular = {"feet": "foot", "inches": "inch", "square feet": "square foot"}
    if name in singular:
        return singular[name]
    first, space, rest = name.partition(" ")
    if rest.startswith(("an ", "a ", "of ", "Celsius", "Fahrenheit")):
        return first.removesuffix("s") + space + rest
    return name.removesuffix("s")


def _value(text: str) -> Fraction:
    if text[0].isdigit() or text[0] == "-":
        return Fraction(text.replace(",", ""))
    if text.isascii():
        words = text.replace("-", " ").split()
        negative = words[0] == "minus"
        words = words[1:] if negative else words
        number = Fraction(1) if words in (["a"], ["an"]) else english_number(words)
        return -number if negative else number
    return -chinese_number(text[2:]) if text.startswith("零下") else chinese_number(text)
