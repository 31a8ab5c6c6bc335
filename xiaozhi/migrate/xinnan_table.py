"""xiaozhi-esp32-server of xinnan-tech: its providers and settings (config.yaml, August 2026) and ours.

Names of settings that have several here are looked up in the model, and the first that this version has is taken.
"""

from collections.abc import Mapping
from typing import Any, Final

from xiaozhi.agents.prompt import PromptError, check_template
from xiaozhi.migrate.report import Words
from xiaozhi.migrate.rules import QUIET, Leave, NotTaken, Provider, Rule, Rules, Take, Way
from xiaozhi.program import program

# What it takes where nothing is selected.
SELECTED: Final[Mapping[str, str]] = {
    "VAD": "SileroVAD", "ASR": "FunASR", "LLM": "ChatGLMLLM", "VLLM": "ChatGLMVLLM", "TTS": "EdgeTTS",
    "Memory": "nomem", "Intent": "function_call",
}  # fmt: skip

_ARK: Final = "https://ark.cn-beijing.volces.com/api/v3"
_BAILIAN: Final = "https://dashscope.aliyuncs.com/compatible-mode/v1"
_OPENAI: Final = "https://api.openai.com/v1"
_GROQ: Final = "https://api.groq.com/openai/v1"
_XINFERENCE: Final = "http://localhost:9997"
_ZHIPU: Final = "https://open.bigmodel.cn/api/paas/v4"
_GATEWAY: Final = "https://ai-gateway.vei.volces.com/v1"
_SHARED_WEATHER_KEY: Final = "a861d0d5e7bf4ee1a83d9a9e4f96d4da"  # the same in every copy of its config.yaml
_VOICE_1: Final = "zh_female_wanwanxiaohe_moon_bigtts"

# The entries that its own config.yaml brings: most people write only what they change of one, often the key alone.
ENTRIES: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "VAD": {"SileroVAD": {"type": "silero"}},
    "ASR": {
        "FunASR": {"type": "fun_local"},
        "FunASRServer": {"type": "fun_server", "host": "127.0.0.1", "port": "10096", "is_ssl": "true"},
        "SherpaASR": {"type": "sherpa_onnx_local", "model_type": "sense_voice"},
        "SherpaParaformerASR": {"type": "sherpa_onnx_local", "model_type": "paraformer"},
        "VoskASR": {"type": "vosk"},
        "DoubaoASR": {"type": "doubao"},
        "DoubaoStreamASR": {"type": "doubao_stream", "resource_id": "volc.bigasr.sauc.duration"},
        "DoubaoStreamASRV2": {"type": "doubao_stream", "resource_id": "volc.seedasr.sauc.duration"},
        "TencentASR": {"type": "tencent"},
        "AliyunASR": {"type": "aliyun"},
        "AliyunStreamASR": {"type": "aliyun_stream"},
        "AliyunBLStreamASR": {"type": "aliyunbl_stream", "model": "paraformer-realtime-v2"},
        "BaiduASR": {"type": "baidu"},
        "OpenaiASR": {"type": "openai", "base_url": _OPENAI, "model_name": "gpt-4o-mini-transcribe"},
        "GroqASR": {"type": "openai", "base_url": _GROQ, "model_name": "whisper-large-v3-turbo"},
        "Qwen3ASRFlash": {"type": "qwen3_asr_flash"},
        "XunfeiStreamASR": {"type": "xunfei_stream"},
    },
    "LLM": {
        "AliLLM": {"type": "openai", "base_url": _BAILIAN, "model_name": "qwen-flash"},
        "AliAppLLM": {"type": "AliBL"},
        "DoubaoLLM": {"type": "openai", "base_url": _ARK, "model_name": "doubao-1-5-pro-32k-250115"},
        "DeepSeekLLM": {"type": "openai", "url": "https://api.deepseek.com", "model_name": "deepseek-chat"},
        "ChatGLMLLM": {"type": "openai", "url": _ZHIPU, "model_name": "glm-4-flash"},
        "OllamaLLM": {"type": "ollama", "base_url": "http://localhost:11434", "model_name": "qwen2.5"},
        "DifyLLM": {"type": "dify", "base_url": "https://api.dify.ai/v1"},
        "GeminiLLM": {"type": "gemini", "model_name": "gemini-2.0-flash"},
        "CozeLLM": {"type": "coze"},
        "VolcesAiGatewayLLM": {"type": "openai", "base_url": _GATEWAY, "model_name": "doubao-pro-32k-functioncall"},
        "LMStudioLLM": {"type": "openai", "url": "http://localhost:1234/v1"},
        "HomeAssistant": {"type": "homeassistant", "base_url": "http://homeassistant.local:8123"},
        "FastgptLLM": {"type": "fastgpt"},
        "XinferenceLLM": {"type": "xinference", "base_url": _XINFERENCE, "model_name": "qwen2.5:72b-AWQ"},
        "XinferenceSmallLLM": {"type": "xinference", "base_url": _XINFERENCE, "model_name": "qwen2.5:3b-AWQ"},
    },
    "VLLM": {
        "ChatGLMVLLM": {"type": "openai", "url": _ZHIPU, "model_name": "glm-4v-flash"},
        "QwenVLVLLM": {"type": "openai", "url": _BAILIAN, "model_name": "qwen2.5-vl-3b-instruct"},
    },
    "TTS": {
        "EdgeTTS": {"type": "edge"},
        "DoubaoTTS": {"type": "doubao", "voice": "BV001_streaming"},
        "TTS302AI": {"type": "doubao", "api_url": "https://api.302ai.cn/doubao/tts_hd", "voice": _VOICE_1},
        "HuoshanDoubleStreamTTS": {
            "type": "huoshan_double_stream", "resource_id": "volc.service_type.10029", "speaker": _VOICE_1,
        },
        "HuoshanDoubleStreamTTSV2": {"type": "huoshan_double_stream", "resource_id": "seed-tts-2.0"},
        "CosyVoiceSiliconflow": {
            "type": "siliconflow", "model": "FunAudioLLM/CosyVoice2-0.5B", "voice": "FunAudioLLM/CosyVoice2-0.5B:alex",
        },
        "CozeCnTTS": {"type": "cozecn"},
        "VolcesAiGatewayTTS": {"type": "openai", "api_url": f"{_GATEWAY}/audio/speech", "model": "doubao-tts"},
        "OpenAITTS": {"type": "openai", "api_url": "https://api.openai.com/v1/audio/speech", "model": "tts-1"},
        "CustomTTS": {"type": "custom"},
        "FishSpeech": {"type": "fishspeech", "api_url": "http://127.0.0.1:8080/v1/tts"},
        "GPT_SOVITS_V2": {"type": "gpt_sovits_v2", "url": "http://127.0.0.1:9880/tts"},
        "GPT_SOVITS_V3": {"type": "gpt_sovits_v3", "url": "http://127.0.0.1:9880"},
        "MinimaxTTSHTTPStream": {"type": "minimax_httpstream"},
        "AliyunTTS": {"type": "aliyun"},
        "AliyunStreamTTS": {"type": "aliyun_stream"},
        "AliBLTTS": {"type": "alibl_stream", "model": "cosyvoice-v2", "voice": "longcheng_v2"},
        "TencentTTS": {"type": "tencent", "region": "ap-guangzhou", "voice": "101001"},
        "XunFeiTTS": {"type": "xunfei_stream"},
        "PaddleSpeechTTS": {"type": "paddle_speech"},
        "IndexStreamTTS": {"type": "index_stream"},
    },
}  # fmt: skip

