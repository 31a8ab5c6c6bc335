"""What should make somebody look: one table, which the process goes by and Prometheus' rules are written from. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from xiaozhi.program import program
from xiaozhi.settings.operation import AlertsSettings


@dataclass(frozen=True, slots=True)
class Rule:
    """One row.

    Attributes:
        name: of the alert in the process; of its rule in Prometheus it is `title`.
        reading: the field of `HealthReadings` that the process judges by; empty where only Prometheus can.
        setting: of `[alerts]`, the threshold or a switch: 0 and false take the rule out; empty where it always holds.
        unit: of reading and threshold, for people; empty where the reading itself says yes or no.
        zh, en: what is wrong, and what to do. Filled in are `{value}`, `{limit}` and `{program}`; where Prometheus
            alone watches, also the labels of the series.
        expr: PromQL, in which `JOB` is the label of the scrape job, `LIMIT` the threshold (shares and seconds there)
            and `LEAST` the setting that `least` names.
        for_s: how long `expr` has to hold.
        severity: of Prometheus' alert.
        below: little is bad, not much.
    """

    name: str
    reading: str
    setting: str
    unit: Literal["%", "ms", ""]
    zh: tuple[str, str]
    en: tuple[str, str]
    title: str
    expr: str
    for_s: int = 60
    severity: Literal["critical", "warning", "info"] = "warning"
    least: str = ""
    below: bool = False

    def wanted(self, settings: AlertsSettings) -> bool:
        """Whether the settings leave it in."""
        return not self.setting or bool(getattr(settings, self.setting))

    def threshold(self, settings: AlertsSettings) -> float:
        """In `unit`; 0 where there is none."""
        return float(getattr(settings, self.setting)) if self.unit and self.setting else 0.0


_HITS: Final = 'sum by (instance) (rate(xiaozhi_cache_hits_total{JOB,cache="answers"}[1h]))'
_ASKED: Final = f'({_HITS} + sum by (instance) (rate(xiaozhi_cache_misses_total{{JOB,cache="answers"}}[1h])))'
_SEES: Final = "`{program} check` tries it; its provider's status page may know more"
_SEES_ZH: Final = "运行 {program} check 试一下，或查看服务商的状态页"

RULES: Final[Sequence[Rule]] = (
    Rule(
        "memory", "memory_percent", "memory_percent", "%",
        ("内存用了 {value}，超过 {limit}", "请减少缓存或设备数量，或增加内存"),
        ("memory is at {value} of what may be used, above {limit}", "smaller caches, fewer devices or more memory"),
        "XiaozhiMemory", "xiaozhi_memory_ratio{JOB} > LIMIT",
    ),
    Rule(
        "cpu", "cpu_percent", "cpu_percent", "%",
        ("处理器用了 {value}，超过 {limit}", "请换更小的模型，或把设备分到另一台机器"),
        ("the processor is at {value}, above {limit}", "a smaller model, or another machine for some devices"),
        "XiaozhiProcessor", "avg_over_time(xiaozhi_cpu_ratio{JOB}[2m]) > LIMIT",
    ),
    Rule(
        "asr_queue", "asr_wait_ms", "asr_wait_ms", "ms",
        ("语音识别排队 {value}，超过 {limit}", "请增加 asr.workers，或换更快的模型"),
        ("speech waits {value} for a recogniser, above {limit}", "more asr.workers or a faster model"),
        "XiaozhiRecognitionQueue", "max_over_time(xiaozhi_asr_queue_seconds{JOB}[1m]) > LIMIT",
    ),
    Rule(
        "disk", "disk_percent", "disk_percent", "%",
        ("数据所在的磁盘用了 {value}，超过 {limit}", "请腾出空间，或调低 cache.disk_mb"),
        ("the disk of server.data_dir is {value} full, above {limit}", "make room, or lower cache.disk_mb"),
        "XiaozhiDisk", "xiaozhi_disk_ratio{JOB} > LIMIT", for_s=300,
    ),
    Rule(
        "errors", "error_percent", "error_percent", "%",
        ("最近有 {value} 的对话失败，超过 {limit}", "请看日志里的原因"),
        ("{value} of the latest turns failed, above {limit}", "the log says why"),
        "XiaozhiErrors",
        'sum by (instance) (rate(xiaozhi_turns_total{JOB,outcome=~"failed|unheard"}[5m])) '
        "/ sum by (instance) (rate(xiaozhi_turns_total{JOB}[5m])) > LIMIT "
        "and sum by (instance) (increase(xiaozhi_turns_total{JOB}[5m])) >= LEAST",
        severity="critical", least="error_least_turns",
    ),
    Rule(
        "cache_hits", "cache_hit_percent", "cache_hit_percent", "%",
        ("缓存命中率只有 {value}，低于 {limit}", "缓存可能太小或过期太快"),
        ("the caches answer only {value}, below {limit}", "they may be too small or forget too soon"),
        "XiaozhiCacheMisses", f"{_HITS} / {_ASKED} < LIMIT and 3600 * {_ASKED} >= LEAST",
        for_s=1800, severity="info", least="cache_least_lookups", below=True,
    ),
    Rule(
        "chat_gone", "chat_gone", "upstreams", "",
        ("所有大模型端点都暂停使用", "请检查网络、地址和密钥（{program} check）"),
        ("no endpoint of [llm] can be used now", "check the network, addresses and keys ({program} check)"),
        "XiaozhiNoEndpoint", 'max by (instance) (xiaozhi_endpoint_breaker{JOB,state="closed"}) == 0',
        for_s=30, severity="critical",
    ),
    Rule(
        "voices_gone", "voices_gone", "upstreams", "",
        ("所有语音合成引擎都暂停使用", "请检查网络和密钥，或在 tts.engines 末尾加上 espeak"),
        ("no voice can be used now", "check the network and keys, or put espeak at the end of tts.engines"),
        "XiaozhiNoVoice", 'max by (instance) (xiaozhi_voice_breaker{JOB,state="closed"}) == 0',
        for_s=30, severity="critical",
    ),
    Rule(
        "recognition_gone", "recognition_gone", "upstreams", "",
        ("远程语音识别暂停使用，正在用本地识别代替", "请检查网络、地址和密钥"),
        ("the remote recogniser cannot be used now, the local one stands in", "check the network, address and key"),
        "XiaozhiNoRecognition", 'xiaozhi_alert{JOB,name="recognition_gone"} == 1',
    ),
    Rule(
        "down", "", "", "",
        ("服务无响应", "进程已退出或卡住：systemctl status xiaozhi，journalctl -u xiaozhi"),
        ("no answer", "the process is gone or its loop stands still: systemctl status xiaozhi, journalctl -u xiaozhi"),
        "XiaozhiDown", "up{JOB} == 0", severity="critical",
    ),
    Rule(
        "slow", "", "", "ms",
        ("二十次回答里有一次首音要等 {value}", "仪表盘显示时间用在哪一步：识别、首词、首音还是排队"),
        ("one answer in twenty begins only after {value}", "the dashboard shows which stage takes the time: "
         "recognition, first word, first sound, or waiting"),
        "XiaozhiSlow",
        "histogram_quantile(0.95, sum by (instance, le) (rate(xiaozhi_pipeline_seconds_bucket{JOB}[5m]))) > 1.5",
        for_s=300,
    ),
    Rule(
        "endpoint_rests", "", "upstreams", "",
        ("上游 {endpoint} 多次失败，暂停使用", _SEES_ZH), ("the endpoint {endpoint} rests after failures", _SEES),
        "XiaozhiEndpointRests", 'max by (instance, endpoint) (xiaozhi_endpoint_breaker{JOB,state="open"}) == 1',
    ),
    Rule(
        "voice_rests", "", "upstreams", "",
        ("语音 {voice} 多次失败，暂停使用", _SEES_ZH), ("the voice {voice} rests after failures", _SEES),
        "XiaozhiVoiceRests", 'max by (instance, voice) (xiaozhi_voice_breaker{JOB,state="open"}) == 1',
    ),
    Rule(
        "shedding", "", "", "",
        ("因负载降级：{step}（见 [load]）", "这台机器的负载超过它的能力"),
        ("given up because of load: {step} (see [load])", "the box is too small for what it is asked to do"),
        "XiaozhiShedding", "max by (instance, step) (xiaozhi_degraded{JOB}) == 1", for_s=300,
    ),
    Rule(
        "refuses_devices", "", "", "",
        ("拒绝设备连接", "请增加节点；内存和识别有余量时可调高 server.max_devices"),
        ("devices are turned away", "add a node, or raise server.max_devices where memory and recognition allow"),
        "XiaozhiRefusesDevices", "increase(xiaozhi_devices_refused_total{JOB}[5m]) > 0",
    ),
    Rule(
        "no_devices", "", "", "",
        ("没有设备在线，而一小时内有过", "请检查域名解析、证书和前端，可运行 {program} talk --say hello"),
        ("no device is online, and there were some within the hour", "is the name still resolved, the certificate "
         "valid, the front up? Try: {program} talk --say hello"),
        "XiaozhiNoDevices",
        "sum(xiaozhi_devices_online{JOB}) == 0 and sum(max_over_time(xiaozhi_devices_online{JOB}[1h])) > 2",
        for_s=600,
    ),
    Rule(
        "standstill", "", "", "ms",
        ("事件循环停顿 {value}", "日志会指出是哪段代码（load.blame_ms）；否则就是机器超负荷"),
        ("the event loop stands still for {value}", "the log names the code (load.blame_ms); otherwise the machine is "
         "overbooked"),
        "XiaozhiStandstill", "max_over_time(xiaozhi_loop_lag_seconds{JOB}[1m]) > 0.25", for_s=120,
    ),
)  # fmt: skip
"""Every rule; those without a reading are Prometheus' alone."""

WATCHED: Final = tuple(rule for rule in RULES if rule.reading)
"""What the process itself watches."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something is wrong.

    Attributes:
        rule: what is.
        value, threshold: the newest reading and what it is compared with; 1 and 0 for yes-or-no ones.
        since_s: when it was raised, on the clock of whoever asks the rules.
    """

    rule: Rule
    value: float
    threshold: float
    since_s: float

    def text(self, language: str) -> str:
        """What is wrong and what to do, in one sentence; Chinese for `zh`, English for all others."""
        what, do = self.rule.zh if language == "zh" else self.rule.en
        template = f"{what}：{do}" if language == "zh" else f"{what}: {do}"
        shown = {"value": shown_value(self.value, self.rule.unit), "limit": shown_value(self.threshold, self.rule.unit)}
        return template.format(program=program(), **shown)


def shown_value(value: float, unit: str) -> str:
    """A number with its unit, for people: few digits."""
    number = f"{value:.0f}" if value >= 10.0 or value == int(value) else f"{value:.1f}"
    return f"{number} {unit}".strip()
