"""Schemas of devices and servers made such as every model service takes them."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.tool_host import MemoryBook, never
from xiaozhi.settings.tools import ToolsSettings
from xiaozhi.tools.plain_schema import MAX_ARGUMENTS, SchemaRefused, plain_schema
from xiaozhi.tools.shared_tools import SharedTools

KEYWORDS = {
    *("type", "description", "enum", "default", "minimum", "maximum", "minLength", "maxLength"),
    *("minItems", "maxItems", "items", "properties", "required"),
}
TYPES = {"object", "array", "string", "integer", "number", "boolean"}


def require_plain(schema: dict[str, Any]) -> None:
    """Only the words of the subset, each with what it may hold; what is required is there, what is a list has items."""
    assert set(schema) <= KEYWORDS
    assert schema["type"] in TYPES
    assert ("items" in schema) is (schema["type"] == "array")
    assert ("properties" in schema) is (schema["type"] == "object")
    assert set(schema.get("required", ())) <= set(schema.get("properties", ()))
    for inner in [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]:
        require_plain(inner)


def one(schema: object) -> Any:
    """What becomes of the schema of a single argument."""
    return plain_schema({"type": "object", "properties": {"x": schema}})["properties"]["x"]


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("int", "integer"), ("Integer", "integer"), (" INT32 ", "integer"), ("uint8_t", "integer"), ("long", "integer"),
        ("float", "number"), ("double", "number"), ("Number", "number"), ("bool", "boolean"), ("Boolean", "boolean"),
        ("str", "string"), ("String", "string"), ("text", "string"), ("any", "string"), ("dict", "object"),
        ("map<string, int>", "object"), ("int?", "integer"), ("int | None", "integer"), ("null | str", "string"),
        ("Optional[bool]", "boolean"), ("typing.Optional[int]", "integer"), (["integer", "null"], "integer"),
        (["null", "number"], "number"), ([], "string"), (None, "string"), (7, "string"), ("nonsense", "string"),
    ],
)  # fmt: skip
def test_types_of_other_languages_are_understood(written: object, kind: str) -> None:
    assert one({"type": written})["type"] == kind


@pytest.mark.parametrize(
    ("schema", "plain"),
    [
        ({"type": "array"}, {"type": "array", "items": {"type": "string"}}),
        ({"type": "list[int]"}, {"type": "array", "items": {"type": "integer"}}),
        ({"type": "float[]"}, {"type": "array", "items": {"type": "number"}}),
        ({"type": "array", "items": {"type": "str"}}, {"type": "array", "items": {"type": "string"}}),
        ({"type": "array", "items": [{"type": "int"}]}, {"type": "array", "items": {"type": "integer"}}),
        ({"type": "array", "items": "int"}, {"type": "array", "items": {"type": "integer"}}),
        ("int", {"type": "integer"}),
        (None, {"type": "string"}),
        (True, {"type": "string"}),
        ({"properties": {"a": "int"}}, {"type": "object", "properties": {"a": {"type": "integer"}}}),
        ({"enum": ["a", "b", None]}, {"type": "string", "enum": ["a", "b"]}),
        ({"enum": [1, 2.0]}, {"type": "integer", "enum": [1, 2]}),
        ({"type": "integer", "enum": ["1", "2"]}, {"type": "integer", "enum": [1, 2]}),
        ({"const": "on"}, {"type": "string", "enum": ["on"]}),
        ({"oneOf": [{"const": "a", "title": "A"}, {"const": "b"}]}, {"type": "string", "enum": ["a", "b"]}),
        ({"anyOf": [{"type": "null"}, {"type": "int"}], "title": "T"}, {"type": "integer", "description": "T"}),
        ({"allOf": [{"type": "int"}, {"minimum": 3}]}, {"type": "integer", "minimum": 3}),
        ({"minimum": 0, "maximum": 1}, {"type": "integer", "minimum": 0, "maximum": 1}),
        ({"type": "int", "minimum": "0", "max": 9.5}, {"type": "integer", "minimum": 0, "maximum": 9}),
        ({"type": "int", "exclusiveMinimum": 0}, {"type": "integer", "minimum": 1}),
        ({"type": "number", "exclusiveMaximum": 1.5}, {"type": "number", "maximum": 1.5}),
        ({"type": "int", "minimum": 9, "maximum": 1}, {"type": "integer"}),
        ({"type": "string", "minLength": -1, "pattern": "^(a+)+$", "format": "date"}, {"type": "string"}),
        ({"type": "int", "default": "5"}, {"type": "integer", "default": 5}),
        ({"type": "int", "default": "five"}, {"type": "integer"}),
        ({"type": "string", "description": " a\n b ", "examples": ["x"]}, {"type": "string", "description": "a b"}),
        ({"$ref": "https://example.org/schema"}, {"type": "object", "properties": {}}),
    ],
)
def test_one_argument_becomes_plain(schema: object, plain: dict[str, Any]) -> None:
    assert one(schema) == plain


@pytest.mark.parametrize(
    ("schema", "plain"),
    [
        (None, {}),
        ({}, {}),
        ([], {}),
        ({"type": "dict"}, {}),
        ({"type": "object", "properties": []}, {}),
        ({"type": "object", "properties": None, "required": None}, {}),
        ({"properties": {}, "required": ["z"]}, {}),
        ('{"type": "object", "properties": {"v": {"type": "int"}}}', {"v": {"type": "integer"}}),
        ({"v": {"type": "int"}}, {"v": {"type": "integer"}}),
        ({"properties": [{"name": "v", "type": "int"}, {"type": "int"}, 3]}, {"v": {"type": "integer"}}),
        ({"properties": {"v": "int", "bad\n": {}, "": {}}}, {"v": {"type": "integer"}}),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"v": {"$ref": "#/$defs/B"}}}, "B": {"type": "int"}}},
         {"v": {"type": "integer"}}),
    ],
)  # fmt: skip
def test_the_arguments_of_a_tool_become_plain(schema: object, plain: dict[str, Any]) -> None:
    assert plain_schema(schema) == {"type": "object", "properties": plain}


@pytest.mark.parametrize(
    ("required", "needed"), [(["v", "z", 3], ["v"]), ("v", ["v"]), (True, []), ({"v": 1}, []), (["v", "v"], ["v"])]
)
def test_only_arguments_that_are_there_are_required(required: object, needed: list[str]) -> None:
    assert plain_schema({"properties": {"v": {"type": "int"}}, "required": required}).get("required", []) == needed


def test_an_argument_that_says_itself_that_it_is_required_is() -> None:
    assert plain_schema({"properties": {"v": {"type": "int", "required": True}, "w": {"required": False}}})[
        "required"
    ] == ["v"]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "string"}, "no object"),
        ({"type": "array"}, "no object"),
        ("x", "no schema"),
        ([3], "no schema"),
        ({"properties": {"a\n": {}}, "required": ["a\n"]}, "needs an argument with the name"),
        ({"properties": {f"a{number}": {} for number in range(MAX_ARGUMENTS + 1)}}, "65 arguments, more than 64"),
        ({"properties": {f"b{n}": {"properties": {f"c{m}": {} for m in range(20)}} for n in range(20)}},
         "more than 200 parts"),
        ({"x": "y" * 40_000, "type": "object"}, "more than 32768 bytes"),
    ],
)  # fmt: skip
def test_what_no_model_could_be_offered_is_refused(schema: object, why: str) -> None:
    with pytest.raises(SchemaRefused, match=why):
        plain_schema(schema)


def test_a_schema_within_itself_is_followed_once() -> None:
    tree = {
        "type": "object",
        "properties": {"name": {"type": "str"}, "children": {"type": "array", "items": {"$ref": "#"}}},
    }
    plain = plain_schema(tree)
    require_plain(plain)
    assert plain["properties"]["name"] == {"type": "string"}


def bomb(width: int) -> dict[str, Any]:
    """References that fan out: a few hundred bytes, millions of schemas."""
    defs = {
        f"d{level}": {
            "type": "object",
            "properties": {f"p{n}": {"$ref": f"#/$defs/d{level + 1}"} for n in range(width)},
        }
        for level in range(30)
    }
    return {"$ref": "#/$defs/d0", "$defs": defs}


@pytest.mark.parametrize("schema", [bomb(8), {"allOf": [{"allOf": [{"allOf": [{}] * 60}] * 60}] * 60}])
def test_a_schema_that_grows_without_end_costs_little(schema: dict[str, Any]) -> None:
    began = time.process_time()
    for note in range(10):
        with contextlib.suppress(SchemaRefused):
            require_plain(plain_schema({**schema, "description": str(note)}))  # a schema that is known costs nothing
    assert time.process_time() - began < 2.0


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(sorted(TYPES | {"int", "#/a"})),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(sorted(KEYWORDS | {"$ref", "anyOf", "allOf", "const", "a", "$defs"})) | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(JSON)
def test_whatever_is_given_becomes_a_valid_plain_schema_or_is_refused(given_schema: object) -> None:
    try:
        plain = plain_schema(given_schema)
    except SchemaRefused:
        return
    require_plain(plain)
    Draft202012Validator.check_schema(plain)
    assert plain_schema(plain) == plain, "and stays as it is"


def test_the_servers_own_tools_are_plain(tmp_path: Path) -> None:
    settings = ToolsSettings.model_validate({"home_assistant": {"url": "http://127.0.0.1:1", "token": "t"}})
    tools = SharedTools(settings, book=MemoryBook(), ring=never).registry.tools()
    assert len(tools) > 8
    for each in tools:
        require_plain(json.loads(json.dumps(each.parameters)))
