"""Chat completion chunks out of bytes."""

import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.stages.llm.event_stream import MAX_EVENT_BYTES, NotAChatStream
from xiaozhi.stages.llm.sse import Chunk, ChunkReader, error_text


def event(delta: object, finish: str | None = None) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}) + b"\n\n"


STREAM = (
    b": keep-alive\r\n\r\nevent: message\r\n"
    + event({"role": "assistant", "content": ""})
    + event({"reasoning_content": "hm"})
    + event({"content": "你\u2028好".encode().decode()})
    + b'data:{"choices":[{"delta":null,"finish_reason":""}]}\n\n'
    + event({"content": "!"})
    + event({}, "stop")
    + b'data: {"choices":[],"usage":{"total_tokens":3},"error":null}\n\ndata: [DONE]\n\ndata: left over\n\n'
)


def read(data: bytes, size: int) -> list[Chunk]:
    reader = ChunkReader()
    chunks = [chunk for at in range(0, len(data), size) for chunk in reader.feed(data[at : at + size])]
    return chunks + list(reader.finish())


@given(st.integers(1, len(STREAM)))
def test_chunks_are_the_same_however_the_bytes_arrive(size: int) -> None:
    chunks = read(STREAM, size)
    assert "".join(chunk.text for chunk in chunks) == "你\u2028好!"
    assert [chunk.thinking for chunk in chunks].count(True) == 1
    assert [chunk.finished for chunk in chunks] == [False] * 5 + [True, True]


def test_done_is_remembered_and_ends_the_stream() -> None:
    reader = ChunkReader()
    assert list(reader.feed(b"data: [DO")) == []
    assert not reader.ended
    assert list(reader.feed(b"NE]\n")) == [Chunk(finished=True)]
    assert reader.ended


def test_a_last_line_without_line_feed_counts() -> None:
    reader = ChunkReader()
    assert list(reader.feed(event({"content": "a"}).rstrip())) == []
    assert list(reader.finish()) == [Chunk("a")]
    assert list(reader.finish()) == []


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"data: {\n", "no JSON: '{'"),
        (b"data: {\xff\xfe\n", "no JSON"),
        (b'data: {"choices": 7}\n', "another shape"),
        (b'data: {"choices": {"a": 1}}\n', "another shape"),
        (b'data: {"choices": ["a"]}\n', "another shape"),
        (b'data: {"choices": [{"delta": "a"}]}\n', "another shape"),
        (b'data: {"choices": [{"delta": {"content": {"a": 1}}}]}\n', "another shape"),
        (b'data: {"choices": [{"delta": {"content": [[[1]]]}}, {"delta"', "no JSON"),
        (b'data: {"error": {"message": "too  many\\nrequests", "code": 429}}\n', "too many requests"),
        (b'{"error": "no such model"}\n', "no such model"),
        (b'{"choices": [', "no JSON"),
        (b"x" * (MAX_EVENT_BYTES + 1), "a line of more than"),
        (b"data: x\n" * (MAX_EVENT_BYTES // 2 + 1), "an event of more than"),
        (b"{\n" * (MAX_EVENT_BYTES // 2 + 1), "an event of more than"),
    ],
)
def test_what_is_no_chat_stream_is_named(data: bytes, complaint: str) -> None:
    with pytest.raises(NotAChatStream, match=complaint) as caught:
        read(data, len(data))
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=300), st.integers(1, 40))
def test_any_bytes_are_chunks_or_named(data: bytes, size: int) -> None:
    try:
        read(data, size)
    except NotAChatStream:
        return


@pytest.mark.parametrize("data", [b"<html>\n", b"data: 7\n\n", b"data: [1]\n\n", b"Bad Gateway"])
def test_what_the_standard_passes_over_is_remembered_where_it_may_say_what_is_wrong(data: bytes) -> None:
    reader = ChunkReader()
    assert [*reader.feed(data), *reader.finish()] == []
    assert reader.remark == (repr(data.split()[-1].decode()) if data.startswith(b"data") else "")


@pytest.mark.parametrize(
    "data",
    [
        b'data: {"error": ' + b'{"error":' * 900 + b"1" + b"}" * 901 + b"\n\n",
        b'data: {"choices": [{"delta": {"content": ' + b"[" * 900 + b"]" * 900 + b"}}]}\n\n",
        b'data: {"a": ' + b"[" * 100_000 + b"\n\n",
    ],
)
def test_what_is_nested_without_end_is_named(data: bytes) -> None:
    with pytest.raises(NotAChatStream):
        read(data, len(data))


def test_many_small_pieces_of_a_long_line_cost_their_length_and_not_its_square() -> None:
    reader = ChunkReader()
    began = time.process_time()
    for _ in range(MAX_EVENT_BYTES // 2):
        assert list(reader.feed(b"xx")) == []
    assert time.process_time() - began < 10.0, "copied anew for each piece it would take minutes"


def test_error_bodies_of_several_shapes_are_one_line() -> None:
    assert error_text({"error": {"message": "bad key", "type": "auth"}}) == "bad key"
    assert error_text({"error": "bad key"}) == "bad key"
    assert error_text({"message": "bad\nkey"}) == "bad key"
    assert error_text({"detail": [{"msg": "field required"}]}) == "field required"
    assert error_text("<html>" + "x" * 500).endswith("x…")
    assert error_text(None) == ""
    assert error_text({}) == ""
