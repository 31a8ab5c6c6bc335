"""Kubernetes manifests: nodes that grow with the wait for recognition, and everything around them."""

import re
from typing import Final

from xiaozhi.deploy.containers import USER_ID
from xiaozhi.deploy.facts import LIVE_PATH, METRICS_PATH, READY_PATH, DeployError, Form, Plan

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_HEAD: Final = Form("""\
# The XiaoZhi server on Kubernetes (1.30 or newer).
#
#   xiaozhi deploy kubernetes --domain @{host} --image @{image} | kubectl apply -f -
#   kubectl -n @{namespace} exec xiaozhi-0 -- xiaozhi console password --show      until somebody has signed in
#
# Keys, each under the name of its variable; any setting can be given so (XIAOZHI_METRICS__TOKEN):
#   kubectl -n @{namespace} create secret generic xiaozhi-keys --from-literal=OPENAI_API_KEY=...
#
# Needed: an ingress controller (ingress-nginx here) with a certificate in the secret @{tls_secret};
# for HorizontalPodAutoscaler by the wait for recognition, prometheus-adapter with the rule at the end of this file;
# for ServiceMonitor, the Prometheus operator. `--no-monitor` leaves both out, `--no-redis` Redis.

apiVersion: v1
kind: Namespace
metadata:
  name: @{namespace}
  labels:
    pod-security.kubernetes.io/enforce: restricted
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: xiaozhi
  namespace: @{namespace}
automountServiceAccountToken: false
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: xiaozhi-settings
  namespace: @{namespace}
data:
  settings.toml: |
@{settings}
---
# A name for each node; the statefulset needs it.
apiVersion: v1
kind: Service
metadata:
  name: xiaozhi-nodes
  namespace: @{namespace}
  labels: { app.kubernetes.io/name: xiaozhi, app.kubernetes.io/component: nodes }
spec:
  clusterIP: None
  selector: { app.kubernetes.io/name: xiaozhi }
  ports:
    - { name: http, port: @{port}, targetPort: http }
---
apiVersion: v1
kind: Service
metadata:
  name: xiaozhi
  namespace: @{namespace}
  labels: { app.kubernetes.io/name: xiaozhi, app.kubernetes.io/component: server }
spec:
  selector: { app.kubernetes.io/name: xiaozhi }
  ports:
    - { name: http, port: @{port}, targetPort: http }
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: xiaozhi
  namespace: @{namespace}
  labels: { app.kubernetes.io/name: xiaozhi }
spec:
  serviceName: xiaozhi-nodes
  replicas: @{replicas}
  podManagementPolicy: Parallel
  updateStrategy: { type: RollingUpdate }
  selector:
    matchLabels: { app.kubernetes.io/name: xiaozhi }
  template:
    metadata:
      labels: { app.kubernetes.io/name: xiaozhi }
    spec:
      serviceAccountName: xiaozhi
      automountServiceAccountToken: false
      # Five seconds until the balancer knows, then turns may end (server.drain_s = @{drain}), then it closes.
      terminationGracePeriodSeconds: @{grace_s}
      securityContext:
        runAsNonRoot: true
        runAsUser: @{uid}
        runAsGroup: @{uid}
        fsGroup: @{uid}
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: { type: RuntimeDefault }
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            - weight: 100
              podAffinityTerm:
                topologyKey: kubernetes.io/hostname
                labelSelector:
                  matchLabels: { app.kubernetes.io/name: xiaozhi }
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: topology.kubernetes.io/zone
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: { app.kubernetes.io/name: xiaozhi }
      containers:
        - name: server
          image: @{image}
          imagePullPolicy: IfNotPresent
          args: ["serve", "--settings", "/etc/xiaozhi/settings.toml"]
          ports:
            - { name: http, containerPort: @{port} }
          env:
            - { name: XIAOZHI_SERVER__HOST, value: "0.0.0.0" }
            - { name: XIAOZHI_SERVER__PORT, value: "@{port}" }
            - { name: XIAOZHI_SERVER__PUBLIC_URL, value: "https://@{host}" }
            # The ingress controller speaks for its clients.
            - { name: XIAOZHI_SERVER__TRUSTED_PROXIES, value: '["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]' }
            - { name: XIAOZHI_SERVER__DATA_DIR, value: /data/data }
            - { name: XIAOZHI_MODELS__DIR, value: /data/models }
            - { name: XDG_CACHE_HOME, value: /data/cache }
            - { name: CREDENTIALS_DIRECTORY, value: /run/keys }
@{cluster}          # The first start may fetch a model of 230 MB: five minutes.
          startupProbe:
            httpGet: { path: @{live}, port: http@{probe_scheme} }
            periodSeconds: 3
            failureThreshold: 100
          livenessProbe:
            httpGet: { path: @{live}, port: http@{probe_scheme} }
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          readinessProbe:
            httpGet: { path: @{ready}, port: http@{probe_scheme} }
            periodSeconds: 2
            timeoutSeconds: 2
            failureThreshold: 2
          lifecycle:
            preStop:
              sleep: { seconds: 5 }
          # From server.max_devices = @{max_devices} and asr.workers = @{workers}.
          resources:
            requests: { cpu: @{cpu_request}m, memory: @{memory_request}Mi }
            limits: { cpu: "@{cores}", memory: @{memory}Mi }
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: { drop: [ALL] }
          volumeMounts:
            - { name: data, mountPath: /data }
            - { name: tmp, mountPath: /tmp }
            - { name: settings, mountPath: /etc/xiaozhi, readOnly: true }
            - { name: keys, mountPath: /run/keys, readOnly: true }
      volumes:
        - name: tmp
          emptyDir: { sizeLimit: 256Mi }
        - name: settings
          configMap: { name: xiaozhi-settings }
        - name: keys
          secret: { secretName: xiaozhi-keys, optional: true, defaultMode: 0440 }
  volumeClaimTemplates:
    - metadata: { name: data }
      spec:
        accessModes: [ReadWriteOnce]
        resources:
          requests: { storage: @{storage}Gi }
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: xiaozhi
  namespace: @{namespace}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: { app.kubernetes.io/name: xiaozhi }
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: xiaozhi
  namespace: @{namespace}
spec:
  scaleTargetRef: { apiVersion: apps/v1, kind: StatefulSet, name: xiaozhi }
  minReplicas: @{replicas}
  maxReplicas: @{most_replicas}
  metrics:
@{queue_metric}    - type: Resource
      resource:
        name: cpu
        target: { type: Utilization, averageUtilization: 70 }
  behavior:
    scaleUp:
      stabilizationWindowSeconds: 0
      policies:
        - { type: Pods, value: 2, periodSeconds: 30 }
    # A node that goes ends conversations: only when it has been calm for long, and one at a time.
    scaleDown:
      stabilizationWindowSeconds: 900
      policies:
        - { type: Pods, value: 1, periodSeconds: 300 }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: xiaozhi
  namespace: @{namespace}
spec:
  podSelector:
    matchLabels: { app.kubernetes.io/name: xiaozhi }
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - namespaceSelector:
            matchExpressions:
              - { key: kubernetes.io/metadata.name, operator: In, values: [@{ingress_namespace}, @{monitor_namespace}] }
      ports:
        - { protocol: TCP, port: http }
  egress:
    - to:
        - namespaceSelector: {}
          podSelector:
            matchLabels: { k8s-app: kube-dns }
      ports:
        - { protocol: UDP, port: 53 }
        - { protocol: TCP, port: 53 }
@{redis_egress}    # Models and voices on the internet; for those in the cluster, add their namespace.
    - to:
        - ipBlock: { cidr: 0.0.0.0/0, except: [169.254.0.0/16] }
        - ipBlock: { cidr: "::/0", except: ["fe80::/10"] }
      ports:
        - { protocol: TCP, port: 443 }
        - { protocol: TCP, port: 80 }
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: xiaozhi
  namespace: @{namespace}
  annotations:
    # Each device to its node; a device that only listens sends nothing for minutes; never hold sound back; devices do
    # not follow redirects.
    nginx.ingress.kubernetes.io/upstream-hash-by: "$http_device_id"
    nginx.ingress.kubernetes.io/proxy-read-timeout: "@{tunnel_s}"
    nginx.ingress.kubernetes.io/proxy-send-timeout: "@{tunnel_s}"
    nginx.ingress.kubernetes.io/proxy-connect-timeout: "3"
    nginx.ingress.kubernetes.io/proxy-buffering: "off"
    nginx.ingress.kubernetes.io/proxy-request-buffering: "off"
    nginx.ingress.kubernetes.io/proxy-body-size: @{picture_mb}m
    nginx.ingress.kubernetes.io/proxy-next-upstream: error timeout http_502 http_503 http_504
    nginx.ingress.kubernetes.io/ssl-redirect: "false"
@{backend_annotation}spec:
  ingressClassName: nginx
  tls:
    - hosts: [@{host}]
      secretName: @{tls_secret}
  rules:
    - host: @{host}
      http:
        paths:
          # What devices and browsers need; figures (@{metrics}), announcements and the MCP server stay inside.
          - path: /xiaozhi
            pathType: Prefix
            backend: { service: { name: xiaozhi, port: { name: http } } }
          - path: /mcp/vision
            pathType: Prefix
            backend: { service: { name: xiaozhi, port: { name: http } } }
          - path: /console
            pathType: Prefix
            backend: { service: { name: xiaozhi, port: { name: http } } }
""")

