"""`[log]`, `[models]`, `[load]`, `[metrics]`, `[alerts]`, `[tracing]`: running the process."""

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, SecretStr, field_validator

from xiaozhi.settings.pasted import Address
from xiaozhi.settings.section import Networks, OnRestart, Section

Mirror: TypeAlias = Literal["github", "huggingface", "hf-mirror", "modelscope", "tuna"]
"""Who publishes models, or copies of them. `tuna` has none any more and stands in older settings files."""


class LogSettings(Section, applies="next turn"):
    """Log: what is written to standard error. zh: 日志：写到标准错误的内容。"""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """What is written: "info" has one short line per turn, about 40 MB a day for a hundred devices that are spoken to
    three times a minute; "debug" has everything that is known of a turn. What repeats is told once a minute.
    zh: 日志级别。info 每轮对话写短短一行（一百台设备、每分钟三轮，一天约 40 MB）；debug 写出一轮对话的全部细节。重复
    的内容每分钟只写一次。"""
    format: OnRestart[Literal["text", "json"]] = "text"
    """For people "text", for machines "json". zh: text 给人看，json 给程序看。"""
    transcripts: bool = False
    """Whether what was said and answered is written into the log. Off, it appears at level "debug" only.
    zh: 是否把听到和回答的文字写进日志。关闭时只在 debug 级别出现。"""


class ModelsSettings(Section, applies="restart"):
    """Local models: where models lie and whence they are fetched. zh: 本地模型：模型放在哪里，从哪里下载。"""

    dir: Path = Path("models")
    """Folder of the models that `xiaozhi models pull` fetches, each in its own sub-folder.
    zh: `xiaozhi models pull` 下载的模型所在的文件夹，每个模型一个子文件夹。"""
    auto_pull: bool = True
    """With asr.engine = "auto" and no model there, `xiaozhi serve` fetches SenseVoice (230 MB) while it serves with
    what is embedded, and takes it over when it is complete. Offline it says so once and tries again later.
    zh: asr.engine 为 auto 而又没有模型时，先用内置的开始服务，同时在后台下载 SenseVoice（230 MB）。下载完整后立即换上，
    不用重启。没有网络时说一声，过一段时间再试。"""
    mirrors: tuple[Mirror, ...] = ("github", "huggingface", "hf-mirror", "modelscope")
    """Where to fetch from, in this order. One that is slow is left for a quicker one; "hf-mirror" and "modelscope" can
    be reached from mainland China.
    zh: 下载来源，按这里的顺序尝试，太慢的会换成更快的。“hf-mirror”和“modelscope”（魔搭）在中国大陆可以访问。"""
    connect_timeout_s: float = Field(5.0, gt=0, le=60)
    """Time for one mirror to answer. zh: 等待一个下载源响应的时间（秒）。"""


