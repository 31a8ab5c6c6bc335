"""Pictures from devices: as the firmware and as desktop clients send them, and everything that is no picture."""

import asyncio
import base64
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.standins.chat import ChatStandIn
from tests.house import House, house
from tests.pictures import TABLES, chunk, picture, progressive, segment, unpacking
from tests.test_tool_turns import call, come_true, in_pieces
from xiaozhi.cli import main
from xiaozhi.client.camera import CameraError, explained
from xiaozhi.client.device import Device
from xiaozhi.client.mcp import DeviceMcpServer
from xiaozhi.client.ota import ClientIdentity
from xiaozhi.http.pictures import PictureError, picture_in, prepared

PHOTO = picture()


@asynccontextmanager
async def home_with_eyes(
    folder: Path, answer: str = "A red mug.", **vision: Any
) -> AsyncIterator[tuple[House, ChatStandIn]]:
    """A server with one endpoint that sees and one that does not."""
    async with ChatStandIn(answer) as eyes, ChatStandIn("I am blind.") as blind:
        endpoints = [
            {"name": "blind", "base_url": f"{blind.url}/v1", "model": "text", "api_key": "none"},
            {"name": "eyes", "base_url": f"{eyes.url}/v1", "model": "see", "api_key": "none", "vision": True},
        ]
        async with house(folder, llm={"endpoints": endpoints}, vision=vision) as home:
            yield home, eyes
        assert all("image_url" not in str(request.body) for request in blind.requests)


async def camera(device: Device) -> dict[str, str]:
    """What the device was told about its camera."""
    await device.until(lambda: bool(device.tools.vision), 5)
    return device.tools.vision


def firmware_body(photo: bytes, question: str) -> bytes:
    """The body as the firmware builds it."""
    boundary = b"------ESP32_CAMERA_BOUNDARY\r\n"
    return (
        boundary
        + b'Content-Disposition: form-data; name="question"\r\n\r\n'
        + question.encode()
        + b"\r\n"
        + boundary
        + b'Content-Disposition: form-data; name="file"; filename="camera.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        + photo
        + b"\r\n------ESP32_CAMERA_BOUNDARY--\r\n"
    )


