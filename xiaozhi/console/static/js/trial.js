/**
 * Trying a stage with one click: does it work, and how quickly.
 * @module
 */
import { api } from './api.js';
import { fill, h } from './dom.js';
import { ms } from './format.js';
import { said, t } from './i18n.js';
import { button, field, input, select } from './ui.js';

/**
 * Try something and show how it went in `place`.
 * @param {string} stage `vad`, `asr`, `llm` or `tts`
 * @param {any} body
 * @param {Element} place
 */
export async function tryStage(stage, body, place) {
  fill(place, h('span', { class: 'muted', text: t('trial.running') }));
  const result = await api(`test/${stage}`, { method: 'POST', body }).catch((error) => ({ ok: false, detail: error.message }));
  if (!result.ok) {
    showTrouble(place, result);
    return;
  }
  fill(place, h('span', { class: 'dot good' }), ' ', h('strong', { text: ms(result.latency_ms) }), ' ', h('span', { class: 'muted', text: result.detail ?? '' }));
  if (!result.audio) return;
  const sound = new Audio(`data:audio/wav;base64,${result.audio}`);
  const play = button(t('trial.play'), { icon: 'play', kind: 'quiet', onClick: () => sound.play() });
  place.append(play);
  sound.play().catch(() => play.focus()); // the browser wants another click first
}

/**
 * Say in the reader's language what is wrong and what helps, and below it what the other side said.
 * @param {Element} place
 * @param {{trouble?: string, detail?: string}} result
 */
export function showTrouble(place, { trouble = '', detail = '' }) {
  fill(
    place,
    h('span', { class: 'dot bad' }),
    ' ',
    h('strong', { text: t('trial.failed') }),
    ' ',
    trouble && h('span', { text: t(`trouble.${trouble}`) }),
    detail && h('div', { class: trouble ? 'small muted' : '', text: said(detail) }),
  );
}

/**
 * The card on top of the pages for VAD, ASR and TTS.
 * @param {string} stage
 * @param {any[]} tables of settings
 * @param {import('./settings_form.js').Draft} draft what is not saved yet is tried as well
 * @param {AbortSignal} signal
 */
export function trialCard(stage, tables, draft, signal) {
  const result = h('div', { class: 'result', 'aria-live': 'polite' });
  const words = input({ value: t('trial.sentence'), maxlength: 200 });
  const engines = enginesOf(stage, tables);
  const engine = select([['', t('trial.configured')], ...engines.map((each) => /** @type {[string, string]} */ ([each, each]))], '');
  const voices = h('datalist', { id: `voices-${stage}` });
  const voice = input({ list: voices.id, placeholder: t('trial.configured') });
  const run = button(t('trial.run'), {
    icon: 'test',
    kind: 'primary',
    onClick: () =>
      tryStage(
        stage,
        {
          ...(stage === 'tts' && { text: words.value, ...(voice.value && { voice: voice.value }) }),
          ...(engine.value && { engine: engine.value }),
          ...(draft.changes.size && { changes: Object.fromEntries(draft.changes) }),
        },
        result,
      ),
  });
  if (stage === 'tts') offerVoices(voices, engine, signal);
  return h(
    'section',
    { class: 'card stack' },
    h('div', {}, h('h2', { text: t(`trial.title_${stage}`) }), h('p', { class: 'muted small', text: t(`trial.hint_${stage}`) })),
    h(
      'div',
      { class: 'fields' },
      stage !== 'vad' && field(t('trial.engine'), engine),
      stage === 'tts' && field(t('trial.voice'), voice),
      stage === 'tts' && field(t('trial.words'), words, { wide: true }),
      stage === 'tts' && voices,
    ),
    h('div', { class: 'row' }, run, result),
  );
}

/**
 * @param {string} stage
 * @param {any[]} tables
 * @returns {string[]}
 */
function enginesOf(stage, tables) {
  if (stage === 'vad') return [];
  const fields = tables.find((table) => table.name === stage)?.fields ?? [];
  const known = fields.find((/** @type {any} */ each) => each.key === `${stage}.engine` || each.key === `${stage}.engines`);
  const choices = known?.choices ?? [];
  return (choices.length ? choices : Array.isArray(known?.value) ? known.value : []).filter((/** @type {string} */ each) => each !== 'auto');
}

/**
 * @param {Element} place
 * @param {HTMLSelectElement} engine
 * @param {AbortSignal} signal
 */
async function offerVoices(place, engine, signal) {
  const { voices } = await api('voices', { signal }).catch(() => ({ voices: [] })); // a voice can be typed as well
  const paint = () =>
    fill(
      place,
      ...(voices ?? [])
        .filter((/** @type {any} */ each) => !engine.value || each.engine === engine.value)
        .map((/** @type {any} */ each) => h('option', { value: each.name, text: [each.engine, each.language, each.gender].filter(Boolean).join(' · ') })),
    );
  engine.addEventListener('change', paint);
  paint();
}
