/**
 * How the server is doing, live.
 * @module
 */
import { api } from '../api.js';
import { lineChart } from '../chart.js';
import { fill, h } from '../dom.js';
import { ago, hitShare, ms, number, percent } from '../format.js';
import { language, named, t } from '../i18n.js';
import { icon } from '../icons.js';
import { live } from '../live.js';
import { hearingNote } from '../pulls.js';
import { empty, loading, note, pageHead, tag } from '../ui.js';

// The plots have a point every 5 s.
const PLOTS_EVERY_MS = 10_000;

/** @param {import('../app.js').Context} context */
export function overviewPage({ signal }) {
  const place = h('div', { class: 'stack' });
  const uptime = h('span', { class: 'muted small' });
  loading(place, async () => board(await api('overview', { signal }), uptime, signal), 520);
  return [pageHead(t('nav.overview'), uptime), place];
}

/**
 * @param {any} first with the series
 * @param {HTMLElement} stamp says how fresh the figures are
 * @param {AbortSignal} signal
 */
function board(first, stamp, signal) {
  const latency = lineChart(t('plot.latency'), [
    { key: 'p95_ms', name: t('overview.p95'), colour: 'c-wait' },
    { key: 'p50_ms', name: t('overview.p50'), colour: 'c-accent', area: true },
  ], { height: 190, least: 500, unit: 'ms', write: (value) => number(value) });
  const load = lineChart(t('plot.devices'), [
    { key: 'devices', name: t('plot.devices'), colour: 'c-hear' },
    { key: 'turns', name: t('plot.turns'), colour: 'c-accent', area: true },
  ], { height: 130, least: 6, write: (value) => number(value) });
  const queue = lineChart(t('plot.queue'), [{ key: 'asr_queue_ms', name: t('plot.queue'), colour: 'c-think', area: true }], { height: 130, least: 100, unit: 'ms', write: (value) => number(value) });
  const box = lineChart(t('plot.cpu'), [{ key: 'cpu_percent', name: t('plot.cpu'), colour: 'c-hear', area: true }], { height: 130, least: 100, unit: '%', write: (value) => number(value) });

  const alerts = h('div', { class: 'stack', 'aria-live': 'polite' });
  const hearing = hearingNote(signal);
  const hero = h('div', { class: 'hero-side' });
  const strip = h('dl', { class: 'card strip' });
  const endpoints = h('ul', { class: 'lines' });
  const voices = h('ul', { class: 'lines' });
  const set = (/** @type {any} */ figures) => {
    stamp.textContent = t('overview.at', { at: new Date(figures.at * 1000).toLocaleTimeString(language() === 'zh' ? 'zh-CN' : 'en-GB') });
    fill(alerts, alertNotes(figures));
    fill(hero, ...heroOf(figures));
    fill(strip, ...stripOf(figures));
    const upstreams = figures.endpoints ?? [];
    fill(endpoints, ...(upstreams.length ? upstreams.map(endpointLine) : [empty('models', t('overview.no_endpoints'), t('overview.no_endpoints_hint'), h('a', { class: 'btn primary', href: '#/model-config/llm', text: t('endpoints.add') }))]));
    fill(voices, ...(figures.voices ?? []).map(voiceLine));
  };
  const plot = (/** @type {any[]} */ points) => {
    for (const chart of [latency, load, queue, box]) chart.set(points);
  };
  set(first);
  hearing.paint(first);
  plot(first.series ?? []);
  live.on('overview', set, signal);
  const timer = setInterval(async () => {
    if (document.hidden) return;
    try {
      plot((await api('overview', { signal })).series ?? []);
    } catch (error) {
      if (signal.aborted) return;
      stamp.textContent = /** @type {Error} */ (error).message; // the frame says that the server is away; the next round tries again
    }
  }, PLOTS_EVERY_MS);
  signal.addEventListener('abort', () => clearInterval(timer));

  const small = (/** @type {string} */ title, /** @type {any} */ chart) => h('section', { class: 'card' }, h('div', { class: 'card-head' }, h('h3', { text: title })), chart.node);
  return h(
    'div',
    { class: 'stack' },
    hearing.place,
    alerts,
    h('section', { class: 'card hero', 'aria-label': t('overview.first_word') }, hero, latency.node),
    strip,
    h('div', { class: 'plots' }, small(t('plot.load'), load), small(t('plot.queue'), queue), small(t('plot.cpu'), box)),
    h(
      'div',
      { class: 'two' },
      h('section', { class: 'card' }, h('div', { class: 'card-head' }, h('h2', { text: t('overview.endpoints') })), endpoints),
      h('section', { class: 'card' }, h('div', { class: 'card-head' }, h('h2', { text: t('overview.voices') })), voices),
    ),
  );
}

