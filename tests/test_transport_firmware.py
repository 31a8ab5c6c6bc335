"""Which firmware a device is offered, and the traps it must not be led into."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.firmware import image
from xiaozhi.access.firmware import FirmwareShelf, Running, in_rollout
from xiaozhi.access.firmware_image import ImageError, parse_version, read_image, running_version

BOARD = "bread-compact-wifi"


def put(folder: Path, name: str, content: bytes, board: str = BOARD) -> Path:
    path = folder / board / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def shelf(folder: Path, percent: int = 100) -> FirmwareShelf:
    made = FirmwareShelf(folder, percent)
    made.scan()
    return made


def offered(made: FirmwareShelf, version: str, device: str = "d", board: str = BOARD, **known: int) -> str | None:
    release = made.offer(device, Running(board, version, **known))
    return release.version if release else None


def test_the_highest_newer_version_of_the_board_is_offered(tmp_path: Path) -> None:
    for version in ("2.4.2", "2.10.0", "2.9"):
        put(tmp_path, f"{version}.bin", image(version))
    put(tmp_path, "9.9.9.bin", image("9.9.9"), board="another-board")
    made = shelf(tmp_path)
    assert offered(made, "2.4.1") == "2.10.0"
    assert offered(made, "2.9.9") == "2.10.0"
    assert offered(made, "2.10.0") is None
    assert offered(made, "2.10.0.1") is None
    assert offered(made, "3.0") is None
    assert offered(made, "2.4.1", board="unknown") is None


@pytest.mark.parametrize(
    "name", ["v9.1.bin", "9.1-rc1.bin", "latest.bin", "9..1.bin", ".bin", "9.1.", "99999999999.bin"]
)
def test_a_version_that_firmware_cannot_read_is_never_offered(tmp_path: Path, name: str) -> None:
    """It would throw at boot, every time."""
    put(tmp_path, name, image("9.1"))
    assert shelf(tmp_path).releases == []


def test_a_file_whose_image_holds_another_version_is_never_offered(tmp_path: Path) -> None:
    """The device would install it, still be older than the file's name says, and install it again at every boot."""
    put(tmp_path, "9.9.9.bin", image("2.4.2"))
    assert shelf(tmp_path).releases == []


@pytest.mark.parametrize("version", ["", "v2.0", "abc", "2.x", "..", "99999999999.0"])
def test_a_device_whose_own_version_it_cannot_read_is_offered_nothing(tmp_path: Path, version: str) -> None:
    put(tmp_path, "9.9.9.bin", image("9.9.9"))
    assert offered(shelf(tmp_path), version) is None
    assert offered(shelf(tmp_path), "2.4.2-dirty") == "9.9.9"


def test_an_image_for_another_chip_or_one_that_does_not_fit_is_not_offered(tmp_path: Path) -> None:
    size = put(tmp_path, "9.9.9.bin", image("9.9.9", chip=9)).stat().st_size
    made = shelf(tmp_path)
    assert offered(made, "1.0", chip=5) is None
    assert offered(made, "1.0", chip=9, room_bytes=size - 1) is None
    assert offered(made, "1.0", chip=9, room_bytes=size) == "9.9.9"


def test_a_device_that_does_not_succeed_in_installing_is_left_in_peace(tmp_path: Path) -> None:
    put(tmp_path, "9.9.9.bin", image("9.9.9"))
    made = shelf(tmp_path)
    assert [offered(made, "1.0") for _ in range(6)] == ["9.9.9"] * 3 + [None] * 3
    assert offered(made, "1.0", device="another") == "9.9.9"


def test_a_share_of_the_devices_is_chosen_by_their_ids_and_stays_chosen(tmp_path: Path) -> None:
    put(tmp_path, "9.9.9.bin", image("9.9.9"))
    (release,) = shelf(tmp_path).releases
    devices = [f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}" for number in range(2000)]
    tenth = {device for device in devices if in_rollout(device, release, 10)}
    half = {device for device in devices if in_rollout(device, release, 50)}
    assert 130 < len(tenth) < 270
    assert tenth < half, "who has it keeps it when more follow"
    assert all(in_rollout(device, release, 100) for device in devices)
    assert not any(in_rollout(device, release, 0) for device in devices)


