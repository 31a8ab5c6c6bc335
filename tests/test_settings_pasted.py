"""Addresses, keys and files as people paste and save them: mended and said where there is no doubt, else one line."""

import asyncio
import codecs
from pathlib import Path

import pytest

from bench.standins.chat import ChatStandIn
from xiaozhi.cli import main
from xiaozhi.settings import LlmEndpoint
from xiaozhi.settings.errors import SettingsError
from xiaozhi.settings.load import Loaded, load_settings
from xiaozhi.settings.pasted import key_fault, mended_address, mended_key

ENDPOINT = '[[llm.endpoints]]\nname = "e"\nbase_url = "{}"\nmodel = "m"\napi_key = "{}"\n'


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def load(content: bytes | str) -> Loaded:
    Path("settings.toml").write_bytes(content.encode() if isinstance(content, str) else content)
    return load_settings(None, {}, {})


@pytest.mark.parametrize(
    ("pasted", "address"),
    [
        ("http://localhost：21010/v1", "http://localhost:21010/v1"),
        ("https：／／api。deepseek．com／v1", "https://api.deepseek.com/v1"),
        (" https://api.example.com/v1 \n", "https://api.example.com/v1"),
        ("https://api.example.com /v1", "https://api.example.com/v1"),
        ("https://api.exam\u200bple.com/v1", "https://api.example.com/v1"),
        ("\ufeffhttps://api.example.com/v1", "https://api.example.com/v1"),
        ("“https://api.example.com/v1”", "https://api.example.com/v1"),
        ("https://api.example.com/v1，", "https://api.example.com/v1"),
        ("<https://api.example.com/v1>", "https://api.example.com/v1"),
        ("https://api.example.com/v1/chat/completions", "https://api.example.com/v1"),
        ("https://api.example.com/v1/chat/completions/", "https://api.example.com/v1"),
        ("https://api.example.com/v1//chat/completions", "https://api.example.com/v1"),
        ("https://api.example.com/v1/completions", "https://api.example.com/v1"),
        ("https://api.example.com/v1/audio/speech", "https://api.example.com/v1"),
        ("api.example.com/v1", "https://api.example.com/v1"),
        ("localhost:11434/v1", "http://localhost:11434/v1"),
        ("ollama:11434/v1", "http://ollama:11434/v1"),
        ("192.168.1.5:8000/v1", "http://192.168.1.5:8000/v1"),
        ("[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("http:/api.example.com/v1", "http://api.example.com/v1"),
        ("https//api.example.com/v1", "https://api.example.com/v1"),
        ("http:\\\\localhost:8000\\v1", "http://localhost:8000/v1"),
        ("http://https://api.example.com/v1", "https://api.example.com/v1"),
        ("HTTPS://api.example.com/v1", "https://api.example.com/v1"),
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("https://api.example.com/v1/", "https://api.example.com/v1/"),
        ("http://例え.jp/v1", "http://例え.jp/v1"),
    ],
)
def test_an_address_is_read_as_it_was_meant(pasted: str, address: str) -> None:
    assert mended_address(pasted) == address
    assert LlmEndpoint(name="e", base_url=pasted, model="m").base_url == address
    assert mended_address(address) == address, "and stays as it is"


@pytest.mark.parametrize(
    "pasted",
    ["", "/v1", "v1", "http://", "http:///v1", "http://[::1/v1", "http://host:99999/v1", "http://host:port/v1",
     "ftp://example.com/v1", "http://a.example.com/v1 http://b.example.com/v1", "http://user name@/v1", "http://a,b/v1"],
)  # fmt: skip
def test_an_address_that_can_be_none_is_one_line_that_names_it(pasted: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(ENDPOINT.format(pasted, "k"))
    (line,) = caught.value.errors
    assert line.startswith("settings.toml: llm.endpoints[0].base_url") and "must" in line


@pytest.mark.parametrize(
    ("pasted", "key"),
    [
        (" sk-1 ", "sk-1"),
        ("sk-1\n", "sk-1"),
        ("Bearer sk-1", "sk-1"),
        ("bearer  sk-1", "sk-1"),
        ("Authorization: Bearer sk-1", "sk-1"),
        ("'sk-1'", "sk-1"),
        ("“Bearer sk-1”", "sk-1"),
        ("\ufeffsk-1\u200b", "sk-1"),
        ("\u00a0sk-1\u3000", "sk-1"),
        ("bearer-token", "bearer-token"),
        ("my secret", "my secret"),
        ("", ""),
    ],
)
def test_a_key_is_read_without_what_stands_around_it(pasted: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mended_key(pasted) == key
    assert key_fault(key) == ""
    monkeypatch.setenv("SOME_KEY", pasted)
    base = {"name": "e", "base_url": "http://127.0.0.1/v1", "model": "m"}
    assert LlmEndpoint.model_validate({**base, "api_key": pasted}).key() == key
    assert LlmEndpoint.model_validate({**base, "api_key_env": "SOME_KEY"}).key() == key


def test_what_was_mended_is_said_and_no_key_with_it() -> None:
    loaded = load(
        ENDPOINT.format("http://me:SECRET@localhost：1/v1/chat/completions", "Bearer SECRET")
        + '[tts.openai]\nbase_url = "api.example.com"\napi_key = "SECRET秘"\n'
    )
    assert loaded.warnings == (
        'settings.toml: llm.endpoints[0].base_url = "http://(hidden)@localhost：1/v1/chat/completions":'
        " read as http://(hidden)@localhost:1/v1",
        'settings.toml: llm.endpoints[0].api_key = (hidden): read without the blanks, quotes or "Bearer" around it',
        'settings.toml: tts.openai.base_url = "api.example.com": read as https://api.example.com',
        "settings.toml: tts.openai.api_key = (hidden): holds characters that no key has; it cannot be used",
    )


TEXT = ENDPOINT.format("http://127.0.0.1:1/v1", "k") + '[llm]\nsystem_prompt = "你好"\n'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TEXT.encode(), ""),
        (TEXT.replace("\n", "\r\n").encode(), ""),
        (TEXT.replace("\n", "\r").encode(), ""),
        (codecs.BOM_UTF8 + TEXT.encode(), "begins with a byte order mark"),
        (codecs.BOM_UTF8 + TEXT.replace("\n", "\r\n").encode(), "begins with a byte order mark"),
        (TEXT.encode("utf-16"), "is UTF-16 text"),
        (TEXT.encode("utf-16-le"), "is UTF-16 text"),
        (codecs.BOM_UTF16_BE + TEXT.replace("\n", "\r\n").encode("utf-16-be"), "is UTF-16 text"),
    ],
)
def test_a_settings_file_may_be_saved_by_any_editor(content: bytes, said: str) -> None:
    loaded = load(content)
    assert loaded.settings.llm.system_prompt == "你好"
    assert [line.partition(": ")[2][: len(said)] for line in loaded.warnings] == ([said] if said else [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nhost = “127.0.0.1”\n", "line 2 has “ where TOML takes only ASCII marks"),
        ('[server]\nhost ＝ "127.0.0.1"\n', "line 2 has ＝ where TOML takes only ASCII marks"),
        ('[server]\nhost\u00a0= "127.0.0.1"\n', "line 2 has \\xa0 where TOML takes only ASCII marks"),
        ('[server]\nhost = "“"\nport = \n', "Invalid value (at line 3, column 8)"),
    ],
)
def test_marks_of_another_keyboard_are_named(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(text)
    (line,) = caught.value.errors
    assert line.startswith("settings.toml: not valid TOML: ") and said in line


OWN = """\
[server]
host = "127.0.0.1"
port = 0
data_dir = "data"
[models]
auto_pull = false
[tts]
engines = ["espeak"]
"""


async def checked(capsys: pytest.CaptureFixture[str], content: bytes) -> tuple[int, str]:
    """`xiaozhi check` in a thread, so that what it asks is answered meanwhile: its exit code and what it prints."""
    await asyncio.to_thread(Path("settings.toml").write_bytes, content)
    code = await asyncio.to_thread(main, ["check"])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    return code, printed.out


async def test_check_says_in_a_line_what_is_wrong_with_an_endpoint(capsys: pytest.CaptureFixture[str]) -> None:
    async with ChatStandIn() as chat:
        texts = [
            ENDPOINT.format(f"{chat.url}/v1", "你的api key"),
            ENDPOINT.format(f"{chat.url}/v1/chat/completions", "k").replace('"e"', '"suffix"'),
            ENDPOINT.format(chat.url, "k").replace('"e"', '"bare"'),
            ENDPOINT.format(chat.url.replace("1:", "1：") + "/v1", "k").replace('"e"', '"wide"'),
        ]
        code, printed = await checked(capsys, codecs.BOM_UTF8 + (OWN + "\n".join(texts)).encode())
    lines = [line for line in printed.splitlines() if "llm " in line[:12]]
    assert [line.split()[:3] for line in lines] == [
        ["BAD", "llm", "e"],
        ["ok", "llm", "suffix"],
        ["BAD", "llm", "bare"],
        ["ok", "llm", "wide"],
    ]
    assert "the key holds characters that no key has" in lines[0] and "你" not in printed
    assert f'write base_url = "{chat.url}/v1"' in lines[2]
    for said in (
        "byte order mark",
        "llm.endpoints[1].base_url",
        "llm.endpoints[3].base_url",
        "llm.endpoints[0].api_key",
    ):
        assert said in printed
    assert code == 0, "serving works: other endpoints answer"


async def test_check_says_in_a_line_which_address_can_be_none(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = await checked(capsys, (OWN + ENDPOINT.format("http://localhost:21O10/v1", "k")).encode())
    assert code == 1
    (line,) = [line for line in printed.splitlines() if "llm.endpoints[0].base_url" in line]
    assert "must be one address with a host" in line
