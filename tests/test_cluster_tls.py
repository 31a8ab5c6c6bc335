"""Redis through TLS: a real server with certificates of an authority of its own."""

import asyncio
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.redis_server import RedisServer, needs_redis
from xiaozhi.cluster.link import ClusterError, Gone, RedisLink, Use
from xiaozhi.settings.cluster import ClusterSettings

pytestmark = pytest.mark.real_time  # a real Redis

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@dataclass(frozen=True)
class Certificates:
    """Files of an authority, and what it has signed for Redis and for a node; and another authority."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        """`ca`, `ca_key`, `server`, `server_key`, `client`, `client_key`, `stranger` and `stranger_key`."""
        return self.folder / f"{name}.pem"


def openssl(*words: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for name in ("ca", "stranger"):
        openssl("req", "-x509", *key, "-subj", f"/CN={name}", "-keyout", made.folder / f"{name}_key.pem",
                "-out", made.folder / f"{name}.pem")  # fmt: skip
    for name, extension in (
        ("server", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        ("client", "basicConstraints=CA:FALSE"),
    ):
        signed = ("-addext", extension, "-CA", made.ca, "-CAkey", made.ca_key)
        files = ("-keyout", made.folder / f"{name}_key.pem", "-out", made.folder / f"{name}.pem")
        openssl("req", "-x509", *key, "-subj", f"/CN={name}", *signed, *files)
    return made


def tls_redis(folder: Path, made: Certificates, *, asks_clients: bool, password: str = "") -> RedisServer:
    options = ("--tls-cert-file", made.server, "--tls-key-file", made.server_key, "--tls-ca-cert-file", made.ca,
               "--tls-auth-clients", "yes" if asks_clients else "no")  # fmt: skip
    return RedisServer(folder, password, tls=tuple(map(str, options)))


def link_to(server: RedisServer, **values: Any) -> RedisLink:
    return RedisLink(ClusterSettings.model_validate({"url": server.url, "timeout_ms": 3000, "retry_s": 60.0, **values}))


async def writes_and_reads(link: RedisLink) -> bool:
    """Whether Redis can be used; its connections are closed again."""
    try:
        assert await link.put(Use.ANSWERS, link.key("a"), b"kept", 10.0)
        return await link.get(Use.ANSWERS, link.key("a")) == b"kept"
    except Gone:
        return False
    finally:
        await link.close()


@needs_redis
@needs_openssl
async def test_a_node_speaks_tls_with_a_redis_whose_authority_it_was_told(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    server = tls_redis(tmp_path, certificates, asks_clients=False)
    assert server.url.startswith("rediss://")
    server.start()
    try:
        assert await writes_and_reads(link_to(server, tls_ca=certificates.ca))
        assert "redis does not answer" not in caplog.text
        for values in ({}, {"tls_ca": certificates.stranger}):  # the public authorities; another one
            caplog.clear()
            assert not await writes_and_reads(link_to(server, **values))
            assert "its certificate is refused" in caplog.text and "cluster.tls_ca" in caplog.text
        caplog.clear()
        assert not await writes_and_reads(link_to(server, url=server.url.replace("rediss", "redis")))
        assert "redis does not answer" in caplog.text
    finally:
        server.kill()


@needs_redis
@needs_openssl
async def test_a_name_that_is_not_in_the_certificate_is_refused(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    server = tls_redis(tmp_path, certificates, asks_clients=False)
    server.start()
    try:
        elsewhere = server.url.replace("127.0.0.1", "127.0.0.2")
        forwarding = await forward("127.0.0.2", server.port)
        async with forwarding:
            assert not await writes_and_reads(link_to(server, url=elsewhere, tls_ca=certificates.ca))
        assert "its certificate is refused" in caplog.text
    finally:
        server.kill()


async def forward(host: str, port: int) -> asyncio.Server:
    """The same Redis at another address of the loopback interface."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

        async def pour(source: asyncio.StreamReader, into: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65_536):
                    into.write(data)
            finally:
                into.close()

        await asyncio.gather(pour(reader, far_writer), pour(far_reader, writer), return_exceptions=True)

    return await asyncio.start_server(carry, host, port)


@needs_redis
@needs_openssl
async def test_a_redis_that_asks_for_certificates_and_a_password_gets_both(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    server = tls_redis(tmp_path, certificates, asks_clients=True, password="opensesame")
    server.start()
    mine = {"tls_ca": certificates.ca, "tls_cert": certificates.client, "tls_key": certificates.client_key}
    try:
        assert await writes_and_reads(link_to(server, **mine, password="opensesame"))
        assert "redis does not answer" not in caplog.text
        assert not await writes_and_reads(link_to(server, tls_ca=certificates.ca, password="opensesame"))
        caplog.clear()
        assert not await writes_and_reads(link_to(server, **mine, password="openbarley"))
        assert "cluster.password" in caplog.text
        assert not await writes_and_reads(link_to(server, **mine))
        assert "opensesame" not in caplog.text and "openbarley" not in caplog.text
    finally:
        server.kill()


@needs_openssl
def test_files_that_cannot_be_used_are_named_at_the_start(tmp_path: Path, certificates: Certificates) -> None:
    (tmp_path / "no.pem").write_text("this is none\n")
    url = {"url": "rediss://127.0.0.1:6379/0"}
    for values, complaint in (
        ({"tls_ca": tmp_path / "gone.pem"}, r"cluster\.tls_ca: .*gone\.pem: no such file"),
        ({"tls_ca": tmp_path / "no.pem"}, r"cluster\.tls_ca: .*no PEM"),
        ({"tls_cert": tmp_path / "gone.pem", "tls_key": certificates.client_key}, r"cluster\.tls_cert: .*no such file"),
        ({"tls_cert": certificates.client, "tls_key": certificates.server_key}, "another certificate's"),
        ({"tls_cert": certificates.client, "tls_key": tmp_path / "no.pem"}, "not a PEM file"),
    ):
        with pytest.raises(ClusterError, match=complaint):
            RedisLink(ClusterSettings.model_validate({**url, **values}))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"url": "redis://h:1/0", "tls_ca": "ca.pem"}, "rediss://"),
        ({"url": "rediss://h:1/0", "tls_cert": "cert.pem"}, "go together"),
        ({"url": "rediss://h:1/0", "tls_key": "key.pem"}, "go together"),
    ],
)
def test_tls_settings_that_would_do_nothing_are_refused(values: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ClusterSettings.model_validate(values)
