"""What a process counts by itself: one table for each subject."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from xiaozhi import __version__
from xiaozhi.access.access_control import AccessControl
from xiaozhi.cache.disk import DiskTier
from xiaozhi.cache.memory import MemoryTier
from xiaozhi.cache.redis_tier import RedisTier
from xiaozhi.cluster.registry import NodeRegistry
from xiaozhi.cluster.shared import Shared
from xiaozhi.concurrency.channel import KINDS, ChannelKind
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.console.routes import Console
from xiaozhi.conversation.services import Services
from xiaozhi.http.services import HttpServices
from xiaozhi.observability.health.rules import WATCHED
from xiaozhi.observability.health.upstreams import VoiceState, remote_recognition, voice_states
from xiaozhi.observability.metrics.tables import COUNTER, GAUGE, Row, Sources, Table, sole
from xiaozhi.overload.steps import Step
from xiaozhi.stages.asr.remote_use import RemoteUse
from xiaozhi.stages.llm.chat import Chat
from xiaozhi.tools.external import ExternalServer, ServerState
from xiaozhi.transport.announcer import AnnouncementOutcome
from xiaozhi.transport.connected_devices import ConnectedDevices
from xiaozhi.transport.mqtt_listener import MqttListener
from xiaozhi.transport.udp import DatagramDrop, UdpEndpoint
from xiaozhi.upstream.breaker import BreakerState
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.member import UpstreamState


def _breaker(kind: str, state: Callable[[Any], BreakerState]) -> Row[Any]:
    """One of the states is 1, the others are 0."""
    text = "1 for the state of the circuit breaker: closed lets requests through."
    return Row(GAUGE, f"xiaozhi_{kind}_breaker", text, lambda one: _only(state(one), BreakerState), ("state",))


def _only(now: BreakerState | ServerState, states: type[BreakerState] | type[ServerState]) -> Mapping[str, float]:
    return {state.value: float(state is now) for state in states}


def _pool(name: str, pool: Callable[[Services], WorkerPool]) -> Table[WorkerPool]:
    return Table(lambda s: {"": pool(s.services)}, (
        Row(GAUGE, f"xiaozhi_{name}_queue_seconds", "Age of the oldest job that waits.", lambda p: p.oldest_wait_s()),
        Row(GAUGE, f"xiaozhi_{name}_queue_jobs", "Jobs that wait.", lambda p: p.waiting),
        Row(GAUGE, f"xiaozhi_{name}_workers_busy", "Threads at work.", lambda p: p.workers - p.idle_workers),
        Row(GAUGE, f"xiaozhi_{name}_workers", "Threads.", lambda p: p.workers),
        Row(COUNTER, f"xiaozhi_{name}_dropped", "Jobs that went stale before they began.", lambda p: p.dropped),
    ))  # fmt: skip


_DEVICES: Final[Table[ConnectedDevices]] = Table(lambda s: {"": s.devices}, (
    Row(GAUGE, "xiaozhi_devices_online", "Devices that are connected.", len),
    Row(COUNTER, "xiaozhi_devices_refused", "Devices turned away for want of room.", lambda d: d.refused),
    Row(COUNTER, "xiaozhi_devices_flooded", "Devices hung up because they sent more than any does.",
        lambda d: d.flooded),
    Row(COUNTER, "xiaozhi_downlink_dropped", "Packets not sent because their device does not read fast enough.",
        lambda d: d.packets_dropped),
    Row(GAUGE, "xiaozhi_tasks", "Tasks of the event loop.", lambda _: len(asyncio.all_tasks())),
))  # fmt: skip

_LOAD: Final[Table[Services]] = Table(lambda s: {"": s.services}, (
    Row(GAUGE, "xiaozhi_loop_lag_seconds", "Second longest standstill of the loop in the last two seconds.",
        lambda s: s.load_shedder.lag.lag_ms() / 1e3),
    Row(COUNTER, "xiaozhi_loop_stalls", "Standstills of the loop that were too long.",
        lambda s: s.load_shedder.lag.stalls),
    Row(GAUGE, "xiaozhi_degraded", "1 while this is given up because of load.",
        lambda s: {step.value: float(step in s.load_shedder.taken) for step in Step}, ("step",)),
    Row(COUNTER, "xiaozhi_degradations", "How often this was given up.",
        lambda s: {step.value: s.load_shedder.times_taken[step] for step in Step}, ("step",)),
    Row(GAUGE, "xiaozhi_turns_waiting", "Turns that wait because of load.", lambda s: s.admission.waiting),
    Row(COUNTER, "xiaozhi_turns_held", "Turns that had to wait because of load.", lambda s: s.admission.held),
    Row(COUNTER, "xiaozhi_turns_turned_away", "Turns that waited in vain.", lambda s: s.admission.turned_away),
    Row(GAUGE, "xiaozhi_memory_ratio", "Memory in use, of what may be used.",
        lambda s: s.load_shedder.readings.memory_percent / 100),
))  # fmt: skip

_HEARING: Final[Table[Services]] = Table(lambda s: {"": s.services}, (
    Row(COUNTER, "xiaozhi_vad_windows", "Windows of 32 ms that the model judged.", lambda s: s.batcher.stats.windows),
    Row(COUNTER, "xiaozhi_vad_still_windows", "Windows that needed no model.", lambda s: s.batcher.stats.still_windows),
    Row(COUNTER, "xiaozhi_vad_runs", "Runs of the model, each for several devices.", lambda s: s.batcher.stats.runs),
    Row(COUNTER, "xiaozhi_vad_wait_seconds", "Time that devices waited for their tick.",
        lambda s: s.batcher.stats.wait_s),
    Row(COUNTER, "xiaozhi_vad_served", "Devices served, summed over ticks.", lambda s: s.batcher.stats.served),
    Row(COUNTER, "xiaozhi_vad_late", "Devices that waited longer than they should.", lambda s: s.batcher.stats.late),
    Row(COUNTER, "xiaozhi_vad_busy_seconds", "Time in the thread that decodes and judges.",
        lambda s: s.batcher.stats.busy_s),
    Row(COUNTER, "xiaozhi_uplink_packets", "Opus packets heard.", lambda s: s.batcher.stats.packets),
    Row(COUNTER, "xiaozhi_uplink_errors", "Packets that were not Opus.", lambda s: s.batcher.stats.errors),
    Row(COUNTER, "xiaozhi_own_voice_held_back", "Times that a device heard itself speak.",
        lambda s: s.echoes.held_back),
    Row(COUNTER, "xiaozhi_own_voice_let_through", "Of these, times that somebody spoke over it.",
        lambda s: s.echoes.let_through),
    Row(COUNTER, "xiaozhi_asr_early", "Decodes begun before anybody asked.",
        lambda s: s.recognition.early.begun + s.recognition.second_pass.begun),
    Row(COUNTER, "xiaozhi_asr_early_used", "Early decodes that were the answer.",
        lambda s: s.recognition.early.used + s.recognition.second_pass.used),
    Row(COUNTER, "xiaozhi_asr_unconfirmed", "Streamed texts that were answered without a second pass.",
        lambda s: s.recognition.second_pass.left_out),
    Row(COUNTER, "xiaozhi_speculations", "Replies begun before their turn was over.", lambda s: s.speculation.started),
    Row(COUNTER, "xiaozhi_speculations_early", "Of these, replies begun before the soft end.",
        lambda s: s.speculation.early),
    Row(COUNTER, "xiaozhi_speculations_committed", "Of these, replies that were spoken.",
        lambda s: s.speculation.committed),
    Row(COUNTER, "xiaozhi_speculations_wasted", "Of these, replies dropped unheard.", lambda s: s.speculation.wasted),
))  # fmt: skip

_CHANNELS: Final[Table[ChannelKind]] = Table(lambda _: {kind.name: kind for kind in KINDS}, (
    Row(GAUGE, "xiaozhi_channel_items", "Items that wait between two stages.", lambda kind: kind.depth()),
    Row(GAUGE, "xiaozhi_channel_seconds", "Age of the oldest waiting item.", lambda kind: kind.oldest_s()),
    Row(COUNTER, "xiaozhi_channel_dropped", "Items dropped.", lambda kind: kind.dropped),
), "channel")  # fmt: skip

# Counters of engines that are exchanged begin again at 0.
_ENDPOINTS: Final[Table[UpstreamState]] = Table(lambda s: {one.name: one for one in s.services.chat.states()}, (
    Row(COUNTER, "xiaozhi_endpoint_requests", "Requests, hedges among them.", lambda e: e.requests),
    Row(COUNTER, "xiaozhi_endpoint_succeeded", "Requests answered to the end.", lambda e: e.succeeded),
    Row(COUNTER, "xiaozhi_endpoint_dropped",
        "Requests ended by us: nobody listened any more, or another was quicker.", lambda e: e.dropped),
    Row(COUNTER, "xiaozhi_endpoint_failures", "Requests that failed, by how.",
        lambda e: {kind.value: e.failures.get(kind.value, 0) for kind in FailureKind}, ("kind",)),
    Row(COUNTER, "xiaozhi_endpoint_hedges", "Requests made because another endpoint was late.", lambda e: e.hedges),
    Row(COUNTER, "xiaozhi_endpoint_opened", "Times it was left alone.", lambda e: e.opened),
    Row(GAUGE, "xiaozhi_endpoint_in_flight", "Requests under way.", lambda e: e.in_flight),
    Row(GAUGE, "xiaozhi_endpoint_max_concurrent", "Requests that may be under way at once.",
        lambda e: e.max_concurrent),
    Row(GAUGE, "xiaozhi_endpoint_first_byte_p90_seconds", "Rolling 90th percentile of the time to the first piece.",
        lambda e: e.first_byte_p90_s),
    Row(GAUGE, "xiaozhi_endpoint_healthy", "1 when it was well the last time anybody looked, 0 when not.",
        lambda e: e.healthy),
    _breaker("endpoint", lambda e: e.breaker),
), "endpoint")  # fmt: skip

_CHAT: Final[Table[Chat]] = Table(lambda s: {"": s.services.chat}, (
    Row(COUNTER, "xiaozhi_chat_answered", "Replies that came to their end.", lambda c: c.answered),
    Row(COUNTER, "xiaozhi_chat_failed", "Replies that no endpoint could give, or finish.", lambda c: c.failed),
    Row(COUNTER, "xiaozhi_chat_continued", "Replies that another endpoint went on with in the middle.",
        lambda c: c.continued),
    Row(COUNTER, "xiaozhi_chat_offline", "Replies given here because the cloud could not be reached.",
        lambda c: c.offline),
    Row(COUNTER, "xiaozhi_hedges_refused", "Second requests that were wanted, and not made for want of budget.",
        lambda c: c.pool.budget.refused),
))  # fmt: skip

_VOICES: Final[Table[VoiceState]] = Table(lambda s: {one.name: one for one in voice_states(s.services)}, (
    Row(COUNTER, "xiaozhi_voice_sentences", "Sentences spoken.", lambda v: v.spoken),
    Row(COUNTER, "xiaozhi_voice_failures", "Sentences that failed.", lambda v: v.failed),
    _breaker("voice", lambda v: v.breaker),
), "voice")  # fmt: skip

_VOICE_SLOTS: Final[Table[Services]] = Table(lambda s: {"": s.services}, (
    Row(GAUGE, "xiaozhi_voice_slots_waiting", "Sentences that wait to ask a voice.", lambda s: s.voice.slots.waiting),
    Row(COUNTER, "xiaozhi_voice_slots_waited", "Sentences that had to wait to ask a voice.",
        lambda s: s.voice.slots.waited),
))  # fmt: skip

_REMOTE: Final[Table[RemoteUse]] = Table(lambda s: sole(remote_recognition(s.services)), (
    Row(COUNTER, "xiaozhi_remote_asr_requests", "Utterances that the remote recogniser got.", lambda r: r.requests),
    Row(COUNTER, "xiaozhi_remote_asr_failures", "Of these, requests that failed or were late.", lambda r: r.failures),
    Row(COUNTER, "xiaozhi_remote_asr_fallbacks", "Utterances recognised here instead.", lambda r: r.fallbacks),
    Row(GAUGE, "xiaozhi_remote_asr_in_flight", "Requests under way.", lambda r: r.in_flight),
))  # fmt: skip

_REMOTE_BREAKER: Final[Table[RemoteUse]] = Table(
    lambda s: {one.name: one for one in sole(remote_recognition(s.services)).values()},
    (_breaker("remote_asr", lambda r: r.breaker.state(time.monotonic())),), "remote_asr",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Cache:
    """What a cache counts; None where it does not."""

    hits: Mapping[str, float]
    misses: float
    entries: float | None = None
    evicted: float | None = None
    size_bytes: float | None = None


def _caches(sources: Sources) -> Mapping[str, _Cache]:
    services, found = sources.services, {}
    if (answers := services.caches.answers) is not None:
        hits = {"exact": answers.hits, "similar": answers.similar_hits, "common": answers.common_hits}
        found["answers"] = _Cache(hits, answers.misses, len(answers), answers.evicted, answers.bytes)
    if (speech := services.caches.speech.cache) is not None:
        found["speech"] = _Cache({"exact": speech.hits, "joined": speech.joined}, speech.misses)
    if (recognition := services.recognition.cache) is not None:
        found["recognition"] = _Cache({"exact": recognition.hits}, recognition.misses, len(recognition))
    return found


_CACHES: Final[Table[_Cache]] = Table(_caches, (
    Row(COUNTER, "xiaozhi_cache_hits", "Questions answered, by how.", lambda c: c.hits, ("how",)),
    Row(COUNTER, "xiaozhi_cache_misses", "Questions not answered.", lambda c: c.misses),
    Row(COUNTER, "xiaozhi_cache_evicted", "Entries forgotten to make room.", lambda c: c.evicted),
    Row(GAUGE, "xiaozhi_cache_entries", "Entries held.", lambda c: c.entries),
    Row(GAUGE, "xiaozhi_cache_bytes", "Size of what is held.", lambda c: c.size_bytes),
), "cache")  # fmt: skip

_CACHED: Final[Table[Services]] = Table(lambda s: {"": s.services}, (
    Row(COUNTER, "xiaozhi_cache_refused", "Questions that must not be answered from a cache.",
        lambda s: s.caches.answers.refused if s.caches.answers is not None else None),
    Row(COUNTER, "xiaozhi_speech_unkept", "Clauses made and not kept.",
        lambda s: s.caches.speech.cache.unkept if s.caches.speech.cache is not None else None),
))  # fmt: skip


def _tiers(sources: Sources) -> Mapping[str, MemoryTier | DiskTier]:
    speech = sources.services.caches.speech.cache
    tiers = speech.tiers.tiers if speech is not None else ()
    return {tier.name: tier for tier in tiers if isinstance(tier, MemoryTier | DiskTier)}


_TIERS: Final[Table[MemoryTier | DiskTier]] = Table(_tiers, (
    Row(COUNTER, "xiaozhi_speech_tier_hits", "Clauses found.", lambda t: t.hits),
    Row(COUNTER, "xiaozhi_speech_tier_misses", "Clauses not found.", lambda t: t.misses),
    Row(COUNTER, "xiaozhi_speech_tier_evicted", "Clauses forgotten to make room.", lambda t: t.evicted),
    Row(GAUGE, "xiaozhi_speech_tier_entries", "Clauses held.", len),
    Row(GAUGE, "xiaozhi_speech_tier_bytes", "Size of what is held.", lambda t: t.bytes),
    Row(COUNTER, "xiaozhi_speech_tier_dropped", "Clauses not kept because the disk was too slow or failed.",
        lambda t: t.dropped if isinstance(t, DiskTier) else None),
), "tier")  # fmt: skip

_STORE: Final[Table[Services]] = Table(lambda s: {"": s.services}, (
    Row(COUNTER, "xiaozhi_store_commits", "Batches written.", lambda s: s.store.database.commits),
    Row(COUNTER, "xiaozhi_store_dropped", "Writes not tried because too many waited.",
        lambda s: s.store.database.dropped),
    Row(COUNTER, "xiaozhi_store_failed", "Writes that the disk did not take.", lambda s: s.store.database.failed),
    Row(COUNTER, "xiaozhi_store_set_aside", "Damaged files that were replaced.", lambda s: s.store.database.set_aside),
    Row(COUNTER, "xiaozhi_summaries_made", "Summaries written.", lambda s: s.summaries.made),
    Row(COUNTER, "xiaozhi_summaries_failed", "Summaries that the model did not manage.", lambda s: s.summaries.failed),
    Row(COUNTER, "xiaozhi_memory_conversations", "Conversations that were to be read for facts, by outcome.",
        lambda s: {"read": s.memory.read, "failed": s.memory.failed}, ("outcome",)),
    Row(COUNTER, "xiaozhi_memory_facts",
        "Facts about users: added, replaced by newer ones, handed to a conversation (recalled), erased by wish.",
        lambda s: {what: getattr(s.memory, what) for what in ("added", "replaced", "recalled", "erased")}, ("what",)),
    Row(COUNTER, "xiaozhi_memory_refused", "Wishes to remember that held nothing to keep.", lambda s: s.memory.refused),
    Row(COUNTER, "xiaozhi_memory_service_failures", "Requests that mem0 did not answer well.",
        lambda s: s.memory.service_failed),
))  # fmt: skip

_TOOLS: Final[Table[Services]] = Table(lambda s: {"": s.services}, (
    Row(COUNTER, "xiaozhi_tool_calls", "Calls of tools.", lambda s: s.tools.counters.calls),
    Row(COUNTER, "xiaozhi_tool_failures", "Calls that did not work out, by why.",
        lambda s: {why: getattr(s.tools.counters, why) for why in ("failed", "timed_out", "refused")}, ("why",)),
    Row(COUNTER, "xiaozhi_web_requests", "Requests of built-in tools to the internet.", lambda s: s.tools.web.requests),
    Row(COUNTER, "xiaozhi_web_failures", "Of these, requests that did not work out.", lambda s: s.tools.web.failures),
    Row(COUNTER, "xiaozhi_reminders", "Reminders, timers and alarms that were due, by outcome.",
        lambda s: {"told": s.tools.reminders.rung, "missed": s.tools.reminders.missed} if s.tools.reminders else None,
        ("outcome",)),
))  # fmt: skip

_SERVERS: Final[Table[ExternalServer]] = Table(
    lambda s: {one.config.name: one for one in s.services.tools.external.servers}, (
    Row(GAUGE, "xiaozhi_mcp_server_state",
        "1 for the state of the external MCP server: a ready one can be called.",
        lambda server: _only(server.state, ServerState), ("state",)),
    Row(COUNTER, "xiaozhi_mcp_server_restarts", "Times it was started again.", lambda server: server.restarts),
    Row(GAUGE, "xiaozhi_mcp_server_tools", "Tools it offers.", lambda server: len(server.tools())),
), "server")  # fmt: skip

_SHARED: Final[Table[Shared]] = Table(lambda s: sole(s.services.shared), (
    Row(COUNTER, "xiaozhi_redis_requests", "Questions put to Redis.", lambda s: s.link.asked),
    Row(COUNTER, "xiaozhi_redis_failures", "Of these, questions without an answer in time.", lambda s: s.link.failed),
    Row(COUNTER, "xiaozhi_redis_spared", "Questions not asked because Redis has just failed.", lambda s: s.link.spared),
    Row(COUNTER, "xiaozhi_shared_conversations",
        "Ends of conversations: taken over from another node, written for others, not written.",
        lambda s: {what: getattr(s.conversations, what) for what in ("taken_over", "written", "dropped")}, ("what",)),
))  # fmt: skip


def _redis_caches(sources: Sources) -> Mapping[str, Any]:
    caches = sources.services.caches
    if sources.services.shared is None:
        return {}
    tiers = caches.speech.cache.tiers.tiers if caches.speech.cache is not None else ()
    speech = next((tier for tier in tiers if isinstance(tier, RedisTier)), None)
    return {name: one for name, one in (("speech", speech), ("answers", caches.shared)) if one is not None}


_REDIS_CACHES: Final[Table[Any]] = Table(_redis_caches, (
    Row(COUNTER, "xiaozhi_redis_cache_hits", "Found in Redis.", lambda cache: cache.hits),
    Row(COUNTER, "xiaozhi_redis_cache_misses", "Not found in Redis.", lambda cache: cache.misses),
    Row(COUNTER, "xiaozhi_redis_cache_dropped", "Not kept in Redis.", lambda cache: cache.dropped),
), "cache")  # fmt: skip


def _registry(sources: Sources) -> NodeRegistry | None:
    node = sources.node() if sources.services.shared is not None else None
    return node.registry if node is not None else None


_NODES: Final[Table[NodeRegistry]] = Table(lambda s: sole(_registry(s)), (
    Row(GAUGE, "xiaozhi_nodes", "Nodes that are known, this one among them.", lambda r: len(r.nodes)),
    Row(COUNTER, "xiaozhi_heartbeats", "Heartbeats of this node, by outcome.",
        lambda r: {"written": r.beats, "missed": r.missed}, ("outcome",)),
    Row(COUNTER, "xiaozhi_devices_sent_elsewhere", "Devices told another address.", lambda r: r.sent_elsewhere),
))  # fmt: skip

_HTTP: Final[Table[HttpServices]] = Table(lambda s: {"": s.http}, (
    Row(COUNTER, "xiaozhi_announcements", "Announcements, one for each device they were meant for, by what became of "
        "them.", lambda h: {one.name.lower(): h.announcer.outcomes[one] for one in AnnouncementOutcome}, ("outcome",)),
    Row(COUNTER, "xiaozhi_unasked",
        "Sentences said unasked, which are announcements, reminders and alarms, by whether they were heard.",
        lambda h: {"heard": h.announcer.spoken, "unheard": h.announcer.unspoken}, ("outcome",)),
    Row(COUNTER, "xiaozhi_pictures", "Pictures from devices, by outcome.",
        lambda h: {what: getattr(h.vision, what) for what in ("answered", "refused", "failed")} if h.vision else None,
        ("outcome",)),
    Row(COUNTER, "xiaozhi_mcp_calls", "Calls of other programs to this server by MCP.",
        lambda h: h.mcp.calls if h.mcp is not None else None),
))  # fmt: skip

_ACCESS: Final[Table[AccessControl]] = Table(lambda s: {"": s.access}, (
    Row(COUNTER, "xiaozhi_tokens_issued", "Tokens given to devices.", lambda a: a.token_auth.issued),
    Row(COUNTER, "xiaozhi_devices_activated", "Devices that were found bound.", lambda a: a.activation.activated),
    Row(COUNTER, "xiaozhi_firmware_offered", "Updates offered to devices.", lambda a: a.firmware.offered),
    Row(COUNTER, "xiaozhi_refused", "Requests and devices not let in, by why.", lambda a: a.refusals(), ("why",)),
))  # fmt: skip

_CONSOLE: Final[Table[Console]] = Table(lambda s: sole(s.console), (
    Row(COUNTER, "xiaozhi_console_sign_ins", "Sign-ins to the console.", lambda c: c.access.sessions.opened),
    Row(COUNTER, "xiaozhi_console_wrong_passwords", "Sign-ins that were refused.", lambda c: c.access.failures),
    Row(COUNTER, "xiaozhi_console_changes", "Changes of the settings from the console.", lambda c: c.changes),
))  # fmt: skip


def _alerts(sources: Sources) -> Mapping[str, float]:
    active = {alert.rule.name for alert in sources.alerts.active}
    return {rule.name: float(rule.name in active) for rule in WATCHED}


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


_PROCESS: Final[Table[Sources]] = Table(lambda s: {"": s}, (
    Row(GAUGE, "xiaozhi_alert", "1 while somebody should look.", _alerts, ("name",)),
    Row(COUNTER, "xiaozhi_alerts_raised", "Alerts raised.", lambda s: s.alerts.raised),
    Row(COUNTER, "xiaozhi_alert_webhooks", "Alerts sent to the webhook, by outcome.",
        lambda s: {"sent": s.alerts.webhook.sent, "failed": s.alerts.webhook.failed}, ("outcome",)),
    Row(COUNTER, "xiaozhi_reloads", "New settings, by outcome.",
        lambda s: {"applied": s.reloader.applied, "refused": s.reloader.refused}, ("outcome",)),
    Row(GAUGE, "xiaozhi_settings_waiting", "Settings that wait for a restart.", lambda s: len(s.reloader.restart)),
    Row(GAUGE, "xiaozhi_former_engines", "Exchanged engines that are still used.",
        lambda s: s.services.retirement.retiring),
    Row(GAUGE, "xiaozhi_cpu_ratio", "Processor time in use, of all cores it may use.",
        lambda s: _share(s.alerts.readings.cpu_percent)),
    Row(GAUGE, "xiaozhi_disk_ratio", "Used space of the data folder's disk.",
        lambda s: _share(s.alerts.readings.disk_percent)),
    Row(GAUGE, "xiaozhi_build_info", "1; the version as a label.", lambda _: {__version__: 1.0}, ("version",)),
))  # fmt: skip

_MQTT: Final[Table[MqttListener]] = Table(lambda s: sole(s.mqtt), (
    Row(GAUGE, "xiaozhi_mqtt_connections", "MQTT connections, of sleeping devices as well.", len),
    Row(COUNTER, "xiaozhi_mqtt_refused", "MQTT clients that were not let in.", lambda m: m.refused),
    Row(COUNTER, "xiaozhi_mqtt_flooded", "MQTT clients that sent more than any device does.", lambda m: m.flooded),
    Row(COUNTER, "xiaozhi_mqtt_expired", "MQTT clients from which nothing came for too long.", lambda m: m.expired),
))  # fmt: skip

_UDP: Final[Table[UdpEndpoint]] = Table(lambda s: sole(s.udp), (
    Row(GAUGE, "xiaozhi_udp_sessions", "Conversations whose sound goes by UDP.", len),
    Row(COUNTER, "xiaozhi_udp_lost", "Packets of ended conversations that never came.", lambda u: u.lost),
    Row(COUNTER, "xiaozhi_udp_dropped", "Datagrams that were not used.",
        lambda u: {drop.name.lower(): u.drops[drop] for drop in DatagramDrop}, ("reason",)),
))  # fmt: skip

TABLES: Final[Sequence[Table[Any]]] = (
    _DEVICES, _LOAD, _HEARING, _pool("asr", lambda s: s.recognition.pool), _pool("codec", lambda s: s.codec), _CHANNELS,
    _ENDPOINTS, _CHAT, _VOICES, _VOICE_SLOTS, _REMOTE, _REMOTE_BREAKER, _CACHES, _CACHED, _TIERS, _STORE, _TOOLS,
    _SERVERS, _SHARED, _REDIS_CACHES, _NODES, _HTTP, _ACCESS, _CONSOLE, _PROCESS,
    _MQTT, _UDP,
)  # fmt: skip
"""Everything, in the order in which a scrape shows it."""
