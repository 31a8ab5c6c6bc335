"""Configurations, checked by the tools that will read them."""

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes_validate  # type: ignore[import-untyped] # publishes no types
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.house import House, house, question, settings_for
from tests.test_serve_cli import free_port
from xiaozhi.access import addresses
from xiaozhi.app.server import Server, serving
from xiaozhi.cli import main
from xiaozhi.console import routes as console
from xiaozhi.deploy.facts import LIVE_PATH, METRICS_PATH, READY_PATH, Deployment
from xiaozhi.deploy.render import render
from xiaozhi.http import health, mcp_endpoint, push
from xiaozhi.http import metrics as figures
from xiaozhi.settings import Settings

DOMAIN = "talk.example.org"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed here")


def written(folder: Path, *words: str, settings: str = "") -> str:
    """What `xiaozhi deploy …` writes."""
    out = folder / "written"
    (folder / "settings.toml").write_text(settings)
    given = ["--settings", str(folder / "settings.toml")] if settings else []
    assert main([*given, "deploy", *words, "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def lines_of(text: str) -> list[str]:
    """Without comments and blanks."""
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def tool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of the domain, and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = tool(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", str(key), "-out", str(cert), "-days", "1", "-subj", f"/CN={DOMAIN}"),
    )
    assert made.returncode == 0, made.stderr
    return cert, key


# systemd --------------------------------------------------------------------------------------------------------------


@needs("systemd-analyze")
@pytest.mark.parametrize("port", ["8000", "80"])
def test_the_unit_is_accepted_by_systemd_and_hardly_exposed(port: str, tmp_path: Path) -> None:
    binary = shutil.which("true")
    assert binary is not None
    unit = tmp_path / "xiaozhi.service"
    unit.write_text(written(tmp_path, "systemd", "--binary", binary, "--port", port))
    verified = tool("systemd-analyze", "verify", "--man=no", str(unit))
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    security = tool("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(unit))
    assert security.returncode == 0, security.stdout
    assert f"serve --port {port}" in unit.read_text()


def test_the_unit_goes_by_the_settings_and_takes_keys_from_files(tmp_path: Path) -> None:
    settings = (
        '[server]\ndrain_s = 90.0\nmax_devices = 5000\ndata_dir = "/srv/voice"\n[asr]\nworkers = 6\nthreads = 1\n'
        '[[llm.endpoints]]\nname = "a"\nbase_url = "https://a.example.org/v1"\nmodel = "m"\napi_key_env = "A_KEY"\n'
        '[[llm.endpoints]]\nname = "b"\nbase_url = "https://b.example.org/v1"\nmodel = "m"\napi_key = "sk-written"\n'
        'api_key_env = "B_KEY"\n'
    )
    text = written(tmp_path, "systemd", "--binary", "/usr/local/bin/xiaozhi", settings=settings)
    live = lines_of(text)
    assert f"ExecStart=/usr/local/bin/xiaozhi serve --settings {tmp_path / 'settings.toml'}" in live
    assert "Type=notify" in live and "WatchdogSec=30" in live and "DynamicUser=yes" in live
    assert "TimeoutStopSec=105" in live and "CPUQuota=800%" in live and "LimitNOFILE=10200" in live
    assert "ReadWritePaths=-/srv/voice" in live and "Environment=XIAOZHI_MODELS__DIR=%S/xiaozhi/models" in live
    credentials = [line for line in live if line.startswith("LoadCredential=")]
    assert credentials == ["LoadCredential=A_KEY:/etc/xiaozhi/keys/A_KEY"], (
        "only the keys that are in use must be there"
    )
    assert "#LoadCredential=B_KEY:" in text and "sk-written" not in text


# Prometheus and Grafana -----------------------------------------------------------------------------------------------


def expressions(tmp_path: Path) -> list[str]:
    rules = yaml.safe_load(written(tmp_path, "prometheus"))["groups"][0]["rules"]
    board = json.loads(written(tmp_path, "grafana"))
    shown = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return [rule["expr"] for rule in rules] + shown


def names_in(expression: str) -> set[str]:
    """The series that an expression reads."""
    return set(re.findall(r"\b(?:xiaozhi|process)_\w+", re.sub(r'"[^"]*"', '""', expression)))


async def test_every_series_of_the_rules_and_the_dashboard_is_in_a_real_scrape(tmp_path: Path) -> None:
    used = set().union(*(names_in(expression) for expression in expressions(tmp_path)))
    assert len(used) >= 40
    async with house(tmp_path, cache={"answers": True}, alerts={"check_s": 0.5}) as home:
        async with home.device() as device:
            await device.turn(question())
        url = f"http://127.0.0.1:{home.server.port}{METRICS_PATH}"
        text = ""
        async with aiohttp.ClientSession() as http, asyncio.timeout(20):
            while "xiaozhi_cpu_ratio" not in text or "xiaozhi_disk_ratio" not in text:  # measured every half second
                async with http.get(url) as answer:
                    text = await answer.text()
    there = set()
    for family in text_string_to_metric_families(text):
        there |= {sample.name for sample in family.samples}
        there.add(f"{family.name}_total" if family.type == "counter" else family.name)
    assert used - there == set()


def test_every_expression_is_valid(tmp_path: Path) -> None:
    for expression in expressions(tmp_path):
        promql_parser.parse(expression.replace("$__rate_interval", "1m"))


def test_rules_have_what_alertmanager_shows_and_the_thresholds_of_the_settings(tmp_path: Path) -> None:
    text = written(tmp_path, "prometheus", settings="[alerts]\nasr_wait_ms = 750\ncache_hit_percent = 0\n")
    (group,) = yaml.safe_load(text)["groups"]
    rules = {rule["alert"]: rule for rule in group["rules"]}
    assert len(rules) == len(group["rules"])
    for rule in rules.values():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert set(rule["annotations"]) == {"summary", "summary_zh", "description", "description_zh"}
        assert re.fullmatch(r"\d+[sm]", rule["for"])
        for note in rule["annotations"].values():
            assert note.count("{{") == note.count("}}")
            assert "{{ $value }}" not in note and "{value}" not in note
        assert rule["annotations"]["summary_zh"] != rule["annotations"]["summary"]
        assert "JOB" not in rule["expr"] and "LIMIT" not in rule["expr"] and "LEAST" not in rule["expr"]
    assert "> 0.75" in rules["XiaozhiRecognitionQueue"]["expr"]
    assert "above 750 ms" in rules["XiaozhiRecognitionQueue"]["annotations"]["summary"]
    assert "XiaozhiCacheMisses" not in rules, "0 switches an alert off"
    assert {"XiaozhiDown", "XiaozhiMemory", "XiaozhiProcessor", "XiaozhiErrors", "XiaozhiSlow"} < set(rules)


def test_panels_do_not_overlap_and_each_says_what_it_shows(tmp_path: Path) -> None:
    panels = json.loads(written(tmp_path, "grafana"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 25
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells and at["x"] + at["w"] <= 24, panel["title"]
        cells |= own
        assert panel["title"] and (panel["type"] == "row" or panel["targets"])


# HAProxy and nginx ----------------------------------------------------------------------------------------------------

NODES = ("--domain", DOMAIN, "--node", "127.0.0.1:8001", "--node", "127.0.0.1:8002")


@needs("haproxy")
def test_haproxy_accepts_its_configuration(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    both = tmp_path / "both.pem"
    both.write_text("".join(path.read_text() for path in certificate))
    file = tmp_path / "haproxy.cfg"
    nodes_with_tls = f'[server]\ntls_cert = "{certificate[0]}"\ntls_key = "{certificate[1]}"\n'
    for words, settings in (
        (("--cert", str(both)), ""),
        (("--plain",), ""),
        (("--cert", str(both)), nodes_with_tls),
    ):
        text = written(tmp_path, "haproxy", *NODES, *words, settings=settings)
        file.write_text(text)
        checked = tool("haproxy", "-c", "-f", str(file))
        assert checked.returncode == 0, checked.stderr
        assert "WARNING" not in checked.stderr
        assert READY_PATH in text and "Device-Id" in text
        assert ("ssl verify required" in text) == bool(settings)


@needs("nginx")
def test_nginx_accepts_its_configuration(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    words = ("--cert", str(certificate[0]), "--key", str(certificate[1]))
    for more in (words, ("--plain",)):
        text = written(tmp_path, "nginx", *NODES, *more)
        (tmp_path / "xiaozhi.conf").write_text(text)
        (tmp_path / "nginx.conf").write_text(
            f"pid {tmp_path}/nginx.pid; error_log stderr; events {{ worker_connections 4096; }}\n"
            f"http {{ access_log off; include {tmp_path}/xiaozhi.conf; }}\n"
        )
        checked = tool("nginx", "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"))
        assert checked.returncode == 0, checked.stderr
        assert "[warn]" not in checked.stderr and "[emerg]" not in checked.stderr
        assert "proxy_buffering off" in text and "$http_device_id" in text and "$http_upgrade" in text


@contextlib.contextmanager
def running(folder: Path, *words: str) -> Iterator[None]:
    """A front, until the test is over."""
    with (folder / "front.log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.mark.real_time
@needs("haproxy")
async def test_devices_talk_through_haproxy_and_go_to_the_other_node_when_theirs_drains(tmp_path: Path) -> None:
    trusted = {"trusted_proxies": ["127.0.0.1"], "drain_s": 0.0}
    async with house(tmp_path, server=trusted) as home:
        settings = settings_for(tmp_path / "two", home.chat.url, home.speech.url, server=trusted)
        async with serving(settings) as other:
            nodes = {server.port: server for server in (home.server, other)}
            port = free_port()
            plan = Deployment(
                home.server.services.settings,
                domain=DOMAIN,
                nodes=tuple(f"127.0.0.1:{node}" for node in nodes),
                choices={"plain": True, "certificate": "", "key": ""},
            )
            text = render("haproxy", plan).replace("bind :80", f"bind 127.0.0.1:{port}").replace("slowstart 20s ", "")
            (tmp_path / "front.cfg").write_text(text)
            with running(tmp_path, "haproxy", "-db", "-f", str(tmp_path / "front.cfg")):
                front = f"127.0.0.1:{port}"
                async with aiohttp.ClientSession() as http, asyncio.timeout(20):
                    while await _status(http, f"http://{front}{READY_PATH}") != 200:
                        continue
                    assert await _status(http, f"http://{front}/") == 200
                first = await _talk_through(home, front, nodes)
                assert await _talk_through(home, front, nodes) == first, "a device stays with its node"
                await nodes[first].devices.drain(0.0)
                assert await _talk_through(home, front, nodes) != first


@pytest.mark.real_time
@needs("nginx")
async def test_devices_talk_through_nginx(tmp_path: Path) -> None:
    async with house(tmp_path, server={"trusted_proxies": ["127.0.0.1"]}) as home:
        port = free_port()
        plan = Deployment(
            home.server.services.settings,
            nodes=(f"127.0.0.1:{home.server.port}",),
            choices={"plain": True, "certificate": "", "key": ""},
        )
        text = render("nginx", plan).replace("listen 80;", f"listen 127.0.0.1:{port};").replace("listen [::]:80;", "")
        (tmp_path / "nginx.conf").write_text(
            f"pid {tmp_path}/nginx.pid; error_log stderr; daemon off; master_process off;\n"
            f"events {{ worker_connections 4096; }}\nhttp {{ access_log off; {text} }}\n"
        )
        with running(tmp_path, "nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")):
            async with aiohttp.ClientSession() as http, asyncio.timeout(20):
                while await _status(http, f"http://127.0.0.1:{port}{READY_PATH}") != 200:
                    continue
            await _talk_through(home, f"127.0.0.1:{port}", {home.server.port: home.server})


async def _status(http: aiohttp.ClientSession, url: str) -> int:
    try:
        async with http.get(url) as answer:
            return answer.status
    except aiohttp.ClientConnectionError:
        return 0


async def _talk_through(home: House, front: str, nodes: Mapping[int, Server]) -> int:
    """One turn through the front; the port of the node that took it."""
    async with home.device(7, connect=False) as device:
        await device.connect(f"ws://{front}/xiaozhi/v1/")
        assert (await device.turn_text("hello there")).answered
        (taken_by,) = [port for port, server in nodes.items() if len(server.devices)]
    await nodes[taken_by].devices.empty()
    return taken_by


# Containers -----------------------------------------------------------------------------------------------------------


def test_the_image_runs_as_nobody_keeps_its_data_and_says_how_it_is(tmp_path: Path) -> None:
    text = written(tmp_path, "docker", "--port", "8100")
    steps: list[tuple[str, str]] = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines_of(text))).splitlines():
        name, _, rest = line.partition(" ")
        steps.append((name, rest.strip()))
    assert {name for name, _ in steps} <= {
        *("FROM", "WORKDIR", "ENV", "RUN", "COPY", "LABEL", "VOLUME", "EXPOSE"),
        *("USER", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
    }
    last = dict(steps)
    assert last["USER"] == "10001:10001" and last["VOLUME"] == "/data" and last["EXPOSE"] == "8100"
    assert json.loads(last["ENTRYPOINT"]) == ["xiaozhi"] and json.loads(last["CMD"]) == ["serve"]
    asked = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
    compile(asked[2], "healthcheck", "exec")
    assert f"127.0.0.1:8100{LIVE_PATH}" in asked[2]
    for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for name in copied.split():
            assert (Path(__file__).parents[1] / name).exists(), f"{name} is copied into the image"


@pytest.mark.real_time
async def test_the_health_check_of_the_image_tells_a_server_from_none(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        text = written(tmp_path, "docker", "--port", str(home.server.port))
        (asked,) = re.findall(r'CMD \["python", "-c", (".*")\]', text)
        check = [shutil.which("python3") or "python3", "-c", json.loads(asked)]
        assert await (await asyncio.create_subprocess_exec(*check)).wait() == 0
    process = await asyncio.create_subprocess_exec(*check, stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() != 0


def test_a_container_lets_devices_by_mqtt_in_where_the_settings_do(tmp_path: Path) -> None:
    settings = "[mqtt]\nenabled = true\nudp_port = 8900\n"
    made: dict[str, Any] = yaml.safe_load(written(tmp_path, "compose", settings=settings))
    assert made["services"]["xiaozhi"]["ports"] == ["8000:8000", "1883:1883", "8900:8900/udp"]
    assert "EXPOSE 8000 1883 8900/udp" in written(tmp_path, "docker", settings=settings)
    made = yaml.safe_load(written(tmp_path, "compose"))
    assert made["services"]["xiaozhi"]["ports"] == ["8000:8000"]


@pytest.mark.parametrize("words", [(), ("--redis", "--prometheus", "--domain", DOMAIN)])
def test_the_compose_file_is_whole(words: Sequence[str], tmp_path: Path) -> None:
    settings = '[[llm.endpoints]]\nname = "a"\nbase_url = "https://a.example.org"\nmodel = "m"\napi_key_env = "A_KEY"\n'
    made: dict[str, Any] = yaml.safe_load(written(tmp_path, "compose", *words, settings=settings))
    assert set(made) <= {"name", "services", "volumes", "secrets", "configs"}
    server = made["services"]["xiaozhi"]
    assert server["read_only"] and server["cap_drop"] == ["ALL"] and server["stop_grace_period"] == "35s"
    assert server["secrets"] == ["A_KEY"] and made["secrets"] == {"A_KEY": {"file": "./secrets/A_KEY"}}
    assert server["environment"]["CREDENTIALS_DIRECTORY"] == "/run/secrets"
    assert READY_PATH in server["healthcheck"]["test"][3]
    for service in made["services"].values():
        for mounted in service.get("volumes", ()):
            source = mounted.partition(":")[0]
            assert source.startswith("./") or source in made["volumes"]
    if words:
        assert set(made["services"]) == {"xiaozhi", "redis", "prometheus"}
        assert server["environment"]["XIAOZHI_CLUSTER__URL"] == "redis://redis:6379/0"
        assert f"https://{DOMAIN}" in server["environment"]["XIAOZHI_SERVER__PUBLIC_URL"]
        scraped = yaml.safe_load(made["configs"]["prometheus"]["content"])["scrape_configs"][0]
        assert scraped["static_configs"] == [{"targets": ["xiaozhi:8000"]}]
    else:
        assert set(made["services"]) == {"xiaozhi"}
    assert_environment_is_known(server["environment"])


def assert_environment_is_known(environment: dict[str, str]) -> None:
    """Every XIAOZHI_ variable names a setting that exists."""
    for name in environment:
        if name.startswith("XIAOZHI_"):
            table, _, key = name.removeprefix("XIAOZHI_").lower().partition("__")
            assert key in type(getattr(Settings(), table)).model_fields, name


# Kubernetes -----------------------------------------------------------------------------------------------------------


def manifests(folder: Path, *words: str, settings: str = "") -> dict[tuple[str, str], dict[str, Any]]:
    text = written(folder, "kubernetes", "--domain", DOMAIN, *words, settings=settings)
    made = [one for one in yaml.safe_load_all(text) if one]
    found = {(one["kind"], one["metadata"]["name"]): one for one in made}
    assert len(found) == len(made)
    return found


@pytest.mark.parametrize("words", [(), ("--no-redis", "--no-monitor", "--namespace", "voice", "--replicas", "5")])
@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_manifests_hold_the_schema_of_kubernetes(version: str, words: Sequence[str], tmp_path: Path) -> None:
    made = manifests(tmp_path, *words)
    for (kind, _), one in made.items():
        if kind != "ServiceMonitor":  # of the Prometheus operator
            kubernetes_validate.validate(one, version, strict=True)
    assert (("ServiceMonitor", "xiaozhi") in made) == (not words)
    namespaces = {one["metadata"].get("namespace") for (kind, _), one in made.items() if kind != "Namespace"}
    assert namespaces == {"voice" if words else "xiaozhi"}


def test_manifests_fit_together(tmp_path: Path) -> None:
    made = manifests(tmp_path, "--replicas", "3", "--image", "registry.example.org/voice:1", settings="[tts]\n")
    nodes = made["StatefulSet", "xiaozhi"]
    pod = nodes["spec"]["template"]
    (server,) = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = made[kind, "xiaozhi"]["spec"]
        selector = spec["selector"] if kind != "NetworkPolicy" else spec["podSelector"]
        assert (selector.get("matchLabels") or selector).items() <= labels.items()
    assert nodes["spec"]["serviceName"] == "xiaozhi-nodes" and ("Service", "xiaozhi-nodes") in made
    assert nodes["spec"]["replicas"] == 3 and server["image"] == "registry.example.org/voice:1"
    assert server["readinessProbe"]["httpGet"]["path"] == READY_PATH
    assert server["livenessProbe"]["httpGet"]["path"] == LIVE_PATH
    assert pod["spec"]["terminationGracePeriodSeconds"] > Settings().server.drain_s + 5
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]} | {"data"}
    assert {mount["name"] for mount in server["volumeMounts"]} == volumes
    assert made["ConfigMap", "xiaozhi-settings"]["data"]["settings.toml"].strip() == "[tts]"
    assert_environment_is_known({variable["name"]: "" for variable in server["env"]})
    scaler = made["HorizontalPodAutoscaler", "xiaozhi"]["spec"]
    assert scaler["scaleTargetRef"]["kind"] == nodes["kind"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == "xiaozhi_asr_queue_seconds"
    rule = made["Ingress", "xiaozhi"]["spec"]["rules"][0]
    open_paths = tuple(path["path"] for path in rule["http"]["paths"])
    for path in (addresses.OTA_PATH, addresses.WEBSOCKET_PATH, addresses.VISION_PATH, console.CONSOLE_PATH):
        assert path.startswith(open_paths), "devices and browsers reach what they need"
    for path in (METRICS_PATH, push.ANNOUNCE_PATH, mcp_endpoint.MCP_PATH):
        assert not path.startswith(open_paths), "and nothing else"
    assert rule["host"] == DOMAIN
    monitor = made["ServiceMonitor", "xiaozhi"]
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1" and set(monitor["spec"]) == {
        *("jobLabel", "selector", "endpoints"),
    }
    service = made["Service", "xiaozhi"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert monitor["spec"]["endpoints"][0]["path"] == METRICS_PATH


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_devices_by_mqtt_reach_the_node_that_they_were_told_of(version: str, tmp_path: Path) -> None:
    made = manifests(tmp_path, "--replicas", "2", settings="[mqtt]\nenabled = true\n")
    for (kind, _), one in made.items():
        if kind != "ServiceMonitor":
            kubernetes_validate.validate(one, version, strict=True)
    wanted = {(1883, "TCP"), (8884, "UDP")}
    most = made["HorizontalPodAutoscaler", "xiaozhi"]["spec"]["maxReplicas"]
    fronts = [one for (kind, name), one in made.items() if kind == "Service" and name.startswith("xiaozhi-mqtt-")]
    assert len(fronts) == most, "also for the nodes that load adds"
    for number, front in enumerate(fronts):
        assert front["spec"]["selector"]["statefulset.kubernetes.io/pod-name"] == f"xiaozhi-{number}"
        assert {(port["port"], port["protocol"]) for port in front["spec"]["ports"]} == wanted
        assert front["metadata"]["annotations"].popitem()[1] == f"xiaozhi-{number}.{DOMAIN}"
    (server,) = made["StatefulSet", "xiaozhi"]["spec"]["template"]["spec"]["containers"]
    assert {(port["containerPort"], port.get("protocol", "TCP")) for port in server["ports"]} >= wanted
    environment = {variable["name"]: variable.get("value", "") for variable in server["env"]}
    names = list(environment)
    assert names.index("POD") < names.index("XIAOZHI_MQTT__ENDPOINT"), "a variable is known to those behind it"
    assert environment["XIAOZHI_MQTT__ENDPOINT"] == f"$(POD).{DOMAIN}:1883"
    assert environment["XIAOZHI_MQTT__UDP_ENDPOINT"] == f"$(POD).{DOMAIN}:8884"
    (rule,) = [one for one in made["NetworkPolicy", "xiaozhi"]["spec"]["ingress"] if "from" not in one]
    assert {(port["port"], port["protocol"]) for port in rule["ports"]} == wanted


def test_a_secret_never_goes_into_a_config_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[metrics]\ntoken = "look-at-me-please"\n')
    assert main(["--settings", str(file), "deploy", "kubernetes"]) == 1
    out, errors = capsys.readouterr()
    assert out == "" and "metrics.token" in errors and "look-at-me" not in errors


# The command ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("haproxy", "--node", "nowhere"),
        ("haproxy", "--node", "a b:1"),
        ("kubernetes", "--replicas", "0"),
        ("compose", "--image", "a b"),
        ("cobol",),
    ],
)
def test_wrong_words_are_refused(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", *words]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "words",
    [
        ("haproxy", "--domain", "a;b"),
        ("nginx", "--cert", "x; evil"),
        ("kubernetes", "--namespace", "Not_A_Name"),
        ("systemd", "--binary", "/opt/my programs/xiaozhi"),
        ("docker", "--out", "/nowhere/at/all"),
    ],
)
def test_what_would_break_a_configuration_is_refused_in_one_line(
    words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", *words]) == 1
    out, errors = capsys.readouterr()
    assert out == "" and errors.count("\n") == 1


def test_paths_are_those_that_the_server_answers() -> None:
    assert figures.METRICS_PATH == METRICS_PATH
    assert {LIVE_PATH, READY_PATH} == {f"{health.HEALTH_PATH}/live", f"{health.HEALTH_PATH}/ready"}
