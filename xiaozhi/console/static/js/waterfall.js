/**
 * A turn as a waterfall: one bar for each step, in milliseconds from the last voiced sample.
 * @module
 */
import { h } from './dom.js';
import { ms } from './format.js';
import { named, t } from './i18n.js';
import { empty, tag } from './ui.js';

/**
 * What a step is called, the trace's time of its end, those after which it could begin (it began at the latest of
 * them), and its colour.
 * @type {[string, string, string[], string][]}
 */
const STEPS = [
  ['soft_end', 'soft_end', [], 'wait'],
  ['text', 'text', ['soft_end'], 'hear'],
  ['first_token', 'first_token', ['text'], 'think'],
  ['first_clause', 'first_clause', ['first_token'], 'think'],
  ['first_speech', 'first_speech', ['first_clause'], 'voice'],
  ['commit', 'commit', [], 'settle'],
  ['first_packet', 'first_packet', ['first_speech', 'commit'], 'send'],
];

/**
 * @typedef {{name: string, from: number, to: number, kind: string}} Step
 * @param {Record<string, number | null>} spans of a trace
 * @returns {Step[]} in the order in which they ended
 */
export function steps(spans) {
  const found = [];
  for (const [name, end, after, kind] of STEPS) {
    const to = spans[end];
    if (to === null || to === undefined) continue;
    const from = Math.min(to, Math.max(0, ...after.map((each) => spans[each] ?? 0)));
    found.push({ name, from, to, kind });
  }
  return found.sort((one, other) => one.to - other.to);
}

/**
 * The waterfall of a trace, with what else is worth knowing of the turn below.
 * @param {any} trace as the server sends it
 */
export function waterfall(trace) {
  const spans = trace?.spans ?? {};
  const bars = steps(spans);
  if (!bars.length) return empty('wave', t('turn.no_times'));
  const most = Math.max(1, ...bars.map((bar) => bar.to));
  const rows = bars.flatMap((bar, index) => {
    const last = index === bars.length - 1 ? ' last' : '';
    const share = (/** @type {number} */ value) => `${((value / most) * 100).toFixed(2)}%`;
    return [
      h('span', { class: `name${last}`, text: t(`step.${bar.name}`) }),
      h(
        'span',
        { class: 'track', 'aria-hidden': 'true' },
        h('span', { class: `bar ${bar.kind}`, style: { left: share(bar.from), width: share(bar.to - bar.from) } }),
      ),
      h('span', { class: `ms${last}`, text: ms(bar.to) }),
    ];
  });
  const axis = [
    h('span', {}),
    h('span', { class: 'axis', 'aria-hidden': 'true' }, ...[0, most / 2, most].map((value) => h('span', { text: ms(value) }))),
    h('span', {}),
  ];
  return h('div', { class: 'stack' }, h('div', { class: 'waterfall', data: { role: 'waterfall' } }, ...rows, ...axis), meanings(bars), details(trace));
}

/**
 * What each step is, for those who ask.
 * @param {Step[]} bars
 */
function meanings(bars) {
  return h(
    'details',
    { class: 'meanings' },
    h('summary', { text: t('step.what') }),
    h('p', { text: t('step.from') }),
    h('dl', { class: 'facts' }, ...bars.flatMap((bar) => [h('dt', {}, h('i', { class: `bar ${bar.kind}` }), t(`step.${bar.name}`)), h('dd', { text: t(`step_is.${bar.name}`) })])),
  );
}

/** @param {any} trace */
function details(trace) {
  /** @type {[string, any][]} */
  const facts = [
    [t('turn.speech'), trace.speech_ms ? ms(trace.speech_ms) : null],
    [t('turn.reply'), trace.reply_ms ? ms(trace.reply_ms) : null],
    [t('turn.engine'), [trace.engine, trace.decode_ms ? ms(trace.decode_ms) : ''].filter(Boolean).join(' · ')],
    [t('turn.endpoint'), [trace.endpoint, trace.route].filter(Boolean).join(' · ')],
    [t('turn.voice'), trace.voice],
    [t('turn.mode'), [named('talk', trace.mode ?? ''), named('language', trace.language ?? '')].filter(Boolean).join(' · ')],
  ];
  const tags = [
    trace.cached && tag(t('turn.cached', { how: named('cached', trace.cached) }), 'accent'),
    trace.hedged && tag(t('turn.hedged'), 'accent'),
    trace.starved_ms > 60 && tag(t('turn.starved', { ms: Math.round(trace.starved_ms) }), 'warn'),
    trace.held_ms > 0 && tag(t('turn.held', { ms: Math.round(trace.held_ms) }), 'warn'),
    spanOf(trace, 'interrupted') && tag(t('turn.interrupted')),
    trace.error && tag(trace.error, 'bad'),
  ].filter(Boolean);
  return h(
    'div',
    { class: 'stack' },
    tags.length > 0 && h('div', { class: 'row' }, ...tags),
    h('dl', { class: 'facts' }, ...facts.filter(([, value]) => value).flatMap(([name, value]) => [h('dt', { text: name }), h('dd', { text: value })])),
  );
}

/**
 * A time of a trace.
 * @param {any} trace
 * @param {string} name
 * @returns {number | null} ms after the last voiced sample
 */
export const spanOf = (trace, name) => trace?.spans?.[name] ?? null;
