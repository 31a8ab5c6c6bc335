"""Answers that are given again: when, to whom, and how much of them is kept."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.standins.embeddings import EmbeddingsStandIn
from xiaozhi.cache.answers import AnswerCache, AnswerLimits, Found
from xiaozhi.cache.embeddings import Embeddings
from xiaozhi.cache.preload import BUILT_IN, PreloadError, read_replies
from xiaozhi.settings.cache import EmbeddingsSettings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def cache(
    max_entries: int = 10, max_bytes: int = 1_000_000, similar: bool = True, clock: Clock | None = None
) -> AnswerCache:
    limits = AnswerLimits(
        max_entries=max_entries,
        max_bytes=max_bytes,
        ttl_s=1800.0,
        similar=similar,
        threshold=0.5,
        embedding_threshold=0.9,
    )
    return AnswerCache(limits, clock or Clock())


def test_the_same_words_get_the_same_answer_in_the_same_scope_only() -> None:
    answers = cache()
    answers.keep("法国的首都是哪里？", "🙂 巴黎。", "agent")
    assert answers.find_exact("法国的首都是哪里", "agent") == Found("🙂 巴黎。", "exact")
    assert answers.find_exact("法国的首都是哪里", "another") is None
    assert answers.find_exact("德国的首都是哪里", "agent") is None
    assert answers.hits == 1


def test_other_words_get_it_too_unless_that_is_switched_off() -> None:
    answers, strict = cache(), cache(similar=False)
    for one in (answers, strict):
        one.keep("what is the capital of france", "Paris.", "agent")
    assert answers.find_similar("can you tell me what france's capital is", "agent") == Found("Paris.", "similar")
    assert answers.find_similar("what is the capital of germany", "agent") is None
    assert answers.find_similar("can you tell me what france's capital is", "another") is None
    assert strict.find_similar("can you tell me what france's capital is", "agent") is None


def test_an_answer_expires() -> None:
    clock = Clock()
    answers = cache(clock=clock)
    answers.keep("什么是黑洞", "很重的星。", "agent")
    clock.now += 1801
    assert answers.find_similar("黑洞是什么", "agent") is None
    assert answers.find_exact("什么是黑洞", "agent") is None
    assert (len(answers), answers.bytes) == (0, 0)


def test_bounds_hold_and_the_least_used_goes_first() -> None:
    answers = cache(max_entries=3)
    for number in range(3):
        answers.keep(f"问题{number}号是什么", str(number), "agent")
    assert answers.find_exact("问题0号是什么", "agent") is not None
    answers.keep("问题9号是什么", "9", "agent")
    assert answers.find_exact("问题1号是什么", "agent") is None
    assert answers.find_exact("问题0号是什么", "agent") is not None
    assert (len(answers), answers.evicted) == (3, 1)
    tight = cache(max_bytes=10_000)
    for number in range(20):
        tight.keep(f"问题{number}号是什么", "答" * 100, "agent")
        assert tight.bytes <= 10_000
    assert 1 <= len(tight) < 5
    tight.clear()
    assert (len(tight), tight.bytes) == (0, 0)


def test_common_replies_serve_every_scope_and_never_expire() -> None:
    clock = Clock()
    answers = cache(clock=clock)
    answers.preload(read_replies(BUILT_IN))
    clock.now += 1e9
    found = answers.find_exact("谢谢", "anybody")
    assert found is not None and found.how == "common"
    assert answers.admits("what is your name", [], has_image=False), "written down, though it sounds personal"
    assert not answers.admits("what is your name", ["from now on your name is bob"], has_image=False)
    assert not answers.admits("几点了", [], has_image=False)
    assert answers.refused == 2
    assert 0 < answers.hit_rate < 1


def test_the_built_in_replies_are_whole() -> None:
    replies = read_replies(BUILT_IN)
    assert len(replies) >= 40
    assert len({question for question, _ in replies}) == len(replies)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "[[reply]\n", "neither TOML nor JSON"),
        ("a.json", "[1", "neither TOML nor JSON"),
        ("a.toml", "[[reply]]\nquestions = []\nanswer = 'x'\n", "reply.1.questions"),
        ("a.toml", "[[reply]]\nquestions = ['q']\n", "reply.1.answer"),
        ("a.toml", "[[reply]]\nquestions = ['q']\nanswer = 'x'\nanswr = 'y'\n", "reply.1.answr"),
    ],
)
def test_a_wrong_file_of_replies_is_named_in_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(PreloadError) as caught:
        read_replies(file)
    assert message in str(caught.value) and str(file) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(PreloadError, match="cannot be read"):
        read_replies(tmp_path / "missing.toml")


def test_a_file_of_replies_may_be_json(tmp_path: Path) -> None:
    file = tmp_path / "replies.json"
    file.write_text('{"reply": [{"questions": ["几点开门"], "answer": "九点。"}]}')
    assert read_replies(file) == [("几点开门", "九点。")]


def settings(url: str, timeout_ms: int = 2000) -> EmbeddingsSettings:
    return EmbeddingsSettings(base_url=f"{url}/v1", model="bench", timeout_ms=timeout_ms)


async def test_an_embeddings_endpoint_finds_what_letters_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async with EmbeddingsStandIn({"how tall is": "height", "the height of": "height"}) as server:
        embeddings = Embeddings(settings(server.url), Clock())
        answers = cache()
        kept = await embeddings.vector("how tall is mount everest")
        answers.keep("how tall is mount everest", "8849 meters.", "agent", kept)
        asked = "what is the height of mount everest"
        assert answers.find_similar(asked, "agent") is None
        vector = await embeddings.vector(asked)
        assert vector is not None
        refused = answers.find_similar(asked, "agent", vector)
        other = await embeddings.vector("how tall is mount fuji")
        assert answers.find_similar("how tall is mount fuji", "agent", other) is None, "the names differ"
        await embeddings.close()
        assert [request["model"] for request in server.requests] == ["bench"] * 3
    assert refused is None or refused.answer == "8849 meters."


@pytest.mark.parametrize("fault", ["500", "hang", "wrong-json", "empty", "refuse"])
async def test_an_endpoint_that_fails_is_left_alone_for_a_while(fault: str) -> None:
    clock = Clock()
    async with EmbeddingsStandIn({}) as server:
        server.fault = fault
        embeddings = Embeddings(settings(server.url, timeout_ms=200), clock)
        assert await embeddings.vector("什么是黑洞") is None
        assert await embeddings.vector("什么是黑洞") is None
        assert (embeddings.asked, embeddings.failed) == (1, 1)
        server.fault = ""
        clock.now += 31
        assert await embeddings.vector("什么是黑洞") is not None
        await embeddings.close()


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=60), st.integers(1, 6))
def test_what_is_found_by_other_words_is_what_is_held(steps: list[tuple[int, bool]], max_entries: int) -> None:
    answers = cache(max_entries=max_entries)
    held: list[int] = []  # least recently used first
    for number, asked in steps:
        question = f"how far away is planet {number} from the sun"
        if asked:
            found = answers.find_exact(question, "agent")
            assert (found is not None) == (number in held)
        else:
            answers.keep(question, str(number), "agent")
        if number in held or not asked:
            held = [*(one for one in held if one != number), number][-max_entries:]
    for number in range(13):
        found = answers.find_similar(f"tell me how far away planet {number} is from the sun", "agent")
        assert (found.answer if found is not None else None) == (str(number) if number in held else None)