_REDIS: Final = Form("""\
---
# What nodes share. A memory, not a store: nodes live on without it, slower.
apiVersion: v1
kind: Service
metadata:
  name: xiaozhi-redis
  namespace: @{namespace}
spec:
  selector: { app.kubernetes.io/name: xiaozhi-redis }
  ports:
    - { name: redis, port: 6379, targetPort: redis }
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: xiaozhi-redis
  namespace: @{namespace}
  labels: { app.kubernetes.io/name: xiaozhi-redis }
spec:
  replicas: 1
  strategy: { type: Recreate }
  selector:
    matchLabels: { app.kubernetes.io/name: xiaozhi-redis }
  template:
    metadata:
      labels: { app.kubernetes.io/name: xiaozhi-redis }
    spec:
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 999
        runAsGroup: 1000
        seccompProfile: { type: RuntimeDefault }
      containers:
        - name: redis
          image: redis:7-alpine
          args: ["--save", "", "--appendonly", "no", "--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru"]
          ports:
            - { name: redis, containerPort: 6379 }
          readinessProbe:
            exec: { command: [redis-cli, ping] }
            periodSeconds: 5
          livenessProbe:
            tcpSocket: { port: redis }
            periodSeconds: 10
          resources:
            requests: { cpu: 50m, memory: 128Mi }
            limits: { cpu: "1", memory: 384Mi }
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: { drop: [ALL] }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: xiaozhi-redis
  namespace: @{namespace}
spec:
  podSelector:
    matchLabels: { app.kubernetes.io/name: xiaozhi-redis }
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - podSelector:
            matchLabels: { app.kubernetes.io/name: xiaozhi }
      ports:
        - { protocol: TCP, port: redis }
""")

