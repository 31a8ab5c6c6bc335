"""A dashboard for Grafana, from what people feel down to the machine."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from xiaozhi.deploy.facts import Plan

_WIDTH: Final = 24  # of Grafana's grid
_AT: Final = 'job=~"$job",instance=~"$instance"'
_FAILED: Final = ',outcome=~"failed|unheard"'
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True, slots=True)
class _Line:
    """One query and how it is named; `{{label}}` is filled in by Grafana."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class _Panel:
    """One picture.

    Attributes:
        kind: `stat`, `timeseries`, `heatmap` or `bargauge`.
        unit: one of Grafana's, such as `s`, `percentunit`, `short`.
        steps: thresholds as (from, colour).
        stacked: lines add up.
    """

    title: str
    lines: Sequence[_Line]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    steps: Sequence[tuple[float | None, str]] = ()
    text: str = ""
    stacked: bool = False


def _rate(metric: str, by: str = "", more: str = "") -> str:
    inside = f"rate({metric}{{{_AT}{more}}}[$__rate_interval])"
    return f"sum by ({by}) ({inside})" if by else f"sum({inside})"


def _quantile(share: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{{_AT}}}[$__rate_interval])))"


def _quantiles(metric: str) -> list[_Line]:
    return [_Line(_quantile(share, metric), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)]


