"""Speech, and what is none, over a reply in realtime mode: real voices, models and recogniser, in virtual time."""

from collections.abc import Sequence

import numpy as np
import pytest

from bench.barge_in import loud, play
from tests.speech import SPEECH_DIR, needs_speech, read_wav, recordings
from tests.speech import say_the_same as say
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.stages.asr.model_files import find_transducer
from xiaozhi.stages.asr.zipformer import Zipformer
from xiaozhi.turn.endpointing import is_to_reply

pytestmark = needs_speech


@pytest.fixture(scope="module")
def english() -> Zipformer:
    return Zipformer(find_transducer(SPEECH_DIR / "models" / "zipformer-en"))


@pytest.fixture(scope="module")
def reply() -> PcmFloat:
    return read_wav(SPEECH_DIR / "en" / "azure_customspeech_audio2.wav")


def recorded(*names: str, seconds: float = 4.0) -> list[tuple[str, PcmFloat]]:
    return [(name, loud(read_wav(SPEECH_DIR / name)[: int(seconds * UPLINK_RATE_HZ)])) for name in names]


def test_who_speaks_over_a_reply_is_soon_alone_to_be_heard(english: Zipformer, reply: PcmFloat) -> None:
    names = ("speechbrain_spk1_snt1", "speechbrain_spk1_snt4", "goforward", "LDC93S1", "libri_1995-1837-0001")
    over = play(recorded(*(f"en/{name}.wav" for name in names)), english, reply)
    assert all(each.stopped for each in over)
    ended = sorted(each.silent_ms or 0.0 for each in over)
    assert ended[2] <= 300.0 and ended[-1] <= 500.0, ended


@pytest.mark.parametrize("voice", ["en-us", "en-us+f2", "en-us+m3"])
def test_a_word_that_asks_for_silence_has_it_within_300_ms(english: Zipformer, reply: PcmFloat, voice: str) -> None:
    words = [(word, loud(say(word, voice))) for word in ("stop", "wait")]
    for each in play(words, english, reply):
        assert each.stopped and each.after_word_ms <= 300.0, each
        assert is_to_reply(each.heard), each


def test_words_that_ask_for_silence_are_found_by_the_sound_and_nothing_else_is(english: Zipformer) -> None:
    spotter = english.spotter
    assert spotter is not None
    assert spotter.find(loud(say("hold on", "en-us+m3"))) == "hold on"
    for row in recordings("en", "read")[:6] + recordings("en", "letter"):
        assert spotter.find(read_wav(row.path)) == "", row.path.name


def test_looking_at_what_was_said_so_far_changes_nothing_of_what_is_understood(english: Zipformer) -> None:
    ((_, pcm),) = recorded("en/cards_003.wav")
    asked, whole = english.begin(), english.begin()
    for at in range(0, len(pcm), 4800):
        asked.accept(pcm[at : at + 4800])
        asked.so_far(stop_words=True)
    whole.accept(pcm)
    assert asked.finish().text == whole.finish().text != ""
    assert asked.so_far(stop_words=False).text == whole.finish().text


def coughs(number: int) -> PcmFloat:
    """Two bursts of breath with a voice in them, as somebody coughs: 0.15 s each."""
    dice = np.random.default_rng(number)
    burst = dice.normal(0.0, 1.0, 2400) * np.exp(-np.arange(2400) / 600.0)
    burst += np.sin(2 * np.pi * dice.uniform(150.0, 350.0) * np.arange(2400) / UPLINK_RATE_HZ) * np.exp(
        -np.arange(2400) / 800.0
    )
    return np.concatenate([np.zeros(800), burst, np.zeros(dice.integers(1600, 4800)), burst, np.zeros(800)]).astype(
        np.float32
    )


def test_noise_and_coughs_stop_nothing_and_hold_the_reply_for_no_longer_than_a_moment(
    english: Zipformer, reply: PcmFloat
) -> None:
    sounds: Sequence[tuple[str, PcmFloat]] = [
        *recorded("noise/speechbrain_noise1.wav", "noise/speechbrain_noise5.wav", "noise/speechbrain_noise2.wav"),
        *((f"cough {number}", loud(coughs(number))) for number in range(4)),
    ]
    for each in play(sounds, english, reply):
        assert not each.stopped, each
        assert each.held_ms <= 600.0, each


@pytest.mark.parametrize("echo_db", [-20.0, -30.0])
def test_no_word_of_the_echo_is_in_what_somebody_said_over_it(
    english: Zipformer, reply: PcmFloat, echo_db: float
) -> None:
    first_words = {"en/cards_003.wav": "seven", "en/LJ001-0002.wav": "in", "en/cheetah_en.wav": "today"}
    for each in play(recorded(*first_words), english, reply, echo_db):
        assert each.stopped and each.heard.split()[0] == first_words[each.name], each


@pytest.mark.parametrize("echo_db", [-12.0, -20.0, -30.0])
def test_a_reply_is_not_even_paused_by_its_own_echo(english: Zipformer, reply: PcmFloat, echo_db: float) -> None:
    nobody = np.zeros(5 * UPLINK_RATE_HZ, np.float32)
    nobody[[0, -1]] = 1e-4
    for each in play([("nobody", nobody)] * 2, english, reply, echo_db):
        assert not each.stopped and each.held_ms == 0.0, each