# What a provider's values are called with us; the first name that the engine's table has.
_URL: Final = ("url", "base_url", "ws_url", "endpoint", "address")
_APP: Final = ("app_id", "appid", "app_key", "app")
_TOKEN: Final = ("access_token", "access_key", "token", "api_key")
_KEY: Final = ("api_key", "key", "token")
_SECRET: Final = ("api_secret", "secret_key", "secret")
_VOICE: Final = ("voice", "speaker", "voice_id")
_MODEL: Final = ("model", "model_name")
_RATE: Final = ("rate_percent", "speech_rate")

_OWN_SILENCE: Final = Leave(
    Words(
        '什么时候算说完由 [turn] 决定；觉得抢话就把 turn.profile 设为 "conservative"',
        '[turn] decides when somebody is done; set turn.profile = "conservative" if you are cut off',
    )
)
_OWN_FORMAT: Final = Leave(Words("声音格式由本服务器自己选", "the format of the sound is chosen by this server"))
_OWN_SOUND: Final = Leave(Words("音量、音高用设备和音色的默认值", "volume and pitch are the voice's own"))
_WRITE_TO_ENGINE: Final = Words(
    "可以改用控制台“模型”页列出的引擎", "choose an engine of the console's page “Models” instead"
)


def _percent(value: Any) -> int:
    """A ratio of speeds (1 is usual) as percent more or less."""
    try:
        return max(-50, min(100, round((float(value) - 1.0) * 100.0)))
    except (TypeError, ValueError, OverflowError):
        raise NotTaken(Words("应该是数字", "must be a number")) from None


def _large_voice(value: Any) -> Any:
    """Voices of the old interface, BV001_streaming and the like, are unknown to the newer one."""
    if str(value).startswith("BV"):
        raise NotTaken(Words("旧接口的音色，另选一个", "a voice of the old interface: choose another"))
    return value


def _plain_voice(value: Any) -> Any:
    """Voices of iFlytek's large model are known to another interface than ours."""
    if str(value).startswith(("x5_", "x6_")):
        raise NotTaken(Words("这是超拟人音色，另选一个", "a voice of the large model's interface: choose another"))
    return value


def _percent_of_hundred(value: Any) -> int:
    """A speed of 0 to 100, usual at 50, as percent more or less."""
    try:
        return _percent(float(value) / 50.0)
    except (TypeError, ValueError):
        raise NotTaken(Words("应该是数字", "must be a number")) from None


def _with_text(value: Any) -> Any:
    """Where its body has the text, ours has it under another name."""
    if isinstance(value, dict):
        return {name: _with_text(each) for name, each in value.items()}
    return value.replace("{prompt_text}", "{text}") if isinstance(value, str) and "{" in value else value


