"""Sound over UDP beside MQTT: one endpoint for all devices, one key, number and sequence for each session.

A datagram is a header of 16 bytes and one Opus packet, encrypted by AES-128-CTR whose first counter block is that
header; all integers are big-endian:

    u8 type=1 | u8 flags | u16 length of the packet | u32 ssrc | u32 timestamp_ms | u32 sequence

There is no authentication, and the counter blocks of a packet run into those of the following sequence numbers: this
hides sound from a passer-by and is no secret. What keeps strangers out is the ssrc, which they would have to guess, the
sequence, and that what they send has to decrypt to Opus.
"""

import asyncio
import logging
import secrets
import socket
import struct
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Protocol, TypeAlias, cast

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from xiaozhi.access.rate_limits import TokenBucket
from xiaozhi.audio.packet_time import packet_ms, padded

_log = logging.getLogger(__name__)

HEADER: Final = struct.Struct("!BBHIII")
_AUDIO: Final = 1
# Ignored by every client. Uplink headers have 0 here, so no header, and no keystream, is used in both directions.
_DOWNLINK: Final = 0x80
KEY_BYTES: Final = 16
MAX_OPUS_BYTES: Final = 1200
"""An Ethernet frame less what tunnels take of it; the firmware reads up to 1500 bytes."""

# The firmware throws away datagrams shorter than a C++ string object is large, where it means its nonce's 16 bytes: 24
# bytes on a board, 32 where it runs on a PC. Silence between two clauses is that short.
_MIN_OPUS_BYTES: Final = 16

MAX_CONCEALED: Final = 5
"""Lost packets that the decoder makes up for; a longer gap is one."""
# RFC 3550 A.1 has 3000 for video; half a minute of packets of 60 ms is no loss any more but another stream.
_MAX_AHEAD: Final = 500
# An address other than that of the control connection is proven by so many packets (1 s): each needs the key.
_PROOF_PACKETS: Final = 16
# As a WebSocket's: 20 ms frames are 50 a second, a stall of the Wi-Fi gives seconds of them back at once.
_PACKETS_PER_S: Final = 500.0
_MAX_PACKETS: Final = 1500.0
_SOCKET_BUFFER_BYTES: Final = 1 << 20

Address: TypeAlias = tuple[str, int]


class DatagramDrop(StrEnum):
    """Why a datagram was not used."""

    SHORT = "shorter than a header and a byte"
    TYPE = "not audio"
    LENGTH = "length does not match"
    STRANGER = "unknown ssrc"
    LATE = "late or repeated"
    FAR_AHEAD = "far ahead"
    NO_OPUS = "no mono Opus"
    FLOOD = "more than any device sends"


class SoundReceiver(Protocol):
    """Who takes the sound of a session."""

    def heard(self, opus: bytes, timestamp_ms: int, lost: int) -> None:
        """A packet has come, behind `lost` others that have not."""
        ...


class UdpSession:
    """One session's sound in both directions. Pure: datagrams and times passed in, datagrams out.

    Args:
        ssrc: by which its datagrams are found.
        now_s: a monotonic time, in seconds.
        control_host: where its control connection comes from; a handshake of TCP has proven that it is there.
        key: 16 random bytes, never used for another session.
    """

    def __init__(self, ssrc: int, now_s: float, control_host: str = "", key: bytes = b"") -> None:
        self.ssrc = ssrc
        self.key = key or secrets.token_bytes(KEY_BYTES)
        self.address: Address | None = None
        """Where the device is heard from; None before it was."""
        self.lost = 0
        """Packets that never came."""
        self._aes = AES(self.key)
        self.control_host = control_host
        """Where its control connection comes from; empty for nowhere."""
        self._budget = TokenBucket(_PACKETS_PER_S, _MAX_PACKETS, now_s)
        self._last = 0  # sequence of the newest packet used
        self._packet_ms = 0.0  # its length
        self._resumes_at = 0  # the sequence that would prove a jump
        self._proof = 0  # packets since the address changed
        self._owed_bytes = 0  # what may be sent to an address that is not proven
        self._sent = 0  # sequence of the newest packet sent

    @property
    def nonce(self) -> bytes:
        """The header that the device fills in, 16 bytes."""
        return HEADER.pack(_AUDIO, 0, 0, self.ssrc, 0, 0)

    def receive(self, datagram: bytes, address: Address, now_s: float) -> tuple[bytes, int, int] | DatagramDrop:
        """A datagram with this session's ssrc has come.

        Returns:
            The Opus packet, its timestamp in milliseconds (0 for none), and how many were lost before it (0 where the
            gap is longer than `MAX_CONCEALED`); or why the datagram is not to be used.
        """
        _, _, length, _, timestamp_ms, sequence = HEADER.unpack_from(datagram)
        if length != len(datagram) - HEADER.size:
            return DatagramDrop.LENGTH
        if not self._budget.spend(1.0, now_s):
            return DatagramDrop.FLOOD
        if sequence <= self._last:
            return DatagramDrop.LATE
        if sequence - self._last > _MAX_AHEAD and not self._is_resumed(sequence, address):
            return DatagramDrop.FAR_AHEAD
        opus = self._crypt(datagram[: HEADER.size], datagram[HEADER.size :])
        duration_ms = _mono_ms(opus)
        moved = address != self.address
        if not duration_ms or (moved and self._packet_ms and duration_ms != self._packet_ms):
            return DatagramDrop.NO_OPUS
        if moved:
            self.address, self._proof, self._owed_bytes = address, 0, 0
        self._proof += 1
        self._owed_bytes += len(datagram)
        missing = sequence - self._last - 1
        self.lost += missing
        self._last, self._packet_ms = sequence, duration_ms
        return opus, timestamp_ms, missing if missing <= MAX_CONCEALED else 0

    def _is_resumed(self, sequence: int, address: Address) -> bool:
        """Whether a stream that jumped goes on from there: two in a row, from where it came before (RFC 3550 A.1)."""
        resumed = sequence == self._resumes_at
        if address == self.address:
            self._resumes_at = sequence + 1
        return resumed and address == self.address

    def pack(self, opus: bytes, timestamp_ms: int) -> bytes | None:
        """The datagram for the next packet of sound; no timestamp may come twice, or a keystream would.

        None where there is nobody to send it to, where no device would take it, or where more would be sent to an
        address than came from there before it is proven. A packet that is not sent is a gap in time, and none in the
        sequence.
        """
        opus = padded(opus, _MIN_OPUS_BYTES)
        if self.address is None or len(opus) > MAX_OPUS_BYTES or not self._may_send(HEADER.size + len(opus)):
            return None
        self._sent += 1
        header = HEADER.pack(_AUDIO, _DOWNLINK, len(opus), self.ssrc, timestamp_ms & 0xFFFFFFFF, self._sent)
        return header + self._crypt(header, opus)

    def _may_send(self, count: int) -> bool:
        assert self.address is not None
        if self.address[0] == self.control_host or self._proof >= _PROOF_PACKETS:
            return True
        if count > self._owed_bytes:
            return False
        self._owed_bytes -= count
        return True

    def _crypt(self, header: bytes, data: bytes) -> bytes:
        return Cipher(self._aes, CTR(header)).encryptor().update(data)


