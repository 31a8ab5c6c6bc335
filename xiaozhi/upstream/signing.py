"""Signed addresses of WebSockets, for services whose recognition and voices sign alike. Pure.

iFlytek signs host, date and request line with HMAC-SHA256; Tencent Cloud the sorted query with HMAC-SHA1.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

_IFLYTEK_REFUSALS: Final = {
    401: "the key or the secret is wrong: see {table}.api_key and {table}.api_secret",
    403: "refused: the clock of this machine must be right within five minutes, and its address allowed in the console",
}


def iflytek_url(url: str, key: str, secret: str, now: datetime) -> str:
    """The address with the signature of host, date and request line, as every service of iFlytek wants it.

    Args:
        url: the service's WebSocket.
        key: of the application.
        secret: of the application.
        now: the wall clock, with its zone.
    """
    parts = urlsplit(url)
    date = format_datetime(now.astimezone(UTC), usegmt=True)
    origin = f"host: {parts.netloc}\ndate: {date}\nGET {parts.path} HTTP/1.1"
    signature = base64.b64encode(hmac.new(secret.encode(), origin.encode(), hashlib.sha256).digest()).decode()
    how = f'api_key="{key}", algorithm="hmac-sha256", headers="host date request-line", signature="{signature}"'
    query = {"authorization": base64.b64encode(how.encode()).decode(), "date": date, "host": parts.netloc}
    return f"{url}?{urlencode(query)}"


def iflytek_advice(table: str) -> dict[int, str]:
    """What to do about a handshake that iFlytek refused; `table` is that of the settings, such as `tts.iflytek`."""
    return {status: advice.format(table=table) for status, advice in _IFLYTEK_REFUSALS.items()}


def tencent_url(url: str, values: Mapping[str, str | int], secret: str, *, method: str = "", field: str) -> str:
    """The address with its query and the signature of both, as Tencent Cloud's speech services want it.

    Args:
        url: the service's WebSocket, to its path.
        values: the query; it is signed as it is and sent percent-encoded.
        secret: `SecretKey` of the account.
        method: what stands before the host in what is signed.
        field: the name of the signature in the query.
    """
    _, _, signed = url.partition("://")
    pairs = sorted(values.items())
    origin = f"{method}{signed}?" + "&".join(f"{name}={value}" for name, value in pairs)
    signature = base64.b64encode(hmac.new(secret.encode(), origin.encode(), hashlib.sha1).digest()).decode()
    return f"{url}?{urlencode(pairs, quote_via=quote)}&{field}={quote(signature, safe='')}"