def _nostream(value: Any) -> str:
    """Many languages are recognised by the interface that answers once, and by that alone."""
    if not _yes(value):
        raise NotTaken(Words("默认就是边说边识别", "recognised while one speaks by default"))
    return "wss://openspeech.bytedance.com/api/v3/sauc/bigmodel_nostream"


def _yes(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "yes", "on")


def _same(*names: str) -> dict[str, Rule]:
    """Values that have the same name with us: as a setting of the engine, or in its table of further values."""
    return {name: Take((name, *(f"{table}.{name}" for table in ("body", "params", "extra_body")))) for name in names}


COMMON: Final[Rules] = {
    "type": QUIET, "output_dir": QUIET, "delete_audio": QUIET,
    "format": _OWN_FORMAT, "codec": _OWN_FORMAT, "sample_rate": _OWN_FORMAT, "bits": _OWN_FORMAT,
    "channel": _OWN_FORMAT, "channels": _OWN_FORMAT, "rate": _OWN_FORMAT, "response_format": _OWN_FORMAT,
    "audio_format": _OWN_FORMAT, "volume": _OWN_SOUND, "volume_ratio": _OWN_SOUND, "pitch": _OWN_SOUND,
    "pitch_ratio": _OWN_SOUND, "pitch_rate": _OWN_SOUND, "max_sentence_silence": _OWN_SILENCE,
    "end_window_size": _OWN_SILENCE,
    "private_voice": Take(_VOICE),
    "correct_words": Leave(Words("没有发音替换表", "there is no table of pronunciations")),
}  # fmt: skip
"""For what several providers have; the rules of a provider go first."""

