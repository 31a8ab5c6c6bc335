"""The camera of the device in software: posts a picture to the address the server has named, as the firmware does."""

from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp

from xiaozhi.client.ota import ClientIdentity

_BOUNDARY: Final = "----ESP32_CAMERA_BOUNDARY"
# Firmware: 30 s for the header and as much for the body.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60.0)
# What the firmware's camera driver hands over at a time is about this.
_PIECE_BYTES: Final = 4096


class CameraError(Exception):
    """The picture was not taken by the server; the line is what the firmware says."""


async def explained(
    session: aiohttp.ClientSession, vision: dict[str, Any], identity: ClientIdentity, photo: bytes, question: str
) -> str:
    """Post a picture; returns the answer as it came.

    Args:
        session: to post with.
        vision: `url` and `token` from `initialize`.
        identity: which device this is.
        photo: a JPEG or PNG file.
        question: about it.

    Raises:
        CameraError: there is no address, or the server answered with anything but 200.
    """
    url, token = vision.get("url"), vision.get("token")
    if not isinstance(url, str) or not url:
        raise CameraError("Image explain URL or token is not set")
    headers = {
        "Device-Id": identity.device_id,
        "Client-Id": identity.client_id,
        "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
    }
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        async with session.post(url, data=_body(photo, question), headers=headers, timeout=_TIMEOUT) as response:
            if response.status != 200:
                raise CameraError("Failed to upload photo")
            return await response.text()
    except (TimeoutError, aiohttp.ClientError, OSError):
        raise CameraError("Failed to upload photo") from None


async def _body(photo: bytes, question: str) -> AsyncIterator[bytes]:
    """The parts, without a length before them: the firmware does not know it either."""
    yield f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="question"\r\n\r\n{question}\r\n'.encode()
    head = 'Content-Disposition: form-data; name="file"; filename="camera.jpg"\r\nContent-Type: image/jpeg'
    yield f"--{_BOUNDARY}\r\n{head}\r\n\r\n".encode()
    for start in range(0, len(photo), _PIECE_BYTES):
        yield photo[start : start + _PIECE_BYTES]
    yield f"\r\n--{_BOUNDARY}--\r\n".encode()
