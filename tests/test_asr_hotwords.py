"""Hot words: the settings' own and the names that are said in a house, within what services take."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bench.standins.volcengine import VolcengineAsrStandIn
from tests.house import house, question
from tests.recognisers import until
from xiaozhi.agents import Agent
from xiaozhi.settings import AsrSettings
from xiaozhi.stages.asr.deepgram import Deepgram
from xiaozhi.stages.asr.fallback import Fallback
from xiaozhi.stages.asr.funasr import Funasr
from xiaozhi.stages.asr.hotwords import hotwords
from xiaozhi.stages.asr.openai_realtime import OpenAIRealtime
from xiaozhi.stages.asr.tencent import Tencent


@given(
    st.lists(st.text(min_size=1, max_size=8), max_size=10, unique=True),
    st.lists(st.text(max_size=40), max_size=40),
    st.integers(1, 30),
    st.integers(1, 200),
)
def test_the_settings_own_words_stay_and_names_fill_what_is_left(
    own: list[str], names: list[str], max_words: int, max_chars: int
) -> None:
    words = hotwords(own, names, max_words=max_words, max_chars=max_chars)
    added = words[len(own) :]
    assert words[: len(own)] == own and len(set(words)) == len(words)
    assert not added or (len(words) <= max_words and sum(map(len, words)) <= max_chars)
    assert all(2 <= len(word) <= 30 and not set(word) & set("|,\n\x00") for word in added)


def test_each_service_is_told_the_names_in_its_own_way() -> None:
    asr = AsrSettings.model_validate(
        {
            "tencent": {"app_id": "1", "secret_id": "i", "secret_key": "k", "hotwords": {"小智": 11}},
            "deepgram": {"api_key": "k-deepgram"},
            "openai_realtime": {"api_key": "k-openai"},
        }
    )
    names = ["小智", "老张", "a|b", "客厅音箱"]
    tencent = Tencent(asr.tencent, asr.remote, itn=True)
    funasr = Funasr(asr.funasr, asr.remote, "zh", itn=True)
    deepgram = Deepgram(asr.deepgram, asr.remote, "en")
    openai = OpenAIRealtime(asr.openai_realtime, asr.remote, "zh")
    for engine in (tencent, funasr, deepgram, openai):
        engine.tell_names(names)
    assert "hotword_list=%E5%B0%8F%E6%99%BA%7C11%2C%E8%80%81%E5%BC%A0%7C8%2C" in tencent.address()[0]
    assert funasr.config()["hotwords"] == '{"小智":20,"老张":20,"客厅音箱":20}'
    assert deepgram.address()[0].count("keyterm=") == 3
    assert '"keywords":["小智","老张","客厅音箱"]' in openai.session()


async def test_agents_devices_and_owners_are_told_to_the_service_and_not_where_the_owner_says_no(
    tmp_path: Path,
) -> None:
    async with VolcengineAsrStandIn(last="how late is it") as ears:
        table = {"url": ears.ws_url, "api_key": ears.key, "hotwords": ["豆包"]}
        asr = {"engine": "volcengine", "fallback": "sense-voice", "volcengine": table}
        async with house(tmp_path, asr=asr) as home:
            services = home.server.services
            await services.store.agents.put("Zorro", Agent(name="Zorro", aliases=("佐罗",)).model_dump_json())
            async with home.device(2) as other:
                assert (await other.turn(question())).answered
            await services.store.devices.update("02:00:00:00:00:02", name="Kitchen", owner="老张")
            await services.roster.refresh(services.store)
            services.for_agents.renew()
            async with home.device() as device:
                assert (await device.turn(question())).answered
                told = ears.streams[-1].request["request"]["corpus"]["context"]
                assert told.index("豆包") < told.index("佐罗") < told.index("Kitchen") < told.index("老张")
                assert len(told) < 600
                remote = services.settings.asr.remote.model_copy(update={"send_names": False})
                quiet = services.settings.asr.model_copy(update={"remote": remote})
                await home.server.reloader.apply(services.settings.model_copy(update={"asr": quiet}))
                assert isinstance(services.recognition.engine, Fallback)
                assert (await device.turn_text("hello there")).answered
                await until(lambda: services.for_agents._learnt_at > 0)
                assert (await device.turn(question())).answered
                told = ears.streams[-1].request["request"]["corpus"]["context"]
                assert "豆包" in told and "Kitchen" not in told