_APP_TOKEN: Final[Rules] = {"appid": Take(_APP), "app_id": Take(_APP), "access_token": Take(_TOKEN)}
_VOLC_ASR: Final[Rules] = {
    **_APP_TOKEN,
    "resource_id": Take(("resource_id", "resource")),
    "boosting_table_name": Take(("boosting_table_name", "boosting_table", "hotword_table")),
    "correct_table_name": Take(("correct_table_name", "correct_table")),
    "language": Take(("language",)),
    "cluster": Leave(Words("新接口不用 cluster", "the newer interface has no cluster")),
    "enable_multilingual": Take(("url",), _nostream),
    "uid": QUIET, "workflow": QUIET, "result_type": QUIET, "auth_method": QUIET,
}  # fmt: skip
_TENCENT: Final[Rules] = {
    **_APP_TOKEN, "secret_id": Take(("secret_id",)), "secret_key": Take(("secret_key", "api_secret")),
    "region": Take(("region",)), "voice": Take((*_VOICE, "voice_type")),
    "speed": Leave(Words("语速的单位不同，请在控制台重新设", "the speed has another unit: set it again")),
}  # fmt: skip
_IFLYTEK: Final[Rules] = {
    "app_id": Take(_APP), "api_key": Take(_KEY), "api_secret": Take(_SECRET), "voice": Take(_VOICE),
    "speed": Take(_RATE, _percent_of_hundred),
    "api_url": Leave(Words("地址属于另一个接口", "the address is of another interface")),
    "language": Take(("language",)), "accent": Take(("accent",)), "domain": Take(("domain",)),
    **_same("oral_level", "spark_assist", "stop_split", "remain"),
}  # fmt: skip
_DASHSCOPE: Final[Rules] = {
    "api_key": Take(_KEY), "model": Take(_MODEL), "voice": Take(_VOICE), "rate": Take(_RATE, _percent),
    "vocabulary_id": Take(("vocabulary_id", "vocabulary")), "language_hints": Take(("language_hints", "languages")),
    "base_url": Leave(Words("那边也没有用它", "it is not used there either")),
    "model_name": Leave(Words("整句识别的模型，流式的另选", "a model for whole utterances; the streaming one is ours")),
    "language": Take(("language",)), "context": Take(("context", "prompt")),
    "disfluency_removal_enabled": Take(("remove_fillers", "disfluency_removal_enabled")),
    **dict.fromkeys(
        ("semantic_punctuation_enabled", "multi_threshold_mode_enabled", "punctuation_prediction_enabled",
         "inverse_text_normalization_enabled", "enable_lid", "enable_itn"),
        Leave(Words("用适合对话的值", "as conversations need it")),
    ),
}  # fmt: skip
_OPENAI_VOICE: Final[Rules] = {
    "api_key": Take(_KEY), "access_token": Take(_KEY), "api_url": Take(("base_url",)), "model": Take(_MODEL),
    "voice": Take(_VOICE), "speed": Take(("speed",)), "format": _OWN_FORMAT,
    "gain": Leave(Words("那边也没有发送它", "it is not sent there either")),
}  # fmt: skip
_HTTP: Final[Rules] = {
    "url": Take(_URL), "api_url": Take(_URL), "api_key": Take(_KEY), "access_token": Take(_KEY),
    "model": Take((*_MODEL, "body.model")), "voice": Take((*_VOICE, "character")), "speed": Take(("speed",)),
    "gain": Leave(Words("那边也没有发送它", "it is not sent there either")),
}  # fmt: skip
_STREAMED: Final = Leave(Words("总是边合成边播放", "sound is always streamed"))
_GPT_SOVITS: Final[Rules] = {
    **_HTTP,
    "ref_audio_path": Take(_VOICE), "ref_audio": Take(_VOICE), "ref_text": Take(("prompt_text", "body.prompt_text")),
    "speed_factor": Take(("speed",)), "streaming_mode": _STREAMED, "return_fragment": _STREAMED,
    **_same(
        "text_lang", "prompt_text", "prompt_lang", "top_k", "top_p", "temperature", "text_split_method", "batch_size",
        "batch_threshold", "split_bucket", "seed", "parallel_infer", "repetition_penalty", "aux_ref_audio_paths",
    ),
}  # fmt: skip
_OLD_GPT_SOVITS: Final[Rules] = {
    **_HTTP,
    "refer_wav_path": Take(("body.refer_wav_path",)), "ref_audio": Take(("body.refer_wav_path",)),
    "ref_text": Take(("body.prompt_text",)),
    "inp_refs": Leave(Words("一个地址里放不下列表", "an address holds no list")),
    **_same(
        "prompt_text", "prompt_language", "text_language", "top_k", "top_p", "temperature", "cut_punc", "sample_steps",
        "if_sr",
    ),
}  # fmt: skip
_FISH_SPEECH: Final[Rules] = {
    **_HTTP,
    "reference_id": Take(_VOICE), "streaming": _STREAMED,
    **dict.fromkeys(
        ("reference_audio", "reference_text"),
        Leave(Words("先在 Fish-Speech 里建立音色，voice 填其编号", "make a voice in Fish-Speech: its id is voice")),
    ),
    **_same(
        "normalize", "max_new_tokens", "chunk_length", "top_p", "repetition_penalty", "temperature",
        "use_memory_cache", "seed",
    ),
}  # fmt: skip
_CUSTOM: Final[Rules] = {
    "url": Take(_URL), "method": Take(("method",)), "params": Take(("body", "params", "extra_body"), _with_text),
    "headers": Take(("headers", "extra_headers")),
}  # fmt: skip
_VOLC_VOICE: Final[Rules] = {
    **_APP_TOKEN,
    "ws_url": Take(_URL), "resource_id": Take(("resource_id", "resource")), "speaker": Take(_VOICE),
    "voice": Take(_VOICE, _large_voice), "speed_ratio": Take(_RATE, _percent), "audio_params.speech_rate": Take(_RATE),
    "audio_params.emotion": Take(("emotion", "style")), "additions": Take(("additions",)),
    "mix_speaker": Take(("mix_speaker",)),
    "enable_ws_reuse": Leave(Words("连接总会重用", "connections are always reused")),
    "cluster": Leave(Words("新接口不用 cluster", "the newer interface has no cluster")),
    "authorization": QUIET, "api_url": QUIET,
}  # fmt: skip
_CHAT: Final[Rules] = {
    "base_url": Take(("base_url",)), "url": Take(("base_url",)), "model_name": Take(("model",)),
    "api_key": Take(("api_key",)), "temperature": Take(("temperature",)), "max_tokens": Take(("max_tokens",)),
    "top_p": Take(("extra_body.top_p",)), "top_k": Take(("extra_body.top_k",)),
    "frequency_penalty": Take(("extra_body.frequency_penalty",)),
    "timeout": Leave(
        Words("时限见 [llm] first_token_timeout_s 等", "see [llm] first_token_timeout_s and what is beside it")
    ),
    "http_proxy": Leave(Words("用环境变量 HTTPS_PROXY", "set the environment variable HTTPS_PROXY")),
    "https_proxy": Leave(Words("用环境变量 HTTPS_PROXY", "set the environment variable HTTPS_PROXY")),
}  # fmt: skip
_PLATFORM: Final[Rules] = {
    **_CHAT,
    "mode": Take(("mode",), words=Words("只支持聊天应用", "chat applications only")),
    "bot_id": Take(("bot_id", "bot", "app_id", "agent_id", "model")),
    "user_id": Take(("user_id", "user")), "personal_access_token": Take(("api_key",)),
    "agent_id": Take(("agent_id", "agent", "app_id", "model")),
    "variables": Take(("variables", "inputs", "extra_body.variables")),
    "detail": QUIET,
}  # fmt: skip

_NO_NLS: Final = Provider(
    words=Words(
        "阿里云智能语音交互 (NLS) 没有对应，可以用同一账号在百炼开通语音，选 dashscope",
        "Alibaba's NLS has no counterpart; the same account can use Model Studio: engine dashscope",
    )
)
_PULL: Final = Words(
    f"第一次启动会自动下载模型，也可以先运行 {program()} models pull sense-voice；那边的模型文件 (PyTorch) 不能用",
    f"the model is fetched at the first start, or by `{program()} models pull sense-voice`; their file is for PyTorch",
)
_LOCAL_ASR: Final[Rules] = {
    "language": Take(("language",)),
    "model_dir": QUIET,
    "model_path": QUIET,
    "model_type": QUIET,
}
_OTHER_INTERFACE: Final = Words(
    "原来的接口已由流式大模型接口取代：同一应用要在控制台开通它",
    "the streaming interface takes its place: the application must have it",
)


