"""What is known of chat services, so that only the key is left to give.

Addresses and model names change; a field that is given in the settings wins over its preset.

A model that thinks before it speaks is a second or more later: where a service lets thinking be switched off, it is.
The templates of some models open the thought in the prompt, so that their answers begin in the middle of it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

PresetName: TypeAlias = Literal[
    "openai", "claude", "gemini", "mistral", "groq", "openrouter",
    "qwen", "qwen-intl", "deepseek", "zhipu", "moonshot", "doubao", "baichuan", "hunyuan", "qianfan", "minimax",
    "stepfun", "siliconflow",
    "ollama", "vllm", "lmstudio", "llamacpp",
    "responses", "dify", "coze", "fastgpt", "ragflow", "home-assistant",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Preset:
    """One service.

    Attributes:
        title: for people.
        base_url: up to the part before `/chat/completions`.
        model: quick, cheap and able to call tools; or what most people have at home; empty where only its owner knows
            the id.
        api_key_env: the variable that the service's own documents name; empty where no key is asked for.
        extra_body: sent with each request.
        kind: what it speaks, see `LlmEndpoint`.
    """

    title: str
    base_url: str
    model: str
    api_key_env: str = ""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "openai"

    def fields(self) -> dict[str, Any]:
        """The fields of an endpoint."""
        return {
            "kind": self.kind,
            "base_url": self.base_url,
            **({"model": self.model} if self.model else {}),
            "api_key_env": self.api_key_env,
            "extra_body": dict(self.extra_body),
        }


_ENABLE_THINKING_OFF: Final = {"enable_thinking": False}
_THINKING_DISABLED: Final = {"thinking": {"type": "disabled"}}
_NO_EFFORT: Final = {"reasoning_effort": "none"}
_TEMPLATE_OFF: Final = {"chat_template_kwargs": {"enable_thinking": False}}

PRESETS: Final[Mapping[PresetName, Preset]] = {
    "openai": Preset("OpenAI", "https://api.openai.com/v1", "gpt-4o-mini", "OPENAI_API_KEY"),
    "claude": Preset("Anthropic Claude", "https://api.anthropic.com/v1", "claude-haiku-4-5", "ANTHROPIC_API_KEY"),
    "gemini": Preset(
        "Google Gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "gemini-2.5-flash",
        "GEMINI_API_KEY",
        _NO_EFFORT,
    ),
    "mistral": Preset("Mistral", "https://api.mistral.ai/v1", "mistral-small-latest", "MISTRAL_API_KEY"),
    "groq": Preset("Groq", "https://api.groq.com/openai/v1", "llama-3.3-70b-versatile", "GROQ_API_KEY"),
    "openrouter": Preset("OpenRouter", "https://openrouter.ai/api/v1", "openai/gpt-4o-mini", "OPENROUTER_API_KEY"),
    "qwen": Preset(
        "Qwen, Alibaba Cloud 百炼",
        "https://dashscope.aliyuncs.com/compatible-mode/v1",
        "qwen-plus",
        "DASHSCOPE_API_KEY",
        _ENABLE_THINKING_OFF,
    ),
    "qwen-intl": Preset(
        "Qwen, Alibaba Cloud outside China",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "qwen-plus",
        "DASHSCOPE_API_KEY",
        _ENABLE_THINKING_OFF,
    ),
    "deepseek": Preset("DeepSeek", "https://api.deepseek.com/v1", "deepseek-chat", "DEEPSEEK_API_KEY"),
    "zhipu": Preset(
        "Zhipu 智谱", "https://open.bigmodel.cn/api/paas/v4", "glm-4.5-flash", "ZHIPU_API_KEY", _THINKING_DISABLED
    ),
    "moonshot": Preset("Moonshot Kimi", "https://api.moonshot.cn/v1", "moonshot-v1-8k", "MOONSHOT_API_KEY"),
    "doubao": Preset(
        "Doubao, Volcengine 火山方舟",
        "https://ark.cn-beijing.volces.com/api/v3",
        "doubao-seed-1-6-flash-250828",
        "ARK_API_KEY",
        _THINKING_DISABLED,
    ),
    "baichuan": Preset("Baichuan 百川", "https://api.baichuan-ai.com/v1", "Baichuan4-Turbo", "BAICHUAN_API_KEY"),
    "hunyuan": Preset(
        "Tencent Hunyuan 混元", "https://api.hunyuan.cloud.tencent.com/v1", "hunyuan-turbos-latest", "HUNYUAN_API_KEY"
    ),
    "qianfan": Preset("Baidu 千帆", "https://qianfan.baidubce.com/v2", "ernie-4.5-turbo-128k", "QIANFAN_API_KEY"),
    "minimax": Preset("MiniMax", "https://api.minimaxi.com/v1", "MiniMax-Text-01", "MINIMAX_API_KEY"),
    "stepfun": Preset("StepFun 阶跃星辰", "https://api.stepfun.com/v1", "step-2-mini", "STEPFUN_API_KEY"),
    "siliconflow": Preset(
        "SiliconFlow 硅基流动",
        "https://api.siliconflow.cn/v1",
        "Qwen/Qwen3-8B",
        "SILICONFLOW_API_KEY",
        _ENABLE_THINKING_OFF,
    ),
    "ollama": Preset("Ollama on this machine", "http://127.0.0.1:11434/v1", "qwen2.5:7b", "", _NO_EFFORT),
    "vllm": Preset("vLLM on this machine", "http://127.0.0.1:8000/v1", "Qwen/Qwen2.5-7B-Instruct", "", _TEMPLATE_OFF),
    "lmstudio": Preset("LM Studio on this machine", "http://127.0.0.1:1234/v1", "qwen2.5-7b-instruct"),
    "llamacpp": Preset("llama.cpp on this machine", "http://127.0.0.1:8080/v1", "default", "", _TEMPLATE_OFF),
    "responses": Preset(
        "OpenAI, Responses", "https://api.openai.com/v1", "gpt-4o-mini", "OPENAI_API_KEY", kind="responses"
    ),
    "dify": Preset("Dify", "https://api.dify.ai/v1", "app", "DIFY_API_KEY", kind="dify"),
    "coze": Preset("Coze 扣子", "https://api.coze.cn", "", "COZE_API_TOKEN", kind="coze"),
    "fastgpt": Preset("FastGPT", "https://api.fastgpt.in/api/v1", "app", "FASTGPT_API_KEY", kind="fastgpt"),
    "ragflow": Preset("RAGFlow in this network", "http://127.0.0.1:9380", "", kind="ragflow"),
    "home-assistant": Preset(
        "Home Assistant", "http://homeassistant.local:8123", "conversation.home_assistant", kind="home-assistant"
    ),
}


def with_preset(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of an endpoint as they were given, over those of its preset; its name is the preset's by default."""
    name = values.get("preset")
    if not isinstance(name, str):
        return values
    preset = PRESETS.get(name)  # type: ignore[call-overload]  # any text may stand there
    # Of a preset that does not exist only that should be said, not that its address and model are missing as well.
    known = preset.fields() if preset is not None else {"base_url": "http://unknown", "model": "unknown"}
    return {"name": name or "unknown", **known, **values}