_MONITOR: Final = Form("""\
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: xiaozhi
  namespace: @{namespace}
  labels: { app.kubernetes.io/name: xiaozhi }
spec:
  jobLabel: app.kubernetes.io/name
  selector:
    matchLabels: { app.kubernetes.io/name: xiaozhi, app.kubernetes.io/component: server }
  endpoints:
    - port: http
      path: @{metrics}
      interval: 10s
@{scheme}# For prometheus-adapter (its values.yaml), so that the HorizontalPodAutoscaler sees the wait for recognition:
#
# rules:
#   custom:
#     - seriesQuery: 'xiaozhi_asr_queue_seconds{namespace!="",pod!=""}'
#       resources: { overrides: { namespace: { resource: namespace }, pod: { resource: pod } } }
#       name: { as: xiaozhi_asr_queue_seconds }
#       metricsQuery: 'max by (<<.GroupBy>>) (max_over_time(<<.Series>>{<<.LabelMatchers>>}[1m]))'
""")

_TO_TLS: Final = '    nginx.ingress.kubernetes.io/backend-protocol: "HTTPS"\n'

_QUEUE: Final = """\
    # Above a quarter of a second people notice it.
    - type: Pods
      pods:
        metric: { name: xiaozhi_asr_queue_seconds }
        target: { type: AverageValue, averageValue: 250m }
"""