def _duration_ms(opus: bytes) -> float:
    try:
        return packet_ms(opus)
    except ValueError:
        return 0.0


def _mono_ms(opus: bytes) -> float:
    """How long a mono packet of a microphone sounds; 0 for anything else. RFC 6716 section 3.1: bit 2 is stereo."""
    return 0.0 if not opus or opus[0] & 0x04 else _duration_ms(opus)


class UdpEndpoint(asyncio.DatagramProtocol):
    """The socket that all sessions share."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None
        self._sessions: dict[int, tuple[UdpSession, SoundReceiver]] = {}
        self.drops: Counter[DatagramDrop] = Counter()
        """Datagrams that were not used, since the start."""
        self.lost = 0
        """Packets of devices that never came, of all sessions that are over."""

    def __len__(self) -> int:
        """How many sessions are open."""
        return len(self._sessions)

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Take datagrams on one of bound sockets: devices know no IPv6. Raises `OSError`."""
        sock = next((one for one in sockets if one.family is socket.AF_INET), sockets[0])
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
        await self._loop.create_datagram_endpoint(lambda: self, sock=sock)

    def open(self, heard: SoundReceiver, control_host: str) -> UdpSession:
        """A new session with a key and an ssrc of its own.

        Args:
            heard: takes its sound.
            control_host: the address of its control connection.
        """
        while (ssrc := secrets.randbits(32)) in self._sessions:
            pass
        session = UdpSession(ssrc, self._loop.time(), control_host)
        self._sessions[ssrc] = session, heard
        return session

    def end(self, session: UdpSession) -> None:
        """That session is over; ending it twice is harmless."""
        if self._sessions.pop(session.ssrc, None) is not None:
            self.lost += session.lost
        session.address = None  # nothing more is sent

    def send(self, session: UdpSession, opus: bytes, timestamp_ms: int) -> bool:
        """Send one packet; whether it has left."""
        datagram = session.pack(opus, timestamp_ms)
        if datagram is None or self._transport is None or self._transport.is_closing():
            return False
        self._transport.sendto(datagram, session.address)
        return True

    def close(self) -> None:
        """Take no more datagrams."""
        if self._transport is not None:
            self._transport.close()

    # As asyncio's transports call it --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ready."""
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's do not derive from it

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        """A datagram has come."""
        if len(data) <= HEADER.size:
            self.drops[DatagramDrop.SHORT] += 1
            return
        if data[0] != _AUDIO:
            self.drops[DatagramDrop.TYPE] += 1
            return
        found = self._sessions.get(int.from_bytes(data[4:8], "big"))
        if found is None:
            self.drops[DatagramDrop.STRANGER] += 1
            return
        session, heard = found
        packet = session.receive(data, (str(addr[0]), int(addr[1])), self._loop.time())
        if isinstance(packet, DatagramDrop):
            self.drops[packet] += 1
        else:
            heard.heard(*packet)

    def error_received(self, exc: Exception) -> None:
        """A datagram could not be sent: its device finds a gap."""
        _log.debug("udp: %s", exc)