# By the templates that their makers publish: DeepSeek-R1 and what was distilled from it, QwQ, Qwen's models with
# "Thinking" in their names, GLM-Z1, MiniMax-M2. None of them has a switch in its template.
_ALWAYS: Final = re.compile(
    r"deepseek[-_]?r1|\br1[-_]distill|\bqwq\b|qwen.*[-_]thinking|\bglm[-_]z1|\bminimax[-_]m2", re.IGNORECASE
)
# Qwen from 3.5 on, unless it is told not to think.
_SWITCHED: Final = re.compile(r"\bqwen[-_]?3\.[5-9]", re.IGNORECASE)


def begins_in_thought(model: str, extra_body: Mapping[str, Any]) -> bool:
    """Whether the answers of a model may begin in the middle of a thought, going by its name.

    Servers that separate the thoughts, and hosted services do, are told apart by what they send. Pure.

    Args:
        model: as the server calls it, with its owner and its size or without.
        extra_body: what is sent with each request; it may switch thinking off.
    """
    if extra_body.get("reasoning_effort") == "none":  # Ollama then closes the thought in the prompt, of any model
        return False
    if _ALWAYS.search(model):
        return True
    template = extra_body.get("chat_template_kwargs")
    switches = (extra_body, template if isinstance(template, Mapping) else {})
    off = any(switch.get("enable_thinking") is False for switch in switches)
    return not off and _SWITCHED.search(model) is not None
