"""iFlytek's streaming dictation with its large model: a WebSocket with a signed address for each part of an utterance.

Messages are those of "语音听写大模型" (`/v1`, domain `slm`): sound in base64 within JSON, status 0 in the first, 1, and
2 in the last; texts as numbered slots. With `dwa` `wpgs` a text may replace slots that came before (`pgs` `rpl`,
`rg` first and last of them), otherwise it stands behind them (`apd`). Status 2 in a header is the end.
"""

import base64
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.settings.asr import IflytekAsrSettings, RemoteAsrSettings
from xiaozhi.stages.asr.live_socket import Dialect, SocketRecognizer
from xiaozhi.stages.asr.recogniser import RecognizerContext
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.text import bounded_json
from xiaozhi.text.one_line import one_line
from xiaozhi.upstream.connections import MAX_SHOWN_CHARS
from xiaozhi.upstream.signing import iflytek_advice, iflytek_url

_FIRST, _GOES_ON, _LAST = 0, 1, 2
# The service would end an utterance by itself after so much silence; the end of a turn is decided here.
_OWN_END_MS: Final = 60_000
_MAX_SLOTS: Final = 2000
_ADVICE: Final = {
    10005: "the application id is not known: see asr.iflytek.app_id",
    10114: "took too long",
    10165: "a session that is over",
    10200: "it got no sound in time",
    10313: "the application id does not belong to the key: see asr.iflytek.app_id and asr.iflytek.api_key",
    11200: "not allowed: enable the service in the console, or its quota is used up",
    11201: "the quota of the day is used up: see the console",
}


class Iflytek(SocketRecognizer):
    """Recognises through iFlytek.

    Args:
        settings: application and language.
        remote: limits.
    """

    name = "iflytek"
    piece_ms = 40  # of the documents
    catch_up = 2.0
    advice = iflytek_advice("asr.iflytek")

    def __init__(self, settings: IflytekAsrSettings, remote: RemoteAsrSettings) -> None:
        super().__init__(remote)
        self._settings = settings
        self.about = f"{self.name} from {settings.url}"

    @classmethod
    def build(cls, context: RecognizerContext) -> "Iflytek":
        """The service of `[asr.iflytek]`."""
        return cls(context.settings.iflytek, context.settings.remote)

    def address(self) -> tuple[str, dict[str, str]]:
        """Signed for now."""
        settings = self._settings
        if missing := settings.missing("asr.iflytek"):
            raise RemoteError(missing)
        return iflytek_url(settings.url, settings.key(), settings.credential("api_secret"), datetime.now(UTC)), {}

    def dialect(self) -> "IflytekDialect":
        """For a new connection."""
        return IflytekDialect(self._settings)


class IflytekDialect(Dialect):
    """One connection's messages.

    Args:
        settings: application and language.
    """

    def __init__(self, settings: IflytekAsrSettings) -> None:
        self._app_id = settings.credential("app_id")
        self._parameter = {
            "iat": {
                "domain": settings.domain,
                "language": settings.language,
                "accent": settings.accent,
                "eos": _OWN_END_MS,
                "dwa": "wpgs",
                "result": {"encoding": "utf8", "compress": "raw", "format": "plain"},
            }
        }
        self._sent = 0
        self._slots: dict[int, str] = {}

    def sound(self, pcm: bytes) -> tuple[str]:
        """Sound within JSON; the first message says what is wanted."""
        return (self._frame(pcm, _GOES_ON if self._sent else _FIRST),)

    def end(self, voiced_samples: int) -> tuple[str]:
        """A message without sound."""
        return (self._frame(b"", _LAST),)

    def _frame(self, pcm: bytes, status: int) -> str:
        self._sent += 1
        audio = {
            "encoding": "raw",
            "sample_rate": UPLINK_RATE_HZ,
            "channels": 1,
            "bit_depth": 16,
            "seq": self._sent,
            "status": status,
            "audio": base64.b64encode(pcm).decode(),
        }
        frame: dict[str, Any] = {
            "header": {"app_id": self._app_id, "status": status},
            **({"parameter": self._parameter} if status == _FIRST else {}),
            "payload": {"audio": audio},
        }
        return orjson.dumps(frame).decode()

    def read(self, said: Any) -> None:
        """Take a message."""
        header = said["header"]
        code = int(header["code"])
        if code:
            advice = _ADVICE.get(code, one_line(header.get("message", ""), MAX_SHOWN_CHARS))
            raise RemoteError(f"error {code}: {advice} (sid {one_line(header.get('sid', ''), MAX_SHOWN_CHARS)})")
        self.over = header.get("status") == _LAST
        if result := (said.get("payload") or {}).get("result"):
            self._take(bounded_json.loads(base64.b64decode(result["text"], validate=True)))
            self.text = "".join(self._slots[slot] for slot in sorted(self._slots))

    def _take(self, text: dict[str, Any]) -> None:
        if text.get("pgs") == "rpl":
            first, last = text["rg"]
            for slot in [slot for slot in self._slots if first <= slot <= last]:
                del self._slots[slot]
        if len(self._slots) >= _MAX_SLOTS:
            raise ValueError
        self._slots[int(text["sn"])] = "".join(str(word["w"]) for part in text["ws"] for word in part["cw"][:1])
