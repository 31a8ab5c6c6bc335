/**
 * Models that the server can fetch: a button, and how far it is.
 * @module
 */
import { api } from './api.js';
import { fill, h } from './dom.js';
import { ago, number } from './format.js';
import { language, t } from './i18n.js';
import { live } from './live.js';
import { button, loading, note, tag } from './ui.js';

/** The one that makes Chinese, and much else, understood. */
const BEST_EARS = 'sense-voice';

/**
 * A button that fetches a model, and in its place how far that is.
 * @param {string} name
 * @param {{size?: number, settings?: string, installed?: boolean, pulls: any[], signal: AbortSignal}} options
 *   `settings`: the line that uses the model, where it is not used by itself
 */
export function pullControl(name, { size = 0, settings = '', installed = false, pulls, signal }) {
  const place = h('div', { class: 'pull', data: { pull: name }, 'aria-live': 'polite' });
  const start = button(size ? t('pulls.fetch_size', { mb: number(size) }) : t('pulls.fetch'), {
    icon: 'download',
    kind: 'primary',
    onClick: async () => {
      try {
        paint((await api(`models/${name}/pull`, { method: 'POST', body: {} })).pulls);
      } catch (error) {
        fill(place, start, h('span', { class: 'bad-words', text: /** @type {Error} */ (error).message }));
      }
    },
  });
  const paint = (/** @type {any[]} */ all) => {
    const pull = all.find((each) => each.name === name);
    const use = settings && h('span', { class: 'small' }, t('pulls.use'), ' ', h('code', { text: settings }));
    if (pull?.state === 'ready' || (!pull && installed)) fill(place, tag(t('pulls.ready'), 'good'), use);
    else if (pull?.state === 'checking') fill(place, h('span', { class: 'muted', text: t('pulls.checking') }));
    else if (pull?.state === 'fetching') {
      const words = t(pull.source ? 'pulls.from' : 'pulls.looking', { done: number(pull.done_mb), total: number(pull.total_mb), source: pull.source });
      fill(place, h('progress', { max: 100, value: (100 * pull.done_mb) / Math.max(1, pull.total_mb), 'aria-label': words }), h('span', { class: 'small', text: words }));
    } else fill(place, start, pull?.state === 'failed' && h('span', { class: 'bad-words' }, t('pulls.failed'), ' ', h('span', { class: 'small', text: pull.error })));
  };
  paint(pulls);
  live.on('models', (/** @type {any} */ told) => paint(told.pulls), signal);
  return place;
}

/**
 * What is wrong with what the server understands: in red where somebody was not understood for it.
 * @param {AbortSignal} signal
 */
export function hearingNote(signal) {
  const place = h('div', { class: 'stack' });
  let shown = '';
  const paint = (/** @type {any} */ told) => {
    const { languages = [], unknown = 0, unknown_at: at = 0 } = told.hearing ?? {};
    const lacks = languages.length > 0 && !languages.includes('zh');
    const state = lacks || unknown ? `${languages}|${unknown}` : '';
    if (state === shown) return; // its button and progress paint themselves
    shown = state;
    if (!state) return void fill(place);
    const names = languages.map((/** @type {string} */ each) => t(`language.${each}`)).join(t('list.comma'));
    const words = unknown ? t('hearing.unknown', { n: unknown, languages: names, ago: ago(at) }) : t('hearing.lacks', { languages: names });
    fill(place, note(words, unknown ? 'bad' : 'warn', pullControl(BEST_EARS, { size: 240, pulls: told.pulls ?? [], signal })));
  };
  live.on('models', paint, signal);
  return { place, paint };
}

/**
 * The models of a stage.
 * @param {string} role as the server calls it
 * @param {AbortSignal} signal
 */
export function modelsCard(role, signal) {
  const place = h('div', {});
  loading(
    place,
    async () => {
      const { models, pulls } = await api('models', { signal });
      const rows = models
        .filter((/** @type {any} */ each) => each.role === role)
        .map((/** @type {any} */ each) =>
          h(
            'li',
            { data: { model: each.name } },
            h('strong', { text: each.name }),
            h('span', { class: 'grow small muted', text: language() === 'zh' ? each.about_zh : each.about }),
            pullControl(each.name, { size: each.size_mb, settings: each.by_itself ? '' : each.settings, installed: each.installed, pulls, signal }),
          ),
        );
      return h('section', { class: 'card stack' }, h('div', {}, h('h2', { text: t('pulls.title') }), h('p', { class: 'muted small', text: t('pulls.hint') })), h('ul', { class: 'lines' }, ...rows));
    },
    160,
  );
  return place;
}
