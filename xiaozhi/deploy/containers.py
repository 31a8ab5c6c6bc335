"""An image and a compose file."""

import json
from typing import Final

from xiaozhi.deploy.facts import LIVE_PATH, READY_PATH, Form, Plan

USER_ID: Final = 10001
"""Of the user in the image; volumes that are mounted belong to it."""

# Standard library only: a slim image has neither curl nor wget. The certificate is for the public name, not for this.
_ASK: Final = (
    "import ssl,sys,urllib.request as r; c=ssl._create_unverified_context(); "
    "sys.exit(r.build_opener(r.ProxyHandler({}), r.HTTPSHandler(context=c)).open('@{url}', timeout=3).status != 200)"
)

_DOCKERFILE: Final = Form("""\
# syntax=docker/dockerfile:1
# The XiaoZhi server as an image. In the root of the project:
#
#   xiaozhi deploy docker --out Dockerfile && docker build -t @{image} .
#   docker run -d --name xiaozhi -p @{port}:@{port} -v xiaozhi:/data --stop-timeout @{stop_s} @{image}
#   docker exec xiaozhi xiaozhi console password --show      as long as nobody has signed in to the console
#
# Everything it keeps, its settings.toml and its models are in /data. Keys: -e OPENAI_API_KEY, or secrets below
# /run/secrets with CREDENTIALS_DIRECTORY=/run/secrets. Devices must reach the host: set server.public_url, or run it
# with --network host.

FROM python:3.12-slim AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/xiaozhi
COPY pyproject.toml README.md LICENSE settings.toml ./
COPY xiaozhi xiaozhi
RUN /opt/xiaozhi/bin/pip install '.[mcp]'

FROM python:3.12-slim
LABEL org.opencontainers.image.title="xiaozhi" \\
      org.opencontainers.image.description="A voice companion server for XiaoZhi devices"
RUN useradd --system --uid @{uid} --no-create-home --home-dir /data --shell /usr/sbin/nologin xiaozhi \\
    && install -d -o xiaozhi -g xiaozhi -m 700 /data
COPY --from=build /opt/xiaozhi /opt/xiaozhi
ENV PATH=/opt/xiaozhi/bin:$PATH \\
    PYTHONUNBUFFERED=1 \\
    PYTHONDONTWRITEBYTECODE=1 \\
    XDG_CACHE_HOME=/data/cache \\
    XIAOZHI_SERVER__DATA_DIR=/data/data \\
    XIAOZHI_MODELS__DIR=/data/models \\
    XIAOZHI_SERVER__PORT=@{port}
WORKDIR /data
VOLUME /data
EXPOSE @{port}
USER @{uid}:@{uid}
# SIGTERM: no new turns, running ones may end (server.drain_s).
STOPSIGNAL SIGTERM
# The first start may fetch a model of 230 MB.
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \\
    CMD ["python", "-c", @{ask}]
ENTRYPOINT ["xiaozhi"]
CMD ["serve"]
""")

_COMPOSE: Final = Form("""\
# The XiaoZhi server with docker compose (2.23 or newer).
#
#   xiaozhi deploy docker --out Dockerfile && xiaozhi deploy compose --out compose.yaml
#   docker compose up -d --build        docker compose logs -f xiaozhi        docker compose stop
#   docker compose exec xiaozhi xiaozhi console password --show      as long as nobody has signed in to the console
#
# Settings: put a settings.toml beside this file and take away the # before its line.

name: xiaozhi

services:
  xiaozhi:
    build: .
    image: @{image}
    restart: unless-stopped
    init: true
    ports:
      - "@{port}:@{port}"
    environment:
      # How devices reach this machine; a container does not know.
      XIAOZHI_SERVER__PUBLIC_URL: ${XIAOZHI_PUBLIC_URL:-@{public_url}}
      XIAOZHI_SERVER__TIMEZONE: ${TZ:-Asia/Shanghai}
      CREDENTIALS_DIRECTORY: /run/secrets
@{cluster}    volumes:
      - data:/data
      # - ./settings.toml:/data/settings.toml:ro
@{secrets_used}    # SIGTERM: no new turns, running ones may end (server.drain_s = @{drain}), then it closes.
    stop_grace_period: @{stop_s}s
    healthcheck:
      test: ["CMD", "python", "-c", @{ask}]
      interval: 10s
      timeout: 5s
      retries: 3
      start_period: 300s
    # What it may use, from server.max_devices = @{max_devices} and asr.workers = @{workers}.
    deploy:
      resources:
        limits:
          cpus: "@{cores}"
          memory: @{memory}M
    ulimits:
      nofile: @{descriptors}
    # What it may not do.
    read_only: true
    tmpfs:
      - /tmp:size=256m,mode=1777
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    pids_limit: 512
@{services}
volumes:
  data:
@{volumes}@{secrets}""")

