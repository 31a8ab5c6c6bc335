"""`xiaozhi migrate`: the most used server's settings become ours, each value with a word about it."""

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from xiaozhi.cli import main
from xiaozhi.migrate.report import ReportLine, Words
from xiaozhi.migrate.rules import Leave, Rules
from xiaozhi.migrate.xinnan import Migration, migrate_xinnan
from xiaozhi.migrate.xinnan_table import ENTRIES, PROVIDERS, SELECTED, TOP
from xiaozhi.migrate.yaml_file import MAX_FILE_BYTES, YamlError, read_yaml
from xiaozhi.settings import Settings
from xiaozhi.settings.load import load_settings
from xiaozhi.settings.schema import find

DATA = Path(__file__).parent / "data" / "xinnan"
EVERY = read_yaml((DATA / "every_provider.yaml").read_bytes(), "every_provider.yaml")
PLACES = [(section, name) for section in SELECTED for name in EVERY.get(section, {})]


def moved(section: str, name: str) -> Migration:
    return migrate_xinnan({"selected_module": {section: name}, section: {name: EVERY[section][name]}})


def settings_of(found: Migration) -> Settings:
    return Settings.model_validate_json(json.dumps(found.values), strict=True)


def fates(found: Migration) -> dict[str, str]:
    return {line.theirs: line.fate for line in found.lines}


@pytest.mark.parametrize(("section", "name"), PLACES, ids=[f"{section}-{name}" for section, name in PLACES])
def test_every_provider_becomes_settings_that_hold_or_is_said_to_have_none(section: str, name: str) -> None:
    found = moved(section, name)
    settings_of(found)
    entry = EVERY[section][name]
    text = "\n".join(line.text(language) for line in found.lines for language in ("zh", "en"))
    assert found.lines
    assert "SECRET" not in text
    assert all(line.words.zh or line.fate in ("taken", "left") for line in found.lines)
    if found.lines[0].fate == "taken" and section in ("ASR", "TTS", "LLM"):
        assert found.values, "an engine was chosen"
        kept = json.dumps(found.values)
        given = [key for key in ("SECRET-1", "SECRET-2") if key in json.dumps(entry)]
        assert all(key in kept for key in given), "each key that is of use is kept"
    elif found.lines[0].fate in ("unavailable", "left"):
        assert not found.values


def test_the_table_knows_every_type_of_the_data_and_every_entry_of_theirs() -> None:
    types = {(section, str(entry["type"])) for section, entries in EVERY.items() for entry in entries.values()}
    assert types == set(PROVIDERS)
    for section, entries in ENTRIES.items():
        assert {(section, str(entry["type"])) for entry in entries.values()} <= set(PROVIDERS)


def test_all_that_is_said_is_there_in_both_languages() -> None:
    def words(rules: Rules) -> list[Words]:
        return [rule.words for rule in rules.values()]

    said = words(TOP)
    for provider in PROVIDERS.values():
        said += [provider.words, *(way.words for way in provider.ways)]
        for way in provider.ways:
            said += words(way.rules)
    assert all(bool(each.zh) == bool(each.en) for each in said)
    assert all(each.zh or rule.quiet for rule in TOP.values() if isinstance(rule, Leave) for each in [rule.words])


def test_an_engine_of_this_version_is_configured_as_theirs_was() -> None:
    funasr = settings_of(moved("ASR", "FunASRServer")).asr
    assert (funasr.engine, funasr.funasr.url, funasr.funasr.verify_tls) == ("funasr", "wss://10.0.0.2:10096", False)
    groq = settings_of(moved("ASR", "GroqASR")).asr
    assert (groq.engine, groq.openai.base_url) == ("openai", "https://api.groq.com/openai/v1")
    assert moved("ASR", "GroqASR").values["asr"]["openai"]["base_url"] == "https://api.groq.com/openai/v1", "as written"
    openai = settings_of(moved("TTS", "OpenAITTS")).tts
    assert (openai.engines, openai.openai.voice, openai.openai.speed) == (("openai", "espeak"), "onyx", 1.25)
    assert openai.openai.base_url == "https://api.openai.com/v1", "theirs is the whole path"
    assert settings_of(moved("TTS", "EdgeTTS")).tts.edge.voice == "zh-CN-YunxiNeural"


