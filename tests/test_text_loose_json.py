"""Arguments as models write them: what a human can read is read, what can be read in two ways is not."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.text.call_names import offered_name
from xiaozhi.text.loose_json import MAX_CHARS, NotReadable, read_object, wire_object
from xiaozhi.text.surrogates import without_halves

READ: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("  ", {}),
    ("null", {}),
    ('""', {}),
    ("[]", {}),
    ("{}", {}),
    ('{"x": 1}', {"x": 1}),
    ('{"x": 1,}', {"x": 1}),
    ('{"x": 1}{"x": 1}', {"x": 1}),
    ('{"x": 1}\n{"x": 1}\n', {"x": 1}),
    ('{}{"x": 1}', {"x": 1}),
    ('[{"x": 1}]', {"x": 1}),
    ('"{\\"x\\": 1}"', {"x": 1}),
    (json.dumps(json.dumps('{"x": 1}')), {"x": 1}),
    (json.dumps("{'x': 1}"), {"x": 1}),
    ('{\\"x\\": 1}', {"x": 1}),
    ("{'x': 1}", {"x": 1}),
    ("{'x': True, 'y': False, 'z': None}", {"x": True, "y": False, "z": None}),
    ("{x: 1, y: true, z: undefined}", {"x": 1, "y": True, "z": None}),
    ("{city: Berlin}", {"city": "Berlin"}),
    ('```json\n{"x": 1}\n```', {"x": 1}),
    ("```\n{'x': 1}```", {"x": 1}),
    ('json\n{"x": 1}', {"x": 1}),
    ('Here you are: {"x": 1} – fine?', {"x": 1}),
    ('<tool_call>{"x": 1}</tool_call>', {"x": 1}),
    ('{"x": 1}}', {"x": 1}),
    ('{"x": 1 /* one */, // two\n}', {"x": 1}),
    ("{“x”：1，‘y’：[2，3]}", {"x": 1, "y": [2, 3]}),
    ('{"a": {"b": [1, {"c": "d"}]', {"a": {"b": [1, {"c": "d"}]}}),
    ('{"x": "y"', {"x": "y"}),
    ('{"x": 007, "y": .5, "z": +2}', {"x": 7, "y": 0.5, "z": 2}),
    ('{"x": "two\nlines and a\ttab"}', {"x": "two\nlines and a\ttab"}),
    ("{'x': 'it\\'s', 'y': 'a\\nb\\u4f60'}", {"x": "it's", "y": "a\nb你"}),
    ('{"x": "\\ud83d\\ude00\\ud83d"}', {"x": "😀"}),
    ("{'x': '\\ud83d\\ude00',}", {"x": "😀"}),
    ('{"x": ' + "9" * 40 + "}", {"x": float("9" * 40)}),
]

NOT_READ = [
    "hello",
    "7",
    "[1, 2]",
    "True",
    '{"x": 1}{"x": 2}',
    '{"x": 1',  # of 10?
    '{"x": tru',
    '{"x": "a',
    '{"x": ',
    '{"x"',
    "{",
    '{"x" 1}',
    '{"x":,}',
    '{"x": 1 "y": 2}',
    '{"x": NaN}',
    '{"x": 1e999}',
    '{"x": ' * 40 + "1" + "}" * 40,
    "{'x': " * 40 + "1" + "}" * 40,
    "{" * 4000,
    '{"x": "' + "y" * MAX_CHARS + '"}',
    "__import__('os').system('true')",
    "{'x': __import__('os').system('true')}",
]


@pytest.mark.parametrize(("text", "value"), READ)
def test_what_a_human_reads_in_one_way_is_read(text: str, value: dict[str, Any]) -> None:
    assert read_object(text) == value
    assert json.loads(wire_object(text), parse_int=float) == value, "and goes on as JSON"


@pytest.mark.parametrize("text", NOT_READ)
def test_what_is_unclear_cut_off_or_beyond_measure_is_not(text: str) -> None:
    with pytest.raises(NotReadable):
        read_object(text)
    try:
        json.loads(text)
    except ValueError:
        assert wire_object(text) == "{}"


def test_json_goes_on_as_it_is() -> None:
    assert wire_object('{ "x":1.0 }') == '{ "x":1.0 }'


@given(st.text(alphabet="{}[]\"':,\\/*“”‘’ax1.-eE \n", max_size=400))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert isinstance(read_object(text), dict)
    except NotReadable:
        return


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=9,
)


@given(st.dictionaries(st.text(max_size=9), VALUES, max_size=4))
def test_every_way_of_writing_an_object_means_that_object(value: dict[str, Any]) -> None:
    strict = json.dumps(value)
    assert read_object(strict) == json.loads(without_halves(json.dumps(value, ensure_ascii=False)))
    for written in (strict + strict, json.dumps(strict), f"```json\n{strict}\n```", f"[{strict}]", strict[:-1] + ",}"):
        if written != "{,}":
            assert read_object(written) == read_object(strict)
    assert read_object(repr(value)) == read_object(strict)


@pytest.mark.parametrize("piece", ['"a":1,', "'", '"', "“", "/*", "[{", "a{", "1.", '"\\', "''\"", "{'"])
def test_reading_takes_no_longer_than_a_text_is_long(piece: str) -> None:
    began = time.process_time()
    for _ in range(20):
        with pytest.raises(NotReadable):
            read_object("{" + piece * (4000 // len(piece)))
    assert time.process_time() - began < 2.0, "20 texts; what grows with the square takes ten times that"


OFFERED = ("get_time", "self_audio_speaker_set_volume", "get-weather", "Lamp", "lamp_on")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("get_time", "get_time"),
        ("functions.get_time", "get_time"),
        ("functions.get_time:0", "get_time"),
        ("default_api:get_time", "get_time"),
        ("get_time<|channel|>commentary", "get_time"),
        ("<|constrain|>get_time", "get_time"),
        ("`get_time`()", "get_time"),
        ('"get_time"', "get_time"),
        (" GET_TIME\n", "get_time"),
        ("getTime", "get_time"),
        ("get_weather", "get-weather"),
        ("tools/get_weather", "get-weather"),
        ("self.audio_speaker.set_volume", "self_audio_speaker_set_volume"),
        ("functions.self.audio_speaker.set_volume", "self_audio_speaker_set_volume"),
        ("lamp", "Lamp"),
        ("set_time", None),
        ("time", None),
        ("get_time get_weather", None),
        ("", None),
        ("." * 60_000, None),
    ],
)
def test_a_tool_is_found_whatever_is_written_around_its_name(written: str, meant: str | None) -> None:
    assert offered_name(written, OFFERED) == meant


def test_names_that_differ_in_their_marks_alone_are_told_apart_or_not_taken() -> None:
    assert offered_name("a_b", ["a_b", "a-b"]) == "a_b"
    assert offered_name("functions.a_b", ["a_b", "a-b"]) is None
