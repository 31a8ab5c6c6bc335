"""From a model's stream to clauses in a channel."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from bench.standins.chat import ChatStandIn
from xiaozhi.concurrency.channel import Channel, ChannelClosed
from xiaozhi.events import Clause, Message
from xiaozhi.settings import LlmEndpoint, LlmSettings, Settings, TtsSettings
from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Delta
from xiaozhi.stages.llm.openai_chat import OpenAIChat
from xiaozhi.stages.llm.responder import BuiltInResponder
from xiaozhi.stages.llm.stage import MAX_TEXT_CHARS, run_llm

QUESTION = [Message("user", "你好")]


class ScriptedModel:
    """Says its script: texts at once, events are waited for, errors are raised."""

    name = "script"

    def __init__(self, *script: str | asyncio.Event | Exception) -> None:
        self._script = script
        self.given = 0
        self.closed = False

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        try:
            for step in self._script:
                match step:
                    case str():
                        self.given += 1
                        yield Delta(step)
                    case asyncio.Event():
                        await step.wait()
                    case Exception():
                        raise step
        finally:
            self.closed = True

    async def warm(self) -> None:
        return

    async def close(self) -> None:
        return


class Run:
    """One run of the stage and what it called."""

    def __init__(
        self,
        model: ScriptedModel | OpenAIChat | BuiltInResponder,
        *,
        language: str = "zh",
        settings: Settings | None = None,
        queued_ms: Callable[[], float] = lambda: 0.0,
        limit: float = 100,
    ) -> None:
        self.clauses: Channel[Clause] = Channel(limit)
        self.calls: list[str] = []
        self.task = asyncio.create_task(
            run_llm(
                model.stream(ChatRequest(QUESTION, language)),
                self.clauses,
                language=language,
                settings=settings or Settings(),
                on_first_token=lambda: self.calls.append("token"),
                on_first_clause=lambda: self.calls.append("clause"),
                queued_ms=queued_ms,
            )
        )

    async def texts(self) -> list[str]:
        return [clause.text async for clause in self.clauses]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_reply_becomes_clauses_and_the_first_carries_the_emotion() -> None:
    model = ScriptedModel("😄 ", "你好", "呀，", "我是**小智**。", "看 https://a.b 吧。", "OK, bye now.")
    run = Run(model)
    assert (await run.task).text == "你好呀，我是小智。看 https://a.b 吧。OK, bye now."
    assert [clause async for clause in run.clauses] == [
        Clause("你好呀，", "你好呀，", "zh", "happy"),
        Clause("我是小智。", "我是小智。", "zh"),
        Clause("看 https://a.b 吧。", "看 吧。", "zh"),
        Clause("OK, bye now.", "OK, bye now.", "en"),
    ]
    assert run.calls == ["token", "clause"]
    assert model.closed


async def test_without_an_emoji_the_emotion_is_neutral_and_digits_speak_the_users_language() -> None:
    run = Run(ScriptedModel("42."), language="en")
    await run.task
    assert [clause async for clause in run.clauses] == [Clause("42.", "42.", "en", "neutral")]


async def test_an_emoji_alone_in_front_belongs_to_the_first_clause() -> None:
    run = Run(ScriptedModel("😭", "\n", "\n", "真可惜，"))
    await run.task
    assert [(clause.text, clause.emotion) async for clause in run.clauses] == [("真可惜，", "crying")]


async def test_code_is_not_spoken() -> None:
    run = Run(ScriptedModel("这样写：\n``", "`python\nprint('hi')\n``", "`\n就好了。"))
    await run.task
    assert await run.texts() == ["这样写：", "就好了。"]


async def test_the_first_clause_leaves_before_the_model_has_finished() -> None:
    gate = asyncio.Event()
    run = Run(ScriptedModel("好的，", gate, "没问题。"))
    assert (await run.clauses.get()).text == "好的，"
    assert not run.task.done()
    gate.set()
    await run.task
    assert await run.texts() == ["没问题。"]


async def test_an_overdue_first_clause_is_cut_though_the_model_is_silent() -> None:
    gate = asyncio.Event()
    settings = Settings(tts=TtsSettings(first_clause_wait_ms=1))
    run = Run(ScriptedModel("我觉得今天的", gate, "天气不错。"), settings=settings)
    assert (await run.clauses.get()).text == "我觉得今天的"  # comes without the gate
    gate.set()
    assert (await run.task).text == "我觉得今天的天气不错。"


async def test_an_overdue_first_clause_that_is_too_short_waits_for_more_text() -> None:
    first, second = asyncio.Event(), asyncio.Event()
    settings = Settings(tts=TtsSettings(first_clause_wait_ms=0))
    run = Run(ScriptedModel("我觉", first, "得今天的", second, "天气不错。"), settings=settings)
    await settle()
    assert len(run.clauses) == 0
    first.set()
    assert (await run.clauses.get()).text == "我觉得今天的"
    second.set()
    await run.task


async def test_sentences_are_joined_while_much_is_queued_and_let_go_when_it_has_been_played() -> None:
    gate = asyncio.Event()
    queued = [9000.0]
    run = Run(ScriptedModel("好的，第一句。第二句。第三句。", "第", gate), queued_ms=lambda: queued[0])
    assert (await run.clauses.get()).text == "好的，"
    await settle()
    assert len(run.clauses) == 0
    queued[0] = 2900.0  # the model is silent, but its sentences are needed now
    assert (await run.clauses.get()).text == "第一句。第二句。第三句。"
    gate.set()
    assert (await run.task).text == "好的，第一句。第二句。第三句。第"


async def test_a_full_channel_stops_the_reading() -> None:
    model = ScriptedModel(*[f"第{number}句。" for number in range(50)])
    run = Run(model, limit=2)
    await settle()
    assert len(run.clauses) == 2
    assert model.given <= 5
    assert len(await run.texts()) == 50
    await run.task


async def test_a_model_that_breaks_is_an_error_after_what_was_whole() -> None:
    run = Run(ScriptedModel("好的，第一句。第二句。半", ChatError("script: reset")), queued_ms=lambda: 9000.0)
    assert await run.texts() == ["好的，", "第一句。第二句。"]
    with pytest.raises(ChatError, match="script: reset"):
        await run.task


@pytest.mark.parametrize("script", [(), (" \n",)])
async def test_an_empty_answer_is_an_error(script: tuple[str, ...]) -> None:
    run = Run(ScriptedModel(*script))
    with pytest.raises(ChatError, match="answered nothing that can be spoken"):
        await run.task
    assert await run.texts() == []
    assert "clause" not in run.calls


@pytest.mark.parametrize(
    ("script", "clause"),
    [
        (("😀",), Clause("", "", "zh", "happy")),
        (("😭", " \n……"), Clause("", "", "zh", "crying")),
        (("```\ncode\n```",), Clause("code", "我把它放在屏幕上了。", "zh", "neutral")),
        (("https://only.", "an/address 😎"), Clause("https://only.an/address", "我把它放在屏幕上了。", "zh", "cool")),
    ],
)
async def test_an_answer_without_a_word_to_say_is_shown(script: tuple[str, ...], clause: Clause) -> None:
    run = Run(ScriptedModel(*script))
    assert (await run.task).text == clause.text
    assert [each async for each in run.clauses] == [clause]
    assert run.calls == ["token", "clause"]


async def test_what_cannot_be_said_is_shown_with_the_next_words_or_at_the_end() -> None:
    run = Run(ScriptedModel("看这里：\nhttps://a.b/c\n很好用。\nhttps://d.e/f"))
    assert (await run.task).text == "看这里：https://a.b/c 很好用。https://d.e/f"
    assert [clause async for clause in run.clauses] == [
        Clause("看这里：", "看这里：", "zh", "neutral"),
        Clause("https://a.b/c 很好用。", "很好用。", "zh"),
        Clause("https://d.e/f", "", "zh"),
    ]


async def test_names_do_not_change_the_speaker_in_the_midst_of_a_reply() -> None:
    answers = {
        "zh": "我推荐一部电影。它叫The Shawshank Redemption。iPhone 15。邮箱是 test.user@example.com，随时写信。",
        "en": "Sure, that is easy. It is called 北京烤鸭. Say 你好. Go to 天安门!",
    }
    for language, answer in answers.items():
        run = Run(ScriptedModel(answer), language=language)
        await run.task
        assert {clause.language async for clause in run.clauses} == {language}


async def test_a_reply_in_another_language_than_the_users_keeps_to_it() -> None:
    run = Run(ScriptedModel("Once upon a time there was a king. Harry Potter. 42."), language="zh")
    await run.task
    assert [clause.language async for clause in run.clauses] == ["en", "en", "en"]


async def test_a_formula_is_said_in_the_language_of_the_reply() -> None:
    for language, speech in (("zh", "x等于2分之1。"), ("en", "x equals 1/2.")):
        run = Run(ScriptedModel("$x=\\frac{1}{2}", "$" + speech[-1]), language=language)
        await run.task
        assert [(clause.text[:-1], clause.speech) async for clause in run.clauses] == [("x=1/2", speech)]


async def test_an_answer_that_comes_whole_is_taken_in_parts_and_others_have_their_turn() -> None:
    answer, turns = "".join(f"第{number}天走了{number * 7}公里，又买了{number * 3}个苹果。" for number in range(40)), 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    pieces = await Run(ScriptedModel(*answer)).texts()
    async with asyncio.TaskGroup() as tasks:
        beside = tasks.create_task(other())
        assert await Run(ScriptedModel(answer)).texts() == pieces
        beside.cancel()
    assert turns >= len(answer) / MAX_TEXT_CHARS - 1 > 1


async def test_a_reply_without_end_is_cut() -> None:
    settings = Settings(llm=LlmSettings(reply_max_chars=60))
    model = ScriptedModel(*["十个字一句话说完了。"] * 100)
    run = Run(model, settings=settings)
    assert (await run.task).text == "十个字一句话说完了。" * 6
    assert model.closed
    assert model.given == 6


async def test_cancelling_closes_the_models_stream_and_the_channel() -> None:
    for script in (("好的，", asyncio.Event()), ("我", asyncio.Event())):  # reading directly, and with a limit of time
        model = ScriptedModel(*script)
        run = Run(model)
        await settle()
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.task
        assert model.closed
        assert run.clauses.closed


async def test_a_reader_that_goes_away_ends_the_reading() -> None:
    model = ScriptedModel(*["一句话。"] * 50)
    run = Run(model, limit=1)
    await settle()
    run.clauses.close()
    with pytest.raises(ChannelClosed):
        await run.task
    assert model.closed


async def test_the_built_in_responder_speaks_through_the_stage() -> None:
    run = Run(BuiltInResponder())
    await run.task
    first = await run.clauses.get()
    assert first.emotion == "happy"
    assert first.language == "zh"


async def test_a_real_stream_through_a_socket() -> None:
    answer = "😂 哈哈，这个问题很有意思！\n\n答案是 3.14 左右。你还想知道什么？"
    async with ChatStandIn(answer) as server:
        chat = OpenAIChat(LlmEndpoint(name="s", base_url=f"{server.url}/v1", model="m"), LlmSettings())
        run = Run(chat)
        await run.task
        assert [(clause.text, clause.emotion) async for clause in run.clauses] == [
            ("哈哈，", "funny"),
            ("这个问题很有意思！", ""),
            ("答案是 3.14 左右。", ""),
            ("你还想知道什么？", ""),
        ]
        server.fault, server.fault_after = "hang-mid", 5
        run = Run(chat)
        await server.asked(2)
        assert (await run.clauses.get()).text == "哈哈，"
        run.task.cancel()
        await asyncio.gather(run.task, return_exceptions=True)
        await server.idle()
        assert server.aborted == 1
        await chat.close()
