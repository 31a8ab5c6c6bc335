"""Tencent Cloud's realtime recognition: a WebSocket with a signed address for each part of an utterance.

The fields are those of Tencent's page "实时语音识别（websocket）" (document/product/1093/48982) and of its SDK
`tencentcloud-speech-sdk-python`, `asr/speech_recognizer.py`: sound in binary messages once `{"code": 0}` has come,
sentences in JSON by `index`, `{"type": "end"}`, `final` 1, and the service closes.
"""

import secrets
import time
import uuid
from functools import reduce
from typing import Any, Final

from xiaozhi.settings.asr import RemoteAsrSettings, TencentAsrSettings
from xiaozhi.stages.asr.engine import run_on
from xiaozhi.stages.asr.hotwords import hotwords
from xiaozhi.stages.asr.live_socket import Dialect, SocketRecognizer
from xiaozhi.stages.asr.recogniser import RecognizerContext
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS
from xiaozhi.upstream.signing import tencent_url

_PCM: Final = 1
_NAME_WEIGHT: Final = 8  # of 1 to 11
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


class Tencent(SocketRecognizer):
    """Recognises through Tencent Cloud.

    Args:
        settings: account, model, words.
        remote: limits.
        itn: write numbers as digits.
    """

    name = "tencent"
    piece_ms = 40  # of the documents
    catch_up = 2.0

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

    def address(self) -> tuple[str, dict[str, str]]:
        """Signed for one connection, which has an id of its own."""
        settings = self._settings
        if missing := settings.missing("asr.tencent"):
            raise RemoteError(missing)
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
        if words := hotwords(settings.hotwords, self.names):
            values["hotword_list"] = ",".join(f"{word}|{settings.hotwords.get(word, _NAME_WEIGHT)}" for word in words)
        url = f"{settings.url.rstrip('/')}/{settings.credential('app_id')}"
        return tencent_url(url, values, settings.credential("secret_key"), field="signature"), {}

    def dialect(self) -> "TencentDialect":
        """For a new connection."""
        return TencentDialect()


class TencentDialect(Dialect):
    """One connection's messages."""

    def __init__(self) -> None:
        self.ready = False
        self._sentences: dict[int, str] = {}

    def sound(self, pcm: bytes) -> tuple[bytes]:
        """Sound goes as it is."""
        return (pcm,)

    def end(self, voiced_samples: int) -> tuple[str]:
        """One message."""
        return ('{"type": "end"}',)

    def read(self, said: Any) -> None:
        """Take a message."""
        code = int(said["code"])
        if code:
            advice = _ADVICE.get(code, one_line(said.get("message", ""), MAX_SHOWN_CHARS))
            raise RemoteError(f"error {code}: {advice}")
        self.ready, self.over = True, said.get("final") == 1
        if result := said.get("result"):
            text = result["voice_text_str"]
            if not isinstance(text, str) or len(self._sentences) >= _MAX_SENTENCES:
                raise ValueError
            self._sentences[int(result["index"])] = text
            self.text = reduce(run_on, (self._sentences[index] for index in sorted(self._sentences)))
