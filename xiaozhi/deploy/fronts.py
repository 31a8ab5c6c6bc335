"""HAProxy and nginx before the nodes: TLS, WebSockets that are silent for minutes, each device to its own node."""

from typing import Final

from xiaozhi.deploy.facts import READY_PATH, Form, Plan

_HAPROXY: Final = Form("""\
# HAProxy (2.6 or newer) before XiaoZhi nodes:  /etc/haproxy/haproxy.cfg     check it:  haproxy -c -f haproxy.cfg
#
# In the settings of every node:
#   [server] public_url = "@{scheme}://@{host}"       devices are told this name by the OTA address
#            trusted_proxies = ["ADDRESS OF THIS PROXY"]     otherwise all devices count as one address
#
# To take a node away: stop it. It answers @{ready} with 503 at once, gets no new devices, ends its turns, and closes.

global
    log stdout format raw local0 info
    maxconn @{maxconn}
    # After a reload the old process keeps its connections for so long.
    hard-stop-after @{tunnel_s}s
@{global_tls}
defaults
    mode http
    log global
    option httplog
    option dontlognull
    option forwardfor
    timeout connect 3s
    timeout http-request 10s
    timeout http-keep-alive 15s
    timeout client 60s
    timeout server 60s
    timeout check 2s
    # A device that only listens sends nothing for minutes; the server says something every @{keepalive} s.
    timeout tunnel @{tunnel_s}s
    option clitcpka
    # A node that is full or stops answers 503, one that is gone nothing: try the next one.
    retries 3
    retry-on conn-failure empty-response 503
    option redispatch 1

frontend devices
@{binds}
    http-request del-header X-Forwarded-Proto
    http-request set-header X-Forwarded-Proto https if { ssl_fc }
@{redirect}    # What may have had an effect is not asked for twice.
    http-request disable-l7-retry unless METH_GET
    # Figures are for inside.
    acl inside src 127.0.0.0/8 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 ::1 fd00::/8
    http-request deny deny_status 403 if { path /metrics } !inside
    # Devices name themselves by a header, browsers by a parameter; what does neither goes by its address.
    http-request set-var(txn.device) req.hdr(Device-Id)
    http-request set-var(txn.device) url_param(device-id) unless { var(txn.device) -m found }
    http-request set-var(txn.device) src unless { var(txn.device) -m found }
    default_backend nodes

backend nodes
    # The same device to the same node, whose memory of it is warm; when a node goes, only its devices move.
    balance hash var(txn.device)
    hash-type consistent wt6 avalanche
    hash-balance-factor 150
    option httpchk
    http-check send meth GET uri @{ready} ver HTTP/1.1 hdr Host @{host}
    http-check expect status 200
    # Connections of a node that stops are left alone: it closes them itself, when their turns are over.
    default-server check inter 2s fastinter 500ms downinter 1s fall 2 rise 2 slowstart 20s maxconn @{per_node}
@{servers}
""")

_NGINX: Final = Form("""\
# nginx before XiaoZhi nodes:  /etc/nginx/conf.d/xiaozhi.conf (inside http { })     check it:  nginx -t
#
# In nginx.conf itself:   worker_connections of at least @{maxconn};   worker_shutdown_timeout @{tunnel_s}s;
# In the settings of every node:
#   [server] public_url = "@{scheme}://@{host}"       devices are told this name by the OTA address
#            trusted_proxies = ["ADDRESS OF THIS PROXY"]     otherwise all devices count as one address
#
# A node that is stopped answers 503 at once: its devices go to the next one, it ends its turns, and closes. The free
# nginx looks at answers only; HAProxy and the commercial nginx ask @{ready} as well.

# Devices name themselves by a header, browsers by a parameter; what does neither goes by its address.
map $http_device_id $xiaozhi_device {
    default $http_device_id;
    ""      $xiaozhi_browser;
}
map $arg_device-id $xiaozhi_browser {
    default $arg_device-id;
    ""      $remote_addr;
}
map $http_upgrade $xiaozhi_connection {
    default upgrade;
    ""      "";
}

upstream xiaozhi {
    # The same device to the same node, whose memory of it is warm; when a node goes, only its devices move.
    hash $xiaozhi_device consistent;
@{servers}
    keepalive 16;
}

server {
@{listen}
    server_name @{host};
@{tls}
    # Pictures of cameras (vision.max_mb).
    client_max_body_size @{picture_mb}m;

    # A device that only listens sends nothing for minutes; the server says something every @{keepalive} s.
    proxy_read_timeout @{tunnel_s}s;
    proxy_send_timeout @{tunnel_s}s;
    proxy_connect_timeout 3s;
    proxy_socket_keepalive on;
    # Never hold sound back.
    proxy_buffering off;
    proxy_request_buffering off;
    tcp_nodelay on;

    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $xiaozhi_connection;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    # A node that is full or stops answers 503, one that is gone nothing: try the next one.
    proxy_next_upstream error timeout http_502 http_503 http_504;
    proxy_next_upstream_tries 3;

    location / {
        proxy_pass @{node_scheme}://xiaozhi;
@{node_tls}    }

    # Figures are for inside.
    location = /metrics {
        allow 127.0.0.0/8;
        allow 10.0.0.0/8;
        allow 172.16.0.0/12;
        allow 192.168.0.0/16;
        allow ::1;
        allow fd00::/8;
        deny all;
        proxy_pass @{node_scheme}://xiaozhi;
@{node_tls}    }
}
""")


