"""Changes of the settings file: what is written, and what stays as it was."""

import re
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from xiaozhi.console.editing import HEADER, EditError, edited
from xiaozhi.console.endpoints import replace_endpoints, shown_endpoints, written_fields
from xiaozhi.console.fields import tables
from xiaozhi.console.settings_file import SettingsFile
from xiaozhi.reload.reloader import Applied
from xiaozhi.settings import LlmEndpoint, Settings
from xiaozhi.settings.errors import SettingsError
from xiaozhi.settings.load import SettingsSource
from xiaozhi.settings.schema import applies, dotted, keys
from xiaozhi.settings.texts import flowing
from xiaozhi.settings.tts import VOICES

MINE = """\
# my house

[asr]
workers = 2   # one core is for the rest
# model_dir = "models/mine"
language = "zh"

# who speaks
[llm]
max_concurrent = 5   # because

# the one in the cellar
[[llm.endpoints]]   # first
name = "cellar"      # its name
base_url = "http://10.0.0.5:8000/v1"
model = "qwen"  # model
api_key = "sk-cellar-secret"

[[llm.endpoints]]
preset = "qwen"  # second
api_key = "sk-qwen-secret"

# about turns
[turn]
barge_in = true
"""


def test_only_what_was_changed_is_in_the_file_and_what_is_unset_goes_with_its_empty_tables() -> None:
    text = edited("", {"asr.workers": 3, "llm.routing.enabled": False, "turn.greeting": "你好"})
    assert text.startswith(HEADER) and "优先于 settings.toml" in text
    assert tomllib.loads(text) == {
        "asr": {"workers": 3},
        "llm": {"routing": {"enabled": False}},
        "turn": {"greeting": "你好"},
    }
    less = edited(text, {"asr.workers": 4}, ["llm.routing.enabled", "asr.threads", "tts.engines"])
    assert tomllib.loads(less) == {"asr": {"workers": 4}, "turn": {"greeting": "你好"}}
    assert edited(less, {}, ["asr.workers", "turn.greeting"]) == "", "nothing is left"


@pytest.mark.parametrize("text", ["asr.threads = 1", "asr = { threads = 1 }", "# mine\n[asr]\r\nthreads = 1\r\n", ""])
def test_a_file_in_any_form_can_be_changed(text: str) -> None:
    assert tomllib.loads(edited(text, {"asr.workers": 4, "asr.threads": 2})) == {"asr": {"workers": 4, "threads": 2}}


@pytest.mark.parametrize(
    ("text", "changes"), [("[asr\nworkers", {"asr.workers": 1}), ("", {"a.b": [{"c": None}]}), ("a = 1", {"a.b": 1})]
)
def test_what_is_no_toml_is_refused(text: str, changes: dict[str, Any]) -> None:
    with pytest.raises(EditError):
        edited(text, changes)


@hypothesis_settings(max_examples=60, deadline=None)
@example("\x85 \u2028 \r\n \x0b")
@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=60))
def test_any_text_is_written_so_that_it_is_read_again(words: str) -> None:
    found = tomllib.loads(edited(MINE, {"llm.system_prompt": words, "turn.greeting": words}))
    assert found["llm"]["system_prompt"] == found["turn"]["greeting"] == words
    assert found["asr"] == tomllib.loads(MINE)["asr"]


def test_only_what_differs_from_the_preset_is_written() -> None:
    endpoint = LlmEndpoint.model_validate({"preset": "deepseek", "api_key": "k", "weight": 3})
    assert written_fields(endpoint) == {"preset": "deepseek", "api_key": "k", "weight": 3.0}
    plain = LlmEndpoint(name="x", base_url="http://h/v1", model="m", temperature=0.5)
    assert written_fields(plain) == {"name": "x", "base_url": "http://h/v1", "model": "m", "temperature": 0.5}


# The file ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> SettingsFile:
    path = tmp_path / "settings.toml"
    path.write_text(MINE, encoding="utf-8")
    path.chmod(0o640)
    return SettingsFile(SettingsSource(path, {}, {}), Settings)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def written(file: SettingsFile) -> Any:
    assert file.path is not None
    return tomllib.loads(file.path.read_text("utf-8")) if file.path.exists() else {}