def test_new_and_removed_files_are_noticed_and_half_copied_ones_are_not_offered(tmp_path: Path) -> None:
    whole = image("9.9.9", body=b"code" * 1000)
    path = put(tmp_path, "9.9.9.bin", whole[:3000])
    made = shelf(tmp_path)
    assert made.releases == []
    path.write_bytes(whole)
    made.scan()
    assert offered(made, "1.0") == "9.9.9"
    path.unlink()
    made.scan()
    assert made.find(BOARD, "9.9.9.bin") is None


def test_a_bad_file_is_complained_about_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = put(tmp_path, "9.9.9.bin", b"nothing")
    made = shelf(tmp_path)
    made.scan()
    assert len(caplog.records) == 1
    assert "9.9.9.bin" in caplog.text
    os.utime(path, (1, 1))
    made.scan()
    assert len(caplog.records) == 2


def test_a_pipe_among_the_files_keeps_nobody_waiting(tmp_path: Path) -> None:
    put(tmp_path, "2.4.2.bin", image("2.4.2"))
    os.mkfifo(tmp_path / BOARD / "9.9.9.bin")
    assert [release.version for release in shelf(tmp_path).releases] == ["2.4.2"]


def test_a_folder_that_is_not_there_offers_nothing(tmp_path: Path) -> None:
    assert shelf(tmp_path / "nothing").releases == []
    assert offered(FirmwareShelf(None), "1.0") is None


@pytest.mark.parametrize("hashed", [True, False])
def test_every_byte_of_an_image_counts(hashed: bool) -> None:
    good = image("2.4.2", hashed=hashed)
    assert (read_image(good).version, read_image(good).project, read_image(good).chip) == ("2.4.2", "xiaozhi", 9)
    for cut in (0, 10, 100, len(good) - 40, len(good) - 1):
        with pytest.raises(ImageError):
            read_image(good[:cut])
    for place in (0, 1, 33, 400):
        with pytest.raises(ImageError):
            read_image(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])


@given(st.binary(max_size=600))
def test_any_bytes_are_refused_in_words(data: bytes) -> None:
    for prefix in (b"", image("1.0")[:60]):
        with pytest.raises(ImageError):
            read_image(prefix + data)


@given(st.text(max_size=20))
def test_versions_are_numbers_or_nothing(text: str) -> None:
    if (numbers := parse_version(text)) is not None:
        assert ".".join(str(int(part)) for part in text.split(".")) == ".".join(map(str, numbers))
        assert running_version(text) == numbers


@pytest.mark.parametrize(
    ("agent", "body", "expected"),
    [
        ("bread/2.4.2", {}, Running("bread", "2.4.2")),
        ("bread/2.4.2", {"board": {"name": "x"}}, Running("bread", "2.4.2")),
        ("", {"board": {"name": "x"}, "application": {"version": "1.0"}}, Running("x", "1.0")),
        ("Mozilla/5.0 (X11)", {}, Running("Mozilla", "5.0 (X11)")),
        ("../../etc/1.0", {}, Running("", "")),
        ("b/1", {"chip_info": {"model": 1}}, Running("b", "1", chip=0)),
        ("b/1", {"chip_info": {"model": 9}}, Running("b", "1", chip=9)),
        ("b/1", {"chip_info": {"model": True}}, Running("b", "1")),
        ("b/1", {"chip_info": [], "partition_table": {}, "board": 3}, Running("b", "1")),
        (
            "b/1",
            {"partition_table": [{"label": "ota_0", "size": 5}, {"label": "ota_1", "size": 4}, {"label": "x"}]},
            Running("b", "1", room_bytes=4),
        ),
    ],
)  # fmt: skip
def test_what_a_device_says_about_itself(agent: str, body: dict[str, object], expected: Running) -> None:
    assert Running.of(agent, body) == expected
