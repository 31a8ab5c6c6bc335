"""What models write, through a whole server: what is shown and said, what is called, and what nobody gets to see."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.house import House, house

ARGUMENTS = '{"expression": "6*7"}'
CALLS = {
    "qwen, hermes": f'<tool_call>\n{{"name": "calculate", "arguments": {ARGUMENTS}}}\n</tool_call>',
    "qwen coder": "<tool_call><function=calculate>\n<parameter=expression>\n6*7\n</parameter>\n</function></tool_call>",
    "glm": "<tool_call>calculate\n<arg_key>expression</arg_key>\n<arg_value>6*7</arg_value>\n</tool_call>",
    "old glm": f"calculate\n{ARGUMENTS}",
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.calculate:0<|tool_call_argument_begin|>"
    f"{ARGUMENTS}<|tool_call_end|><|tool_calls_section_end|>",
    "deepseek r1": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>calculate\n"
    f"```json\n{ARGUMENTS}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>",
    "deepseek v3": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>calculate<｜tool▁sep｜>{ARGUMENTS}<｜tool▁call▁end｜>"
    "<｜tool▁calls▁end｜>",
    "deepseek dsml": '<｜DSML｜function_calls><｜DSML｜invoke name="calculate"><｜DSML｜parameter name="expression" '
    'string="true">6*7</｜DSML｜parameter></｜DSML｜invoke></｜DSML｜function_calls>',
    "llama, python tag": f'<|python_tag|>{{"name": "calculate", "parameters": {ARGUMENTS}}}<|eom_id|>',
    "llama, python": '[calculate(expression="6*7")]',
    "llama, bare": f'{{"type": "function", "name": "calculate", "parameters": {ARGUMENTS}}}',
    "llama, function": f"<function=calculate>{ARGUMENTS}</function>",
    "mistral": f'[TOOL_CALLS][{{"name": "calculate", "arguments": {ARGUMENTS}}}]</s>',
    "new mistral": f"[TOOL_CALLS]calculate[ARGS]{ARGUMENTS}",
    "minimax": '<minimax:tool_call>\n<invoke name="calculate">\n<parameter name="expression">6*7</parameter>\n</invoke>'
    "\n</minimax:tool_call>",
    "gpt-oss": "<|channel|>analysis<|message|>A sum.<|end|><|start|>assistant<|channel|>commentary "
    f"to=functions.calculate <|constrain|>json<|message|>{ARGUMENTS}<|call|>",
    "internlm": f'<|action_start|><|plugin|>\n{{"name": "calculate", "parameters": {ARGUMENTS}}}<|action_end|>',
    "phi": f'functools[{{"name": "calculate", "arguments": {ARGUMENTS}}}]',
    "gemma": '```tool_code\nprint(calculate(expression="6*7"))\n```',
    "fenced": f'```json\n{{"name": "calculate", "arguments": {ARGUMENTS}}}\n```',
    "openai's own shape": '{"tool_calls": [{"function": {"name": "calculate", "arguments": '
    '"{\\"expression\\": \\"6*7\\"}"}}]}',
    "in a thought that is not closed": f'<think>A sum.<tool_call>{{"name": "calculate", "arguments": {ARGUMENTS}}}'
    "</tool_call>",
    "never closed": f'<tool_call>{{"name": "calculate", "arguments": {ARGUMENTS}}}',
}


def letters(text: str) -> list[str]:
    """Sorted: several sentences are asked for at once, and come in any order."""
    return sorted(re.findall(r"\w", text))


def said(home: House) -> str:
    return "".join(request.text for request in home.speech.requests)


@pytest.mark.parametrize("dialect", CALLS)
async def test_a_call_written_as_text_is_the_call_it_is(tmp_path: Path, dialect: str) -> None:
    def answer(messages: list[dict[str, Any]]) -> str:
        return "It is 42." if messages[-1]["role"] == "tool" else CALLS[dialect]

    async with house(tmp_path) as home, home.device() as device:
        home.chat.answer = answer
        report = await device.turn_text("how much is this")
        assert report.trace is not None
        assert [(use["name"], use["failed"]) for use in report.trace["tools"]] == [("calculate", False)]
        assert home.asked[-1][-1]["content"] == "42"
        assert (report.text, said(home)) == ("It is 42.", "It is 42.")


OTHERS = [
    ('Well, <tool_call>{"name": "no_such_tool", "arguments": {}}</tool_call>', "Well,"),
    ('[TOOL_CALLS][{"name": "t", "arguments": {"x": 1}}]Yes.', "Yes."),
    ("<think>The user greets.</think>Hello.", "Hello."),
    ("<thinking>Hm.</thinking>\n\nHello.", "Hello."),
    (
        "<|channel|>analysis<|message|>A greeting.<|end|><|start|>assistant<|channel|>final<|message|>Hello.<|return|>",
        "Hello.",
    ),
    ("◁think▷Hm.◁/think▷Hello.", "Hello."),
    ("[THINK]Hm.[/THINK]Hello.", "Hello."),
    ("<|begin_of_thought|>Hm.<|end_of_thought|>\n<|begin_of_solution|>Hello.<|end_of_solution|>", "Hello."),
    ("Hello.<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\nBye.", "Hello. Bye."),
    ("<s>[INST] Greet me. [/INST] Hello.</s>", "Hello."),
    ("Hello.<｜end▁of▁sentence｜>", "Hello."),
    ('<audio src="https://a.b/c.mp3?x=1, 2. 3!" controls>Hello.</audio>', "Hello."),
    ('<speak>Hello, <break time="500ms"/>friend.</speak>', "Hello, friend."),
    ('<img src="data:image/png;base64,' + "iVBORw0KGgo" * 200 + '" alt="A cat. It sits."/>Hello.', "Hello."),
]


@pytest.mark.parametrize(("written", "text"), OTHERS)
async def test_what_is_not_for_ears_is_neither_shown_nor_said(tmp_path: Path, written: str, text: str) -> None:
    async with house(tmp_path, written) as home, home.device() as device:
        report = await device.turn_text("say something")
        assert report.text == text
        assert letters(said(home)) == letters(text)


WORDS = [
    "好呀~~~我们出去玩吧！今天天气真好。",
    "Yay~~~ let's go! It is sunny.",
    "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20",
    "圆周率前50位是3.14159265358979323846264338327950288419716939937510。",
    "hello,world,this,is,a,test,without,blanks,and,commas,everywhere,okay",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "~~~\n我们出去玩吧，今天天气真好。\n~~~\n好不好？",
    "```\n床前明月光，疑是地上霜。",
]


@pytest.mark.parametrize("written", WORDS)
async def test_every_word_of_a_reply_is_shown_and_said(tmp_path: Path, written: str) -> None:
    async with house(tmp_path, written) as home, home.device() as device:
        report = await device.turn_text("say something")
        assert report.answered
        assert re.findall(r"\w", report.text) == re.findall(r"\w", written)
        assert letters(said(home)) == letters(written)


async def test_a_json_answer_that_was_asked_for_is_no_call(tmp_path: Path) -> None:
    written = '{"name": "calculate", "age": 5}'
    async with house(tmp_path, written) as home, home.device() as device:
        report = await device.turn_text("give me some json")
        assert report.text == written
        assert len(home.asked) == 1


@pytest.mark.parametrize(
    ("written", "emotion"),
    [("😊", "happy"), ("😭😭", "crying"), ("……", "neutral"), ("?!", "neutral"), ("🦖\n", "neutral")],
)
async def test_a_face_alone_is_shown_and_the_device_listens_again(tmp_path: Path, written: str, emotion: str) -> None:
    async with house(tmp_path, written) as home, home.device() as device:
        report = await device.turn_text("look at me")
        assert (report.emotion, report.text) == (emotion, "")
        assert report.tts_stop_ms is not None
        assert report.trace is not None and report.trace["error"] == ""
        assert said(home) == ""
        assert len(home.asked) == 1, "no failure of the endpoint"
        home.chat.answer = "🙂 Hello."
        assert (await device.turn_text("and now?")).text == "Hello."
        assert home.asked[-1][-2]["role"] == "assistant", "the face was an answer"


@pytest.mark.parametrize(
    "written",
    [
        "https://only.an/address",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "```python\nprint(1)\n```",
    ],
)
async def test_what_can_only_be_read_is_shown_and_a_sentence_says_so(tmp_path: Path, written: str) -> None:
    async with house(tmp_path, written) as home, home.device() as device:
        report = await device.turn_text("show me something")
        assert report.text == written.removeprefix("```python\n").removesuffix("\n```")
        assert said(home) == "I have put it on the screen."
