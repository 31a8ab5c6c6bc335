"""Settings: where they come from, who wins, and what a mistake is answered."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from xiaozhi.cli import main
from xiaozhi.settings import Settings, TurnSettings
from xiaozhi.settings.asr import RECOGNIZERS
from xiaozhi.settings.documents import READMES, readme_table, settings_toml, with_table
from xiaozhi.settings.errors import SettingsError
from xiaozhi.settings.load import PLAIN_NAMES, Loaded, SettingsSource, load_settings
from xiaozhi.settings.schema import dotted, keys
from xiaozhi.settings.texts import all_texts
from xiaozhi.settings.tts import VOICES
from xiaozhi.settings.turn import TURN_PROFILES

REPOSITORY = Path(__file__).resolve().parents[1]

README_EXAMPLE = """\
[server]
host = "127.0.0.1"
port = 18100
[auth]
mode = "open"
[asr]
engine = "sense-voice"            # auto | sense-voice | zipformer | pocketsphinx
model_dir = "models/sense-voice"  # sense-voice: model.int8.onnx or model.onnx, tokens.txt; zipformer: encoder*.onnx,
                                  # decoder*.onnx, joiner*.onnx (int8 preferred), tokens.txt, as published
workers = 2
[[llm.endpoints]]
name = "stand-in"
base_url = "http://127.0.0.1:9001/v1"
api_key = "none"                  # or api_key_env = "OPENAI_API_KEY"
model = "bench"
[tts]
engines = ["openai", "espeak"]    # in order of preference; edge | openai | sherpa | espeak
[tts.openai]
base_url = "http://127.0.0.1:9001/v1"
model = "tts-1"
voice = "alloy"
format = "pcm"                    # streamed s16le 24 kHz
"""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str = "", overrides: dict[str, str] | None = None, environ: dict[str, str] | None = None) -> Loaded:
    Path("settings.toml").write_text(text, encoding="utf-8")
    return load_settings(None, overrides or {}, environ or {})


def mistakes(
    text: str = "", overrides: dict[str, str] | None = None, environ: dict[str, str] | None = None
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(text, overrides, environ)
    assert str(caught.value) == "\n".join(caught.value.errors)
    return list(caught.value.errors)


def test_without_a_file_the_defaults_hold() -> None:
    loaded = load_settings(None, {}, {})
    assert loaded == Loaded(Settings(), None, ())


def test_the_file_of_the_readme_loads_as_it_stands() -> None:
    loaded = load(README_EXAMPLE)
    chosen = loaded.settings
    assert loaded.source == Path("settings.toml")
    assert loaded.warnings == ()
    assert (chosen.server.host, chosen.server.port, chosen.auth.mode) == ("127.0.0.1", 18100, "open")
    assert (chosen.asr.engine, chosen.asr.model_dir, chosen.asr.workers) == (
        "sense-voice",
        Path("models/sense-voice"),
        2,
    )
    endpoint = chosen.llm.endpoints[0]
    assert (endpoint.name, endpoint.base_url, endpoint.model) == ("stand-in", "http://127.0.0.1:9001/v1", "bench")
    assert endpoint.key() == "none"
    assert chosen.tts.engines == ("openai", "espeak")
    assert (chosen.tts.openai.base_url, chosen.tts.openai.format) == ("http://127.0.0.1:9001/v1", "pcm")


def test_the_shipped_file_says_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    loaded = SettingsSource().load("")  # whoever works on it may have a console's file there
    assert loaded.source == Path("settings.toml")
    assert loaded.settings == Settings()


def test_the_shipped_file_and_the_tables_of_the_readmes_are_those_of_the_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shipped = (REPOSITORY / "settings.toml").read_text("utf-8")
    assert shipped == settings_toml(), "write them anew: make settings"
    assert main(["settings"]) == 0 and capsys.readouterr().out == shipped
    for language, (name, *_) in READMES.items():
        readme = (REPOSITORY / name).read_text("utf-8")
        assert readme_table(language) in readme, f"{name}: write it anew: make settings"
        stale = readme.replace(readme_table(language), readme_table(language).replace("| `[asr]` |", "| `[ear]` |"))
        assert stale != readme == with_table(stale, language)


def test_what_is_said_about_the_profiles_are_their_values() -> None:
    about = next(texts["profile"] for table, _, texts in all_texts() if table.path == ("turn",))
    lines = [line.strip() for text in about for line in text.splitlines()]
    for name, values in TURN_PROFILES.items():
        rows = [line for line in lines if re.match(rf'"{name}"|{name}：\d', line)]
        assert [list(map(int, re.findall(r"\d+", row))) for row in rows] == [list(values.values())] * 2


def test_every_setting_is_in_the_shipped_file() -> None:
    lines = (REPOSITORY / "settings.toml").read_text("utf-8").splitlines()
    table, found = "", set[str]()
    for line in lines:
        bare = line.removeprefix("# ")
        if header := re.match(r"\[\[?([a-z_.]+)\]\]?(\s|$)", bare):
            table = header[1]
        elif value := re.match(r"([a-z0-9_]+) = ", bare):
            found.add(f"{table}.{value[1]}")
    wanted = {
        ".".join(part for part in path if part != "*")
        for path, key in keys().items()
        if key.kind not in ("section", "sections")
    }
    assert wanted - found == set()
    assert found - wanted == set()


def test_the_commented_endpoints_of_the_shipped_file_work_when_the_hashes_are_taken_away() -> None:
    text = (REPOSITORY / "settings.toml").read_text("utf-8")
    first, *rest = text.split("# [[llm.endpoints]]")
    blocks = []
    for block in rest:
        lines = block.splitlines()
        stop = next((number for number, line in enumerate(lines[1:], 1) if not line.startswith("# ")), len(lines))
        opened = [line.removeprefix("# ") for line in lines[1:stop]]
        blocks.append("\n".join(["[[llm.endpoints]]", *opened, *lines[stop:]]))
    names = [endpoint.name for endpoint in load(first + "\n".join(blocks)).settings.llm.endpoints]
    assert names == ["openai", "deepseek", "qwen", "ollama", "my-server"]


def test_command_line_over_environment_over_file_over_default() -> None:
    text = "[asr]\nworkers = 3\n"
    environ = {"XIAOZHI_ASR__WORKERS": "4"}
    assert load("").settings.asr.workers == 2
    assert load(text).settings.asr.workers == 3
    assert load(text, environ=environ).settings.asr.workers == 4
    assert load(text, {"asr.workers": "5"}, environ).settings.asr.workers == 5


@pytest.mark.parametrize(("variable", "path"), PLAIN_NAMES.items())
def test_the_plain_names_override_the_file_and_give_way_to_the_full_ones(variable: str, path: tuple[str, str]) -> None:
    def value(loaded: Loaded) -> Any:
        return getattr(getattr(loaded.settings, path[0]), path[1])

    text = f"[{path[0]}]\n{path[1]} = 3\n"
    full = f"XIAOZHI_{path[0]}__{path[1]}".upper()
    assert value(load(text)) == 3
    assert value(load(text, environ={variable: "4"})) == 4
    assert value(load(text, environ={full: "5", variable: "4"})) == 5
    assert value(load(text, {dotted(path): "6"}, {full: "5", variable: "4"})) == 6


def test_text_from_the_environment_becomes_what_the_setting_is() -> None:
    chosen = load(
        environ={
            "XIAOZHI_SERVER__PORT": "9000",
            "XIAOZHI_VAD__THRESHOLD": ".4",
            "XIAOZHI_TURN__SPECULATE": "off",
            "XIAOZHI_ASR__ITN": "False",
            "XIAOZHI_ASR__MODEL_DIR": "elsewhere",
            "XIAOZHI_TTS__ENGINES": "edge, espeak",
            "XIAOZHI_AUTH__TOKENS": '["a,b"]',
            "XIAOZHI_LLM__ENDPOINTS": '[{"name": "a", "base_url": "http://a/v1", "model": "m", "api_key": "k"}]',
            "XIAOZHI_TTS__ESPEAK": '{"voice": "cmn+f2"}',
            "XIAOZHI_TTS__ESPEAK__RATE_WPM": "170",
            "XIAOZHI_LLM__SYSTEM_PROMPT": "123",
        }
    ).settings
    assert (chosen.server.port, chosen.vad.threshold) == (9000, 0.4)
    assert (chosen.turn.speculate, chosen.asr.itn) == (False, False)
    assert chosen.asr.model_dir == Path("elsewhere")
    assert chosen.tts.engines == ("edge", "espeak")
    assert [token.get_secret_value() for token in chosen.auth.tokens] == ["a,b"]
    assert chosen.llm.endpoints[0].key() == "k"
    assert (chosen.tts.espeak.voice, chosen.tts.espeak.rate_wpm) == ("cmn+f2", 170)
    assert chosen.llm.system_prompt == "123"


def test_an_optional_path_can_be_taken_away_again() -> None:
    assert load("[asr]\nmodel_dir = 'x'\n", {"asr.model_dir": ""}).settings.asr.model_dir is None


def test_an_unknown_variable_is_a_warning_with_the_nearest_name() -> None:
    environ = {"XIAOZHI_ASR_WORKERS": "3", "XIAOZHI_QUUX": "1", "HOME": "/root", "XIAOZHI_WORKERS": "1"}
    assert load(environ=environ).warnings == (
        "XIAOZHI_ASR_WORKERS: no such setting (did you mean XIAOZHI_ASR__WORKERS?); ignored",
        "XIAOZHI_QUUX: no such setting; ignored",
        "XIAOZHI_WORKERS: no such setting (did you mean XIAOZHI_ASR__WORKERS?); ignored",
    )


def test_paths_of_a_file_are_relative_to_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    file = folder / "xiaozhi.toml"
    file.write_text(
        "[asr]\nmodel_dir = 'm'\n[vad]\nmodel = 'vad/silero.onnx'\n"
        "[models]\ndir = '/srv/models'\n[tts.sherpa]\nmodel_dir = 'v'\n",
        "utf-8",
    )
    chosen = load_settings(file, {}, {}).settings
    assert chosen.asr.model_dir == folder / "m"
    assert chosen.vad.model == str(folder / "vad/silero.onnx")
    assert chosen.models.dir == Path("/srv/models")
    assert chosen.tts.sherpa.model_dir == folder / "v"
    assert chosen.server.data_dir == Path("data")  # a default, so relative to the current folder
    assert load_settings(file, {"asr.model_dir": "m"}, {}).settings.asr.model_dir == Path("m")


def test_the_vad_word_auto_is_no_path(tmp_path: Path) -> None:
    file = tmp_path / "sub.toml"
    (tmp_path / "elsewhere").mkdir()
    os.chdir("elsewhere")
    file.write_text("[vad]\nmodel = 'auto'\n", "utf-8")
    assert load_settings(file, {}, {}).settings.vad.model == "auto"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("[asr]\nworker = 3\n", ["settings.toml: asr.worker = 3: unknown key; did you mean asr.workers?"]),
        ("[vad]\nthreshold = 1.5\n", ["settings.toml: vad.threshold = 1.5: must be below 1"]),
        ("[server]\nport = 70000\n", ["settings.toml: server.port = 70000: must be at most 65535"]),
        (
            "[asr]\nworkers = '3'\n",
            ['settings.toml: asr.workers = "3": must be a whole number from 1 to 64'],
        ),
        ("[asr]\nworkers = true\n", ["settings.toml: asr.workers = true: must be a whole number from 1 to 64"]),
        ("[asr]\nitn = 1\n", ["settings.toml: asr.itn = 1: must be true or false"]),
        ("[vad]\nthreshold = nan\n", ["settings.toml: vad.threshold = NaN: must be a number above 0 and below 1"]),
        ("[server]\nhost = 5\n", ["settings.toml: server.host = 5: must be a text in quotes"]),
        ("[models]\ndir = 5\n", ["settings.toml: models.dir = 5: must be a path in quotes"]),
        (
            "[server]\nport = 2026-01-01\n",
            ["settings.toml: server.port = 2026-01-01: must be a whole number from 0 to 65535"],
        ),
        (
            "[asr]\nengine = 'sensevoice'\n",
            [
                'settings.toml: asr.engine = "sensevoice": must be one of '
                f'{", ".join(map(json.dumps, ("auto", *RECOGNIZERS)))}; did you mean "sense-voice"?'
            ],
        ),
        (
            "[tts]\nengines = ['edge', 'espeek']\n",
            [
                'settings.toml: tts.engines[1] = "espeek": must be one of '
                f'{", ".join(map(json.dumps, VOICES))}; did you mean "espeak"?'
            ],
        ),
        ("[tts]\nengines = []\n", ["settings.toml: tts.engines = []: must not be empty"]),
        ("asr = 3\n", ["settings.toml: asr = 3: must be a table"]),
        ("workers = 3\n", ["settings.toml: workers = 3: unknown key; did you mean asr.workers?"]),
        ("[sever]\nport = 3\n", ["settings.toml: sever: unknown key; did you mean server?"]),
        (
            "[log]\nqqq = 3\n",
            ["settings.toml: log.qqq = 3: unknown key; allowed here: level, format, transcripts"],
        ),
        (
            "[vad]\nrelease_threshold = 0.6\n",
            ["settings.toml: vad.release_threshold = 0.6: must not be above threshold"],
        ),
        (
            "[tts]\nengines = ['edge', 'edge']\n",
            ['settings.toml: tts.engines = ["edge", "edge"]: must not name one engine twice'],
        ),
        (
            "[tts]\nfirst_clause_min_chars = 30\n",
            ["settings.toml: tts.first_clause_max_chars: must not be below first_clause_min_chars"],
        ),
        (
            "[[llm.endpoints]]\nname='a'\nmodel='m'\n",
            ["settings.toml: llm.endpoints[0].base_url: is missing"],
        ),
        (
            "[[llm.endpoints]]\nname='a'\nmodel='m'\nbase_url='/v1'\n",
            ['settings.toml: llm.endpoints[0].base_url = "/v1": must begin with "http://" or "https://"'],
        ),
        (
            "[[llm.endpoints]]\nname='a'\nmodel='m'\nbase_url='http://a'\n" * 2,
            ["settings.toml: llm.endpoints: must not have the same name twice"],
        ),
        (
            "[asr\n",
            ["settings.toml: not valid TOML: Expected ']' at the end of a table declaration (at line 1, column 5)"],
        ),
        ("x = \n", ["settings.toml: not valid TOML: Invalid value (at line 1, column 5)"]),
        (
            "[asr]\nworker = 3\n[vad]\nthreshold = 2\n",
            [
                "settings.toml: vad.threshold = 2: must be below 1",
                "settings.toml: asr.worker = 3: unknown key; did you mean asr.workers?",
            ],
        ),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_what_is_allowed(text: str, lines: list[str]) -> None:
    assert mistakes(text) == lines


def test_a_mistake_in_the_environment_or_on_the_command_line_is_named_as_it_was_typed() -> None:
    assert mistakes(environ={"XIAOZHI_ASR__WORKERS": "many"}) == [
        'XIAOZHI_ASR__WORKERS = "many": must be a whole number from 1 to 64'
    ]
    assert mistakes(environ={"VAD_MAX_CONCURRENT": "0"}) == ["VAD_MAX_CONCURRENT = 0: must be at least 1"]
    assert mistakes(overrides={"asr.workers": "99"}) == ["--set asr.workers = 99: must be at most 64"]
    assert mistakes(overrides={"server.port": "http"}) == ['--port = "http": must be a whole number from 0 to 65535']
    assert mistakes(overrides={"asr.worker": "9"}) == ['--set asr.worker = "9": unknown key; did you mean asr.workers?']
    assert mistakes(environ={"XIAOZHI_LLM__ENDPOINTS": '[{"name": "a"}]'}) == [
        "XIAOZHI_LLM__ENDPOINTS: llm.endpoints[0].base_url: is missing",
        "XIAOZHI_LLM__ENDPOINTS: llm.endpoints[0].model: is missing",
    ]
    assert mistakes(environ={"XIAOZHI_ASR": "fast"}) == ["XIAOZHI_ASR = (hidden): must be a table, written as JSON"]
    assert mistakes(environ={"XIAOZHI_SERVER__HOST": "\udcff"}) == ["XIAOZHI_SERVER__HOST: is not UTF-8 text"]


def test_a_rule_between_two_places_names_the_one_that_breaks_it() -> None:
    text = "[vad]\nthreshold = 0.3\nrelease_threshold = 0.2\n"
    assert mistakes(text, environ={"XIAOZHI_VAD__RELEASE_THRESHOLD": "0.4"}) == [
        "XIAOZHI_VAD__RELEASE_THRESHOLD = 0.4: must not be above threshold"
    ]


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "no.toml", "no such file"), (tmp_path, "not a file")):
        with pytest.raises(SettingsError, match=f"{re.escape(str(path))}: {why}"):
            load_settings(path, {}, {})


def test_a_file_that_is_no_text_is_a_mistake() -> None:
    Path("settings.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"settings\.toml: not valid TOML: the file is not UTF-8 text"):
        load_settings(None, {}, {})


@pytest.mark.parametrize(
    "text",
    [
        "[[llm.endpoints]]\nname='a'\nmodel='m'\nbase_url='http://a'\napi_key=['SECRET']\n",
        "[[llm.endpoints]]\nname='a'\nmodel='m'\nbase_url='http://a'\napi_kee='SECRET'\n",
        "[[llm.endpoints]]\nname='a'\nmodel='m'\nbase_url='ftp://user:SECRET@a'\n",
        "[[llm.endpoints]]\nname='a'\nmodel=5\nbase_url='http://a'\napi_key='SECRET'\n",
        "[llm]\nendpoints='SECRET'\n",
        "[auth]\ntokens='SECRET'\n",
        "[auth]\ntokens=[5, 'SECRET']\n",
        "[auth]\ntoken='SECRET'\n",
        "[tts.openai]\napi_key='SECRET'\nspeed=9\n",
        "[tts.openai]\nbase_url='SECRET'\napikey='SECRET'\n",
        "[tts.openai]\nmodel=5\n[tts]\nkey='SECRET'\n",
        "openai = 'sk-SECRETSECRET'\n",
        "OPENAI_API_KEY = 'SECRET'\n",
    ],
)
def test_secrets_are_never_shown(text: str) -> None:
    assert "SECRET" not in "\n".join(mistakes(text)).replace("OPENAI_API_KEY", "")


def test_secrets_in_the_environment_are_never_shown() -> None:
    for variable, text in {
        "XIAOZHI_LLM__ENDPOINTS": '[{"api_key": "SECRET"',
        "XIAOZHI_LLM": '{"endpoints": [{"api_key": 5, "api_kex": "SECRET"}]}',
        "XIAOZHI_TTS__OPENAI": "SECRET",
        "XIAOZHI_AUTH__TOKENS": '["SECRET", 5]',
    }.items():
        assert "SECRET" not in "\n".join(mistakes(environ={variable: text}))
    assert "SECRET" not in "\n".join(load(environ={"XIAOZHI_OPENAI_KEY": "SECRET"}).warnings)


def test_a_message_stays_one_line_whatever_the_key_and_the_value() -> None:
    for line in mistakes('"a\\nb" = "c\\nd\\u001b[31m"\n[server]\nhost = 3\n"x\\u2028y" = "' + "z" * 500 + '"\n'):
        assert line.isprintable()
        assert len(line) < 300


names = st.one_of(st.sampled_from(sorted({part for path in keys() for part in path})), st.text(max_size=8))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**30),
    st.floats(),
    st.text(max_size=12),
    st.dates(),
    st.datetimes(),
    st.times(),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)


def as_toml(value: Any) -> str:
    """A value as inline TOML; what TOML cannot say becomes a text."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case None:
            return '"none"'
        case str():
            return '"' + "".join(f"\\U{ord(char):08x}" for char in value if not 0xD800 <= ord(char) < 0xE000) + '"'
        case list():
            return "[" + ", ".join(map(as_toml, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{as_toml(key)} = {as_toml(item)}" for key, item in value.items()) + "}"
        case _:
            return str(value.isoformat())


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(tree=st.dictionaries(names, trees, max_size=5))
@example(tree={"server": {"port": "80"}, "tts": {"engines": [[]]}})
@example(tree={"llm": {"endpoints": [{"extra_body": {"a": [1.5, None]}}, 3]}})
def test_no_tree_raises_anything_but_a_settings_error(tree: dict[str, Any]) -> None:
    text = "".join(f"{as_toml(key)} = {as_toml(value)}\n" for key, value in tree.items())
    try:
        load(text)
    except SettingsError as error:
        assert error.errors
        assert all(line and line.isprintable() for line in error.errors)


@hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(text=st.text(max_size=80))
@example(text="a = " + "[" * 5000)
@example(text="a = " + "9" * 5000)
@example(text="\ufeff[server]\n")
def test_no_text_raises_anything_but_a_settings_error(text: str) -> None:
    Path("settings.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_settings(None, {}, {})
    except SettingsError as error:
        assert all(line and line.isprintable() for line in error.errors)


variables = st.one_of(
    st.sampled_from(sorted("XIAOZHI_" + "__".join(path).upper() for path in keys() if "*" not in path)),
    st.text(max_size=10).map(lambda tail: f"XIAOZHI_{tail}"),
    st.sampled_from(sorted(PLAIN_NAMES)),
)
values = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["1", "-1", "1e400", "nan", "true", "{}", "[]", "[{}]", "[" * 5000, '{"a": NaN}', "9" * 5000, "\udc80"]
    ),
)


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    environ=st.dictionaries(variables, values, max_size=4),
    overrides=st.dictionaries(st.one_of(st.sampled_from(sorted(map(dotted, keys()))), names), values, max_size=3),
)
def test_no_environment_and_no_option_raises_anything_but_a_settings_error(
    environ: dict[str, str], overrides: dict[str, str]
) -> None:
    try:
        load("", overrides, environ)
    except SettingsError as error:
        assert all(line and line.isprintable() for line in error.errors)


