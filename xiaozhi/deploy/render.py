"""The configurations: plain files in `templates/`, filled in from one deployment.

`@{name}` stands for a value and `<% … %>` for a condition or a loop (Jinja): `$`, `{{` and `{%` mean
something to the shell, nginx, Prometheus and Grafana.
"""

from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from xiaozhi.deploy.facts import LIVE_PATH, METRICS_PATH, READY_PATH, Plan

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


def render(kind: str, plan: Plan) -> str:
    """One configuration as text.

    Args:
        kind: one of `TEMPLATES`.
        plan: what is deployed.

    Raises:
        DeployError: the settings file holds a secret that others could read.
    """
    return _environment.get_template(TEMPLATES[kind]).render(_values(kind, plan))


def _values(kind: str, plan: Plan) -> dict[str, Any]:
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