class MetricsSettings(Section, applies="restart"):
    """Metrics: figures for Prometheus at /metrics. zh: 指标：在 /metrics 提供给 Prometheus 的数字。"""

    enabled: bool = True
    """Figures for Prometheus at /metrics on the port of the devices.
    zh: 在设备端口的 /metrics 提供 Prometheus 指标。"""
    allow: Networks = ("127.0.0.0/8", "::1", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")
    """Networks that may read them; whoever shows the token ("Authorization: Bearer …") may as well.
    zh: 可以读取指标的网段。"""
    token: SecretStr = SecretStr("")
    """zh: 出示这个令牌（“Authorization: Bearer …”）的也可以读取。"""


class LoadStep(Section):
    """From which readings on something is given up; 0 never."""

    asr_wait_ms: float = Field(0, ge=0, le=600_000)
    """Age of the oldest utterance that waits for recognition.
    zh: 识别排队超过这么久（毫秒）时放弃；0 表示不看这一项。"""
    codec_wait_ms: float = Field(0, ge=0, le=600_000)
    """How long speech has waited to be encoded that is needed within a second.
    zh: 一秒内就要用的声音等待编码超过这么久（毫秒）时放弃；0 表示不看这一项。"""
    codec_percent: float = Field(0, ge=0, le=100)
    """What encoding all replies of the moment takes of all cores at audio.complexity, as measured at start.
    zh: 按启动时实测的开销，以 audio.complexity 编码当前所有回答要占全部核的这个百分比时放弃；0 表示不看这一项。"""
    loop_lag_ms: float = Field(0, ge=0, le=600_000)
    """Second longest standstill of the process within two seconds (one alone is no load).
    zh: 事件循环延迟超过这么久（毫秒）时放弃；0 表示不看这一项。"""
    memory_percent: float = Field(0, ge=0, le=100)
    """Memory of the process in percent of what it may use (its service's, container's or machine's).
    zh: 内存用到这个百分比时放弃；0 表示不看这一项。"""


class LoadSettings(Section, applies="next turn"):
    """Under load: what is given up, and when.

    What is missed least is given up first, and everything comes back by itself. Each step, [load.extras] to
    [load.devices], begins when one reading reaches its threshold; 0 leaves that reading out.

    zh: 过载保护：负载高时放弃什么、什么时候放弃。先放弃最不要紧的，都会自动恢复，每一步都写进日志。
    """

    shed: bool = True
    """What is given up when the box is too small for the moment, the least missed first; everything comes back by
    itself. Each step is said in the log. Off: nothing is given up, everything becomes slow.
    zh: 机器一时忙不过来时自动放弃一些东西。关闭则什么都不放弃，但一切都会变慢。"""
    check_ms: int = Field(100, ge=20, le=5000)
    """The load is read this often; a step is taken back after recover_s without need.
    zh: 每隔这么久（毫秒）看一次负载。"""
    recover_s: float = Field(5.0, ge=0, le=600)
    """zh: 平静这么久（秒）后恢复一步。"""
    blame_ms: OnRestart[int] = Field(50, ge=0, le=10_000)
    """When the event loop stands still for longer, the log says which code it was. 0 never.
    zh: 事件循环停顿超过这么久（毫秒），就在日志里指出是哪段代码。0 表示不指出。"""
    quality_bitrate_bps: int = Field(16_000, ge=6_000, le=128_000)
    """Opus while quality is given up: bitrate and complexity. zh: 降低音质时的 Opus 码率（比特每秒）。"""
    quality_complexity: int = Field(0, ge=0, le=10)
    """zh: 降低音质时的 Opus 编码计算量，0 到 10。"""
    turns_at_once: int = Field(8, ge=1, le=1000)
    """While turns have to wait: so many are on their way to their first sound at once, the others are asked for a
    moment's patience and wait for turn_wait_s at most.
    zh: 需要排队时，同时最多有这么多轮在准备第一个声音，其余的会听到“请稍等”。"""
    turn_wait_s: float = Field(15.0, ge=0.5, le=120)
    """zh: 排队最多等这么久（秒）。"""
    retry_after_s: int = Field(30, ge=1, le=3600)
    """Devices that are refused are asked to come back after this time. zh: 被拒绝的设备过这么久（秒）再来。"""
    extras: LoadStep = LoadStep(asr_wait_ms=150, loop_lag_ms=40)
    """Extras given up: partial texts. zh: 先放弃 · 附加计算：边说边显示的文字。"""
    second_pass: LoadStep = LoadStep(asr_wait_ms=300, loop_lag_ms=80)
    """The second pass given up: with asr.engine "two-pass" the answer is to what the zipformer has heard.
    zh: 再放弃 · 第二遍识别：asr.engine 为 two-pass 时，按 zipformer 听到的回答。"""
    speculation: LoadStep = LoadStep(asr_wait_ms=1000, loop_lag_ms=150)
    """Speculation given up: replies prepared before a turn is over. Answers come later, with less work.
    zh: 再放弃 · 抢先回答：话没说完就先准备回答：放弃后回答会晚一些，但工作量少。"""
    quality: LoadStep = LoadStep(codec_wait_ms=60, codec_percent=20, loop_lag_ms=60)
    """Quality of sound given up: effort and bitrate. zh: 再放弃 · 音质：声音的编码计算量和码率。"""
    hedging: LoadStep = LoadStep(asr_wait_ms=1000, loop_lag_ms=100)
    """Second requests given up: to language models that are late.
    zh: 再放弃 · 抢答请求：向第二个语言模型多问的请求。"""
    turns: LoadStep = LoadStep(asr_wait_ms=2500, codec_wait_ms=200, loop_lag_ms=300, memory_percent=90)
    """Answering at once given up: turns wait for their place, and nothing is decoded before it is asked for.
    zh: 再放弃 · 立即回答：放弃后要排队，也不再提前识别。"""
    devices: LoadStep = LoadStep(asr_wait_ms=4000, codec_wait_ms=1000, loop_lag_ms=600, memory_percent=85)
    """New devices given up: they are answered HTTP 503 with Retry-After.
    zh: 最后 · 拒绝新设备：返回 HTTP 503 和 Retry-After。"""


class AlertsSettings(Section, applies="next turn"):
    """Alerts: from which readings on an alert is raised; 0 never. zh: 告警：读数到多少时发出告警；0 表示从不。"""

    enabled: bool = True
    """When somebody should look: on the console, in the log, as the metric xiaozhi_alert, and at the webhook. Readings
    are taken every check_s; an alert is raised when they have been bad for after_s, and taken back when they have been
    well for clear_s, below 90 % of the threshold.
    zh: 需要有人看一眼的时候：显示在控制台、日志、指标 xiaozhi_alert 里，并发给 webhook。"""
    check_s: float = Field(5.0, ge=0.5, le=300)
    """zh: 每隔这么久（秒）检查一次。"""
    after_s: float = Field(15.0, ge=0, le=3600)
    """zh: 持续不好这么久（秒）才告警。"""
    clear_s: float = Field(30.0, ge=0, le=3600)
    """zh: 低于阈值的 90 % 这么久（秒）才解除。"""
    memory_percent: float = Field(85, ge=0, le=100)
    """Memory in percent of what the process may use. This and the following are thresholds; 0 never.
    zh: 内存用到进程可用量的这个百分比。"""
    cpu_percent: float = Field(80, ge=0, le=100)
    """All cores the process may use, in percent. zh: 处理器用到进程可用的所有核的这个百分比。"""
    asr_wait_ms: float = Field(500, ge=0, le=600_000)
    """Age of the oldest utterance that waits for a recogniser. zh: 排队最久的那句话等识别的时间（毫秒）。"""
    disk_percent: float = Field(95, ge=0, le=100)
    """What is used of the disk that server.data_dir lies on, in percent. zh: server.data_dir 所在磁盘用到的百分比。"""
    error_percent: float = Field(2, ge=0, le=100)
    """Turns that failed, in percent, within the last error_window_s, once there were error_least_turns.
    zh: 失败的对话占的百分比。"""
    error_window_s: float = Field(300, ge=10, le=86_400)
    """zh: 按最近这么久（秒）统计失败。"""
    error_least_turns: int = Field(20, ge=1, le=100_000)
    """zh: 至少有这么多轮对话才统计。"""
    cache_hit_percent: float = Field(10, ge=0, le=100)
    """Hits of the caches of answers and speech in percent: an alert below this, once they were asked so often.
    zh: 回答和语音缓存的命中率低于这个百分比。"""
    cache_least_lookups: int = Field(1000, ge=1, le=10_000_000)
    """zh: 至少查过这么多次缓存才统计。"""
    upstreams: bool = True
    """Also when no endpoint of [llm], no voice, or not the remote recogniser can be used.
    zh: 没有可用的 [llm] 端点、没有可用的声音，或远程识别不可用时，也告警。"""
    webhook: SecretStr = SecretStr("")
    """Alerts are sent here as JSON by POST, when they are raised and when they are over. Empty sends nothing; the
    address is treated as a secret.
    zh: 告警发出和解除时，以 JSON POST 到这个地址。留空则不发；地址按机密处理。"""
    webhook_timeout_s: float = Field(5.0, ge=0.5, le=60)
    """zh: 每次发送的时间（秒）。"""
    webhook_attempts: int = Field(3, ge=1, le=10)
    """zh: 最多发送几次。"""

    @field_validator("webhook")
    @classmethod
    def _http(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value() and not url.get_secret_value().startswith(("http://", "https://")):
            raise ValueError('must begin with "http://" or "https://"')
        return url


class TracingSettings(Section, applies="restart"):
    """Traces: where spans of finished turns go; needs the extra `xiaozhi[otel]`.

    zh: 链路跟踪：把完成的每轮对话作为跟踪数据发出去；需要 pip install 'xiaozhi[otel]'。
    """

    enabled: bool = False
    """Every finished turn as OpenTelemetry spans, sent by OTLP over HTTP. Needs: pip install 'xiaozhi[otel]'.
    zh: 把完成的每轮对话作为 OpenTelemetry span，用 OTLP/HTTP 发出去。"""
    endpoint: Address = Field("http://127.0.0.1:4318/v1/traces", min_length=1)
    """zh: 接收方的地址。"""
    headers: dict[str, SecretStr] = Field(default_factory=dict, max_length=20)
    """Sent along, for example { Authorization = "Bearer …" }.
    zh: 一起发送的请求头，最多 20 个，例如 { Authorization = "Bearer …" }。"""
    service_name: str = Field("xiaozhi", min_length=1, max_length=100)
    """How this server is called where the traces are shown. zh: 在跟踪系统里显示的服务名。"""
    timeout_s: float = Field(5.0, ge=0.5, le=60)
    """Time for sending a batch of turns. zh: 发送一批的时间（秒）。"""
