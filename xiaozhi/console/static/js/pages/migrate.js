/**
 * Another server's settings: upload its file, see what becomes of each value, take them over.
 * @module
 */
import { ApiError, api } from '../api.js';
import { fill, h } from '../dom.js';
import { language, named, t } from '../i18n.js';
import { problems, tellSaved } from '../settings_form.js';
import { button, input, note, tag } from '../ui.js';

const MAX_BYTES = 262144;
/** @type {Record<string, '' | 'good' | 'warn' | 'accent'>} */
const KINDS = { taken: 'good', left: '', unavailable: 'warn', todo: 'accent' };

/** @param {() => void} reload */
export function migrateCard(reload) {
  const report = h('div', { class: 'stack tight', 'aria-live': 'polite' });
  const file = input({ type: 'file', accept: '.yaml,.yml', 'aria-label': t('migrate.choose'), data: { role: 'migrate' } });
  file.addEventListener('change', async () => {
    const chosen = file.files?.[0];
    if (!chosen) return;
    if (chosen.size > MAX_BYTES) {
      fill(report, note(t('migrate.too_large'), 'bad'));
      return;
    }
    await asked(report, async () => {
      const text = await chosen.text();
      const found = await api('migrate', { method: 'POST', body: { text, language: language() } });
      fill(report, ...preview(found, text, report, reload));
    });
  });
  return h('section', { class: 'card stack' }, h('div', {}, h('h2', { text: t('migrate.title') }), h('p', { class: 'muted small', text: t('migrate.hint') })), file, report);
}

/**
 * @param {any} found
 * @param {string} text
 * @param {Element} report
 * @param {() => void} reload
 */
function preview(found, text, report, reload) {
  const rows = found.lines.map((/** @type {any} */ line) =>
    h(
      'li',
      { data: { fate: line.fate } },
      tag(named('migrate', line.fate), KINDS[line.fate]),
      h('div', { class: 'grow' }, h('span', { class: 'mono small', text: line.ours ? `${line.theirs} → ${line.ours}` : line.theirs }), line.text && h('p', { class: 'muted small', text: line.text })),
    ),
  );
  const wrong = h('div', {});
  const take = () =>
    asked(wrong, async () => {
      tellSaved(await api('migrate', { method: 'POST', body: { text, apply: true } }));
      fill(report);
      reload();
    });
  const count = found.settings.length;
  const end = count ? [note(t('migrate.replaces'), 'warn'), wrong, button(t('migrate.apply', { n: count }), { kind: 'primary', data: { role: 'migrate-apply' }, onClick: take })] : [note(t('migrate.nothing'))];
  return [h('ul', { class: 'lines' }, ...rows), ...end];
}

/**
 * Do it; what the server does not take is said in `place`.
 * @param {Element} place
 * @param {() => Promise<void>} work
 */
async function asked(place, work) {
  try {
    await work();
  } catch (error) {
    fill(place, problems(error instanceof ApiError ? error : new ApiError(/** @type {Error} */ (error).message)));
  }
}
