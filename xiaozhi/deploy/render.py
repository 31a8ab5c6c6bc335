"""The configurations: plain files in `templates/`, filled in from one deployment.

`@{name}` stands for a value and `<% … %>` for a condition or a loop (Jinja): `$`, `{{` and `{%` mean
something to the shell, nginx, Prometheus and Grafana.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from xiaozhi.deploy.facts import LIVE_PATH, METRICS_PATH, READY_PATH, Deployment
from xiaozhi.observability.health.rules import RULES, shown_value
from xiaozhi.settings.operation import AlertsSettings

TEMPLATES: Final = {
    "systemd": "xiaozhi.service",
    "prometheus": "prometheus-rules.yml",
    "grafana": "grafana.json",
    "haproxy": "haproxy.cfg",
    "nginx": "nginx.conf",
    "docker": "Dockerfile",
    "compose": "compose.yaml",
    "kubernetes": "kubernetes.yaml",
}
"""The file of each kind."""

_USER_ID: Final = 10001  # of the user in the image; volumes that are mounted belong to it
_LOW_PORT: Final = 1024  # below, a process needs a capability to listen

_environment: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    variable_start_string="@{",
    variable_end_string="}",
    block_start_string="<%",
    block_end_string="%>",
    comment_start_string="<#",
    comment_end_string="#>",
    trim_blocks=True,
    undefined=StrictUndefined,
    finalize=lambda value: f"{value:g}" if isinstance(value, float) else value,
    autoescape=False,
    keep_trailing_newline=True,
)
_environment.filters["quoted"] = lambda text: json.dumps(text, ensure_ascii=False)  # as YAML takes it, too


def render(kind: str, plan: Deployment) -> str:
    """One configuration as text.

    Args:
        kind: one of `TEMPLATES`.
        plan: what is deployed.

    Raises:
        DeployError: the settings file holds a secret that others could read.
    """
    text = _environment.get_template(TEMPLATES[kind]).render(_values(kind, plan))
    if TEMPLATES[kind].endswith(".json"):  # its template is laid out for whoever changes it
        text = json.dumps(json.loads(text), ensure_ascii=False, indent=2) + "\n"
    return text


def _values(kind: str, plan: Deployment) -> dict[str, Any]:
    settings = plan.settings
    scheme = "https" if plan.node_speaks_tls else "http"
    nodes = plan.nodes or (f"127.0.0.1:{plan.port}",)
    return {
        "plain": False,
        "job": "xiaozhi",
        **plan.choices,
        "alerts": settings.alerts,
        "cores": plan.cores,
        "descriptors": plan.descriptors,
        "drain": settings.server.drain_s,
        "gpu": "cuda" in (settings.asr.provider, settings.vad.provider),
        "grace_s": plan.stop_s + 10,
        "host": plan.host,
        "image": plan.image,
        "keepalive": settings.server.keepalive_s,
        "live": LIVE_PATH,
        "low_port": plan.port < _LOW_PORT,
        "max_devices": settings.server.max_devices,
        # Of the front: two for each device (one on each side), and some for OTA, scrapes and people.
        "maxconn": 2 * settings.server.max_devices * len(nodes) + 1000,
        "memory": plan.memory_mb,
        "metrics": METRICS_PATH,
        "max_replicas": max(4 * plan.replicas, plan.replicas + 2),
        "mqtt": settings.mqtt,
        "mqtt_ports": plan.mqtt_ports,
        "node_scheme": scheme,
        "node_speaks_tls": plan.node_speaks_tls,
        "nodes": nodes,
        "per_node": settings.server.max_devices + 100,
        "picture_mb": plan.picture_mb,
        "port": plan.port,
        "public_url": settings.server.public_url or (f"https://{plan.domain}" if plan.domain else ""),
        "ready": READY_PATH,
        "replicas": plan.replicas,
        "rules": list(_rules(settings.alerts, plan.choices.get("job", "xiaozhi"))),
        "scheme": "http" if plan.choices.get("plain") else "https",
        "secrets": plan.secrets,
        "secrets_used": [secret.variable for secret in plan.secrets if secret.used],
        "settings_file": plan.settings_file,
        "settings_text": plan.settings_text() if kind == "kubernetes" else "",
        "stop_s": plan.stop_s,
        "storage": max(2, 2 + settings.cache.disk_mb // 1024),
        "tunnel_s": plan.tunnel_s,
        "uid": _USER_ID,
        "workers": settings.asr.workers,
    }


# How Prometheus shows a value in a unit, and how many of our units one of its own is.
_SHOWN: Final = {"%": ("humanizePercentage", 100.0), "ms": ("humanizeDuration", 1000.0), "": ("humanize", 1.0)}
_WHERE: Final = "{{ with $labels.instance }}{{ . }}: {{ end }}"  # what is summed over all nodes has none


def _rules(settings: AlertsSettings, job: str) -> Iterator[dict[str, Any]]:
    """The rules that the settings leave in, in Prometheus' words."""
    for rule in RULES:
        if not rule.wanted(settings):
            continue
        humanize, per_unit = _SHOWN[rule.unit]
        threshold = rule.threshold(settings)
        words = {
            "value": f"{{{{ $value | {humanize} }}}}",
            "limit": shown_value(threshold, rule.unit),
            "program": "xiaozhi",  # the command line puts in how it is called
            **{label: f"{{{{ $labels.{label} }}}}" for label in ("endpoint", "voice", "step")},
        }
        least = getattr(settings, rule.least) if rule.least else ""
        limit = f"{threshold / per_unit:g}"
        yield {
            "title": rule.title,
            "expr": rule.expr.replace("JOB", f'job="{job}"').replace("LIMIT", limit).replace("LEAST", str(least)),
            "for_s": rule.for_s,
            "severity": rule.severity,
            "summary": _WHERE + rule.en[0].format(**words),
            "summary_zh": _WHERE + rule.zh[0].format(**words),
            "description": rule.en[1].format(**words),
            "description_zh": rule.zh[1].format(**words),
        }
