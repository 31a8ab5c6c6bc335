"""Presets of chat endpoints: only the key is left to give."""

from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from xiaozhi.settings import LlmEndpoint, Settings
from xiaozhi.settings.errors import SettingsError
from xiaozhi.settings.load import load_settings
from xiaozhi.settings.presets import PRESETS, PresetName

REPOSITORY = Path(__file__).resolve().parents[1]


def test_every_name_has_a_preset_and_every_preset_is_in_the_shipped_file() -> None:
    assert set(get_args(PresetName)) == set(PRESETS)
    text = (REPOSITORY / "settings.toml").read_text("utf-8")
    assert [name for name in PRESETS if f'"{name}"' not in text] == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_alone_is_an_endpoint(name: PresetName) -> None:
    preset = PRESETS[name]
    if not preset.model:
        with pytest.raises(ValidationError, match=r"model is missing: with the kind .* it is the id of"):
            LlmEndpoint.model_validate({"preset": name})
    endpoint = LlmEndpoint.model_validate({"preset": name} | ({} if preset.model else {"model": "7400"}))
    assert (endpoint.name, endpoint.base_url, endpoint.kind) == (name, preset.base_url, preset.kind)
    assert endpoint.model == (preset.model or "7400")
    assert endpoint.place == ("edge" if endpoint.is_local else "cloud")
    assert bool(endpoint.api_key_env) is not endpoint.is_local
    assert endpoint.is_free is endpoint.is_local


def test_what_is_written_beside_a_preset_wins() -> None:
    own = {"preset": "qwen", "name": "mine", "model": "qwen-max", "api_key": "k", "extra_body": {}, "tier": "edge"}
    endpoint = LlmEndpoint.model_validate(own)
    assert (endpoint.name, endpoint.model, endpoint.key(), endpoint.extra_body, endpoint.place) == (
        "mine", "qwen-max", "k", {}, "edge",
    )  # fmt: skip
    assert endpoint.base_url == PRESETS["qwen"].base_url


def test_the_key_is_read_from_the_variable_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-1")
    endpoint = LlmEndpoint.model_validate({"preset": "qwen"})
    assert endpoint.key() == "sk-1"
    assert endpoint.extra_body == {"enable_thinking": False}


def test_an_unknown_preset_lists_the_known_ones_and_nothing_else_is_complained_of(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[[llm.endpoints]]\npreset = "qwenn"\n', encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {}, {})
    (line,) = caught.value.errors
    assert "llm.endpoints[0].preset" in line
    assert all(f'"{name}"' in line for name in PRESETS)


def test_a_file_with_presets_and_nested_tables_loads_strictly(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        '[llm.hedge]\nmode = "all"\n[llm.breaker]\nopen_s = 5.0\n[[llm.endpoints]]\npreset = "deepseek"\n'
        'api_key = "k"\nprice = 2\nextra_body = { thinking = { type = "disabled" } }\n',
        encoding="utf-8",
    )
    llm = load_settings(file, {}, {}).settings.llm
    assert (llm.hedge.mode, llm.breaker.open_s, llm.endpoints[0].is_free) == ("all", 5.0, False)
    assert "'k'" not in repr(llm.endpoints[0])


def test_two_endpoints_of_one_preset_need_names() -> None:
    with pytest.raises(ValidationError, match="must not have the same name twice"):
        Settings.model_validate({"llm": {"endpoints": [{"preset": "qwen"}, {"preset": "qwen"}]}})


@pytest.mark.parametrize(
    ("url", "local"),
    [("http://127.0.0.1:1", True), ("http://192.168.3.4/v1", True), ("http://box:80", True), ("http://[::1]:9", True),
     ("http://nas.local", True), ("https://api.openai.com/v1", False), ("https://8.8.8.8", False)],
)  # fmt: skip
def test_the_tier_goes_by_the_address(url: str, local: bool) -> None:
    assert LlmEndpoint(name="a", base_url=url, model="m").is_local is local
