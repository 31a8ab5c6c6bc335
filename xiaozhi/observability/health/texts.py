"""What an alert says to people, in both languages. Pure."""

from collections.abc import Mapping
from typing import Final

from xiaozhi.observability.health.rules import Alert, AlertName
from xiaozhi.program import program

_TEXTS: Final[Mapping[AlertName, tuple[str, str]]] = {
    "memory": (
        "内存用了 {value}，超过 {threshold}：请减少缓存或设备数量，或增加内存",
        "memory is at {value} of what may be used, above {threshold}: smaller caches, fewer devices or more memory",
    ),
    "cpu": (
        "处理器用了 {value}，超过 {threshold}：请换更小的模型，或把设备分到另一台机器",
        "the processor is at {value}, above {threshold}: a smaller model, or another machine for some devices",
    ),
    "asr_queue": (
        "语音识别排队 {value}，超过 {threshold}：请增加 asr.workers，或换更快的模型",
        "speech waits {value} for a recogniser, above {threshold}: more asr.workers or a faster model",
    ),
    "disk": (
        "数据所在的磁盘用了 {value}，超过 {threshold}：请腾出空间，或调低 cache.disk_mb",
        "the disk of server.data_dir is {value} full, above {threshold}: make room, or lower cache.disk_mb",
    ),
    "errors": (
        "最近有 {value} 的对话失败，超过 {threshold}：请看日志里的原因",
        "{value} of the latest turns failed, above {threshold}: the log says why",
    ),
    "cache_hits": (
        "缓存命中率只有 {value}，低于 {threshold}：缓存可能太小或过期太快",
        "the caches answer only {value}, below {threshold}: they may be too small or forget too soon",
    ),
    "chat_gone": (
        "所有大模型端点都暂停使用：请检查网络、地址和密钥（{program} check）",
        "no endpoint of [llm] can be used now: check the network, addresses and keys ({program} check)",
    ),
    "voices_gone": (
        "所有语音合成引擎都暂停使用：请检查网络和密钥，或在 tts.engines 末尾加上 espeak",
        "no voice can be used now: check the network and keys, or put espeak at the end of tts.engines",
    ),
    "recognition_gone": (
        "远程语音识别暂停使用，正在用本地识别代替：请检查网络、地址和密钥",
        "the remote recogniser cannot be used now, the local one stands in: check the network, address and key",
    ),
}


def text_of(alert: Alert, language: str) -> str:
    """One sentence: what is wrong and what to do; Chinese for `zh`, English for all others."""
    template = _TEXTS[alert.name][0 if language == "zh" else 1]
    value, threshold = _shown(alert.value, alert.unit), _shown(alert.threshold, alert.unit)
    return template.format(value=value, threshold=threshold, program=program())


def _shown(value: float, unit: str) -> str:
    number = f"{value:.0f}" if value >= 10.0 or value == int(value) else f"{value:.1f}"
    return f"{number} {unit}".strip() if unit != "%" else f"{number} %"