def _nodes(plan: Plan) -> tuple[str, ...]:
    return plan.nodes or (f"127.0.0.1:{plan.port}",)


def _scheme(plan: Plan) -> str:
    return "http" if plan.extra.get("plain") else "https"


def _most_connections(plan: Plan) -> int:
    """Of the front: two for each device (one on each side), and some for OTA, scrapes and people."""
    return 2 * plan.settings.server.max_devices * len(_nodes(plan)) + 1000


def haproxy(plan: Plan) -> str:
    """A whole `haproxy.cfg`."""
    plain = bool(plan.extra.get("plain"))
    certificate = plan.extra.get("certificate") or f"/etc/haproxy/certs/{plan.host}.pem"
    binds = ["    bind :80"]
    if not plain:
        binds += [
            "    # Certificate, chain and key in one file. Only HTTP/1.1 carries the WebSocket of devices.",
            f"    bind :443 ssl crt {certificate} alpn http/1.1",
        ]
    tls = """\
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
    tune.ssl.default-dh-param 2048
"""
    redirect = """\
    # Devices do not follow redirects: only the pages for people are led to TLS.
    http-request redirect scheme https code 301 if { path_beg /console } !{ ssl_fc }
"""
    node_tls = f" ssl verify required ca-file @system-ca sni str({plan.host})" if plan.node_speaks_tls else ""
    return _HAPROXY.substitute(
        host=plan.host,
        scheme=_scheme(plan),
        ready=READY_PATH,
        maxconn=_most_connections(plan),
        tunnel_s=plan.tunnel_s,
        global_tls="" if plain else tls,
        keepalive=f"{plan.settings.server.keepalive_s:g}",
        binds="\n".join(binds),
        redirect="" if plain else redirect,
        per_node=plan.settings.server.max_devices + 100,
        servers="\n".join(f"    server node{number} {node}{node_tls}" for number, node in enumerate(_nodes(plan), 1)),
    )


def nginx(plan: Plan) -> str:
    """What goes into nginx's `http { }`."""
    plain = bool(plan.extra.get("plain"))
    folder = f"/etc/letsencrypt/live/{plan.host}"
    certificate = plan.extra.get("certificate") or f"{folder}/fullchain.pem"
    key = plan.extra.get("key") or f"{folder}/privkey.pem"
    tls = f"""\
    ssl_certificate     {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:xiaozhi:10m;
    ssl_session_timeout 1d;
"""
    also_plain = """
    # Devices that were given an http address stay with it: they do not follow redirects.
    listen 80;
    listen [::]:80;"""
    node_tls = f"""\
        proxy_ssl_server_name on;
        proxy_ssl_name {plan.host};
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;
"""
    per_node = plan.settings.server.max_devices + 100
    return _NGINX.substitute(
        picture_mb=plan.picture_mb,
        host=plan.host,
        scheme=_scheme(plan),
        ready=READY_PATH,
        maxconn=_most_connections(plan),
        tunnel_s=plan.tunnel_s,
        keepalive=f"{plan.settings.server.keepalive_s:g}",
        servers="\n".join(
            f"    server {node} max_conns={per_node} max_fails=1 fail_timeout=5s;" for node in _nodes(plan)
        ),
        listen="    listen 80;\n    listen [::]:80;"
        if plain
        else f"    listen 443 ssl;\n    listen [::]:443 ssl;{also_plain}",
        tls="" if plain else tls,
        node_scheme="https" if plan.node_speaks_tls else "http",
        node_tls=node_tls if plan.node_speaks_tls else "",
    )