_REDIS: Final = """
  redis:
    image: redis:7-alpine
    restart: unless-stopped
    # A shared memory, not a store: what does not fit is forgotten, and nothing is written to disk.
    command: ["redis-server", "--save", "", "--appendonly", "no", "--maxmemory", "256mb",
              "--maxmemory-policy", "allkeys-lru"]
    healthcheck:
      test: ["CMD", "redis-cli", "ping"]
      interval: 10s
      timeout: 3s
      retries: 3
    read_only: true
    cap_drop: [ALL]
    user: "999:1000"
    security_opt: ["no-new-privileges:true"]
"""

_PROMETHEUS: Final = Form("""
  # xiaozhi deploy prometheus --out xiaozhi-rules.yml
  prometheus:
    image: prom/prometheus:v3.5.0
    restart: unless-stopped
    ports:
      - "127.0.0.1:9090:9090"
    volumes:
      - ./xiaozhi-rules.yml:/etc/prometheus/xiaozhi-rules.yml:ro
      - prometheus:/prometheus
    configs:
      - source: prometheus
        target: /etc/prometheus/prometheus.yml
    read_only: true
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]

configs:
  prometheus:
    content: |
      global: { scrape_interval: 10s }
      rule_files: [/etc/prometheus/xiaozhi-rules.yml]
      scrape_configs:
        - job_name: xiaozhi
          scheme: @{scheme}
          static_configs: [{ targets: ["xiaozhi:@{port}"] }]
""")


def _ask(plan: Plan, path: str) -> str:
    scheme = "https" if plan.node_speaks_tls else "http"
    return json.dumps(Form(_ASK).substitute(url=f"{scheme}://127.0.0.1:{plan.port}{path}"))


def dockerfile(plan: Plan) -> str:
    """A Dockerfile for the root of the project."""
    return _DOCKERFILE.substitute(
        image=plan.image, port=plan.port, stop_s=plan.stop_s, uid=USER_ID, ask=_ask(plan, LIVE_PATH)
    )


def compose(plan: Plan) -> str:
    """A compose file: the server, and where they are asked for Redis and Prometheus."""
    redis, prometheus = bool(plan.extra.get("redis")), bool(plan.extra.get("prometheus"))
    used = [secret.variable for secret in plan.secrets if secret.used]
    cluster = '      XIAOZHI_CLUSTER__URL: redis://redis:6379/0\n    depends_on:\n      redis:\n' \
              '        condition: service_started\n' if redis else ""  # fmt: skip
    services = (_REDIS if redis else "") + (
        _PROMETHEUS.substitute(port=plan.port, scheme="https" if plan.node_speaks_tls else "http") if prometheus else ""
    )
    return _COMPOSE.substitute(
        image=plan.image,
        port=plan.port,
        public_url=plan.settings.server.public_url or (f"https://{plan.domain}" if plan.domain else ""),
        cluster=cluster,
        secrets_used="    secrets: [" + ", ".join(used) + "]\n" if used else "",
        drain=f"{plan.settings.server.drain_s:g}",
        stop_s=plan.stop_s,
        ask=_ask(plan, READY_PATH),
        max_devices=plan.settings.server.max_devices,
        workers=plan.settings.asr.workers,
        cores=plan.cores,
        memory=plan.memory_mb,
        descriptors=plan.descriptors,
        services=services,
        volumes="  prometheus:\n" if prometheus else "",
        secrets=_secrets(used),
    )


def _secrets(used: list[str]) -> str:
    """Keys as files beside the compose file, readable by the user of the image."""
    if not used:
        return ""
    lines = [f"\n# Each a file with the key alone in it: chmod 400, chown {USER_ID}.\nsecrets:\n"]
    return "".join([*lines, *(f"  {name}:\n    file: ./secrets/{name}\n" for name in used)])