async def test_the_owners_file_is_never_touched_and_what_is_written_is_private(file: SettingsFile) -> None:
    outcome = await file.change({"asr.workers": 3, "turn.barge_in": True, "asr.threads": 1}, [])
    assert outcome.restart == ("asr.workers", "turn.barge_in", "asr.threads") and not outcome.applied
    assert written(file) == {"asr": {"workers": 3}}, "what the file or the default has anyway is not written"
    await file.change({"asr.itn": False}, [])
    assert file.path is not None and file.owners_path is not None
    assert (file.path.name, file.current().asr.workers, file.current().asr.itn) == ("settings.local.toml", 3, False)
    assert file.owners_path.read_text("utf-8") == MINE and file.owners_path.stat().st_mode & 0o777 == 0o640
    backup = file.path.with_name("settings.local.toml.bak")
    assert tomllib.loads(backup.read_text("utf-8")) == {"asr": {"workers": 3}}
    assert {path.stat().st_mode & 0o777 for path in (file.path, backup)} == {0o600}
    assert names_in(file.path.parent) == ["settings.local.toml", "settings.local.toml.bak", "settings.toml"]


async def test_an_override_is_shown_and_taken_away_and_the_owners_value_counts_again(file: SettingsFile) -> None:
    await file.change({"asr.workers": 3, "asr.threads": 2}, [])
    assert file.overridden() == {"asr.workers": 2} and file.origins()["asr.workers"] == "local"
    await file.change({}, ["asr.workers"])
    assert (file.current().asr.workers, file.origins()["asr.workers"], written(file)) == (
        2,
        "file",
        {"asr": {"threads": 2}},
    )
    with pytest.raises(SettingsError, match=r"asr\.workers: stands in .*settings\.toml; change it there"):
        await file.change({}, ["asr.workers"])
    await file.change({"asr.threads": 1}, [])
    assert written(file) == {}, "as it was before anything was changed"


async def test_what_an_earlier_version_wrote_into_the_owners_file_still_holds_and_its_backup_is_closed(
    file: SettingsFile,
) -> None:
    assert file.owners_path is not None
    old = file.owners_path.with_name("settings.toml.bak")
    old.write_text(MINE)
    old.chmod(0o644)
    file.protect()
    assert old.stat().st_mode & 0o777 == 0o600
    await file.change({"asr.language": "en"}, [])
    kept = file.current()
    assert (kept.asr.workers, kept.asr.language, len(kept.llm.endpoints)) == (2, "en", 2)