def _funasr(entry: dict[str, Any]) -> dict[str, Any]:
    """Host, port and encryption are one address."""
    kept = {name: value for name, value in entry.items() if name not in ("host", "port", "is_ssl")}
    encrypted = str(entry.get("is_ssl", "true")).lower() in ("true", "1", "yes", "on")
    kept["host, port, is_ssl"] = f"{'wss' if encrypted else 'ws'}://{entry.get('host')}:{entry.get('port', '10095')}"
    return {**kept, "is_ssl": "false"} if encrypted else kept


def _with_v1(entry: dict[str, Any]) -> dict[str, Any]:
    """Addresses of servers whose OpenAI interface lies below /v1, which theirs adds by itself."""
    url = str(entry.get("base_url") or entry.get("url") or "").rstrip("/")
    return {**entry, "base_url": url if url.endswith("/v1") or not url else f"{url}/v1"}


def _official(entry: dict[str, Any]) -> dict[str, Any]:
    """Voices of resellers have an address of their own, which speaks the old interface only."""
    url = str(entry.get("api_url") or "")
    if url and "openspeech.bytedance.com" not in url:
        raise NotTaken(
            Words(
                "这个中转地址只有旧接口，没有对应", "this reseller has only the old interface, which is not spoken here"
            )
        )
    generation = {"resource_id": "volc.service_type.10029"} if str(entry.get("voice")).endswith("_moon_bigtts") else {}
    return {**entry, **generation}