/** @param {any} figures */
function alertNotes(figures) {
  const alerts = (figures.alerts ?? []).map((/** @type {any} */ alert) =>
    note(language() === 'zh' ? alert.text_zh : alert.text_en, 'bad', h('span', { class: 'muted', text: `  ${ago(alert.since)}` })),
  );
  const given = figures.degraded ?? [];
  if (given.length) alerts.push(note(t('overview.degraded', { steps: given.map((/** @type {string} */ step) => named('step_given', step)).join(language() === 'zh' ? '、' : ', ') }), 'warn'));
  return alerts;
}

/** @param {any} figures */
function heroOf(figures) {
  const { p50, p95, p99, n } = figures.latency_ms ?? {};
  const own = figures.own_ms ?? {};
  if (!n) {
    return [
      h(
        'div',
        { class: 'stack' },
        h('h2', { text: t('overview.first_word') }),
        h('p', { class: 'hero-none', text: t('overview.no_turns') }),
        h('p', { class: 'muted small', text: t('overview.no_turns_hint') }),
        h('div', { class: 'row' }, h('a', { class: 'btn primary', href: '#/talk' }, icon('talk'), h('span', { text: t('talk.start') })), h('a', { class: 'btn', href: '#/devices' }, icon('devices'), h('span', { text: t('devices.connect') }))),
      ),
    ];
  }
  const rows = [
    [t('overview.p95'), ms(p95)],
    [t('overview.p99'), ms(p99)],
    [t('overview.own'), `${number(own.p50)} / ${ms(own.p95)}`, t('overview.own_is')],
    [t('overview.starved'), percent(figures.starved_share)],
  ];
  return [
    h(
      'div',
      {},
      h('h2', { text: t('overview.first_word') }),
      h('div', { class: 'hero-number' }, number(p50), h('small', { text: 'ms' })),
      h('p', { class: 'muted small', text: t('overview.of_turns', { n: number(n) }) }),
    ),
    h('dl', { class: 'facts' }, ...rows.flatMap(([name, value, title]) => [h('dt', { text: name, title }), h('dd', { text: value, title })])),
  ];
}

/** @param {any} figures */
function stripOf(figures) {
  const caches = figures.caches ?? {};
  /** @type {[string, string, string, string][]} */
  const cells = [
    [t('overview.devices'), number(figures.devices_online), '', t('overview.online')],
    [t('overview.turns'), number(figures.turns_minute), t('overview.a_minute'), t('overview.total', { n: number(figures.turns_total), failed: number(figures.failed_total) })],
    [t('overview.hits'), percent(hitShare(caches.answers)), '', t('overview.hits_speech', { share: percent(hitShare(caches.speech)) })],
    [t('overview.queue'), number(figures.asr_queue_ms), 'ms', t('overview.lag', { ms: number(figures.loop_lag_ms, 1) })],
    [t('overview.cpu'), number(figures.cpu_percent), '%', t('overview.of_process')],
    [t('overview.memory'), number(figures.memory_mb), 'MB', t('overview.of_machine', { share: number(figures.memory_percent) })],
  ];
  return cells.map(([name, value, unit, hint]) => h('div', {}, h('dt', { text: name }), h('dd', {}, value, unit && h('small', { text: ` ${unit}` })), h('p', { text: hint })));
}

/** @param {any} one */
function endpointLine(one) {
  const state = one.state ?? 'closed';
  const kind = state === 'open' || one.healthy === false ? 'bad' : state === 'half_open' ? 'warn' : 'good';
  const share = one.max_concurrent ? Math.min(1, one.in_flight / one.max_concurrent) : 0;
  return h(
    'li',
    {},
    h('span', { class: `dot ${kind}` }),
    h('strong', { text: one.name }),
    tag(named('tier', one.tier ?? '')),
    kind !== 'good' && tag(named('breaker', state), kind === 'bad' ? 'bad' : 'warn'),
    h('span', { class: 'grow' }),
    h('span', { class: 'small', text: Number.isFinite(one.first_token_ms) ? t('overview.endpoint_times', { first: ms(one.first_token_ms), p90: ms(one.p90_ms) }) : t('overview.endpoint_quiet') }),
    h(
      'div',
      { class: 'second small muted' },
      one.max_concurrent > 0 && h('span', { class: 'load-bar', 'aria-hidden': 'true' }, h('i', { style: { width: `${share * 100}%` } })),
      one.max_concurrent > 0 && h('span', { text: t('overview.endpoint_load', { now: one.in_flight, most: one.max_concurrent }) }),
      h('span', { class: 'grow' }),
      t('overview.endpoint_counts', { requests: number(one.requests), failures: number(one.failures) }),
    ),
  );
}

/** @param {any} one */
function voiceLine(one) {
  const kind = one.state === 'open' ? 'bad' : one.state === 'half_open' ? 'warn' : 'good';
  return h(
    'li',
    {},
    h('span', { class: `dot ${kind}` }),
    h('strong', { text: named('voice', one.name) }),
    kind !== 'good' && tag(named('breaker', one.state), kind),
    h('span', { class: 'grow' }),
    h('span', { class: 'small muted', text: one.first_sound_ms ? t('overview.first_sound', { ms: ms(one.first_sound_ms) }) : '' }),
  );
}
