"""The unit of a systemd service: hardened, watched, with limits and secrets from files."""

from pathlib import Path
from typing import Final

from xiaozhi.deploy.facts import Form, Plan

_LOW_PORT: Final = 1024  # below, a process needs a capability to listen

_UNIT: Final = Form("""\
# XiaoZhi server under systemd (247 or newer).
#
#   sudo install -m 755 dist/xiaozhi /usr/local/bin/                    the single executable, or any other
#   xiaozhi deploy systemd --binary /usr/local/bin/xiaozhi | sudo tee /etc/systemd/system/xiaozhi.service
#   sudo systemctl daemon-reload && sudo systemctl enable --now xiaozhi
#
#   systemctl status xiaozhi        devices online and turns        journalctl -fu xiaozhi       its log
#   systemctl reload xiaozhi        read the settings again         systemctl stop xiaozhi       turns may end first
#   sudo cat /var/lib/xiaozhi/data/console-password-first           the console's, until somebody has signed in
#
# Everything it keeps lies in /var/lib/xiaozhi: its data, models, and @{settings_place}.

[Unit]
Description=XiaoZhi voice companion server
Wants=network-online.target
After=network-online.target
# Five failures within five minutes: somebody has to look.
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
# The single executable unpacks itself in a process of its own; the server is that one's child.
NotifyAccess=all
ExecStart=@{command}
ExecReload=/bin/kill -HUP $MAINPID
WorkingDirectory=%S/xiaozhi

# Restarted when it fails and when its event loop stands still; wrong settings (2) do not get better by trying again.
Restart=on-failure
RestartSec=2
RestartPreventExitStatus=2
WatchdogSec=30
# The first start may fetch a model of 230 MB.
TimeoutStartSec=15min
# SIGTERM: no new turns, running ones may end (server.drain_s = @{drain}), then it closes.
TimeoutStopSec=@{stop_s}
KillMode=mixed

# A user that exists only while the service runs; it owns these folders.
DynamicUser=yes
StateDirectory=xiaozhi
StateDirectoryMode=0700
CacheDirectory=xiaozhi
UMask=0077
# The single executable unpacks itself here at each start (0.4 GB): on disk, because /tmp is often memory, which would
# count below. Private to the service and removed when it stops; it must not be mounted noexec.
Environment=TMPDIR=/var/tmp
@{environment}

# Keys: a file with the key alone in it, readable by root only. The server sees it as the variable of that name.
#   sudo install -d -m 700 /etc/xiaozhi/keys
#   sudo install -m 600 /dev/stdin /etc/xiaozhi/keys/NAME      then paste the key and press Ctrl-D
# Any setting can be given so, for example XIAOZHI_METRICS__TOKEN. Encrypted: systemd-creds and LoadCredentialEncrypted.
@{credentials}

# Limits, from server.max_devices = @{max_devices} and asr.workers = @{workers}. Above MemoryHigh it is slowed down; the
# server itself refuses new devices earlier (load.devices).
MemoryHigh=@{memory_high}M
MemoryMax=@{memory}M
MemorySwapMax=0
CPUQuota=@{cpu_quota}%
LimitNOFILE=@{descriptors}
TasksMax=512
OOMPolicy=stop

# What it may not do.
NoNewPrivileges=yes
CapabilityBoundingSet=@{capabilities}
AmbientCapabilities=@{capabilities}
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=@{no_gpu}
PrivateUsers=@{private_users}
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
KeyringMode=private
MemoryDenyWriteExecute=@{no_gpu}
SystemCallArchitectures=native
SystemCallFilter=@@system-service
SystemCallFilter=~@@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
""")


def unit(plan: Plan, binary: Path) -> str:
    """The unit file.

    Args:
        plan: what runs.
        binary: the absolute path of the executable.
    """
    server, file = plan.settings.server, plan.settings_file
    options = [f"--settings {file.absolute()}"] if file is not None else []
    if plan.extra.get("port"):
        options.append(f"--port {plan.port}")
    low = plan.port < _LOW_PORT
    gpu = "cuda" in (plan.settings.asr.provider, plan.settings.vad.provider)
    return _UNIT.substitute(
        no_gpu="no" if gpu else "yes",
        command=" ".join([str(binary), "serve", *options]),
        settings_place="its settings.toml" if file is None else "nothing else; the settings are in " + str(file),
        environment="\n".join(_environment(plan)),
        credentials="\n".join(_credentials(plan)),
        drain=f"{server.drain_s:g}",
        stop_s=plan.stop_s,
        max_devices=server.max_devices,
        workers=plan.settings.asr.workers,
        memory_high=round(plan.memory_mb * 0.92),
        memory=plan.memory_mb,
        cpu_quota=plan.cores * 100,
        descriptors=plan.descriptors,
        capabilities="CAP_NET_BIND_SERVICE" if low else "",
        private_users="no" if low else "yes",
    )


def _environment(plan: Plan) -> list[str]:
    """Where it may write: only below its own folder, unless the settings name another one."""
    lines = []
    for variable, folder, name in (
        ("XIAOZHI_SERVER__DATA_DIR", plan.settings.server.data_dir, "data"),
        ("XIAOZHI_MODELS__DIR", plan.settings.models.dir, "models"),
    ):
        if plan.extra.get(f"absolute_{name}"):
            lines.append(f"# {folder} of the settings; it must be writable by the service's user.")
            lines.append(f"ReadWritePaths=-{folder}")
        else:
            lines.append(f"Environment={variable}=%S/xiaozhi/{name}")
    return lines


def _credentials(plan: Plan) -> list[str]:
    lines = [
        f"{'' if secret.used else '#'}LoadCredential={secret.variable}:/etc/xiaozhi/keys/{secret.variable}"
        for secret in plan.secrets
    ]
    return lines or ["#LoadCredential=OPENAI_API_KEY:/etc/xiaozhi/keys/OPENAI_API_KEY"]