# Both nodes and front know a device by the same name: whichever node answers OTA, the front leads it to its own one.
_CLUSTER: Final = Form("""\
            - { name: XIAOZHI_CLUSTER__URL, value: "redis://xiaozhi-redis:6379/0" }
            - name: XIAOZHI_CLUSTER__NODE
              valueFrom: { fieldRef: { fieldPath: metadata.name } }
            # Devices come through the ingress, to whichever node it leads them.
            - { name: XIAOZHI_CLUSTER__ADDRESS, value: "wss://@{host}" }
""")

_REDIS_EGRESS: Final = """\
    - to:
        - podSelector:
            matchLabels: { app.kubernetes.io/name: xiaozhi-redis }
      ports:
        - { protocol: TCP, port: 6379 }
"""


def manifests(plan: Plan) -> str:
    """All manifests as one YAML stream.

    Raises:
        DeployError: the settings file holds a secret, or the namespace is no name.
    """
    extra = plan.extra
    namespace = extra.get("namespace") or "xiaozhi"
    if not _NAME.fullmatch(namespace):
        raise DeployError(f"--namespace {namespace!r}: small letters, digits and - only, at most 63")
    redis, monitor = not extra.get("no_redis"), not extra.get("no_monitor")
    settings = "\n".join(f"    {line}".rstrip() for line in plan.settings_text().splitlines())
    text = _HEAD.substitute(
        host=plan.host,
        image=plan.image,
        namespace=namespace,
        settings=settings,
        port=plan.port,
        replicas=plan.replicas,
        most_replicas=max(4 * plan.replicas, plan.replicas + 2),
        drain=f"{plan.settings.server.drain_s:g}",
        grace_s=plan.stop_s + 10,
        uid=USER_ID,
        live=LIVE_PATH,
        ready=READY_PATH,
        metrics=METRICS_PATH,
        probe_scheme=", scheme: HTTPS" if plan.node_speaks_tls else "",
        backend_annotation=_TO_TLS if plan.node_speaks_tls else "",
        max_devices=plan.settings.server.max_devices,
        workers=plan.settings.asr.workers,
        cores=plan.cores,
        cpu_request=plan.cores * 500,
        memory=plan.memory_mb,
        memory_request=plan.memory_mb // 2,
        storage=max(2, 1 + plan.settings.cache.disk_mb // 1024 + 1),
        tunnel_s=plan.tunnel_s,
        picture_mb=plan.picture_mb,
        tls_secret="xiaozhi-tls",
        ingress_namespace=extra.get("ingress_namespace") or "ingress-nginx",
        monitor_namespace=extra.get("monitor_namespace") or "monitoring",
        cluster=_CLUSTER.substitute(host=plan.host) if redis else "",
        redis_egress=_REDIS_EGRESS if redis else "",
        queue_metric=_QUEUE if monitor else "",
    )
    if redis:
        text += _REDIS.substitute(namespace=namespace)
    if monitor:
        scheme = "      scheme: https\n" if plan.node_speaks_tls else ""
        text += _MONITOR.substitute(namespace=namespace, metrics=METRICS_PATH, scheme=scheme)
    return text