async def test_a_change_that_does_not_hold_says_what_the_command_line_says_and_writes_nothing(
    file: SettingsFile,
) -> None:
    wrong: dict[str, Any] = {"asr.workers": 99, "tts.engines": ["edge", "edgy"], "server.port": "8000"}
    with pytest.raises(SettingsError) as caught:
        await file.change(wrong, [])
    assert list(caught.value.errors) == [
        'server.port = "8000": must be a whole number from 0 to 65535',
        "asr.workers = 99: must be at most 64",
        'tts.engines[1] = "edgy": must be one of '
        + ", ".join(f'"{name}"' for name in VOICES)
        + '; did you mean "edge"?',
    ]
    assert file.path is not None and names_in(file.path.parent) == ["settings.toml"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"asr.worker": 3}, "asr.worker: unknown key; did you mean asr.workers?"),
        ({"asr": {}}, "asr: cannot be changed here; edit the file"),
        ({"tools.servers": [{"name": "x", "command": "sh"}]}, "tools.servers: cannot be changed here; edit the file"),
        ({"console.password_file": "/etc/passwd"}, "console.password_file: cannot be changed here; edit the file"),
        ({"server.data_dir": "/etc"}, "server.data_dir: cannot be changed here; edit the file"),
        ({"tracing.headers": {"a": "set"}}, "tracing.headers: cannot be changed here; edit the file"),
        ({"llm.endpoints": []}, "llm.endpoints: cannot be changed here; edit the file"),
        ({"asr.workers": None}, "asr.workers: must be a whole number from 1 to 64"),
        ({"llm.endpoints.0.name": "x"}, "llm.endpoints.0.name: unknown key"),
    ],
)
async def test_what_cannot_be_changed_one_by_one_is_refused(
    file: SettingsFile, changes: dict[str, Any], error: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        await file.change(changes, [])
    assert caught.value.errors[0].startswith(error)


async def test_without_a_file_only_the_change_is_written(tmp_path: Path) -> None:
    file = SettingsFile(SettingsSource(tmp_path / "settings.toml", {}, {}), Settings)
    assert not file.exists and file.writable()
    await file.change({"turn.profile": "aggressive"}, [])
    assert names_in(tmp_path) == ["settings.local.toml"] and written(file) == {"turn": {"profile": "aggressive"}}
    assert file.current().turn.profile == "aggressive"


async def test_what_the_environment_sets_is_named_and_kept_for_later(tmp_path: Path) -> None:
    source = SettingsSource(tmp_path / "settings.toml", {"tts.max_concurrent": "3"}, {"XIAOZHI_ASR__WORKERS": "5"})
    file = SettingsFile(source, Settings)
    outcome = await file.change({"asr.workers": 3, "tts.max_concurrent": 9, "asr.threads": 2}, [])
    assert outcome.overridden == ("asr.workers", "tts.max_concurrent") and outcome.restart == ("asr.threads",)
    assert file.origins()["asr.workers"] == "environment" and file.origins()["asr.threads"] == "local"
    assert file.origins()["tts.max_concurrent"] == "command line"
    assert written(file) == {"asr": {"workers": 3, "threads": 2}, "tts": {"max_concurrent": 9}}


async def test_a_server_without_a_file_changes_none() -> None:
    file = SettingsFile(None, Settings)
    assert not file.writable() and file.path is None
    with pytest.raises(SettingsError, match="not started with a settings file"):
        await file.change({"asr.workers": 3}, [])


async def test_a_change_that_cannot_be_written_is_not_applied_and_one_that_cannot_be_applied_is_not_written(
    tmp_path: Path,
) -> None:
    held: list[int] = []

    async def apply(settings: Settings, commit: Callable[[], Awaitable[None]]) -> Applied:
        if settings.asr.workers == 13:
            return Applied(errors=("thirteen brings bad luck",))
        await commit()
        held.append(settings.asr.workers)
        return Applied()

    file = SettingsFile(SettingsSource(tmp_path / "settings.toml", {}, {}), Settings, apply)
    with pytest.raises(SettingsError, match="bad luck"):
        await file.change({"asr.workers": 13}, [])
    assert names_in(tmp_path) == []
    (tmp_path / "settings.local.toml.bak").mkdir()  # where the file before is to be kept
    await file.change({"asr.workers": 3}, [])
    with pytest.raises(
        SettingsError, match=r"settings\.local\.toml: cannot be written: .*; make the folder .* writable"
    ):
        await file.change({"asr.workers": 4}, [])
    assert held == [3] and written(file) == {"asr": {"workers": 3}}
    assert names_in(tmp_path) == ["settings.local.toml", "settings.local.toml.bak"]


async def test_a_mistake_somebody_made_in_the_file_can_be_taken_out_again(file: SettingsFile) -> None:
    assert file.path is not None
    file.path.write_text("[asr]\nworkers = 99\nthreads = 2\n")
    with pytest.raises(SettingsError, match=r"^asr\.workers = 99: must be at most 64"):
        await file.change({"asr.itn": False}, [])
    await file.change({"asr.itn": False}, ["asr.workers"])
    assert written(file) == {"asr": {"threads": 2, "itn": False}}


# Paths ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("store.file", "/etc/passwd"), ("store.file", "../settings.toml"), ("store.file", "link/x.db"),
        ("ota.firmware_dir", "/"), ("tools.music.folder", "data/link"), ("cache.preload", "/etc/hosts"),
        ("cluster.tls_ca", "settings.toml"), ("asr.model_dir", "/etc"), ("tts.sherpa.model_dir", "~"),
        ("asr.streaming_model_dir", "data/../elsewhere"), ("vad.model", "/etc/passwd"),
    ],
)  # fmt: skip
async def test_a_path_given_in_the_console_stays_in_the_data_directory(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to("/tmp")
    path = tmp_path / "settings.toml"
    path.write_text('[server]\ndata_dir = "data"\n[models]\ndir = "models"\n')
    file = SettingsFile(SettingsSource(path, {}, {}), Settings)
    with pytest.raises(SettingsError, match=rf"{name}: .* is outside of .*data.*; paths elsewhere are set in settings"):
        await file.change({name: value}, [])
    assert names_in(tmp_path) == ["data", "settings.toml"]


async def test_paths_within_it_and_models_where_models_lie_are_taken_and_the_owner_may_name_any(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[server]\ndata_dir = "data"\n[models]\ndir = "models"\n[tools.music]\nfolder = "/music"\n')
    file = SettingsFile(SettingsSource(path, {}, {}), Settings)
    inside = {
        "store.file": "other.db", "ota.firmware_dir": "data/firmware", "asr.model_dir": "models/mine",
        "vad.model": "models/v.onnx", "tools.music.folder": "/music",
    }  # fmt: skip
    await file.change(inside, [])
    kept = file.current()
    assert (kept.asr.model_dir, kept.store.file) == (tmp_path / "models" / "mine", "other.db")
    assert kept.tools.music.folder == Path("/music") and "tools" not in written(file)


# Keys ----------------------------------------------------------------------------------------------------------------


async def test_keys_are_kept_for_the_address_they_were_given_for_and_for_no_other(file: SettingsFile) -> None:
    rows = shown_endpoints(file.current())
    assert [row["api_key"] for row in rows] == [None, None] and all(row["api_key_set"] for row in rows)
    assert "secret" not in str(rows)
    rows[0] |= {"name": "attic", "model": "m2", "base_url": "http://10.0.0.5:8000/v2"}
    rows[0]["extra_headers"] = {"X-Team": "secret-team"}
    await replace_endpoints(file, rows)
    kept = file.current().llm.endpoints
    assert [one.key() for one in kept] == ["sk-cellar-secret", "sk-qwen-secret"] and kept[0].name == "attic"
    rows = shown_endpoints(file.current())
    assert rows[0]["extra_headers"] == {"X-Team": None} and "secret" not in str(rows)
    await replace_endpoints(file, [rows[0] | {"model": "m3"}, rows[1]])
    assert file.current().llm.endpoints[0].headers() == {"X-Team": "secret-team"}
    rows[0]["base_url"] = "http://evil.example/v1"
    wanted: list[tuple[dict[str, str], str]] = [
        ({}, "api_key: give the key again"),
        ({"api_key": ""}, "extra_headers.X-Team: give it again"),
    ]
    for more, missing in wanted:
        with pytest.raises(SettingsError, match=rf"llm.endpoints\[0\].{missing}"):
            await replace_endpoints(file, [rows[0] | more, rows[1]])
    await replace_endpoints(file, [rows[0] | {"api_key": "", "extra_headers": {}}, rows[1]])
    assert file.current().llm.endpoints[0].key() == "" and not file.current().llm.endpoints[0].extra_headers


async def test_endpoints_that_are_as_the_owner_wrote_them_are_no_override_any_more(file: SettingsFile) -> None:
    rows = shown_endpoints(file.current())
    await replace_endpoints(file, rows[:1])
    assert list(file.overridden()) == ["llm.endpoints"] and len(file.current().llm.endpoints) == 1
    await file.change({}, ["llm.endpoints"])
    assert len(file.current().llm.endpoints) == 2 and written(file) == {}
    await replace_endpoints(file, [rows[0] | {"weight": 2}, rows[1]])
    await replace_endpoints(file, rows)
    assert written(file) == {}


async def test_a_variable_is_only_read_for_an_address_that_is_known_to_be_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for the console")
    monkeypatch.setenv("MY_KEY", "of the owner")
    monkeypatch.setenv("OPENAI_API_KEY", "of a service")
    path = tmp_path / "settings.toml"
    path.write_text(
        '[[llm.endpoints]]\nname = "mine"\nbase_url = "http://10.0.0.5/v1"\nmodel = "m"\napi_key_env = "MY_KEY"\n'
    )
    file = SettingsFile(SettingsSource(path, {}, {}), Settings)
    evil = {"name": "x", "base_url": "http://evil.example/v1", "model": "m"}
    (mine,) = shown_endpoints(file.current())
    for row in (
        {**evil, "api_key_env": "AWS_SECRET_ACCESS_KEY"},
        {**evil, "api_key_env": "OPENAI_API_KEY"},
        {**evil, "preset": "openai"},
        {**mine, "base_url": "http://evil.example/v1"},
        {**mine, "api_key_env": "HOME"},
    ):
        with pytest.raises(SettingsError, match="is not known to belong to this address"):
            await replace_endpoints(file, [row])
    # Nor in two steps: with a key of one's own first, which is then taken away.
    await replace_endpoints(file, [{**mine, "base_url": "http://evil.example/v1", "api_key": "x"}])
    (row,) = shown_endpoints(file.current())
    with pytest.raises(SettingsError, match="the variable MY_KEY is not known"):
        await replace_endpoints(file, [{**row, "api_key": ""}])
    await replace_endpoints(file, [mine | {"model": "m2", "api_key": ""}, {"preset": "openai"}])
    assert [one.key() for one in file.current().llm.endpoints] == ["of the owner", "of a service"]


async def test_a_key_does_not_go_along_to_another_address(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(
        '[tts.openai]\nbase_url = "http://h:1/v1"\napi_key = "sk-voice-secret"\n[cluster]\npassword = "p-secret"\n'
    )
    file = SettingsFile(SettingsSource(path, {}, {}), Settings)
    await file.change({"tts.openai.base_url": "http://h:1/v2"}, [])
    for changes in ({"tts.openai.base_url": "http://evil.example/v1"}, {"cluster.url": "redis://evil.example"}):
        with pytest.raises(SettingsError, match=r": give it again, it was given for another address"):
            await file.change(changes, [])
    await file.change({"tts.openai.base_url": "http://other/v1", "tts.openai.api_key": "sk-other"}, [])
    assert file.current().tts.openai.key() == "sk-other"
    with pytest.raises(SettingsError, match=r"tts\.openai\.api_key: give it again"):
        await file.change({}, ["tts.openai.api_key"])  # the owner's would come back, for this address
    with pytest.raises(SettingsError, match=r"tts\.openai\.api_key: give it again"):
        await file.change({}, ["tts.openai.base_url"])
    await file.change({}, ["tts.openai.base_url", "tts.openai.api_key"])
    assert (file.current().tts.openai.key(), written(file)) == ("sk-voice-secret", {})


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"tts.openai.base_url": "http://evil.example/v1"}, "OPENAI_API_KEY"),
        ({"asr.openai.api_key_env": "HOME"}, "HOME"),
        ({"tools.home_assistant.url": "http://evil.example", "tools.home_assistant.token_env": "HOME"}, "HOME"),
        ({"tts.iflytek.app_id_env": "HOME"}, "HOME"),
        ({"tts.azure.region": "evil", "tts.azure.api_key_env": "HOME"}, "HOME"),
        ({"memory.engine": "mem0", "memory.base_url": "http://evil.example"}, "MEM0_API_KEY"),
    ],
)
async def test_no_variable_goes_to_an_address_that_was_given_in_the_console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], variable: str
) -> None:
    file = SettingsFile(SettingsSource(tmp_path / "settings.toml", {}, {}), Settings)
    if variable != "HOME":
        monkeypatch.delenv(variable, raising=False)
        await file.change(changes, [])  # nobody has set it: it will not be read later either
        kept = written(file)
        assert "" in (
            kept.get("tts", {}).get("openai", {}).get("api_key_env"),
            kept.get("memory", {}).get("api_key_env"),
        )
        file = SettingsFile(SettingsSource(tmp_path / "other.toml", {}, {}), Settings)
    monkeypatch.setenv(variable, "a secret")
    with pytest.raises(SettingsError, match=f"the variable {variable} is not known to belong to this address"):
        await file.change(changes, [])
    with pytest.raises(SettingsError, match="is not known to belong to this address"):
        file.preview(changes)


