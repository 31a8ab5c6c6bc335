"""Changes of the settings file: what is written, and what stays as it was."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from xiaozhi.console.editing import EditError, edited, with_endpoints
from xiaozhi.console.endpoints import EndpointEditor, shown_endpoints, written_fields
from xiaozhi.console.fields import tables
from xiaozhi.console.moved import moved_secrets
from xiaozhi.console.settings_file import SettingsFile
from xiaozhi.settings import LlmEndpoint, Settings
from xiaozhi.settings.applies import APPLIES, applies
from xiaozhi.settings.chinese import chinese, in_chinese, name_in_chinese
from xiaozhi.settings.documentation import default_text, documentation, read_documentation
from xiaozhi.settings.errors import SettingsError
from xiaozhi.settings.schema import dotted, find, keys
from xiaozhi.settings.source import SettingsSource

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


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_a_value_is_changed_and_every_other_line_stays() -> None:
    after = edited(MINE, {"asr.workers": 3})
    assert lines(after) == [line.replace("workers = 2", "workers = 3") for line in lines(MINE)]


def test_a_new_value_goes_below_its_commented_example_or_to_the_end_of_its_table() -> None:
    after = lines(edited(MINE, {"asr.model_dir": "models/other", "asr.itn": False, "turn.greeting": "你好"}))
    assert after[after.index('# model_dir = "models/mine"') + 1] == 'model_dir = "models/other"'
    assert after[after.index('language = "zh"') + 1] == "itn = false"
    assert after[-1] == 'greeting = "你好"'
    assert [line for line in after if line in lines(MINE)] == lines(MINE)


def test_a_table_that_is_not_there_is_added_at_the_end() -> None:
    after = edited(MINE, {"llm.routing.enabled": False})
    assert after.endswith("barge_in = true\n\n[llm.routing]\nenabled = false\n")


def test_a_value_that_is_unset_goes_and_an_unset_one_that_is_not_there_is_no_mistake() -> None:
    after = edited(MINE, {}, ["asr.workers", "asr.threads", "tts.engines"])
    assert lines(after) == [line for line in lines(MINE) if not line.startswith("workers")]


@pytest.mark.parametrize(
    "text", ["asr.workers = 2\n", "asr = { workers = 2 }\n", "[asr]\nworkers = 2", "# nothing\n", ""]
)
def test_every_way_to_write_a_table_can_be_changed(text: str) -> None:
    after = tomllib.loads(edited(text, {"asr.workers": 4, "asr.threads": 2}))
    assert after == {"asr": {"workers": 4, "threads": 2}}


def test_a_file_with_the_line_ends_of_windows_is_changed_as_well() -> None:
    text = MINE.replace("\n", "\r\n")
    after = edited(text, {"asr.workers": 3, "asr.itn": False})
    assert "workers = 3   # one core" in after and tomllib.loads(after)["asr"]["itn"] is False
    assert with_endpoints(text, [{"preset": "qwen"}], {}).count("[[llm.endpoints]]") == 1


def test_a_file_that_is_no_toml_is_refused() -> None:
    with pytest.raises(EditError, match="not valid TOML"):
        edited("[asr\nworkers", {"asr.workers": 1})


@hypothesis_settings(max_examples=60, deadline=None)
@example("\x85 \u2028 \r\n \x0b")
@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=60))
def test_any_text_is_written_so_that_it_is_read_again(words: str) -> None:
    after = edited(MINE, {"llm.system_prompt": words, "turn.greeting": words})
    found = tomllib.loads(after)
    assert found["llm"]["system_prompt"] == words.replace("\r\n", "\n") or found["llm"]["system_prompt"] == words
    assert found["turn"]["greeting"] == words
    assert found["asr"] == tomllib.loads(MINE)["asr"]


def test_endpoints_keep_their_comments_when_they_are_reordered_renamed_and_changed() -> None:
    wanted: list[dict[str, Any]] = [
        {"preset": "qwen", "api_key": "sk-qwen-secret", "weight": 2.0},
        {"name": "attic", "base_url": "http://10.0.0.5:8000/v1", "model": "m2", "api_key": "sk-cellar-secret"},
    ]
    after = with_endpoints(MINE, wanted, {"attic": "cellar"})
    assert tomllib.loads(after)["llm"]["endpoints"] == wanted
    for kept in ("# the one in the cellar", "[[llm.endpoints]]   # first", 'name = "attic"      # its name'):
        assert kept in lines(after)
    assert 'preset = "qwen"  # second' in lines(after)
    assert lines(after)[-3:] == ["# about turns", "[turn]", "barge_in = true"]
    assert after.index("# second") < after.index("# the one in the cellar")


def test_endpoints_are_removed_with_their_own_comments_only() -> None:
    after = with_endpoints(MINE, [], {})
    assert "cellar" not in after and "endpoints" not in after
    assert "# who speaks" in after and "# about turns\n[turn]" in after


def test_the_first_endpoint_of_the_documented_file_goes_into_its_own_table() -> None:
    text = default_text()
    after = with_endpoints(text, [{"preset": "qwen", "api_key": "k", "extra_body": {"a": {"b": [1]}}}], {})
    added = [line for line in lines(after) if line not in lines(text)]
    assert added == ["[[llm.endpoints]]", 'preset = "qwen"', 'api_key = "k"', "extra_body = {a = {b = [1]}}"]
    assert after.index("[llm]") < after.index("\n[[llm.endpoints]]") < after.index("\n[tts]")


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


async def test_the_file_before_is_kept_and_its_rights_as_well(file: SettingsFile) -> None:
    outcome = await file.change({"asr.workers": 3}, ["asr.language"])
    assert outcome.restart == ("asr.workers", "asr.language") and not outcome.applied
    assert file.path is not None
    assert file.current().asr.workers == 3 and file.current().asr.language == "auto"
    backup = file.path.with_name("settings.toml.bak")
    assert backup.read_text("utf-8") == MINE
    assert {path.stat().st_mode & 0o777 for path in (file.path, backup)} == {0o640}
    assert sorted(path.name for path in file.path.parent.iterdir()) == ["settings.toml", "settings.toml.bak"]


async def test_a_change_that_does_not_hold_says_what_the_command_line_says_and_writes_nothing(
    file: SettingsFile,
) -> None:
    wrong: dict[str, Any] = {"asr.workers": 99, "tts.engines": ["edge", "edgy"], "server.port": "8000"}
    with pytest.raises(SettingsError) as caught:
        await file.change(wrong, [])
    assert list(caught.value.errors) == [
        'server.port = "8000": must be a whole number from 0 to 65535',
        "asr.workers = 99: must be at most 64",
        'tts.engines[1] = "edgy": must be one of "edge", "openai", "azure", "iflytek", "sherpa", "espeak";'
        ' did you mean "edge"?',
    ]
    assert file.path is not None and [path.name for path in file.path.parent.iterdir()] == ["settings.toml"]
    assert file.path.read_text("utf-8") == MINE


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"asr.worker": 3}, "asr.worker: unknown key; did you mean asr.workers?"),
        ({"asr": {}}, "asr: cannot be changed here; edit the file"),
        ({"tools.servers": [{"name": "x", "command": "sh"}]}, "tools.servers: cannot be changed here; edit the file"),
        ({"console.password_file": "/etc/passwd"}, "console.password_file: cannot be changed here; edit the file"),
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


async def test_without_a_file_the_documented_one_is_made(tmp_path: Path) -> None:
    file = SettingsFile(SettingsSource(tmp_path / "settings.toml", {}, {}), Settings)
    assert not file.exists and file.writable()
    await file.change({"turn.profile": "aggressive"}, [])
    assert file.path is not None
    text = file.path.read_text("utf-8")
    assert lines(text) == [
        line.replace('profile = "balanced"', 'profile = "aggressive"') for line in lines(default_text())
    ]
    assert file.path.stat().st_mode & 0o777 == 0o600


async def test_what_the_environment_sets_is_named(tmp_path: Path) -> None:
    source = SettingsSource(tmp_path / "settings.toml", {"tts.max_concurrent": "3"}, {"XIAOZHI_ASR__WORKERS": "5"})
    file = SettingsFile(source, Settings)
    outcome = await file.change({"asr.workers": 3, "tts.max_concurrent": 9, "asr.threads": 2}, [])
    assert outcome.overridden == ("asr.workers", "tts.max_concurrent") and outcome.restart == ("asr.threads",)
    assert file.origins()["asr.workers"] == "environment" and file.origins()["asr.threads"] == "file"
    assert file.origins()["tts.max_concurrent"] == "command line"


async def test_a_server_without_a_file_changes_none() -> None:
    file = SettingsFile(None, Settings)
    assert not file.writable() and file.path is None
    with pytest.raises(SettingsError, match="not started with a settings file"):
        await file.change({"asr.workers": 3}, [])


async def test_keys_are_kept_for_the_address_they_were_given_for_and_for_no_other(file: SettingsFile) -> None:
    editor = EndpointEditor(file)
    rows = shown_endpoints(file.current())
    assert [row["api_key"] for row in rows] == [None, None] and all(row["api_key_set"] for row in rows)
    assert "secret" not in str(rows)
    rows[0] |= {"name": "attic", "model": "m2", "base_url": "http://10.0.0.5:8000/v2"}
    await editor.replace(rows)
    kept = file.current().llm.endpoints
    assert [one.key() for one in kept] == ["sk-cellar-secret", "sk-qwen-secret"] and kept[0].name == "attic"
    assert file.path is not None and "# the one in the cellar" in file.path.read_text("utf-8")
    rows = shown_endpoints(file.current())
    rows[0]["base_url"] = "http://evil.example/v1"
    with pytest.raises(SettingsError, match=r"llm.endpoints\[0\].api_key: give the key again"):
        await editor.replace(rows)
    rows[0]["api_key"] = ""
    await editor.replace(rows)
    assert file.current().llm.endpoints[0].key() == ""


async def test_a_key_does_not_go_along_to_another_address(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[tts.openai]\nbase_url = "http://h:1/v1"\napi_key = "sk-voice-secret"\n')
    file = SettingsFile(SettingsSource(path, {}, {}), Settings)
    await file.change({"tts.openai.base_url": "http://h:1/v2"}, [])
    for changes, unset in (({"tts.openai.base_url": "http://evil.example/v1"}, []), ({}, ["tts.openai.base_url"])):
        with pytest.raises(SettingsError, match=r"tts.openai.api_key: give it again, it was given for another address"):
            await file.change(changes, unset)
    await file.change({"tts.openai.base_url": "http://other/v1", "tts.openai.api_key": "sk-other"}, [])
    assert file.current().tts.openai.key() == "sk-other"
    assert moved_secrets(Settings(), {"tts.openai.base_url": "http://x", "no.such.url": "x"}) == []


async def test_mistakes_in_endpoints_are_lines_without_the_key(file: SettingsFile) -> None:
    editor = EndpointEditor(file)
    rows: list[dict[str, Any]] = [
        {"name": "a", "base_url": "ftp://h", "model": "m", "api_key": "sk-typed-secret"},
        {"preset": "qwenn"},
        {"name": "c", "base_url": "http://h", "model": "m", "weight": -1, "colour": "red"},
    ]
    with pytest.raises(SettingsError) as caught:
        await editor.replace(rows)
    text = "\n".join(caught.value.errors)
    assert "llm.endpoints[0].base_url" in text and "llm.endpoints[1].preset" in text
    assert "llm.endpoints[2].weight = -1: must be above 0" in text and "llm.endpoints[2].colour" in text
    assert "typed" not in text
    with pytest.raises(SettingsError, match="must be a list of tables"):
        await editor.replace("no list")


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
    found = tables(settings, {}, documentation())
    assert "tok-secret" not in str(found)
    fields = {field["key"]: field for table in found for field in table["fields"]}
    assert set(fields) == {dotted(key.path) for key in keys().values() if "*" not in key.path and key.kind != "section"}
    assert fields["metrics.token"]["value"] == "set" and fields["tools.search.api_key"]["value"] is None
    assert fields["asr.workers"] | {"doc": "", "doc_zh": ""} == {
        "key": "asr.workers", "value": 2, "default": 2, "type": "int", "min": 1, "max": 64,
        "min_exclusive": False, "max_exclusive": False, "max_length": None, "choices": [], "item": "str",
        "optional": False, "doc": "", "doc_zh": "", "set_by": "default", "applies": "restart", "editable": True,
    }  # fmt: skip
    assert fields["vad.threshold"]["min_exclusive"] and fields["turn.profile"]["type"] == "choice"
    assert fields["llm.endpoints"]["value"] == 1 and not fields["llm.endpoints"]["editable"]


def test_every_setting_and_table_is_explained_in_english_and_in_chinese_and_nothing_else_is() -> None:
    found = tables(Settings(), {}, documentation())
    shown = [(table["name"], table) for table in found]
    shown += [(field["key"], field) for table in found for field in table["fields"]]
    assert [name for name, one in shown if not one["doc"]] == [], "comment it in settings.toml"
    assert [name for name, one in shown if not re.search("[\u4e00-\u9fff]", one["doc_zh"])] == [], "put it into zh.toml"
    assert [table["name"] for table in found if table["title_zh"] == table["name"]] == [], "name it in TITLES"
    used = {name_in_chinese(name, chinese()) for name, _ in shown}
    assert set(chinese()) - used == set(), "these explain nothing"
    assert chinese().keys() & {"load.*.memory_percent"}, "one text for all steps"
    assert in_chinese("no.such.setting") == ""


def test_the_table_of_what_applies_when_names_settings_that_exist() -> None:
    unknown = [name for name in APPLIES if find(tuple(name.split("."))) is None]
    tables_of_settings = {path[0] for path in keys()}
    assert [name for name in unknown if name.partition(".")[0] in tables_of_settings] == []
    assert tables_of_settings - {name.partition(".")[0] for name in APPLIES} == set()
    assert applies("llm.endpoints[0].model") == applies("llm") and applies("no.such") == "restart"


def test_comments_belong_to_the_settings_below_them() -> None:
    one = "[a]\n# About a.\n\n# Two of\n# them.\nx = 1\ny = 2   # more\n\n# z = 3\n\n"
    text = one + "[[b]]  # rows\n# A list.\nl = [\n 1,\n]\n"
    found = read_documentation(text)
    assert found.tables == {"a": "About a.", "b": "rows"}
    assert found.settings == {"a.x": "Two of them.", "a.y": "Two of them. more", "a.z": "", "b.l": "A list."}


def test_lists_in_comments_stay_lists_and_a_comment_below_a_setting_is_of_the_next() -> None:
    text = '[a]\n# One of:\n#   "x"   the first\n#         of all\n#   "y"   last\n# That is all.\nk = "x"\n'
    found = read_documentation(text + "# Other.\nl = 1\n# Example:\n#   m = 1\nn = 2\n")
    assert found.settings == {
        "a.k": 'One of:\n"x": the first of all\n"y": last\nThat is all.',
        "a.l": "Other.",
        "a.n": "Example:\nm = 1",
    }