@pytest.mark.parametrize("name", ["conservative", "balanced", "aggressive"])
def test_a_profile_sets_its_values_and_single_values_override_it(name: str) -> None:
    turn = TurnSettings.model_validate({"profile": name, "neutral_ms": 777})
    assert turn.neutral_ms == 777
    for key, value in TURN_PROFILES[name].items():
        assert key == "neutral_ms" or getattr(turn, key) == value


def test_the_default_profile_is_balanced() -> None:
    from xiaozhi.settings import TurnSettings

    assert TurnSettings() == TurnSettings.model_validate({"profile": "balanced"})


# The file of the console ----------------------------------------------------------------------------------------------


def local(text: str) -> None:
    Path("settings.local.toml").write_text(text, encoding="utf-8")


def test_the_consoles_file_wins_over_the_owners_and_gives_way_to_the_environment_and_the_command_line() -> None:
    local("[asr]\nworkers = 3\nthreads = 4\n[vad]\nthreads = 2\n")
    loaded = load(
        "[asr]\nworkers = 5\nbatch_size = 2\n[vad]\nthreads = 7\n", {"asr.threads": "6"}, {"XIAOZHI_VAD__THREADS": "8"}
    )
    asr = loaded.settings.asr
    assert (asr.workers, asr.batch_size, asr.threads, loaded.settings.vad.threads) == (3, 2, 6, 8)
    assert loaded.sources == "settings.toml, settings.local.toml"
    Path("settings.toml").unlink()
    alone = load_settings(None, {}, {})
    assert (alone.settings.asr.workers, alone.source, alone.sources) == (3, None, "settings.local.toml")