def _rows(plan: Plan) -> Iterator[tuple[str, list[_Panel]]]:
    alerts = plan.settings.alerts
    good_bad = [(None, "green"), (1.0, "orange"), (1.5, "red")]
    yield "Now · 概览", [
        _Panel(
            "Devices online · 在线设备", [_Line(f"sum(xiaozhi_devices_online{{{_AT}}})")], "stat", width=4, height=4
        ),
        _Panel("Turns a minute · 每分钟对话", [_Line(f"60 * {_rate('xiaozhi_turns_total')}")], "stat", "short", 4, 4),
        _Panel(
            "First sound, p95 · 首音延迟", [_Line(_quantile(0.95, "xiaozhi_pipeline_seconds"))], "stat", "s", 4, 4,
            good_bad, "From the last word of a person to the first sound of the answer.",
        ),
        _Panel(
            "Failed turns · 失败率",
            [_Line(f"{_rate('xiaozhi_turns_total', more=_FAILED)} / {_rate('xiaozhi_turns_total')}")],
            "stat", "percentunit", 4, 4,
            [(None, "green"), (alerts.error_percent / 200, "orange"), (alerts.error_percent / 100, "red")],
        ),
        _Panel(
            "Recognition queue · 识别排队", [_Line(f"max(xiaozhi_asr_queue_seconds{{{_AT}}})")], "stat", "s", 4, 4,
            [(None, "green"), (alerts.asr_wait_ms / 2000, "orange"), (alerts.asr_wait_ms / 1000, "red")],
        ),
        _Panel(
            "Given up under load · 降级", [_Line(f"sum(xiaozhi_degraded{{{_AT}}})")], "stat", "short", 4, 4,
            [(None, "green"), (1.0, "orange"), (3.0, "red")],
        ),
    ]  # fmt: skip
    yield "What people feel · 体验", [
        _Panel("First sound · 首音延迟", _quantiles("xiaozhi_pipeline_seconds"), unit="s", width=12,
               text="From the last voiced sample to the first audio packet."),
        _Panel(
            "Where the time goes, p50 · 各阶段耗时",
            [_Line(_quantile(0.5, "xiaozhi_turn_span_seconds", "span"), "{{span}}")], unit="s", width=12,
            text="From the last voiced sample to each point of a turn.",
        ),
        _Panel("Turns by outcome · 对话结果", [_Line(_rate("xiaozhi_turns_total", "outcome"), "{{outcome}}")],
               unit="reqps", stacked=True),
        _Panel("Speech gaps · 播放卡顿", [
            _Line(_rate("xiaozhi_starved_turns_total"), "replies with a gap"),
            _Line(_rate("xiaozhi_starved_seconds_total"), "seconds of gaps a second"),
        ]),
        _Panel("Distribution of the first sound · 延迟分布",
               [_Line(f"sum by (le) (increase(xiaozhi_pipeline_seconds_bucket{{{_AT}}}[$__rate_interval]))", "{{le}}")],
               "heatmap", "s"),
    ]  # fmt: skip
    yield "Stages · 阶段", [
        _Panel("Recognition · 语音识别", [
            _Line(_quantile(0.5, "xiaozhi_recognition_seconds", "engine"), "{{engine}} p50"),
            _Line(_quantile(0.95, "xiaozhi_recognition_seconds", "engine"), "{{engine}} p95"),
        ], unit="s"),
        _Panel("First word of the model · 首字延迟", [
            _Line(_quantile(0.5, "xiaozhi_first_token_seconds", "endpoint"), "{{endpoint}} p50"),
            _Line(_quantile(0.95, "xiaozhi_first_token_seconds", "endpoint"), "{{endpoint}} p95"),
        ], unit="s"),
        _Panel("First sound of the voice · 语音合成", [
            _Line(_quantile(0.5, "xiaozhi_first_speech_seconds", "voice"), "{{voice}} p50"),
            _Line(_quantile(0.95, "xiaozhi_first_speech_seconds", "voice"), "{{voice}} p95"),
        ], unit="s"),
        _Panel("Answers without a model · 缓存命中", [
            _Line(f"{_rate('xiaozhi_cached_answers_total', 'how')} / scalar({_rate('xiaozhi_turns_total')})", "{{how}}")
        ], unit="percentunit", stacked=True),
        _Panel("Replies prepared ahead · 预先生成", [
            _Line(_rate("xiaozhi_speculations_committed_total"), "spoken"),
            _Line(_rate("xiaozhi_speculations_wasted_total"), "dropped unheard"),
        ], unit="ops", stacked=True),
        _Panel("Resting after failures · 熔断", [
            _Line(f'max by (endpoint) (xiaozhi_endpoint_breaker{{{_AT},state="open"}})', "{{endpoint}}"),
            _Line(f'max by (voice) (xiaozhi_voice_breaker{{{_AT},state="open"}})', "{{voice}}"),
        ]),
        _Panel("Requests to endpoints · 上游请求", [
            _Line(_rate("xiaozhi_endpoint_requests_total", "endpoint"), "{{endpoint}}"),
            _Line(_rate("xiaozhi_endpoint_failures_total", "endpoint, kind"), "{{endpoint}} {{kind}}"),
        ], unit="reqps"),
        _Panel("Cache hits · 缓存命中率", [
            _Line(f"{_rate('xiaozhi_cache_hits_total', 'cache')} / ({_rate('xiaozhi_cache_hits_total', 'cache')}"
                  f" + {_rate('xiaozhi_cache_misses_total', 'cache')})", "{{cache}}"),
        ], unit="percentunit"),
        _Panel("Tools · 工具调用", [
            _Line(_rate("xiaozhi_tool_calls_total"), "calls"),
            _Line(_rate("xiaozhi_tool_failures_total", "why"), "{{why}}"),
        ], unit="ops"),
        _Panel("Memory · 长期记忆", [
            _Line(_rate("xiaozhi_memory_facts_total", "what"), "facts {{what}}"),
            _Line(_rate("xiaozhi_memory_conversations_total", "outcome"), "conversations {{outcome}}"),
        ], unit="ops"),
        _Panel("Announcements · 播报", [
            _Line(_rate("xiaozhi_announcements_total", "outcome"), "{{outcome}}"),
        ], unit="ops"),
        _Panel("Reminders · 提醒", [_Line(_rate("xiaozhi_reminders_total", "outcome"), "{{outcome}}")], unit="ops"),
    ]  # fmt: skip
    yield "Load · 负载", [
        _Panel("Queues · 排队", [
            _Line(f"max(xiaozhi_asr_queue_seconds{{{_AT}}})", "recognition"),
            _Line(f"max(xiaozhi_codec_queue_seconds{{{_AT}}})", "Opus"),
            _Line(f"max by (channel) (xiaozhi_channel_seconds{{{_AT}}})", "{{channel}}"),
        ], unit="s"),
        _Panel("Workers at work · 工作线程", [
            _Line(f"sum(xiaozhi_asr_workers_busy{{{_AT}}}) / sum(xiaozhi_asr_workers{{{_AT}}})", "recognition"),
            _Line(f"sum(xiaozhi_codec_workers_busy{{{_AT}}}) / sum(xiaozhi_codec_workers{{{_AT}}})", "Opus"),
        ], unit="percentunit"),
        _Panel("Given up under load · 降级步骤",
               [_Line(f"max by (step) (xiaozhi_degraded{{{_AT}}})", "{{step}}")], stacked=True),
        _Panel("Turns that wait · 等待中的对话", [
            _Line(f"sum(xiaozhi_turns_waiting{{{_AT}}})", "waiting"),
            _Line(_rate("xiaozhi_turns_turned_away_total"), "in vain, a second"),
            _Line(_rate("xiaozhi_devices_refused_total"), "devices refused, a second"),
        ]),
        _Panel("Devices by node · 各节点设备",
               [_Line(f"xiaozhi_devices_online{{{_AT}}}", "{{instance}}")], stacked=True),
        _Panel("Voice detection · 语音检测", [
            _Line(f"{_rate('xiaozhi_vad_wait_seconds_total')} / {_rate('xiaozhi_vad_served_total')}", "mean wait"),
        ], unit="s"),
        _Panel("Sound that was dropped · 丢弃的音频", [
            _Line(_rate("xiaozhi_downlink_dropped_total"), "to devices that do not read"),
            _Line(_rate("xiaozhi_channel_dropped_total", "channel"), "{{channel}}"),
        ], unit="ops"),
        _Panel("Devices that hear themselves · 设备回声", [
            _Line(_rate("xiaozhi_own_voice_held_back_total"), "held back"),
            _Line(_rate("xiaozhi_own_voice_let_through_total"), "somebody spoke over it"),
        ], unit="ops"),
    ]  # fmt: skip
    yield "Process · 进程", [
        _Panel("Processor, of what it may use · CPU", [_Line(f"xiaozhi_cpu_ratio{{{_AT}}}", "{{instance}}")],
               unit="percentunit", steps=[(None, "green"), (alerts.cpu_percent / 100, "red")]),
        _Panel("Memory · 内存", [_Line(f"process_resident_memory_bytes{{{_AT}}}", "{{instance}}")], unit="bytes"),
        _Panel("Memory, of what it may use · 内存占比", [_Line(f"xiaozhi_memory_ratio{{{_AT}}}", "{{instance}}")],
               unit="percentunit", steps=[(None, "green"), (alerts.memory_percent / 100, "red")]),
        _Panel("Standstill of the loop · 事件循环停顿", [_Line(f"xiaozhi_loop_lag_seconds{{{_AT}}}", "{{instance}}")],
               unit="s"),
        _Panel("Tasks · 协程", [_Line(f"xiaozhi_tasks{{{_AT}}}", "{{instance}}")]),
        _Panel("Open files · 文件描述符", [_Line(f"process_open_fds{{{_AT}}}", "{{instance}}")]),
    ]  # fmt: skip


