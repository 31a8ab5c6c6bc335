"""What is known of speech servers that are asked by one HTTP request a clause, so that little is left to give.

Paths, ports and fields are those of SiliconFlow's API reference, of GPT-SoVITS's `api_v2.py`, CosyVoice's
`runtime/python/fastapi/server.py`, index-tts-vllm's `api_server.py` and Fish-Speech's `tools/api_server.py`. What is
given in the settings wins over a preset.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

HttpPresetName: TypeAlias = Literal["siliconflow", "gpt-sovits", "cosyvoice", "indextts", "fish-speech"]
PLACEHOLDERS: Final = ("text", "voice", "language", "speed")
"""What may stand in braces in a request's fields. `{key}` may in a header."""
_BRACED: Final = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """How a server is asked for a text, and where the sound is in its answer.

    Attributes:
        url: the whole address; empty where it is not known.
        body: the fields; texts in them hold placeholders. One that becomes an empty text is not sent.
        method: with GET the fields go into the address.
        sent_as: how they go otherwise.
        voice: the server's voice where none is set.
        voice_is: what has to be set as the voice; empty where nothing has to.
        headers: `{key}` in them is the key; those with it are left out where there is none.
        sound_at: where the sound is in an answer of JSON, such as `data.0.audio`; empty where the body is the sound.
        pcm_rate_hz: of bare samples, where the server does not say it.
        api_key_env: the variable that the service's documents name; empty where no key is asked for.
    """

    url: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    method: Literal["POST", "GET"] = "POST"
    sent_as: Literal["json", "form"] = "json"
    voice: str = ""
    voice_is: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: {"Authorization": "Bearer {key}"})
    sound_at: str = ""
    pcm_rate_hz: int = 24_000
    api_key_env: str = ""

    def with_given(self, body: Mapping[str, Any], headers: Mapping[str, str], **given: Any) -> "HttpRequest":
        """The same with what is given and not empty; of `body` and `headers` each by its name."""
        lower = {name.lower() for name in headers}
        kept = {name: value for name, value in self.headers.items() if name.lower() not in lower}
        values = {name: value for name, value in given.items() if value}
        return replace(self, body={**self.body, **body}, headers={**kept, **headers}, **values)


HTTP_PRESETS: Final[Mapping[HttpPresetName, HttpRequest]] = {
    "siliconflow": HttpRequest(
        "https://api.siliconflow.cn/v1/audio/speech",
        {
            "model": "FunAudioLLM/CosyVoice2-0.5B",
            "input": "{text}",
            "voice": "{voice}",
            "response_format": "pcm",
            "sample_rate": 24_000,
            "speed": "{speed}",
            "stream": True,
        },
        voice="FunAudioLLM/CosyVoice2-0.5B:alex",
        api_key_env="SILICONFLOW_API_KEY",
    ),
    # streaming_mode true: fragment by fragment, the best sound of its ways to stream; WAV says its rate (32 or 48 kHz).
    "gpt-sovits": HttpRequest(
        "http://127.0.0.1:9880/tts",
        {
            "text": "{text}",
            "text_lang": "{language}",
            "ref_audio_path": "{voice}",
            "prompt_lang": "zh",
            "speed_factor": "{speed}",
            "media_type": "wav",
            "streaming_mode": True,
        },
        voice_is="the path of the reference sound on that server, 3 to 10 s long",
    ),
    # Bare samples without a word of their rate: 24000 Hz of CosyVoice 2 and 3, 22050 of the first.
    "cosyvoice": HttpRequest(
        "http://127.0.0.1:50000/inference_sft",
        {"tts_text": "{text}", "spk_id": "{voice}"},
        sent_as="form",
        voice="中文女",
    ),
    "indextts": HttpRequest(
        "http://127.0.0.1:6006/tts",
        {"text": "{text}", "character": "{voice}"},
        voice_is="a character of that server, as in its assets/speaker.json",
    ),
    # It streams WAV alone.
    "fish-speech": HttpRequest(
        "http://127.0.0.1:8080/v1/tts",
        {"text": "{text}", "reference_id": "{voice}", "format": "wav", "streaming": True},
    ),
}


def filled(template: Any, values: Mapping[str, Any]) -> Any:
    """A template of JSON with values in the places of their names, each as it is: nothing in a value is obeyed.

    A text that is one placeholder alone becomes the value itself, such as a number.
    """
    if isinstance(template, str):
        alone = _BRACED.fullmatch(template)
        if alone is not None and alone[1] in values:
            return values[alone[1]]
        return _BRACED.sub(lambda found: str(values.get(found[1], found[0])), template)
    if isinstance(template, Mapping):
        return {name: filled(inner, values) for name, inner in template.items()}
    return [filled(inner, values) for inner in template] if isinstance(template, list | tuple) else template


def placeholders(template: Any) -> Iterator[str]:
    """The names that stand in braces in a template."""
    if isinstance(template, str):
        yield from _BRACED.findall(template)
    elif isinstance(template, Mapping):
        for inner in template.values():
            yield from placeholders(inner)
    elif isinstance(template, list | tuple):
        for inner in template:
            yield from placeholders(inner)