_CHAT_WAY: Final = Way("", _CHAT)
_OLLAMA_WAY: Final = Way("", _CHAT, fixed={"extra_body": {"reasoning_effort": "none"}})  # thinking off
PROVIDERS: Final[Mapping[tuple[str, str], Provider]] = {
    ("VAD", "silero"): Provider(
        (
            Way(
                "vad",
                {
                    "threshold": Take(("threshold",)), "threshold_low": Take(("release_threshold",)),
                    "min_silence_duration_ms": _OWN_SILENCE, "model_dir": QUIET,
                },
            ),
        )
    ),
    ("ASR", "fun_local"): Provider((Way("auto", _LOCAL_ASR, words=_PULL),)),
    ("ASR", "sherpa_onnx_local"): Provider((Way("auto", _LOCAL_ASR, words=_PULL),)),
    ("ASR", "vosk"): Provider((Way("auto", _LOCAL_ASR, words=_PULL),)),
    ("ASR", "fun_server"): Provider(
        (
            Way(
                "funasr",
                {
                    "host, port, is_ssl": Take(("url",)), "api_key": Take(_KEY),
                    "is_ssl": Take(
                        ("verify_tls",),
                        words=Words("那边不检查证书；只用在自己的内网", "not checked there; in your own network only"),
                    ),
                },
            ),
        ),
        reshape=_funasr,
    ),
    ("ASR", "doubao"): Provider((Way("volcengine", _VOLC_ASR, words=_OTHER_INTERFACE),)),
    ("ASR", "doubao_stream"): Provider((Way("volcengine", _VOLC_ASR),)),
    ("ASR", "tencent"): Provider((Way("tencent", _TENCENT),)),
    ("ASR", "aliyun"): _NO_NLS,
    ("ASR", "aliyun_stream"): _NO_NLS,
    ("ASR", "aliyunbl_stream"): Provider((Way("dashscope", _DASHSCOPE),)),
    ("ASR", "qwen3_asr_flash"): Provider((Way("dashscope", _DASHSCOPE),)),
    ("ASR", "baidu"): Provider(words=_WRITE_TO_ENGINE),
    ("ASR", "openai"): Provider(
        (Way("openai", {"api_key": Take(_KEY), "base_url": Take(("base_url",)), "model_name": Take(_MODEL)}),)
    ),
    ("ASR", "xunfei_stream"): Provider((Way("iflytek", _IFLYTEK),)),
    ("LLM", "openai"): Provider((_CHAT_WAY,)),
    ("LLM", "ollama"): Provider((_OLLAMA_WAY,), reshape=_with_v1),
    ("LLM", "xinference"): Provider((_CHAT_WAY,), reshape=_with_v1),
    ("LLM", "gemini"): Provider((Way("", _CHAT, fixed={"preset": "gemini"}),)),
    ("LLM", "dify"): Provider((Way("dify", _PLATFORM),)),
    ("LLM", "coze"): Provider((Way("coze", _PLATFORM, fixed={"base_url": "https://api.coze.cn"}),)),
    ("LLM", "fastgpt"): Provider(
        (Way("fastgpt", _PLATFORM), Way("", {**_CHAT, "variables": Take(("extra_body.variables",)), "detail": QUIET}))
    ),
    ("LLM", "homeassistant"): Provider((Way("homeassistant", _PLATFORM),)),
    ("LLM", "AliBL"): Provider(
        words=Words(
            "百炼应用没有对应：把应用的提示词抄到 llm.system_prompt，端点用预设 qwen",
            "applications have no counterpart: copy the prompt to llm.system_prompt and use the preset qwen",
        )
    ),
    ("VLLM", "openai"): Provider((Way("", _CHAT, fixed={"vision": True, "weight": 0.01}),)),
    ("TTS", "edge"): Provider((Way("edge", {"voice": Take(_VOICE), "language": QUIET}),)),
    ("TTS", "doubao"): Provider((Way("volcengine", _VOLC_VOICE, words=_OTHER_INTERFACE),), reshape=_official),
    ("TTS", "huoshan_double_stream"): Provider((Way("volcengine", _VOLC_VOICE),)),
    ("TTS", "siliconflow"): Provider(
        (
            Way("http", _HTTP, preset="siliconflow"),
            Way("siliconflow", _HTTP),
            Way("openai", _OPENAI_VOICE, fixed={"base_url": "https://api.siliconflow.cn/v1"}),
        )
    ),
    ("TTS", "cozecn"): Provider(words=_WRITE_TO_ENGINE),
    ("TTS", "openai"): Provider((Way("openai", _OPENAI_VOICE),)),
    ("TTS", "custom"): Provider((Way("http", _CUSTOM),)),
    ("TTS", "fishspeech"): Provider((Way("http", _FISH_SPEECH, preset="fish-speech"),)),
    ("TTS", "gpt_sovits_v2"): Provider((Way("http", _GPT_SOVITS, preset="gpt-sovits"),)),
    ("TTS", "gpt_sovits_v3"): Provider(
        (
            Way(
                "http",
                _OLD_GPT_SOVITS,
                fixed={"method": "GET", "body": {"text": "{text}", "speed": "{speed}"}},
                words=Words("api_v2.py 更快，可以流式", "api_v2.py is quicker: it streams"),
            ),
        ),
    ),
    ("TTS", "minimax_httpstream"): Provider(
        (
            Way(
                "minimax",
                {
                    "group_id": Take(("group_id",)), "api_key": Take(_KEY), "model": Take(_MODEL),
                    "voice_id": Take(_VOICE), "voice_setting.voice_id": Take(_VOICE),
                    "voice_setting.speed": Take(_RATE, _percent), "voice_setting.emotion": Take(("emotion", "style")),
                    "voice_setting.vol": _OWN_SOUND, "voice_setting.pitch": _OWN_SOUND,
                    "audio_setting": _OWN_FORMAT, "language_boost": Take(("language_boost", "language")),
                    "pronunciation_dict": Take(("pronunciation_dict",)), "timber_weights": Take(("timber_weights",)),
                },
            ),
        )
    ),
    ("TTS", "aliyun"): _NO_NLS,
    ("TTS", "aliyun_stream"): _NO_NLS,
    ("TTS", "alibl_stream"): Provider((Way("dashscope", _DASHSCOPE),)),
    ("TTS", "tencent"): Provider((Way("tencent", _TENCENT),)),
    ("TTS", "xunfei_stream"): Provider(
        (
            Way(
                "iflytek",
                {**_IFLYTEK, "voice": Take(_VOICE, _plain_voice)},
                words=Words("应用要开通“在线语音合成”", "the application must have online speech synthesis enabled"),
            ),
        ),
    ),
    ("TTS", "paddle_speech"): Provider(words=_WRITE_TO_ENGINE),
    ("TTS", "index_stream"): Provider((Way("http", _HTTP, preset="indextts"),)),
    ("Memory", "nomem"): Provider((Way("memory", {}, fixed={"engine": "off"}),)),
    ("Memory", "mem_report_only"): Provider((Way("memory", {}, fixed={"engine": "off"}),)),
    ("Memory", "mem_local_short"): Provider((Way("memory", {"llm": QUIET}, fixed={"engine": "local"}),)),
    **{
        ("Memory", kind): Provider(
            (
                Way(
                    "memory",
                    {
                        name: Leave(Words("记忆改存本机", "memories are kept here"))
                        for name in ("api_key", "enable_user_profile", "llm", "embedder", "vector_store")
                    },
                    fixed={"engine": "local"},
                    words=Words(
                        "改为存在本机；自建的 mem0 服务可以用 memory.engine = \"mem0\"；以前记住的不会带过来",
                        'memories are kept here, or by a mem0 of your own (memory.engine); old ones stay there',
                    ),
                ),
            )
        )
        for kind in ("mem0ai", "powermem")
    },
    **{
        ("Intent", kind): Provider(
            (
                Way(
                    "tools",
                    {
                        "llm": Leave(Words("由对话的模型自己调用工具", "the chat model itself calls tools")),
                        "functions": Leave(
                            Words(
                                f"内置工具全部可用（{program()} tools list），要限制用 tools.allow 和 tools.deny",
                                f"built-in tools are there (`{program()} tools list`); tools.allow and deny limit them",
                            )
                        ),
                    },
                    fixed={"enabled": kind != "nointent"},
                ),
            )
        )
        for kind in ("nointent", "intent_llm", "function_call")
    },
}  # fmt: skip
"""Each kind of provider of theirs, by section and `type`."""

