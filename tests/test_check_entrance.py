"""`xiaozhi check` on certificates and firmware."""

from pathlib import Path

from tests.firmware import image
from tests.test_entrance import certificate as make_certificate
from xiaozhi.checks.access import certificate, firmware
from xiaozhi.settings import OtaSettings, ServerSettings


def test_nothing_is_said_where_nothing_is_set() -> None:
    assert certificate(ServerSettings()) is None
    assert firmware(OtaSettings()) is None


def test_a_certificate_that_devices_would_refuse_is_a_warning_and_a_wrong_file_is_bad(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    found = certificate(ServerSettings(tls_cert=cert, tls_key=key, public_url="https://localhost"))
    assert found is not None
    assert "self" in found.text
    missing = certificate(ServerSettings(tls_cert=tmp_path / "none.pem", tls_key=key))
    assert missing is not None
    assert "No such file" in missing.text


def test_firmware_that_is_not_offered_is_named(tmp_path: Path) -> None:
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "2.4.2.bin").write_bytes(image("2.4.2"))
    good = firmware(OtaSettings(firmware_dir=tmp_path))
    assert good is not None
    assert "1 files can be offered" in good.text
    (tmp_path / "board" / "latest.bin").write_bytes(image("2.4.3"))
    warned = firmware(OtaSettings(firmware_dir=tmp_path))
    assert warned is not None
    assert "latest.bin" in warned.text
    missing = firmware(OtaSettings(firmware_dir=tmp_path / "none"))
    assert missing is not None
    assert "is no folder" in missing.text
