/**
 * The models: what hears, thinks and speaks; and every other setting.
 * @module
 */
import { api } from '../api.js';
import { fill, h } from '../dom.js';
import { t } from '../i18n.js';
import { icon } from '../icons.js';
import { hearingNote, modelsCard } from '../pulls.js';
import { Draft, docOf, saveBar, settingRow, tableTitle, tellSaved } from '../settings_form.js';
import { trialCard } from '../trial.js';
import { button, empty, loading, note, pageHead, searchBox } from '../ui.js';
import { endpointsSection } from './endpoints.js';
import { migrateCard } from './migrate.js';

/** @type {Record<string, string>} what a tab's models are called by the server */
const ROLES = { asr: 'recognition', tts: 'voice', vad: 'voice activity' };
const TABS = ['llm', 'asr', 'tts', 'vad', 'all'];

/** @param {import('../app.js').Context} context */
export function modelsPage({ path, signal }) {
  const tab = TABS.includes(path[0]) ? path[0] : 'llm';
  const tabs = h(
    'nav',
    { class: 'segmented', 'aria-label': t('models.kinds') },
    ...TABS.map((each) => h('a', { href: `#/model-config/${each}`, text: t(`models.${each}`), 'aria-current': each === tab ? 'page' : undefined })),
  );
  // On a phone the chosen one may lie beyond the edge.
  requestAnimationFrame(() => tabs.querySelector('[aria-current]')?.scrollIntoView({ inline: 'center', block: 'nearest' }));
  const place = h('div', { class: 'stack' });
  const draft = new Draft();
  const load = () => loading(place, async () => body(tab, await api('settings', { signal }), draft, load, signal), 480);
  load();
  const warn = (/** @type {BeforeUnloadEvent} */ event) => {
    if (draft.size) event.preventDefault();
  };
  addEventListener('beforeunload', warn, { signal });
  return [pageHead(t('nav.model-config')), tabs, place];
}

/**
 * @param {string} tab
 * @param {any} settings
 * @param {Draft} draft
 * @param {() => void} reload
 * @param {AbortSignal} signal
 */
function body(tab, settings, draft, reload, signal) {
  const place = h('div', { class: 'stack' });
  if (settings.errors?.length) place.append(note(t('models.file_broken'), 'bad', h('ul', {}, ...settings.errors.map((/** @type {string} */ each) => h('li', { text: each })))));
  if (settings.writable === false) place.append(note(t('models.read_only', { file: settings.path ?? '' }), 'warn'));
  const overridden = (settings.overridden ?? []).filter((/** @type {string} */ key) => tab === 'all' || key.startsWith(`${tab}.`));
  if (overridden.length) place.append(overrides(overridden, settings.owners_file, reload));
  if (tab === 'all') place.append(allSettings(settings.tables, draft, settings.path, settings.owners_file), migrateCard(reload));
  else {
    if (tab === 'llm') place.append(endpointsSection(signal));
    else place.append(trialCard(tab, settings.tables, draft, signal), modelsCard(ROLES[tab], signal));
    if (tab === 'asr') {
      const hearing = hearingNote(signal);
      place.prepend(hearing.place);
      api('models', { signal }).then(hearing.paint, () => {}); // the card below says what is wrong
    }
    const tables = settings.tables.filter((/** @type {any} */ table) => table.name === tab || table.name.startsWith(`${tab}.`));
    place.append(...tables.map((/** @type {any} */ table, /** @type {number} */ index) => group(table, draft, index === 0 && tab !== 'llm')));
  }
  place.append(saveBar(draft, reload));
  return place;
}

/**
 * What settings.toml says has no effect here: which, and a button that lets it count again.
 * @param {string[]} keys
 * @param {string} file
 * @param {() => void} reload
 */
function overrides(keys, file, reload) {
  const remove = button(t('settings.remove_overrides', { n: keys.length }), {
    kind: 'quiet',
    data: { role: 'remove-overrides' },
    onClick: async () => {
      tellSaved(await api('settings', { method: 'PUT', body: { changes: {}, unset: keys } }));
      reload();
    },
  });
  return note(t('settings.overrides_file', { file, keys: keys.slice(0, 8).join(t('list.comma')) + (keys.length > 8 ? ' …' : '') }), 'warn', ' ', remove);
}

/**
 * A table of settings that can be folded.
 * @param {any} table
 * @param {Draft} draft
 * @param {boolean} open
 */
function group(table, draft, open) {
  const inside = h('div', { class: 'inside' });
  const element = h(
    'details',
    { class: 'group', open, data: { table: table.name } },
    h('summary', {}, h('span', { text: tableTitle(table) }), h('span', { class: 'mono muted small clip', text: `[${table.name}]` }), icon('down')),
    inside,
  );
  // Some tables have dozens of settings: they are drawn when somebody looks.
  const draw = () => {
    if (inside.children.length) return;
    inside.append(h('p', { class: 'table-doc', text: docOf(table) }));
    inside.append(...table.fields.map((/** @type {any} */ field, /** @type {number} */ index) => settingRow(field, draft, table.fields[index - 1])));
  };
  if (open) draw();
  element.addEventListener('toggle', draw);
  return element;
}

/**
 * @param {any[]} tables
 * @param {Draft} draft
 * @param {string | null} file where changes are written
 * @param {string | null} owners the file that the owner writes
 */
function allSettings(tables, draft, file, owners) {
  const groups = h('div', { class: 'stack tight' });
  const all = () => fill(groups, ...tables.map((table) => group(table, draft, false)));
  const search = searchBox(t('settings.search'), (words) => {
    if (!words) {
      all();
      return;
    }
    const found = tables.flatMap((table) => {
      const fields = table.fields.filter((/** @type {any} */ field) => `${field.key} ${field.doc} ${field.doc_zh} ${table.title_zh} ${table.title_en}`.toLowerCase().includes(words));
      return fields.length ? [group({ ...table, fields }, draft, true)] : [];
    });
    fill(groups, ...(found.length ? found : [h('div', { class: 'card' }, empty('search', t('settings.nothing_found')))]));
  });
  all();
  return h('div', { class: 'stack' }, h('p', { class: 'muted small' }, file ? t('settings.file', { file, owners: owners ?? 'settings.toml' }) : t('settings.no_file')), search, groups);
}