async def send(
    url: str,
    token: str,
    body: bytes,
    *,
    device: str = "02:00:00:00:00:01",
    kind: str = "multipart/form-data; boundary=----ESP32_CAMERA_BOUNDARY",
) -> dict[str, Any]:
    """Post in chunks of 512 bytes without a length; every answer is short and a 200."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 512):
            yield body[start : start + 512]

    headers = {"Device-Id": device, "Client-Id": "c", "Authorization": f"Bearer {token}", "Content-Type": kind}
    async with aiohttp.ClientSession() as session, session.post(url, data=chunks(), headers=headers) as response:
        assert response.status == 200
        content = await response.read()
    assert len(content) < 8192
    answer: dict[str, Any] = orjson.loads(content)
    return answer


async def test_a_picture_is_explained_by_the_endpoint_that_sees(tmp_path: Path) -> None:
    async with home_with_eyes(tmp_path, side=256) as (home, eyes), home.device() as device:
        told = await camera(device)
        assert told["url"] == f"http://127.0.0.1:{home.server.port}/mcp/vision/explain"
        answer = await send(told["url"], told["token"], firmware_body(PHOTO, "What is this?"))
        assert answer == {"success": True, "response": "A red mug."}
        (asked,) = [request.body for request in eyes.requests if "messages" in request.body]
        image, question = asked["messages"][1]["content"]
        assert question == {"type": "text", "text": "What is this?"}
        assert asked["messages"][0]["content"].startswith("You are the eyes")
        shrunk = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
        seen = picture_in(shrunk, 1_000_000)
        assert (seen.width, seen.height) == (256, 192)


async def test_desktop_clients_send_a_length_and_other_orders_of_parts(tmp_path: Path) -> None:
    async with home_with_eyes(tmp_path) as (home, eyes), home.device() as device:
        told = await camera(device)
        form = aiohttp.FormData()
        form.add_field("file", picture(codec="png"), filename="camera.png", content_type="image/png")
        form.add_field("extra", "x")
        form.add_field("question", "这是什么？")
        headers = {"Device-Id": device.identity.device_id, "Authorization": f"Bearer {told['token']}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(told["url"], data=form, headers=headers) as response,
        ):
            assert await response.json() == {"success": True, "response": "A red mug."}
        assert eyes.requests[-1].body["messages"][0]["content"].startswith("你是")


async def test_a_token_is_for_one_device_and_expires(tmp_path: Path) -> None:
    async with home_with_eyes(tmp_path) as (home, eyes), home.device() as device:
        told = await camera(device)
        body = firmware_body(PHOTO, "What is this?")
        refused = {"success": False, "message": "照片没有通过验证，请重新连接设备。"}
        assert await send(told["url"], told["token"], body, device="02:00:00:00:00:02") == refused | {
            "message": "The picture was not accepted; connect the device again."
        }
        assert (await send(told["url"], told["token"], body, device=""))["success"], (
            "some clients name themselves nowhere"
        )
        generation, expires, owner, signature = told["token"].split(".")
        other = base64.urlsafe_b64encode(b"02:00:00:00:00:02").rstrip(b"=").decode()
        wrong = [
            "",
            "x",
            f"{generation}.{int(expires) + 1}.{owner}.{signature}",
            f"{generation}.{expires}.{owner}.{signature}x",
            f"{generation}.{expires}.{other}.{signature}",
            f"{generation}.{expires}.*.{signature}",
            f"{generation}.{expires}.{signature}",
        ]
        for token in wrong:
            assert (await send(told["url"], token, body))["success"] is False
        assert (await send(told["url"], wrong[4], body, device="02:00:00:00:00:02"))["success"] is False
        desk = home.server.http.vision
        assert desk is not None
        later = desk._now_s() + 13 * 3600.0
        desk._now_s = lambda: later
        assert (await send(told["url"], told["token"], body))["success"] is False
        assert desk.refused == 10
        assert len([request for request in eyes.requests if "messages" in request.body]) == 1


async def test_without_an_endpoint_that_sees_the_answer_says_what_to_do_in_the_language_of_the_question(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home, home.device() as device:
        told = await camera(device)
        answer = await send(told["url"], told["token"], firmware_body(PHOTO, "What is this?"))
        assert answer["success"] is False
        assert "vision = true" in answer["message"]
        assert answer["message"].isascii()
        answer = await send(told["url"], told["token"], firmware_body(PHOTO, "这是什么？"))
        assert "看图的模型" in answer["message"]


async def test_what_is_no_picture_is_said_so(tmp_path: Path) -> None:
    async with home_with_eyes(tmp_path, max_mb=0.1, max_pixels=1_000_000) as (home, eyes), home.device() as device:
        told = await camera(device)
        cases = [
            (firmware_body(b"GIF89a" + bytes(100), "What?"), "only JPEG and PNG"),
            (firmware_body(b"", "What?"), "No picture"),
            (firmware_body(PHOTO[:400], "What?"), "damaged"),
            (firmware_body(picture(1200, 900), "What?"), "a size"),
            (firmware_body(picture(640, 480, noise=True), "What?"), "too large"),
            (b"------ESP32_CAMERA_BOUNDARY\r\nnonsense", ""),
            (firmware_body(PHOTO, "What?")[:-40], ""),
        ]
        for body, why in cases:
            answer = await send(told["url"], told["token"], body)
            assert answer["success"] is False
            assert why in answer["message"]
        answer = await send(told["url"], told["token"], b"{}", kind="application/json")
        assert answer["success"] is False
        assert all("messages" not in request.body for request in eyes.requests)


async def test_an_answer_that_is_long_or_does_not_come_stays_short_and_says_so(tmp_path: Path) -> None:
    async with (
        home_with_eyes(tmp_path, "\u0007很长的回答。" * 2000, timeout_s=1.0) as (home, eyes),
        home.device() as device,
    ):
        told = await camera(device)
        body = firmware_body(PHOTO, "What is this?")
        answer = await send(told["url"], told["token"], body)
        assert answer["success"] is True
        assert len(answer["response"]) > 500
        eyes.fault = "500"
        answer = await send(told["url"], told["token"], body)
        assert "just now" in answer["message"]
        eyes.fault = "hang-first"
        answer = await send(told["url"], told["token"], body)
        assert "just now" in answer["message"]


async def test_too_many_pictures_at_once_are_told_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xiaozhi.http.vision._PLACE_S", 0.05)
    async with home_with_eyes(tmp_path, max_concurrent=1) as (home, eyes), home.device() as device:
        told = await camera(device)
        body = firmware_body(PHOTO, "What is this?")
        eyes.fault = "hang"
        first = asyncio.create_task(send(told["url"], told["token"], body))
        while not any("messages" in request.body for request in eyes.requests):
            await eyes.asked(len(eyes.requests) + 1)
        second = await send(told["url"], told["token"], body)
        assert second["success"] is False
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        eyes.fault = ""
        assert (await send(told["url"], told["token"], body))["success"] is True


EVIL = {
    "scans without end": progressive(4000, 4000, 100_000),
    "tables without end": progressive(64, 64, 1, tables=60_000),
    "a second size": PHOTO[:-2] + segment(0xC0, b"\x08\x0f\xa0\x0f\xa0\x01\x01\x11\x00") + b"\xff\xd9",
    "segments without end": PHOTO[:2] + segment(0xFE, b"") * 400_000 + PHOTO[2:],
    "chunks without end": picture(codec="png").replace(chunk(b"IEND", b""), chunk(b"tEXt", b"a\0") * 300_000),
    "pixels without end": unpacking(b"IDAT", 100),
}


@pytest.mark.parametrize("name", EVIL)
async def test_no_picture_keeps_others_from_being_looked_at(tmp_path: Path, name: str) -> None:
    async with home_with_eyes(tmp_path) as (home, eyes), home.device() as device, asyncio.timeout(30):
        told = await camera(device)
        evil = await send(told["url"], told["token"], firmware_body(EVIL[name], "What?"))
        assert evil["message"] == "The picture is damaged; take it again."
        assert (await send(told["url"], told["token"], firmware_body(PHOTO, "What?")))["success"]
        assert len([request for request in eyes.requests if "messages" in request.body]) == 1


def test_what_is_packed_beside_the_pixels_is_never_unpacked() -> None:
    bomb = unpacking(b"zTXt", 100)
    assert len(bomb) > 50_000
    assert len(picture_in(bomb, 1_000_000).data) < 500
    assert prepared(bomb, 64, 1_000_000).startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("flags", ["", "+ildct"])
@pytest.mark.parametrize("pixels_as", ["monob", "gray", "ya8", "rgb24", "rgba", "gray16be", "rgba64be"])
def test_every_kind_of_png_is_looked_at(pixels_as: str, flags: str) -> None:
    for width, height in ((8, 8), (13, 57), (639, 11)):
        data = picture(width, height, "png", pixels_as=pixels_as, flags=flags)
        assert prepared(data, 64, 1_000_000).startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_png_with_a_palette_keeps_it(depth: int) -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 20, depth, 3, 0, 0, 0))
    palette = chunk(b"PLTE", b"\x10\xe0\x20" * 2)
    rows = chunk(b"IDAT", zlib.compress(bytes(20 * (1 + -(-30 * depth // 8)))))
    data = b"\x89PNG\r\n\x1a\n" + head + palette + chunk(b"tRNS", b"\xff") + rows + chunk(b"IEND", b"")
    assert prepared(data, 64, 1_000_000).startswith("data:image/jpeg;base64,")


def test_every_kind_of_jpeg_is_looked_at_and_what_stands_beside_the_picture_left_out() -> None:
    thumbnail = segment(0xE1, b"Exif\0\0" + picture(64, 48))
    beside = [b"", thumbnail, segment(0xFE, b"a comment") * 60, segment(0xE2, b"ICC" + bytes(60_000)) * 9, b"\xff" * 7]
    for extra in beside:
        assert (
            picture_in(PHOTO[:2] + extra + PHOTO[2:] + bytes(9000), 1_000_000).data == picture_in(PHOTO, 1_000_000).data
        )
    for data in (PHOTO, progressive(640, 480, 20), progressive(640, 480, 64, tables=120)):
        assert prepared(data, 256, 1_000_000).startswith("data:image/jpeg;base64,")
    with pytest.raises(PictureError, match="damaged"):
        picture_in(progressive(640, 480, 65), 1_000_000)
    with pytest.raises(PictureError, match="damaged"):
        picture_in(PHOTO[:2] + TABLES * 129 + PHOTO[2:], 1_000_000)


async def test_a_device_with_many_pictures_leaves_places_for_others(tmp_path: Path) -> None:
    async with home_with_eyes(tmp_path) as (home, eyes), home.device() as one, home.device(2) as other:
        told, body = await camera(one), firmware_body(PHOTO, "What is this?")
        eyes.fault = "hang"
        hung = [asyncio.create_task(send(told["url"], told["token"], body)) for _ in range(2)]
        await come_true(lambda: len([request for request in eyes.requests if "messages" in request.body]) == 2)
        assert "Too many" in (await send(told["url"], told["token"], body))["message"]
        eyes.fault = ""
        told = await camera(other)
        assert (await send(told["url"], told["token"], body, device="02:00:00:00:00:02"))["success"]
        for task in hung:
            task.cancel()
        await asyncio.gather(*hung, return_exceptions=True)


async def test_switched_off_devices_are_told_of_no_camera(tmp_path: Path) -> None:
    async with house(tmp_path, vision={"enabled": False}) as home, home.device() as device:
        connection = home.server.devices.find(device.identity.device_id)
        assert connection is not None
        async with asyncio.timeout(5):
            while not connection.tools.tools():
                await home.server.services.store.devices.get("x")  # the device lists its tools meanwhile
        assert device.tools.vision == {"url": "", "token": ""}


@given(st.binary(max_size=60), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", PHOTO[:200]]))
def test_no_bytes_break_the_look_at_a_picture(rest: bytes, begin: bytes) -> None:
    try:
        seen = picture_in(begin + rest, 1_000_000)
    except PictureError as error:
        assert error.key in {"kind", "damaged", "pixels"}
    else:
        assert seen.codec in {"mjpeg", "png"}


@settings(max_examples=40)
@given(st.integers(0, 2000), st.binary(min_size=1, max_size=8))
def test_a_picture_with_wrong_bytes_is_shown_or_refused(at: int, wrong: bytes) -> None:
    data = PHOTO[:at] + wrong + PHOTO[at + len(wrong) :]
    try:
        assert prepared(data, 64, 1_000_000).startswith("data:image/jpeg;base64,")
    except PictureError as error:
        assert error.key in {"kind", "damaged", "pixels"}


async def test_what_do_you_see_is_answered_by_the_camera_of_the_device_in_a_whole_turn(tmp_path: Path) -> None:
    camera_tool = "self_camera_take_photo"

    def said(messages: list[dict[str, Any]]) -> str:
        if any(part.get("type") == "image_url" for part in messages[-1]["content"] if isinstance(part, dict)):
            return "A red mug on a desk."
        return (
            f"🙂 I see: {orjson.loads(messages[-1]['content'])['response']}" if messages[-1]["role"] == "tool" else ""
        )

    def pieces(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        asked = messages[-1]["content"] == "what do you see"
        return in_pieces((call(camera_tool, question="What is in the picture?"),)) if asked else []

    async with ChatStandIn(said, tool_pieces=pieces) as eyes:
        endpoint = {"name": "eyes", "base_url": f"{eyes.url}/v1", "model": "see", "api_key": "none", "vision": True}
        gear = DeviceMcpServer(photo=PHOTO)
        async with house(tmp_path, llm={"endpoints": [endpoint]}) as home, home.device(tools=gear) as device:
            connection = home.server.devices.find(device.identity.device_id)
            assert connection is not None
            async with asyncio.timeout(5):
                while not connection.tools.offers("self.camera.take_photo"):
                    await home.server.services.store.devices.get("x")  # the device lists its tools meanwhile
            report = await device.turn_text("what do you see")
            assert report.text.endswith("I see: A red mug on a desk.")


async def test_a_camera_that_was_told_no_address_says_so_as_the_firmware_does() -> None:
    async with aiohttp.ClientSession() as session:
        identity = ClientIdentity.of("02:00:00:00:00:09")
        with pytest.raises(CameraError, match="URL or token is not set"):
            await explained(session, {}, identity, PHOTO, "What?")
        with pytest.raises(CameraError, match="Failed to upload"):
            await explained(session, {"url": "http://127.0.0.1:9/"}, identity, PHOTO, "What?")


def test_a_file_that_is_no_picture_is_no_photo_to_talk_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "letter.txt"
    text.write_text("Dear Anna")
    for file, why in ((text, "no JPEG or PNG"), (tmp_path / "gone.jpg", "No such file")):
        talk = ["talk", "--url", "ws://127.0.0.1:9/x/", "--text", "hi", "--quiet", "--photo", str(file)]
        assert main(talk) == 2
        assert why in capsys.readouterr().err