# Whose thinking theirs switches off, by the end of the host, and how.
THINKING_OFF: Final[Mapping[str, Mapping[str, Any]]] = {
    "aliyuncs.com": {"enable_thinking": False},
    "deepseek.com": {"thinking": {"type": "disabled"}},
    "bigmodel.cn": {"thinking": {"type": "disabled"}},
    "moonshot.cn": {"thinking": {"type": "disabled"}},
    "volces.com": {"thinking": {"type": "disabled"}},
}


def _public_url(value: Any) -> str:
    """The address of its WebSocket as that of a server."""
    scheme, mark, rest = str(value).partition("://")
    if not mark or scheme not in ("ws", "wss"):
        raise NotTaken(Words("应该以 ws:// 或 wss:// 开头", "must begin with ws:// or wss://"))
    return f"{'https' if scheme == 'wss' else 'http'}://{rest.partition('/')[0]}"


def _zone(value: Any) -> str:
    """Hours before Greenwich as the name of a zone, whose sign is the other way round."""
    try:
        hours = float(value)
    except (TypeError, ValueError):
        hours = 99.0
    if hours != hours // 1 or not -12 <= hours <= 14:
        raise NotTaken(
            Words('请填 server.timezone，例如 "Asia/Shanghai"', 'set server.timezone, such as "Asia/Kolkata"')
        )
    return "Asia/Shanghai" if hours == 8 else f"Etc/GMT{-int(hours):+d}" if hours else "Etc/GMT"


def _level(value: Any) -> str:
    level = str(value).lower()
    return {"trace": "debug", "success": "info", "critical": "error"}.get(level, level)


def _auth(value: Any) -> str:
    if not _yes(value):
        raise NotTaken(
            Words(
                '保持默认的 token：设备会自己从 OTA 领令牌；确实要对所有人开放才设 auth.mode = "open"',
                'the default "token" stays: devices fetch theirs by OTA; auth.mode = "open" lets everybody in',
            )
        )
    return "token"


def _tokens(value: Any) -> list[str]:
    rows = value if isinstance(value, list) else [value]
    found = [str(row.get("token", "")) if isinstance(row, dict) else str(row) for row in rows]
    kept = [token for token in found if token and not token.lower().startswith("your")]
    if not kept:
        raise NotTaken(Words("没有填写令牌", "no token is given"))
    return kept


def _prompt(value: Any) -> str:
    """Theirs is plain text, ours a template: its marks are taken literally."""
    text = str(value).strip()
    text = f"{{% raw %}}{text}{{% endraw %}}" if any(mark in text for mark in ("{{", "{%", "{#")) else text
    try:
        check_template(text)
    except PromptError:
        raise NotTaken(
            Words("含有模板标记，请在控制台填写", "holds marks of a template: write it in the console")
        ) from None
    return text


def _weather(value: Any) -> dict[str, Any]:
    """Its own service with a key of one's own; otherwise the place alone, for the service that needs no key."""
    entry = value if isinstance(value, dict) else {}
    host, key, city = (str(entry.get(name) or "") for name in ("api_host", "api_key", "default_location"))
    found: dict[str, Any] = {"city": city} if city else {}
    if host and key and "你的" not in key and key != _SHARED_WEATHER_KEY:
        found |= {"provider": "qweather", "url": host if "://" in host else f"https://{host}", "api_key": key}
    if not found:
        raise NotTaken(Words("没有可用的值", "there is nothing to take"))
    return found


def _search(value: Any) -> dict[str, Any]:
    entry = value if isinstance(value, dict) else {}
    key = str(entry.get("api_key") or "")
    if entry.get("provider") != "tavily" or not key or "你的" in key:
        raise NotTaken(
            Words(
                "可用的是 searxng 和 tavily（要密钥），见 [tools.search]",
                "see [tools.search]: searxng, or tavily with a key",
            )
        )
    found: dict[str, Any] = {"provider": "tavily", "api_key": key}
    results = str(entry.get("max_results") or "")
    return found | ({"results": int(results)} if results.isdecimal() and len(results) < 4 else {})


def _rss(value: Any) -> list[str]:
    return [str(value)]


def _first_audio(value: Any) -> Any:
    if str(value) == "10":
        raise NotTaken(
            Words("默认值，本服务器更快换用下一个音色", "their default; here the next voice takes over sooner")
        )
    return value


_OTA: Final = Words(
    "OTA 与设备共用一个端口：把设备的 OTA 地址改为 http://本机地址:端口/xiaozhi/ota/（默认端口 8000）",
    "OTA is on the port of the devices: set theirs to http://ADDRESS:PORT/xiaozhi/ota/ (port 8000 by default)",
)
_MQTT: Final = Leave(
    Words(
        "MQTT 已内置：mqtt.enabled = true；要保留原来的网关，把它的地址写进 mqtt.gateways",
        "MQTT is built in: mqtt.enabled = true; to keep their gateway, put its address into mqtt.gateways",
    )
)
_MCP: Final = Leave(
    Words(
        "接入点没有对应：把工具作为 MCP 服务写进 [[tools.servers]]",
        "the endpoint has no counterpart: name the MCP servers in [[tools.servers]]",
    )
)
_BY_ITSELF: Final = Leave(Words("自动处理", "done by itself"))
_LOG: Final = Leave(
    Words("日志写到标准错误输出，格式见 [log] format", "the log goes to standard error, see [log] format")
)