async def test_mistakes_in_endpoints_are_lines_without_the_key(file: SettingsFile) -> None:
    rows: list[dict[str, Any]] = [
        {"name": "a", "base_url": "ftp://h", "model": "m", "api_key": "sk-typed-secret"},
        {"preset": "qwenn"},
        {"name": "c", "base_url": "http://h", "model": "m", "weight": -1, "colour": "red"},
        {"name": "d", "base_url": "http://h", "model": "m", "extra_headers": {"Bad Name": "typed-value"}},
        {"name": "e", "base_url": "http://h", "model": "m", "extra_headers": {"X": "typed\r\nHost: evil"}},
    ]
    with pytest.raises(SettingsError) as caught:
        await replace_endpoints(file, rows)
    text = "\n".join(caught.value.errors)
    assert "llm.endpoints[0].base_url" in text and "llm.endpoints[1].preset" in text
    assert "llm.endpoints[2].weight = -1: must be above 0" in text and "llm.endpoints[2].colour" in text
    assert "llm.endpoints[3].extra_headers" in text and "llm.endpoints[4].extra_headers" in text
    assert "typed" not in text
    with pytest.raises(SettingsError, match="must be a list of tables"):
        await replace_endpoints(file, "no list")


# What is known of settings --------------------------------------------------------------------------------------------