def test_an_engine_that_a_version_has_not_is_said_and_nothing_of_it_is_written() -> None:
    for section, name, engine in (
        ("ASR", "DoubaoStreamASRV2", "volcengine"),
        ("TTS", "MinimaxTTSHTTPStream", "minimax"),
    ):
        found = moved(section, name)
        if find((section.lower(), engine)) is None:
            assert found.values == {}
            assert found.lines[0].fate == "unavailable"
            assert engine in found.lines[0].words.en and engine in found.lines[0].words.zh
        else:
            assert engine in json.dumps(found.values)


def test_only_the_key_of_a_known_entry_is_enough_for_an_endpoint() -> None:
    found = migrate_xinnan({"selected_module": {"LLM": "DeepSeekLLM"}, "LLM": {"DeepSeekLLM": {"api_key": "SECRET-1"}}})
    (endpoint,) = settings_of(found).llm.endpoints
    assert (endpoint.base_url, endpoint.model, endpoint.key()) == (
        "https://api.deepseek.com",
        "deepseek-chat",
        "SECRET-1",
    )
    assert endpoint.extra_body == {"thinking": {"type": "disabled"}}, "as theirs does"


def test_an_endpoint_on_this_machine_needs_no_key_and_gets_its_path() -> None:
    (ollama,) = settings_of(moved("LLM", "OllamaLLM")).llm.endpoints
    assert ollama.base_url == "http://localhost:11434/v1"
    (qwen,) = settings_of(moved("LLM", "AliLLM")).llm.endpoints
    assert (qwen.temperature, qwen.max_tokens) == (0.7, 500)
    assert qwen.extra_body == {"enable_thinking": False, "top_p": 1, "top_k": 50, "frequency_penalty": 0}


@pytest.mark.parametrize("key", ["你的api_key", "", "null", "your-key-here"])
def test_an_endpoint_whose_key_was_never_filled_in_is_left_to_do(key: str) -> None:
    found = migrate_xinnan({"selected_module": {"LLM": "GeminiLLM"}, "LLM": {"GeminiLLM": {"api_key": key}}})
    assert found.values == {}
    (line,) = found.lines
    assert line.fate == "todo" and "api_key" in line.words.en


def test_a_model_that_sees_is_an_endpoint_for_pictures_or_the_same_one() -> None:
    same = {"type": "openai", "url": "https://api.example.com/v1", "model_name": "omni", "api_key": "SECRET-1"}
    other = {**same, "model_name": "vl"}
    one = migrate_xinnan({"selected_module": {"LLM": "A", "VLLM": "B"}, "LLM": {"A": same}, "VLLM": {"B": same}})
    (endpoint,) = settings_of(one).llm.endpoints
    assert endpoint.vision
    two = migrate_xinnan({"selected_module": {"LLM": "A", "VLLM": "B"}, "LLM": {"A": same}, "VLLM": {"B": other}})
    chat, sees = settings_of(two).llm.endpoints
    assert (chat.vision, sees.vision) == (False, True)
    assert sees.weight < chat.weight / 50, "it is asked about pictures"
    alike = migrate_xinnan({"selected_module": {"LLM": "A", "VLLM": "A"}, "LLM": {"A": same}, "VLLM": {"A": other}})
    assert [endpoint.name for endpoint in settings_of(alike).llm.endpoints] == ["A", "A-VLLM"]


