"""Tencent Cloud's realtime recognition: a WebSocket with a signed address for each part of an utterance.

The fields are those of Tencent's page "实时语音识别（websocket）" (document/product/1093/48982) and of its SDK
`tencentcloud-speech-sdk-python`, `asr/speech_recognizer.py`: sound in binary messages once `{"code": 0}` has come,
sentences in JSON by `index`, `{"type": "end"}`, `final` 1, and the service closes.
"""

import secrets
import time
import uuid
from typing import Final

from xiaozhi.settings.asr import RemoteAsrSettings, TencentAsrSettings
from xiaozhi.stages.asr.cloud_stream import glued
from xiaozhi.stages.asr.paced_stream import Heard, PacedRecognizer
from xiaozhi.stages.asr.recogniser import RecognizerContext
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.text import bounded_json
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS
from xiaozhi.upstream.signing import tencent_url

_PCM: Final = 1
_VALID_S: Final = 3600
_MAX_SENTENCES: Final = 1000
_ADVICE: Final = {
    4001: "a parameter is wrong: see asr.tencent.model and asr.tencent.hotwords",
    4002: "the id, the key or the clock of this machine is wrong: see asr.tencent.secret_id and asr.tencent.secret_key",
    4003: "realtime recognition is not enabled for asr.tencent.app_id: see https://console.cloud.tencent.com/asr",
    4004: "the package of the account is used up: see https://console.cloud.tencent.com/asr",
    4005: "the account is in arrears: see https://console.cloud.tencent.com/asr",
    4006: "too many at once for the account: lower asr.remote.max_concurrent",
    6001: "refuses calls from abroad",
}


class Tencent(PacedRecognizer):
    """Recognises through Tencent Cloud.

    Args:
        settings: account, model, words.
        remote: limits.
        itn: write numbers as digits.
    """

    name = "tencent"

    def __init__(self, settings: TencentAsrSettings, remote: RemoteAsrSettings, *, itn: bool) -> None:
        super().__init__(remote)
        self._settings = settings
        self._itn = itn
        self.about = f"{self.name} {settings.model} from {settings.url}"

    @classmethod
    def build(cls, context: RecognizerContext) -> "Tencent":
        """The service of `[asr.tencent]`."""
        asr = context.settings
        return cls(asr.tencent, asr.remote, itn=asr.itn)

    def address(self) -> str:
        """Signed for one connection, which has an id of its own.

        Raises:
            RemoteError: a credential is missing.
        """
        settings = self._settings
        if missing := settings.missing("asr.tencent"):
            raise RemoteError(f"{self.name}: {missing}")
        now_s = int(time.time())
        values: dict[str, str | int] = {
            "secretid": settings.credential("secret_id"),
            "timestamp": now_s,
            "expired": now_s + _VALID_S,
            "nonce": secrets.randbelow(10**9) + 1,
            "engine_model_type": settings.model,
            "voice_id": str(uuid.uuid4()),
            "voice_format": _PCM,
            "needvad": 0,  # the end of a turn is decided here
            "convert_num_mode": int(self._itn),
        }
        if settings.hotwords:
            values["hotword_list"] = ",".join(f"{word}|{weight}" for word, weight in settings.hotwords.items())
        return tencent_url(
            f"{settings.url.rstrip('/')}/{settings.credential('app_id')}",
            values,
            settings.credential("secret_key"),
            field="signature",
        )

    def dialect(self) -> "TencentDialect":
        """For a new connection."""
        return TencentDialect()


class TencentDialect:
    """One connection's messages."""

    def __init__(self) -> None:
        self.ready = False
        self._sentences: dict[int, str] = {}

    def audio(self, pcm: bytes) -> bytes:
        """Sound goes as it is."""
        return pcm

    def end(self) -> tuple[str]:
        """One message."""
        return ('{"type": "end"}',)

    def read(self, message: str | bytes) -> Heard | None:
        """Take a message.

        Raises:
            RemoteError: it is no message of the service, or tells of an error.
        """
        try:
            said = bounded_json.loads(message)
            code = int(said["code"])
            if code:
                advice = _ADVICE.get(code, one_line(said.get("message", ""), MAX_SHOWN_CHARS))
                raise RemoteError(f"tencent: error {code}: {advice}")
            self.ready = True
            result, final = said.get("result"), said.get("final") == 1
            if result:
                text = result["voice_text_str"]
                if not isinstance(text, str) or len(self._sentences) >= _MAX_SENTENCES:
                    raise ValueError
                self._sentences[int(result["index"])] = text
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            shown = one_line(message, MAX_SHOWN_CHARS)
            raise RemoteError(f"tencent: answered something that is not a text: {shown}") from error
        return Heard(self._text(), final) if result or final else None

    def _text(self) -> str:
        text = ""
        for index in sorted(self._sentences):
            text = glued(text, self._sentences[index])
        return text