TOP: Final[Rules] = {
    "server.ip": Take(("server.host",)),
    "server.port": Take(("server.port",)),
    "server.http_port": Leave(_OTA),
    "server.websocket": Take(("server.public_url",), _public_url),
    "server.vision_explain": _BY_ITSELF,
    "server.timezone_offset": Take(("server.timezone",), _zone),
    "server.auth.enabled": Take(("auth.mode",), _auth),
    "server.auth.tokens": Take(("auth.tokens",), _tokens),
    "server.auth.allowed_devices": Leave(
        Words(
            "那边名单里的设备免令牌；这里 auth.allow 是只许这些设备，更严，需要时自己填",
            "there these need no token; auth.allow admits these and no others: fill it in if that is what you want",
        )
    ),
    "server.auth_key": Leave(Words("令牌由自己的密钥签名", "tokens are signed by a key of our own")),
    "server.mqtt_gateway": _MQTT, "server.mqtt_signature_key": _MQTT, "server.udp_gateway": _MQTT,
    "log.log_level": Take(("log.level",), _level),
    "log": _LOG,
    "delete_audio": Leave(Words("声音从不写到磁盘", "sound is never written to disk")),
    "close_connection_no_voice_time": Take(("server.idle_close_s",)),
    "tts_timeout": Take(("tts.first_audio_timeout_s",), _first_audio),
    "tool_call_timeout": Take(("tools.timeout_s",)),
    "enable_wakeup_words_response_cache": _BY_ITSELF,
    "enable_greeting": Take(("turn.wake_reply",), lambda value: "auto" if _yes(value) else ""),
    "enable_stop_tts_notify": Leave(Words("没有提示音", "there is no such sound")),
    "stop_tts_notify_voice": Leave(Words("没有提示音", "there is no such sound")),
    "enable_websocket_ping": Leave(Words("总是发送，见 server.keepalive_s", "always sent, see server.keepalive_s")),
    "tts_audio_send_delay": Leave(Words("自动控制发送节奏，见 audio.lead_ms", "paced by itself, see audio.lead_ms")),
    "exit_commands": Take(("turn.exit_phrases",)),
    "xiaozhi": Leave(Words("由设备的 hello 决定", "the hello of the device decides")),
    "wakeup_words": Take(("turn.wake_words",)),
    "mcp_endpoint": _MCP,
    "context_providers": Leave(Words("可以写成 MCP 工具", "an MCP server can do it, see [[tools.servers]]")),
    "plugins.get_weather": Take(
        ("tools.weather",),
        _weather,
        Words("没有自己的密钥时用不要密钥的 open-meteo", "without a key of your own: open-meteo, which needs none"),
    ),
    "plugins.get_news_from_chinanews.default_rss_url": Take(("tools.news.feeds",), _rss),
    "plugins.get_news_from_chinanews": Leave(Words("更多栏目写进 tools.news.feeds", "further feeds: tools.news.feeds")),
    "plugins.get_news_from_newsnow": Leave(Words("新闻来自 RSS，见 tools.news.feeds", "RSS: tools.news.feeds")),
    "plugins.home_assistant.base_url": Take(("tools.home_assistant.url",)),
    "plugins.home_assistant.api_key": Take(("tools.home_assistant.token",)),
    "plugins.home_assistant.devices": Leave(
        Words("不用列：能用的实体直接从 Home Assistant 读取", "need no list: entities are read from Home Assistant")
    ),
    "plugins.play_music.music_dir": Take(("tools.music.folder",)),
    "plugins.play_music": _BY_ITSELF,
    "plugins.search_from_ragflow": Leave(
        Words("作为 MCP 服务写进 [[tools.servers]]", "name its MCP server in [[tools.servers]]")
    ),
    "plugins.web_search": Take(("tools.search",), _search),
    "voiceprint": Leave(Words("没有声纹识别", "speakers are not told apart")),
    "prompt": Take(("llm.system_prompt",), _prompt),
    "prompt_template": Leave(Words("提示词在 llm.system_prompt", "the prompt is llm.system_prompt")),
    "system_error_response": Leave(Words("内置的道歉", "excuses are built in")),
    "end_prompt.enable": Take(("turn.goodbye",), lambda value: "auto" if _yes(value) else ""),
    "end_prompt.prompt": Leave(Words("告别语是固定的，见 turn.goodbye", "goodbyes are fixed: turn.goodbye")),
    "module_test": QUIET,
    "selected_module": QUIET,
    "manager-api": Leave(
        Words("智控台的设置在它的数据库里，请照着填", "settings of their web console are in its database")
    ),
    "read_config_from_api": QUIET,
}  # fmt: skip
"""All that is no provider, by its name from the top. A name stands for what is below it where that has no rule."""