def test_a_key_of_the_environment_does_not_go_to_the_address_of_their_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "SECRET-OF-THE-ENVIRONMENT")
    entry = {"type": "openai", "api_url": "http://10.0.0.9:8880/v1/audio/speech", "voice": "zf", "model": "kokoro"}
    voice = settings_of(migrate_xinnan({"selected_module": {"TTS": "Mine"}, "TTS": {"Mine": entry}})).tts.openai
    assert voice.base_url == "http://10.0.0.9:8880/v1"
    assert voice.key() == ""


def test_a_household_moves_in(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    found = migrate_xinnan(read_yaml((DATA / "household.yaml").read_bytes(), "household.yaml"), tmp_path)
    settings = settings_of(found)
    assert (settings.server.port, settings.server.public_url) == (8100, "https://xz.example.org")
    assert (settings.server.timezone, settings.server.idle_close_s) == ("Asia/Shanghai", 180.0)
    assert settings.auth.mode == "token"
    assert [token.get_secret_value() for token in settings.auth.tokens] == ["SECRET-DEVICE"]
    assert settings.auth.allow == (), "theirs lets others in as well"
    assert settings.turn.wake_words == ("你好小智", "小爱同学")
    assert settings.turn.exit_phrases == ("退出", "关闭")
    assert (settings.turn.wake_reply, settings.turn.goodbye) == ("auto", "")
    assert settings.llm.system_prompt == "{% raw %}你是小智，你的主人叫 {{owner}}。{% endraw %}", "taken literally"
    assert (settings.tools.weather.provider, settings.tools.weather.city) == ("open-meteo", "广州")
    assert settings.tools.home_assistant.key() == "SECRET-HASS"
    assert settings.tools.music.folder == tmp_path / "music"
    assert (settings.tools.search.provider, settings.tools.search.results) == ("tavily", 3)
    assert (settings.memory.engine, settings.tts.first_audio_timeout_s, settings.log.level) == ("local", 15.0, "debug")
    assert [endpoint.name for endpoint in settings.llm.endpoints] == ["DeepSeekLLM"]
    said = fates(found)
    assert said["server.http_port"] == "left" and said["server.mqtt_gateway"] == "left"
    assert said["voiceprint"] == "left"
    assert said["selected_module.VLLM"] == "todo", "it has no key"
    assert "mcp_endpoint" not in said, "it was never filled in"


@pytest.mark.parametrize(
    ("offset", "zone"), [("+8", "Asia/Shanghai"), ("-5", "Etc/GMT+5"), ("0", "Etc/GMT"), ("9", "Etc/GMT-9")]
)
def test_hours_before_greenwich_become_a_zone(offset: str, zone: str) -> None:
    found = migrate_xinnan({"server": {"timezone_offset": offset}})
    assert settings_of(found).server.timezone == zone


@pytest.mark.parametrize(
    ("config", "theirs"),
    [
        ({"server": {"port": "eight"}}, "server.port"),
        ({"server": {"port": "99999"}}, "server.port"),
        ({"server": {"port": ["1"]}}, "server.port"),
        ({"server": {"timezone_offset": "nan"}}, "server.timezone_offset"),
        ({"server": {"websocket": "xz.example.org"}}, "server.websocket"),
        ({"wakeup_words": {"a": "b"}}, "wakeup_words"),
        ({"tool_call_timeout": "1e999"}, "tool_call_timeout"),
        ({"log": {"log_level": "LOUD"}}, "log.log_level"),
        ({"plugins": {"play_music": {"music_dir": "/nowhere"}}}, "plugins.play_music.music_dir"),
        ({"something": {"new": "1"}}, "something"),
        ({"selected_module": "EdgeTTS"}, "selected_module"),
        ({"TTS": "edge"}, "TTS"),
    ],
)
def test_a_value_that_cannot_be_is_said_and_nothing_else_is_lost(config: dict[str, Any], theirs: str) -> None:
    found = migrate_xinnan({**config, "close_connection_no_voice_time": "180"})
    assert fates(found)[theirs] == "left"
    assert found.values == {"server": {"idle_close_s": 180.0}}


@pytest.mark.parametrize(
    "config",
    [
        {"selected_module": "TTS"},
        {"selected_module": {"TTS": ["EdgeTTS"], "LLM": {"a": "b"}}},
        {"selected_module": {"TTS": "Nowhere"}},
        {"selected_module": {"TTS": "EdgeTTS"}, "TTS": "edge"},
        {"selected_module": {"TTS": "EdgeTTS"}, "TTS": {"EdgeTTS": ["edge"]}},
        {"selected_module": {"TTS": "X"}, "TTS": {"X": {"type": ["edge"]}}},
        {"selected_module": {"LLM": "X"}, "LLM": {"X": {"type": "openai", "base_url": "http://[", "api_key": "k"}}},
        {"selected_module": {"LLM": "X"}, "LLM": {"X": {"type": "openai", "base_url": ["a"], "api_key": {"a": "b"}}}},
        {"plugins": {"get_weather": "x", "web_search": ["y"]}, "server": "z", "prompt": ["a"]},
        {"prompt": "{% endraw %}{{"},
    ],
)
def test_values_of_other_types_end_in_words_and_not_in_an_error(config: dict[str, Any]) -> None:
    found = migrate_xinnan(config)
    settings_of(found)
    assert found.lines


ANYTHING = st.recursive(
    st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
NAMES = sorted(
    {part for name in TOP for part in name.split(".")}
    | {key for way in PROVIDERS.values() for each in way.ways for key in each.rules}
)


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(PLACES),
    st.dictionaries(
        st.sampled_from(NAMES), ANYTHING | st.sampled_from(["1", "true", "-1", "1e400", "http://[", "a"]), max_size=8
    ),
    st.dictionaries(st.sampled_from(sorted(TOP)), ANYTHING, max_size=4),
)
def test_whatever_stands_there_the_settings_hold(
    place: tuple[str, str], entry: dict[str, Any], top: dict[str, Any]
) -> None:
    section, name = place
    config: dict[str, Any] = {"selected_module": {section: name}, section: {name: {**EVERY[section][name], **entry}}}
    for path, value in top.items():
        *above, last = path.split(".")
        inner = config
        for part in above:
            found = inner.setdefault(part, {})
            inner[part] = inner = found if isinstance(found, dict) else {}
        inner[last] = value
    settings_of(migrate_xinnan(config))


# Files ----------------------------------------------------------------------------------------------------------------


def bomb() -> str:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    return "\n".join(rows)


def merges() -> str:
    rows = ["a0: &a0 {x: 1, y: 2}"]
    rows += [f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]\n  k{n}: {{z: *a{n - 1}}}" for n in range(1, 12)]
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [1, 2", "not valid YAML"),
        (b"a:\n\tb: 1", "line 2"),
        (bomb().encode(), "values"),
        (merges().encode(), "values"),
        (b"a: &a [*a]", "YAML"),
        (b"a: " + b"[" * 60_000, "nested too deeply"),
        (b"a: " + b"[" * 50 + b"]" * 50, "nested deeper"),
        (b"a: " + b"[" * 5_000 + b"]" * 5_000, "nested"),
        (b"a: !!python/object/apply:os.system [id]", "tag"),
        (b"a: !secret x", "tag"),
        (b"? [a, b]\n: c", "YAML"),
        (b"a: 1\n---\nb: 2", "YAML"),
        (b"- a\n- b", "no table"),
        (b"", "no table"),
        (b"just words", "no table"),
        (b'a: "\\ud800"', "YAML"),
        (b"a: \x00", "YAML"),
        (b"a: \xc4\xe3\xba\xc3", "UTF-8"),
        (b"#" * (MAX_FILE_BYTES + 1), "larger"),
        (b"- x\n" * 6_000, "values"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_a_hostile_or_broken_file_is_one_clear_line(content: bytes, said: str) -> None:
    with pytest.raises(YamlError) as error:
        read_yaml(content, "their.yaml")
    (line,) = str(error.value).splitlines()
    assert line.startswith("their.yaml: ") and said in line
    assert len(line) < 400


def test_numbers_stay_as_they_were_written_and_merges_count() -> None:
    text = "base: &b {appid: 0012345, on: yes}\nmine:\n  <<: *b\n  on: no\n"
    assert read_yaml(text.encode(), "x")["mine"] == {"appid": "0012345", "on": "no"}
    theirs = yaml.safe_load(text.replace("on:", "ok:"))["mine"]
    assert theirs == {"appid": 5349, "ok": False}, "what others make of it: the number of no application"


# The command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "theirs" / "data").mkdir(parents=True)
    (tmp_path / "theirs" / "music").mkdir()
    (tmp_path / "theirs" / "data" / ".config.yaml").write_bytes((DATA / "household.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_command_writes_a_private_file_that_the_server_reads(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", "xinnan", "theirs/data/.config.yaml"]) == 0
    out = folder / "settings.local.toml"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    told = capsys.readouterr()
    assert "SECRET" not in told.out + told.err
    assert "[taken] LLM.DeepSeekLLM.api_key -> llm.endpoints[0].api_key" in told.out
    assert "[no counterpart] server.http_port: OTA is on the port of the devices" in told.out
    assert "settings.local.toml" in told.out and "check" in told.out
    settings = load_settings(None, {}, {}).settings
    assert settings.llm.endpoints[0].key() == "SECRET-DEEPSEEK"
    assert settings.tools.music.folder == folder / "theirs" / "music"


def test_a_file_that_is_there_is_only_replaced_by_force(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "mine.toml"
    out.write_text("# mine\n")
    arguments = ["migrate", "xinnan", "theirs/data/.config.yaml", "--out", "mine.toml"]
    assert main(arguments) == 1
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "# mine\n"
    assert main([*arguments, "--dry-run"]) == 0
    assert out.read_text() == "# mine\n"
    assert main([*arguments, "--force"]) == 0
    assert tomllib.loads(out.read_text())["server"]["port"] == 8100


@pytest.mark.parametrize("way", [("--language", "zh"), ("LANG", "zh_CN.UTF-8")])
def test_the_report_is_in_the_language_of_the_terminal(
    way: tuple[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["migrate", "xinnan", "theirs/data/.config.yaml"]
    if way[0] == "LANG":
        monkeypatch.setenv(*way)
    assert main([*arguments, *(way if way[0] == "--language" else ())]) == 0
    told = capsys.readouterr().out
    assert "[已采用] wakeup_words -> turn.wake_words" in told
    assert "要做" in told and "已写入" in told


def test_the_report_as_json_has_a_line_for_each_value_and_no_key(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", "xinnan", "theirs/data/.config.yaml", "--json"]) == 0
    told = capsys.readouterr().out
    assert "SECRET" not in told
    report = json.loads(told)
    assert report["written"] == "settings.local.toml"
    assert "llm.endpoints" in report["settings"]
    assert {"fate": "taken", "theirs": "wakeup_words", "ours": "turn.wake_words", "text": ""} in report["lines"]


@pytest.mark.parametrize("content", [b"a: [", b"#" * 10_000_000, bomb().encode()])
def test_a_file_that_cannot_be_used_is_one_line_and_nothing_is_written(
    content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.yaml").write_bytes(content)
    assert main(["migrate", "xinnan", "bad.yaml"]) == 1
    told = capsys.readouterr()
    assert told.out == "" and "bad.yaml" in told.err and len(told.err.splitlines()) == 1
    assert not (folder / "settings.local.toml").exists()
    assert main(["migrate", "xinnan", "missing.yaml"]) == 1
    assert "missing.yaml" in capsys.readouterr().err


def test_a_name_of_the_file_cannot_write_on_the_terminal() -> None:
    found = migrate_xinnan({"\x1b[31mred\n" + "x" * 5000: "1"})
    (line,) = found.lines
    assert isinstance(line, ReportLine)
    text = line.text("en")
    assert text.isprintable() and len(text) < 200
