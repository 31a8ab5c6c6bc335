"""A text that goes round in circles is told from one that is only long, or that repeats itself as people do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.text.repetition import Repetition
from xiaozhi.text.units import UNIT_MS, units

CHORUS = (
    "Jingle bells, jingle bells, jingle all the way. Oh what fun it is to ride in a one-horse open sleigh, hey! "
    "Jingle bells, jingle bells, jingle all the way. Oh what fun it is to ride in a one-horse open sleigh. "
)
VERSE = "Dashing through the snow in a one-horse open sleigh, over the fields we go, laughing all the way. "
BEASTS = ("cow", "pig", "duck", "horse", "sheep", "goat", "dog", "cat", "hen", "mouse")


def spoken_s(text: str) -> float:
    return units(text) * UNIT_MS / 1000.0


def circles_after_s(pieces: list[str]) -> float | None:
    """After how much speech a circle is noticed; None where it never is."""
    repetition, said = Repetition(), ""
    for piece in pieces:
        said += piece
        if repetition.push(piece):
            return spoken_s(said)
    return None


@pytest.mark.parametrize(
    "text",
    [
        VERSE + CHORUS + VERSE.replace("snow", "ice") + CHORUS,
        " ".join(f"{number} sheep," for number in range(1, 400)),
        "".join(f"{number}只羊，" for number in range(1, 400)),
        " ".join(f"{a} times {b} is {a * b}." for a in range(1, 13) for b in range(1, 13)),
        " ".join(
            f"Old MacDonald had a farm, E-I-E-I-O, and on that farm he had a {beast}, E-I-E-I-O." for beast in BEASTS
        ),
        "I love you. " * 20,
        "哈" * 60,
        "从前有座山，山里有座庙，庙里有个老和尚在讲故事。讲的什么呢？" * 3,
        "!" * 5000,
        "",
    ],
)
def test_refrains_counting_and_what_was_asked_for_are_no_circles(text: str) -> None:
    assert circles_after_s(list(text)) is None


@given(
    st.lists(
        st.sampled_from(["我很好。", "I am fine, thank you. ", "没问题！", "ha ", "好", "42 "]), min_size=1, max_size=8
    ),
    st.integers(1, 30),
)
def test_every_circle_is_noticed_however_it_arrives(circle: list[str], piece_chars: int) -> None:
    once = "".join(circle)
    text = once * (3 + int(40.0 / spoken_s(once)))
    pieces = [text[start : start + piece_chars] for start in range(0, len(text), piece_chars)]
    noticed_s = circles_after_s(pieces)
    assert noticed_s is not None
    assert 20.0 <= noticed_s <= 24.0 + 2.0 * spoken_s(once) + spoken_s("x" * piece_chars)


def test_sentences_that_come_again_in_any_order_are_a_circle() -> None:
    sentences = ("Of course I can help you with that. ", "What would you like to know? ", "I am here for you. ")
    order = [sentences[number * number % 7 % 3] for number in range(200)]
    noticed_s = circles_after_s(order)
    assert noticed_s is not None and noticed_s < 60.0