def test_every_settings_file_has_a_file_of_the_console_of_its_own(tmp_path: Path) -> None:
    local("[asr]\nworkers = 3\n")
    mine = tmp_path / "elsewhere" / "mine.toml"
    mine.parent.mkdir()
    mine.write_text("")
    mine.with_name("mine.local.toml").write_text('[asr]\nworkers = 4\nmodel_dir = "m"\n')
    asr = load_settings(mine, {}, {}).settings.asr
    assert (asr.workers, asr.model_dir) == (4, mine.parent / "m")


def test_whoever_edits_the_file_where_the_console_overrides_it_is_told() -> None:
    local('[asr]\nworkers = 3\nthreads = 4\n[metrics]\ntoken = "sk-new-secret"\n[llm]\nendpoints = []\n')
    text = '[asr]\nworkers = 2\nthreads = 4\n[metrics]\ntoken = "sk-old-secret"\n[[llm.endpoints]]\npreset = "qwen"\n'
    (line,) = load(text).warnings
    assert line == (
        "settings.toml: has no effect where settings.local.toml, which the console writes, says something else: "
        "asr.workers (2 there, 3 holds), llm.endpoints, metrics.token; take the override away in the console, or its "
        "line out of settings.local.toml"
    )
    assert load("[asr]\nthreads = 4\n").warnings == (), "what says the same is no override"


def test_a_mistake_in_the_consoles_file_names_it() -> None:
    local("[asr]\nworkers = 99\nworker = 1\n")
    assert mistakes("[asr]\nworkers = 2\n") == [
        "settings.local.toml: asr.workers = 99: must be at most 64",
        "settings.local.toml: asr.worker = 1: unknown key; did you mean asr.workers?",
    ]
    local("[asr\n")
    (line,) = mistakes("")
    assert line.startswith("settings.local.toml: not valid TOML")


def test_a_table_that_is_one_setting_is_replaced_whole() -> None:
    local("[asr.funasr]\nhotwords = { a = 1 }\n")
    assert load("[asr.funasr]\nhotwords = { b = 2 }\n").settings.asr.funasr.hotwords == {"a": 1}