def test_every_setting_is_shown_with_its_table_and_no_secret_is() -> None:
    settings = Settings.model_validate(
        {
            "metrics": {"token": "tok-secret-1"},
            "auth": {"tokens": ["tok-secret-2"]},
            "tts": {"azure": {"api_key": "tok-secret-3"}},
            "tools": {"servers": [{"name": "x", "url": "http://h", "headers": {"Authorization": "tok-secret-4"}}]},
            "llm": {"endpoints": [{"preset": "qwen", "api_key": "tok-secret-5"}]},
        }
    )
    found = tables(settings, {}, {})
    assert "tok-secret" not in str(found)
    fields = {field["key"]: field for table in found for field in table["fields"]}
    assert set(fields) == {dotted(key.path) for key in keys().values() if "*" not in key.path and key.kind != "section"}
    assert fields["metrics.token"]["value"] == "set" and fields["tools.search.api_key"]["value"] is None
    assert fields["asr.workers"] | {"doc": "", "doc_zh": ""} == {
        "key": "asr.workers", "value": 2, "default": 2, "type": "int", "min": 1, "max": 64,
        "min_exclusive": False, "max_exclusive": False, "max_length": None, "choices": [], "item": "str",
        "optional": False, "doc": "", "doc_zh": "", "set_by": "default", "overrides": False,
        "file_value": None, "applies": "restart", "editable": True,
    }  # fmt: skip
    assert fields["vad.threshold"]["min_exclusive"] and fields["turn.profile"]["type"] == "choice"
    assert fields["llm.endpoints"]["value"] == 1 and not fields["llm.endpoints"]["editable"]


