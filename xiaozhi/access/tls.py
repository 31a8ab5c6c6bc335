"""TLS from certificate files: checked with errors that say what to do, reloaded when they change."""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

# Modern suites first; then what the mbedTLS of old ESP32 boards and the modems of 4G boards offer: CBC with ECDHE, and
# plain RSA key exchange. All of them are TLS 1.2; TLS 1.3 has its own, which are always on.
_CIPHERS: Final = (
    "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES256:ECDHE+AES128:"
    "AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-SHA256:AES256-SHA256:AES128-SHA:AES256-SHA:"
    "!aNULL:!eNULL:!EXPORT:!DES:!3DES:!RC4:!MD5:!PSK:!SRP:!DSS"
)


class TlsError(Exception):
    """The certificate files cannot be used; one line says which and what to do."""


def load_context(cert: Path, key: Path) -> ssl.SSLContext:
    """A server's context, at least TLS 1.2.

    Args:
        cert: PEM file with the certificate and its chain.
        key: PEM file with its private key, without a password.

    Raises:
        TlsError: a file is missing, cannot be read, is none of that kind, or the two do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_RENEGOTIATION
    _load_into(context, cert, key)
    return context


def _load_into(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    for name, path, marks in (
        ("tls_cert", cert, (b"-----BEGIN CERTIFICATE-----",)),
        ("tls_key", key, (b"PRIVATE KEY-----",)),
    ):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TlsError(f"server.{name}: {path}: {error.strerror}") from error
        if not any(mark in content for mark in marks):
            kind = "certificate" if name == "tls_cert" else "private key"
            raise TlsError(f"server.{name}: {path} holds no {kind} in PEM form (-----BEGIN …)")
    try:
        # Without the callback OpenSSL would ask for a password on the terminal, and serving would wait for it.
        context.load_cert_chain(cert, key, password=_no_password)
    except _PasswordNeeded:
        raise TlsError(f"server.tls_key: {key} is protected by a password; use a key without one") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"server.tls_key: {key} is not the key of {cert}") from error
        why = (error.reason or "not readable").replace("_", " ").lower()
        raise TlsError(f"server.tls_cert: {cert} with {key}: {why}") from error


class _PasswordNeeded(Exception):
    """OpenSSL wants a password."""


def _no_password() -> str:
    raise _PasswordNeeded


def distrusted_because(context: ssl.SSLContext, hostname: str, authorities: ssl.SSLContext | None = None) -> str:
    """Why a device would refuse this certificate; empty when it would take it.

    A handshake in memory with a client that trusts the authorities of this machine, as devices trust those in their
    firmware: finds what has expired, is self-signed, lacks its chain, or is for another name.

    Args:
        context: the server's.
        hostname: the name devices use; empty leaves the name unchecked.
        authorities: what the client trusts; the public ones unless given.
    """
    trusting = authorities or ssl.create_default_context()
    trusting.check_hostname = bool(hostname)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=hostname or None)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        done = True
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLCertVerificationError as error:
                return error.verify_message or str(error.reason)
            except ssl.SSLError as error:
                return str(error.reason)
        if done:
            return ""
    return "the handshake does not end"


class TlsFiles:
    """A context that follows its files: `certbot` renews them, and new connections get the new certificate.

    Args:
        cert, key: the files.

    Raises:
        TlsError: they cannot be used.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self._stamp = self._read_stamp()
        self.context = load_context(cert, key)
        """For the listening socket; it stays the same object."""
        self.reloads = 0
        """Times a renewed certificate was taken up."""

    async def refresh(self) -> None:
        """Take up changed files; with wrong ones the old certificate stays. For about every 10 s."""
        await asyncio.to_thread(self._refresh)

    def _refresh(self) -> None:
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        try:
            load_context(self._cert, self._key)  # try them elsewhere first: a context half loaded would serve nobody
            _load_into(self.context, self._cert, self._key)
        except TlsError as error:
            # The two files are rarely replaced in the same instant, so this is looked at again.
            if self._stamp is not None:
                _log.warning("the certificate stays as it was: %s", error)
            self._stamp = None
            return
        self._stamp = stamp
        self.reloads += 1
        _log.info("a renewed certificate is in use")

    def _read_stamp(self) -> tuple[object, ...] | None:
        try:
            return tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in (self._cert, self._key))
        except OSError:
            return ()