def dashboard(plan: Plan) -> str:
    """The dashboard as JSON, to be imported or provisioned."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in _rows(plan):
        panels.append(_placed({"type": "row", "title": title, "collapsed": False, "panels": []}, panels, 0, y, 24, 1))
        y += 1
        x = tallest = 0
        for panel in row:
            if x + panel.width > _WIDTH:
                x, y, tallest = 0, y + tallest, 0
            panels.append(_placed(_panel(panel), panels, x, y, panel.width, panel.height))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    board = {
        "title": "XiaoZhi · 小智",
        "uid": "xiaozhi",
        "tags": ["xiaozhi"],
        "timezone": "browser",
        "refresh": "10s",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one crosshair over all panels
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables(plan)},
        "annotations": {"list": []},
        "panels": panels,
    }
    return json.dumps(board, ensure_ascii=False, indent=2) + "\n"


def _variables(plan: Plan) -> list[dict[str, Any]]:
    job = plan.extra.get("job") or "xiaozhi"
    source = {"type": "datasource", "name": "source", "label": "Prometheus", "query": "prometheus", "hide": 0}
    common = {"type": "query", "datasource": _SOURCE, "refresh": 2, "includeAll": True, "multi": True, "sort": 1}
    return [
        source,
        {
            **common,
            "name": "job",
            "label": "Job",
            "query": "label_values(xiaozhi_devices_online, job)",
            "current": {"text": job, "value": job},
        },
        {
            **common,
            "name": "instance",
            "label": "Node · 节点",
            "query": 'label_values(xiaozhi_devices_online{job=~"$job"}, instance)',
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _placed(panel: dict[str, Any], before: Sequence[object], x: int, y: int, w: int, h: int) -> dict[str, Any]:
    return {"id": len(before) + 1, **panel, "gridPos": {"x": x, "y": y, "w": w, "h": h}}


def _panel(panel: _Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.steps:
        defaults["thresholds"] = {
            "mode": "absolute",
            "steps": [{"value": value, "color": colour} for value, colour in panel.steps],
        }
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 25 if panel.stacked else 8,
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
        if panel.steps:
            defaults["custom"]["thresholdsStyle"] = {"mode": "dashed"}
    made = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _OPTIONS.get(panel.kind, {}),
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _SOURCE,
                "expr": line.expr,
                "legendFormat": line.legend or "__auto",
                "format": "heatmap" if panel.kind == "heatmap" else "time_series",
            }
            for number, line in enumerate(panel.lines)
        ],
    }
    return {key: value for key, value in made.items() if value != ""}


_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background_solid",
        "graphMode": "area",
        "justifyMode": "center",
    },
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "heatmap": {"calculate": False, "color": {"mode": "scheme", "scheme": "Spectral", "steps": 64}},
}
