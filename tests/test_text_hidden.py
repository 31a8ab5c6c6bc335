"""What of a model's stream is not for people: thoughts, special tokens, other roles' words, calls written as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.text.hidden import HiddenParts

TOOLS = ("get_time", "t")


def read(
    text: str, *cuts: int, tools: tuple[str, ...] = TOOLS, unsure: bool = False
) -> tuple[str, list[tuple[str, str]]]:
    """What is given of a text that is cut at these places, and the calls in it."""
    hidden = HiddenParts(unsure=unsure, tools=tools)
    given, at = "", 0
    for cut in [*cuts, len(text)]:
        given += hidden.push(text[at:cut])
        at = cut
    return given + hidden.finish(), [(call.name, call.arguments) for call in hidden.take_calls()]


TEXTS = [
    ("<think>Hm, 1 < 2.</think>好的", "好的"),
    ("a<think>b</think>c<think>d</think>e", "ace"),
    ("<think>never closed", ""),
    ("<think/>好", "好"),
    ("<think>a</tool_response>b</think>好", "好"),
    ("opened by the template</think>好的", "opened by the template好的"),
    ("<thinking>x</thinking><reasoning>y</reasoning>z", "z"),
    ("<seed:think>x</seed:think>◁think▷y◁/think▷[THINK]z[/THINK]好", "好"),
    ("<|begin_of_thought|>x<|end_of_thought|>好", "好"),
    ("a < b and `code` <thin", "a < b and `code` <thin"),
    ("如果 x<y 且 y>z，按 <Enter>，价格<b>便宜</b> [NBA] [点这里](https://a.b) a <function> b", None),
    ("看：\n```python\nprint(1)\n```\n好了", None),
    ("``", None),
    ("", ""),
    ("<s>好</s><pad><|endoftext|><｜end▁of▁sentence｜><unused7>", "好"),
    ("<|im_start|>assistant\n好<|im_end|>", "好"),
    ("<|start_header_id|>assistant<|end_header_id|>\n\nHi<|eot_id|>", "\n\nHi"),
    ("<start_of_turn>model\nHi there, you<end_of_turn>", "Hi there, you"),
    ("<|im_start|>Hello there, friend", "Hello there, friend"),
    ("好<|user|>\n你是谁<|assistant|>\n小智", "好\n小智"),
    ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>好。<|return|>", "好。"),
    ("<tool_response>3点</tool_response>三点了", "三点了"),
    ('{"name": "Tom", "age": 5}', None),
    ('[{"name": "Tom", "arguments": "none"}]', None),
    ('{"name": "get_time", "arguments": {}, "because": 1}', None),
    ('{"a": {"name": "t", "arguments": {}}}', None),
    ('{\n  "calls": [\n    {"name": "t", "arguments": {}}\n  ]\n}', None),
    ('```json\n{"name": "Tom"}\n```', None),
    ("get the time", None),
    ("用 <tool_call> 标签", "用  标签"),
    ('<tool_call>{"name": "unknown", "arguments": {}}</tool_call>好', "好"),
    ('{"name": "unknown", "arguments": {}}\n好', "\n好"),
]
DOTTED = '<tool_call>{"name": "self.audio.set_volume", "arguments": {}}</tool_call>'
ONE = [("get_time", '{"x": 1}')]
CALLS = [
    ('好的，<tool_call>\n{"name": "get_time", "arguments": {"x": 1}}\n</tool_call>', "好的，", ONE),
    ('[TOOL_CALLS][{"name": "get_time", "arguments": {"x": 1}}]好的', "好的", ONE),
    ("{'name': 'get_time', 'arguments': {'x': 1}}", "", ONE),
    ('好的\n{"name": "get_time", "parameters": {"x": 1}}\n就这样', "好的\n\n就这样", ONE),
    ('好的，{"name": "get_time", "arguments": {"x": 1}}。', "好的，。", ONE),
    ("<|python_tag|>get_time.call(x=1)<|eom_id|>", "", ONE),
    ('get_time\n{"x": 1}', "", ONE),
    ("[get_time(x=1), t()]", "", [*ONE, ("t", "{}")]),
    ('<tool_call>{"name": "get_time", "arguments": {"x": 1,}}</tool_call>', "", [("get_time", '{"x": 1,}')]),
    ('<tool_call>{"name": "get_time", "arguments": {"x": 1}', "", ONE),
    ('<function=t>{"a": "</b>"}</function>', "", [("t", '{"a": "</b>"}')]),
    ('<think>or <tool_call>{"name": "t", "arguments": {}}</tool_call> no</think>好', "好", []),
    ('<think>so <tool_call>{"name": "t", "arguments": {}}</tool_call>', "", [("t", "{}")]),
    ('<tool_call>{"name": "unknown", "arguments": {}}</tool_call>', "", [("unknown", "{}")]),  # who runs it says so
]


@pytest.mark.parametrize(("raw", "given_"), TEXTS)
def test_what_is_not_for_people_is_taken_out_wherever_the_stream_is_cut(raw: str, given_: str | None) -> None:
    whole = read(raw)
    assert whole == (raw if given_ is None else given_, [])
    assert read(raw, *range(len(raw))) == whole
    assert all(read(raw, cut) == whole for cut in range(len(raw)))


@pytest.mark.parametrize(("raw", "given_", "calls"), CALLS)
def test_calls_written_as_text_are_taken_wherever_the_stream_is_cut(
    raw: str, given_: str, calls: list[tuple[str, str]]
) -> None:
    assert read(raw) == (given_, calls)
    assert read(raw, *range(len(raw))) == (given_, calls)
    assert all(read(raw, cut) == (given_, calls) for cut in range(len(raw)))


@pytest.mark.parametrize(("raw", "given_", "calls"), CALLS)
def test_without_tools_calls_written_with_marks_leave_no_trace(raw: str, given_: str, calls: object) -> None:
    if any(mark in raw for mark in ("<", "[TOOL")):
        assert read(raw, tools=()) == (given_, [])


def test_behind_a_thought_that_the_prompt_has_opened_a_call_is_a_call() -> None:
    call = '<tool_call>{"name": "t", "arguments": {}}</tool_call>'
    assert read(f"Let me see.</think>Yes.{call}", unsure=True) == ("Yes.", [("t", "{}")])
    assert read(f"Let me see. {call}", unsure=True) == ("", [("t", "{}")]), "the thought was not closed"


def test_a_devices_own_name_of_a_tool_is_understood() -> None:
    assert read(DOTTED, tools=("self_audio_set_volume",)) == ("", [("self_audio_set_volume", "{}")])


def test_text_that_opens_nothing_is_not_held_back() -> None:
    hidden = HiddenParts(tools=TOOLS)
    assert [hidden.push(piece) for piece in ("1 <", "2", "好的", "g", "o")] == ["1 ", "<2", "好的", "g", "o"]


MARKS = (
    "<think> </think> <tool_call> </tool_call> <|im_start|> <|im_end|> <|channel|> <|message|> <｜tool▁sep｜> "
    "<function=t> </function> [TOOL_CALLS] [INST] [/INST] functools[ ◁think▷ ◁/think▷ <s> ```json ``` ` "
    "< > [ ] { } ( ) \" ' \\ | "
    "assistant user analysis final to=functions.t get_time 好 x<y"
)
PIECES = st.lists(st.sampled_from([*MARKS.split(" "), " ", "\n", '{"name": "t", "arguments": {}}']), max_size=14).map(
    "".join
)


@given(PIECES, st.lists(st.integers(0, 60), max_size=6).map(sorted), st.booleans())
def test_the_pieces_of_a_stream_make_no_difference(raw: str, cuts: list[int], unsure: bool) -> None:
    whole = read(raw, unsure=unsure)
    assert read(raw, *cuts, unsure=unsure) == whole
    assert read(raw, *range(len(raw)), unsure=unsure) == whole


@given(st.text(max_size=60))
def test_ordinary_text_passes_unchanged(text: str) -> None:
    if not set(text) & set("<[{`◁"):
        assert read(text) == (text, [])
