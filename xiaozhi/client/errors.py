"""What can go wrong between a device and its server. Every message is one line for a person."""

import aiohttp


class DeviceError(Exception):
    """The device cannot go on."""


class ConnectFailed(DeviceError):
    """No conversation could be opened.

    Attributes:
        status: the HTTP status with which the server refused; None when it gave none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(ConnectFailed):
    """Nothing answers at that address."""


def connect_error(url: str, error: Exception) -> ConnectFailed:
    """What an HTTP client's error means to a person."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Unreachable(f"nobody knows the host in {url}")
    if isinstance(error, aiohttp.ClientSSLError):
        return ConnectFailed(f"no secure connection to {url}: {error}")
    if isinstance(error, TimeoutError | aiohttp.ClientConnectorError):
        return Unreachable(f"nothing answers at {url}")
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return ConnectFailed(f"{url} refused the device with status {error.status}", error.status)
    if isinstance(error, ValueError):
        return ConnectFailed(f"{url!r} is no address such as ws://192.168.1.5:8000/xiaozhi/v1/")
    return ConnectFailed(f"cannot connect to {url}: {error or type(error).__name__}")


class ChannelLost(DeviceError):
    """The conversation ended: the server closed it or the connection broke."""


class NoSoundCard(DeviceError):
    """There is no microphone or loudspeaker to use; the message says what to install."""
