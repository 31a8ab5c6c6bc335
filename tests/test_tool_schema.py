"""Schemas of strangers: what of them binds agrees with the standard, and the rest is never evaluated."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_tool_turns import call, talk, used
from xiaozhi.client.mcp import DeviceMcpServer
from xiaozhi.tools.arguments import MAX_STEPS, BadArguments, mistake, parse_arguments, schema_check
from xiaozhi.tools.device_mcp import call_text
from xiaozhi.tools.naming import Names
from xiaozhi.tools.plain_schema import SchemaRefused, plain_schema


def doubling(levels: int) -> dict[str, Any]:
    """Each level asks twice for the next: 2**levels evaluations in a few hundred bytes."""
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"allOf": [schema, schema]}
    return schema


def referring(levels: int) -> dict[str, Any]:
    twice = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**twice, f"d{levels}": {}}}


EVIL: dict[str, dict[str, Any]] = {
    "pattern": {"properties": {"text": {"type": "string", "pattern": "^(a+)+$"}}},
    "property_names": {"propertyNames": {"pattern": "^(t|te|tex|text|t*e*x*)+!$"}},
    "pattern_properties": {"patternProperties": {"^(a+)+$": {"type": "null"}}, "additionalProperties": False},
    "combinators": {"properties": {"text": doubling(5)}, **doubling(6)},
    "references": referring(28),
    "itself": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
    "conditions": {"if": referring(28), "then": False, "not": {}},
    "format": {"properties": {"text": {"type": "string", "format": "regex"}}},
    "unique": {"properties": {"list": {"type": "array", "uniqueItems": True}}},
}


class Stranger(DeviceMcpServer):
    """A device whose tools have schemas of its own."""

    def _list(self, params: dict[str, Any]) -> dict[str, object]:
        return {"tools": [{"name": name, "inputSchema": schema} for name, schema in EVIL.items()]}

    def _call(self, params: dict[str, Any]) -> dict[str, object]:
        self.calls.append((params["name"], params["arguments"]))
        return {"content": [{"type": "text", "text": "done"}]}


@pytest.mark.parametrize("name", EVIL)
async def test_no_schema_of_a_device_keeps_the_server_from_answering(tmp_path: Path, name: str) -> None:
    gear = Stranger()
    gear.tools = dict.fromkeys(EVIL, gear.tools["self.get_device_status"])  # as many as are listed
    text = "a" * 40 + "!"
    asked = call(Names([name]).to_api(name), text=text, list=[str(n) for n in range(500)], **{text: 1})
    async with talk(tmp_path, ("", (asked,)), ("Done.", ()), gear=gear) as (_, device):
        async with asyncio.timeout(20):
            report = await device.turn_text("please do that")
        assert used(report) == [(name, False)]
        assert report.text == "Done." and gear.calls[0][0] == name


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 2.0, -3.0]) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
KINDS = st.sampled_from(["integer", "number", "string", "boolean", "array", "object", "null"])
BOUNDED = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": KINDS | st.lists(KINDS, min_size=1, max_size=2, unique=True),
            "enum": st.lists(VALUES, min_size=1, max_size=3),
            "minimum": st.integers(-3, 3),
            "maximum": st.integers(-3, 3),
            "exclusiveMinimum": st.integers(-3, 3),
            "exclusiveMaximum": st.integers(-3, 3),
            "minLength": st.integers(0, 2),
            "maxLength": st.integers(0, 2),
            "minItems": st.integers(0, 2),
            "maxItems": st.integers(0, 2),
        },
    ),
    lambda inner: (
        st.fixed_dictionaries(
            {"properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=2)},
            optional={"type": st.just("object"), "additionalProperties": st.booleans()},
        )
        | st.fixed_dictionaries({"items": inner})
    ),
    max_leaves=5,
)


@given(BOUNDED, st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3))
def test_what_binds_of_a_plain_schema_agrees_with_the_whole_standard(schema: Any, arguments: dict[str, Any]) -> None:
    plain = plain_schema({"type": "object", "properties": {"a": schema}, "required": ["a"]})
    assert (mistake(plain, arguments) == "") is jsonschema.Draft202012Validator(plain).is_valid(arguments)


@given(VALUES, st.dictionaries(st.text(), VALUES, max_size=3))
def test_a_schema_of_any_shape_says_something_in_one_line_or_nothing(schema: Any, arguments: dict[str, Any]) -> None:
    odd = {"type": schema, "required": schema, "properties": {"a": schema}, "enum": schema, "minimum": schema}
    with suppress(SchemaRefused):
        plain = plain_schema({**odd, "properties": {"a": {**odd, "items": schema, "maxLength": schema}}})
        assert "\n" not in mistake(plain, arguments)


def test_arguments_that_would_take_too_long_to_compare_are_refused() -> None:
    items = {"type": "array", "items": {"enum": list(range(100))}}
    with pytest.raises(BadArguments, match="too many"):
        schema_check({"properties": {"a": items}})({"a": [99] * (MAX_STEPS // 50)})


@pytest.mark.parametrize("text", ["1e30", "-1e300", "1e999", "nan", "inf", "9" * 400])
def test_a_number_that_no_device_can_read_is_told_and_not_passed_on(text: str) -> None:
    check = schema_check({"properties": {"a": {"type": "integer"}, "b": {"type": "number"}}})
    with pytest.raises(BadArguments):
        check({"a": text})
    with pytest.raises(BadArguments):
        check({"a": 1e30})


@pytest.mark.parametrize("brackets", [33, 300, 900])
def test_arguments_nested_beyond_all_sense_are_told_in_one_sentence(brackets: int) -> None:
    with pytest.raises(BadArguments, match="nested too deeply"):
        parse_arguments('{"a": ' + "[" * brackets + "]" * brackets + "}")


def test_names_of_tools_are_found_in_descriptions_in_one_pass() -> None:
    hostile = ["-" * 120 + str(number) for number in range(64)]
    names = Names([*hostile, "self.lamp.on"])
    assert names.in_text("First self.lamp.on.") == "First self_lamp_on."
    assert names.in_text("-" * 4096) == "-" * 4096


def test_a_result_of_any_kind_is_mentioned_shortly() -> None:
    text, _ = call_text({"content": [{"type": "image"}] * 10_000})
    assert len(text) < 10_000
    text, _ = call_text({"content": [{"type": ["x"] * 5000}, {"type": "audio"}]})
    assert len(text) < 300
