"""Speech, and what is none, over a reply in realtime mode: real voices, models and recogniser, in virtual time."""

from collections.abc import Sequence

import numpy as np
import pytest

from bench.barge_in import loud, play
from tests.speech import SPEECH_DIR, needs_speech, read_wav
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.stages.asr.model_files import find_transducer
from xiaozhi.stages.asr.zipformer import Zipformer

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