def test_every_setting_and_table_is_explained_in_english_and_in_chinese() -> None:
    found = tables(Settings(), {}, {})
    shown = [(table["name"], table) for table in found]
    shown += [(field["key"], field) for table in found for field in table["fields"]]
    assert [name for name, one in shown if not one["doc"]] == [], "say what it is in the text below the field"
    assert [name for name, one in shown if not re.search("[\u4e00-\u9fff]", one["doc_zh"])] == [], "behind `zh:` there"
    assert [table["name"] for table in found if not 0 < len(table["title_en"]) < 30] == [], "Title: what it is for."
    assert [table["name"] for table in found if not 0 < len(table["title_zh"]) < 16] == [], "名称：说明。"
    texts = [one[doc] for _, one in shown for doc in ("doc", "doc_zh")]
    assert not any("zh:" in text or "  " in text or "。 " in text for text in texts)


def test_when_a_change_applies_is_known_of_every_setting_and_what_is_not_known_needs_a_restart() -> None:
    assert (applies("asr.workers"), applies("asr.language"), applies("asr.partials")) == (
        "restart",
        "next turn",
        "at once",
    )
    assert applies("llm.endpoints") == applies("llm.breaker.failures") == applies("llm") == "next turn"
    assert applies("vad.threshold") == "next connection" and applies("no.such") == "restart"


def test_the_lines_of_a_text_are_joined_and_the_rows_of_its_lists_stay_lines() -> None:
    text = 'One of these\nwords:\n  "x"   the first\n        of all\n  "y"   last\nThat is all.\n\nNothing more.'
    assert flowing(text) == 'One of these words:\n"x": the first of all\n"y": last\nThat is all.\nNothing more.'
    assert flowing("用 OTA\n地址领取\n令牌，\nhttps 对应\nwss。") == "用 OTA 地址领取令牌，https 对应 wss。"
