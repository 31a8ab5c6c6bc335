"""Alert rules for Prometheus with the thresholds of the settings."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from xiaozhi.deploy.facts import Plan


@dataclass(frozen=True, slots=True)
class _Rule:
    """One alert: its expression, how long it must hold, how bad it is, and what to say in English and Chinese."""

    name: str
    why: str
    expr: str
    hold: str
    severity: str
    summary: str
    zh: str
    do: str


_HEAD = """\
# Alerts of the XiaoZhi server for Prometheus, thresholds from [alerts] of the settings.
#
#   xiaozhi deploy prometheus --out /etc/prometheus/xiaozhi-rules.yml        check it:  promtool check rules FILE
#
# and in prometheus.yml:
#
#   rule_files: ["/etc/prometheus/xiaozhi-rules.yml"]
#   scrape_configs:
#     - job_name: {job}
#       scheme: {scheme}
#       static_configs: [{{ targets: {targets} }}]
#       # authorization: {{ credentials: "the metrics.token of the settings" }}      outside of metrics.allow

groups:
  - name: xiaozhi
    rules:
"""


def rules(plan: Plan) -> str:
    """The rules file."""
    job = plan.extra.get("job") or "xiaozhi"
    targets = list(plan.nodes) or [f"127.0.0.1:{plan.port}"]
    parts = [
        _HEAD.format(job=job, scheme="https" if plan.node_speaks_tls else "http", targets=json.dumps(targets)),
    ]
    for rule in _rules(plan, f'job="{job}"'):
        parts.append(
            f"      # {rule.why}\n"
            f"      - alert: {rule.name}\n"
            f"        expr: |-\n          {rule.expr}\n"
            f"        for: {rule.hold}\n"
            f"        labels:\n          severity: {rule.severity}\n"
            "        annotations:\n"
            f"          summary: {_quoted(rule.summary)}\n"
            f"          summary_zh: {_quoted(rule.zh)}\n"
            f"          description: {_quoted(rule.do)}\n"
        )
    return "".join(parts)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _rules(plan: Plan, at: str) -> Iterator[_Rule]:
    alerts = plan.settings.alerts
    who = "{{ $labels.instance }}"
    percent = "{{ $value | humanizePercentage }}"
    seconds = "{{ $value | humanizeDuration }}"
    yield _Rule(
        "XiaozhiDown", "Nobody answers the scrape.", f"up{{{at}}} == 0", "1m", "critical",
        f"{who} does not answer", f"{who} 无响应",
        "The process is gone or its loop stands still: systemctl status xiaozhi, journalctl -u xiaozhi.",
    )  # fmt: skip
    if alerts.memory_percent:
        yield _Rule(
            "XiaozhiMemory", "From load.devices on, new devices are refused.",
            f"xiaozhi_memory_ratio{{{at}}} > {alerts.memory_percent / 100:g}", "1m", "warning",
            f"{who} uses {percent} of its memory", f"{who} 内存使用率 {percent}",
            "Raise the limit (MemoryMax), lower server.max_devices or the cache sizes, or add a node.",
        )  # fmt: skip
    if alerts.cpu_percent:
        yield _Rule(
            "XiaozhiProcessor", "Of all cores that it may use.",
            f"avg_over_time(xiaozhi_cpu_ratio{{{at}}}[2m]) > {alerts.cpu_percent / 100:g}", "1m", "warning",
            f"{who} uses {percent} of its cores", f"{who} CPU 使用率 {percent}",
            "Add a node or cores; audio.complexity and load.extras spare some.",
        )  # fmt: skip
    if alerts.asr_wait_ms:
        yield _Rule(
            "XiaozhiRecognitionQueue", "People wait so much longer for every answer.",
            f"max_over_time(xiaozhi_asr_queue_seconds{{{at}}}[1m]) > {alerts.asr_wait_ms / 1000:g}", "1m", "warning",
            f"{who}: speech waits {seconds} for recognition", f"{who} 语音识别排队 {seconds}",
            "More asr.workers where cores are free, otherwise another node.",
        )  # fmt: skip
    if alerts.error_percent:
        yield _Rule(
            "XiaozhiErrors", "Turns that ended with an apology or with nothing.",
            f'sum by (instance) (rate(xiaozhi_turns_total{{{at},outcome=~"failed|unheard"}}[5m]))'
            f" / sum by (instance) (rate(xiaozhi_turns_total{{{at}}}[5m])) > {alerts.error_percent / 100:g}"
            f" and sum by (instance) (increase(xiaozhi_turns_total{{{at}}}[5m])) >= {alerts.error_least_turns}",
            "1m", "critical",
            f"{who}: {percent} of the turns fail", f"{who} 对话失败率 {percent}",
            "The log says why; `xiaozhi check` tries every upstream.",
        )  # fmt: skip
    if alerts.cache_hit_percent:
        hits = f'sum by (instance) (rate(xiaozhi_cache_hits_total{{{at},cache="answers"}}[1h]))'
        misses = f'sum by (instance) (rate(xiaozhi_cache_misses_total{{{at},cache="answers"}}[1h]))'
        yield _Rule(
            "XiaozhiCacheMisses", "Many questions that repeat should be answered without a model.",
            f"{hits} / ({hits} + {misses}) < {alerts.cache_hit_percent / 100:g}"
            f" and 3600 * ({hits} + {misses}) >= {alerts.cache_least_lookups}",
            "30m", "info",
            f"{who}: only {percent} of the answers come from the cache", f"{who} 缓存命中率仅 {percent}",
            "See [cache]: answers, similarity, preload.",
        )  # fmt: skip
    if alerts.disk_percent:
        yield _Rule(
            "XiaozhiDisk", "The disk of server.data_dir.",
            f"xiaozhi_disk_ratio{{{at}}} > {alerts.disk_percent / 100:g}", "5m", "warning",
            f"{who}: the disk of the data folder is {percent} full", f"{who} 数据盘使用率 {percent}",
            "Lower cache.disk_mb or store.keep_days, or make room.",
        )  # fmt: skip
    yield _Rule(
        "XiaozhiSlow", "From the last word of a person to the first sound of the answer.",
        f"histogram_quantile(0.95, sum by (instance, le) (rate(xiaozhi_pipeline_seconds_bucket{{{at}}}[5m]))) > 1.5",
        "5m", "warning",
        f"{who}: one answer in twenty begins after {seconds}", f"{who} 首音延迟 p95 为 {seconds}",
        "The dashboard shows which stage takes the time: recognition, first word, first sound, or waiting.",
    )  # fmt: skip
    yield from _upstream_rules(at, who)
    yield _Rule(
        "XiaozhiShedding", "Something is given up because of load; see [load].",
        f"max by (instance, step) (xiaozhi_degraded{{{at}}}) == 1", "5m", "warning",
        f"{who} has given up: {{{{ $labels.step }}}}", f"{who} 因负载降级：{{{{ $labels.step }}}}",
        "The box is too small for what it is asked to do.",
    )  # fmt: skip
    yield _Rule(
        "XiaozhiRefusesDevices", "server.max_devices or load.devices.",
        f"increase(xiaozhi_devices_refused_total{{{at}}}[5m]) > 0", "1m", "warning",
        f"{who} turns devices away", f"{who} 拒绝设备连接",
        "Add a node, or raise server.max_devices where memory and recognition allow.",
    )  # fmt: skip
    yield _Rule(
        "XiaozhiNoDevices", "There were devices an hour ago, and now there is none.",
        f"sum(xiaozhi_devices_online{{{at}}}) == 0 and sum(max_over_time(xiaozhi_devices_online{{{at}}}[1h])) > 2",
        "10m", "warning",
        "No device is online", "没有设备在线",
        "Is the name still resolved, the certificate valid, the front up? Try: xiaozhi talk --say hello.",
    )  # fmt: skip
    yield _Rule(
        "XiaozhiStandstill", "Everybody's sound stops for so long.",
        f"max_over_time(xiaozhi_loop_lag_seconds{{{at}}}[1m]) > 0.25", "2m", "warning",
        f"{who}: the event loop stands still for {seconds}", f"{who} 事件循环停顿 {seconds}",
        "The log names the code (load.blame_ms); otherwise the machine is overbooked.",
    )  # fmt: skip


def _upstream_rules(at: str, who: str) -> Iterator[_Rule]:
    for kind, name, zh in (("endpoint", "endpoint", "上游"), ("voice", "voice", "语音")):
        named = f"{{{{ $labels.{kind} }}}}"
        yield _Rule(
            f"Xiaozhi{kind.title()}Rests", "It is left alone after failures; others answer meanwhile, if there are.",
            f'max by (instance, {kind}) (xiaozhi_{kind}_breaker{{{at},state="open"}}) == 1', "1m", "warning",
            f"{who}: the {name} {named} rests after failures", f"{who} {zh} {named} 已熔断",
            "`xiaozhi check` tries it; its provider's status page may know more.",
        )  # fmt: skip
    for kind, name, zh in (("endpoint", "endpoint", "所有上游"), ("voice", "voice", "所有语音")):
        yield _Rule(
            f"XiaozhiNo{kind.title()}", "Nothing is left that could answer as it should.",
            f'max by (instance) (xiaozhi_{kind}_breaker{{{at},state="closed"}}) == 0', "30s", "critical",
            f"{who}: every {name} rests after failures", f"{who} {zh}已熔断",
            "`xiaozhi check` tries them; is the uplink there?",
        )  # fmt: skip
