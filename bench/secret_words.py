"""Words and tones that belong to one device alone, and how to recognise them wherever they turn up. Pure.

A word of a device that is seen anywhere else is a leak. Made-up names of three or four syllables occur by chance
nowhere; every device speaks with a marker tone of its own under its voice, and is answered in a tone of its own.
"""

import random
from collections.abc import Collection, Sequence
from typing import Final

import numpy as np

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmFloat, PcmInt

MAX_DEVICES: Final = 16
WORDS_EACH: Final = 40

_SYLLABLES: Final = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
_HAN: Final = "霁岚砚筠翎桉珩萤棠澈榆桐菱鸢岑祁邈澜绮瑾琛晞沅湄蘅苒荻葭汐泠"
# Tones of replies: 200 Hz apart, with room below for sentences that belong to nobody.
_NOBODY_HZ: Final = 300.0
_FIRST_REPLY_HZ: Final = 600.0
_REPLY_STEP_HZ: Final = 200.0
# Marker tones under a voice: above most of the energy of speech, within the 8 kHz of the uplink.
_FIRST_MARKER_HZ: Final = 2600.0
_MARKER_STEP_HZ: Final = 150.0
_WINDOW_S: Final = 0.06
_LOUD: Final = 0.02


class Words:
    """The vocabularies of all devices.

    Args:
        devices: how many.
        seed: the same seed, the same words.

    Raises:
        ValueError: more devices than there are tones.
    """

    def __init__(self, devices: int, seed: int = 1) -> None:
        if not 1 <= devices <= MAX_DEVICES:
            raise ValueError(f"1 to {MAX_DEVICES} devices have tones of their own")
        dice = random.Random(seed)
        self._owner: dict[str, int] = {}
        self.of: list[list[str]] = [[] for _ in range(devices)]
        """The words of each device; odd devices speak Chinese, and half of their words are Chinese."""
        for owner in range(devices):
            while len(self.of[owner]) < WORDS_EACH:
                chinese = owner % 2 == 1 and len(self.of[owner]) % 2 == 0
                word = "".join(dice.sample(_HAN, 3)) if chinese else "".join(dice.sample(_SYLLABLES, 4)).capitalize()
                if word not in self._owner:
                    self._owner[word] = owner
                    self.of[owner].append(word)

    def found(self, text: str) -> list[str]:
        """The words of any device in a text, in whatever case, each once."""
        lowered = text.lower()
        return [word for word in self._owner if word.lower() in lowered]

    def owners(self, *texts: str) -> set[int]:
        """Whose words these texts hold."""
        return {self._owner[word] for text in texts for word in self.found(text)}

    def strangers(self, device: int, *texts: str) -> list[str]:
        """Words in these texts that are not this device's."""
        return [word for text in texts for word in self.found(text) if self._owner[word] != device]


def speaks_chinese(device: int) -> bool:
    """Odd devices do."""
    return device % 2 == 1


# Sound --------------------------------------------------------------------------------------------------------------


def marked(speech: PcmFloat, device: int, dice: random.Random) -> PcmInt:
    """Speech with the device's marker tone under it, and a little noise, so that no two utterances are the same.

    Args:
        speech: float32[n] at 16 kHz.
        device: whose.
        dice: for the noise.

    Returns:
        int16[n] at 16 kHz.
    """
    time_s = np.arange(len(speech)) / UPLINK_RATE_HZ
    tone = 0.05 * np.sin(2 * np.pi * _marker_hz(device) * time_s)
    noise = np.random.default_rng(dice.getrandbits(32)).normal(0.0, 1e-3, len(speech))
    mixed: PcmInt = (np.clip(0.7 * speech + tone + noise, -1.0, 1.0) * 32_767).astype(np.int16)
    return mixed


def speaker_of(sound: PcmInt, devices: int) -> int:
    """Whose marker tone is the strongest in int16[n] at 16 kHz."""
    spectrum = np.abs(np.fft.rfft(sound.astype(np.float64) * np.hanning(len(sound))))
    hz = np.fft.rfftfreq(len(sound), 1.0 / UPLINK_RATE_HZ)

    def strength(device: int) -> float:
        return float(spectrum[np.abs(hz - _marker_hz(device)) < 8.0].max(initial=0.0))

    return max(range(devices), key=strength)


def reply_sound(text: str, owners: Collection[int]) -> PcmInt:
    """What a text sounds like: the tone of the device whose words it holds; int16[n] at 24 kHz, 20 ms a character."""
    hz = _reply_hz(min(owners)) if owners else _NOBODY_HZ
    samples = max(int(0.4 * DOWNLINK_RATE_HZ), int(0.02 * DOWNLINK_RATE_HZ * len(text)))
    wave: PcmInt = (8000.0 * np.sin(2 * np.pi * hz / DOWNLINK_RATE_HZ * np.arange(samples))).astype(np.int16)
    return wave


def foreign_windows(sound: PcmFloat, device: int) -> tuple[int, int]:
    """How many loud pieces of 60 ms a reply has, and how many of them sound in another device's tone.

    Args:
        sound: float32[n] at 24 kHz, as the device played it.
        device: whose reply it is.
    """
    size = int(_WINDOW_S * DOWNLINK_RATE_HZ)
    loud = foreign = 0
    for start in range(0, len(sound) - size + 1, size):
        piece = sound[start : start + size]
        if float(np.sqrt(np.mean(np.square(piece)))) < _LOUD:
            continue
        loud += 1
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(size)))
        hz = float(np.argmax(spectrum)) / _WINDOW_S
        foreign += all(abs(hz - allowed) > _REPLY_STEP_HZ / 3 for allowed in (_NOBODY_HZ, _reply_hz(device)))
    return loud, foreign


def _reply_hz(device: int) -> float:
    return _FIRST_REPLY_HZ + _REPLY_STEP_HZ * device


def _marker_hz(device: int) -> float:
    return _FIRST_MARKER_HZ + _MARKER_STEP_HZ * device


def texts_in(value: object) -> Sequence[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for inner in value.values() for text in texts_in(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in texts_in(inner)]
    return []
