/**
 * Settings as a form: one control for each, what it means and its limits beside it, saved together.
 * @module
 */
import { ApiError, api } from './api.js';
import { fill, h } from './dom.js';
import { language, named, t } from './i18n.js';
import { button, freshId, input, note, select, tag, toast, toggle } from './ui.js';

/**
 * Changes that are not saved yet, and the forms that show them.
 */
export class Draft extends EventTarget {
  /** @type {Map<string, any>} */
  changes = new Map();
  /** @type {Set<string>} */
  unset = new Set();
  /** @type {Map<string, string>} wrong entries and why */
  wrong = new Map();

  get size() {
    return this.changes.size + this.unset.size;
  }

  /**
   * @param {string} key
   * @param {any} value undefined: as it was
   */
  put(key, value) {
    this.unset.delete(key);
    if (value === undefined) this.changes.delete(key);
    else this.changes.set(key, value);
    this.dispatchEvent(new Event('change'));
  }

  /** @param {string} key its default shall count */
  reset(key) {
    this.changes.delete(key);
    this.wrong.delete(key);
    this.unset.add(key);
    this.dispatchEvent(new Event('change'));
  }

  clear() {
    this.changes.clear();
    this.unset.clear();
    this.wrong.clear();
    this.dispatchEvent(new Event('change'));
  }

  /** @returns {Promise<any>} what the server did */
  async save() {
    const answer = await api('settings', { method: 'PUT', body: { changes: Object.fromEntries(this.changes), unset: [...this.unset] } });
    this.clear();
    return answer;
  }
}

/**
 * Say what a saved change did.
 * @param {any} answer of PUT settings or PUT llm-endpoints
 */
export function tellSaved(answer) {
  const restart = answer?.restart ?? [];
  const overridden = answer?.overridden ?? [];
  if (overridden.length) toast(t('settings.overridden', { keys: overridden.join(', ') }), 'bad');
  toast(restart.length ? t('settings.saved_restart', { keys: restart.join(', ') }) : t('settings.saved'));
}

/**
 * The bar that saves or forgets; hidden while nothing has been changed.
 * @param {Draft} draft
 * @param {() => void} reload draw the forms anew
 */
export function saveBar(draft, reload) {
  const words = h('strong', { class: 'grow', 'aria-live': 'polite' });
  const wrong = h('div', { style: { 'flex-basis': '100%' } });
  const save = button(t('save'), {
    kind: 'primary',
    icon: 'check',
    onClick: async () => {
      try {
        tellSaved(await draft.save());
        reload();
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        fill(wrong, problems(error));
      }
    },
  });
  const forget = button(t('discard'), {
    kind: 'quiet',
    onClick: () => {
      draft.clear();
      reload();
    },
  });
  const bar = h('div', { class: 'savebar', hidden: true, role: 'region', 'aria-label': t('settings.unsaved') }, words, forget, save, wrong);
  draft.addEventListener('change', () => {
    bar.hidden = draft.size === 0 && draft.wrong.size === 0;
    words.textContent = draft.wrong.size ? t('settings.wrong', { n: draft.wrong.size }) : t('settings.changes', { n: draft.size });
    save.disabled = draft.wrong.size > 0 || draft.size === 0;
    fill(wrong);
  });
  return bar;
}

/**
 * What the server did not take, one point for each mistake.
 * @param {ApiError} error
 */
export function problems(error) {
  const lines = error.errors.length ? error.errors : [error.message];
  return note('', 'bad', lines.length > 1 ? h('ul', {}, ...lines.map((each) => h('li', { text: each }))) : h('span', { text: lines[0] }));
}

/**
 * What is said about a setting or a table in the language of the page.
 * @param {any} one
 * @returns {string}
 */
export const docOf = (one) => (language() === 'zh' ? one.doc_zh : one.doc) || one.doc || '';

/**
 * A text in which `this` stands in the type of code.
 * @param {string} text
 */
const withCode = (text) => text.split('`').map((part, index) => (index % 2 ? h('code', { text: part }) : part));

/**
 * What is said about a setting: lines of the kind `name: what it means` become a list.
 * @param {string} text
 */
function docParts(text) {
  return text.split('\n').map((line, index) => {
    const row = index && /^(?:"([^"]+)"|([\w-]+))\s*[:：]\s*(.+)$/.exec(line);
    return row ? h('span', { class: 'doc-row' }, h('code', { text: row[1] ?? row[2] }), h('span', {}, ...withCode(row[3]))) : h('span', { class: 'doc-line' }, ...withCode(line));
  });
}

/**
 * One setting.
 * @param {any} field as the server describes it
 * @param {Draft} draft
 * @param {any} [before] the setting above it: what is said of both is said once
 */
export function settingRow(field, draft, before = null) {
  const fixed = field.editable === false || field.set_by === 'environment' || field.set_by === 'command line';
  const problem = h('div', { class: 'error', 'aria-live': 'polite' });
  const id = freshId();
  const row = h('div', { class: `setting${field.type === 'bool' ? ' switchable' : isLong(field) ? ' long' : ''}`, data: { key: field.key } });
  const put = (/** @type {any} */ value, /** @type {string} */ error = '') => {
    problem.textContent = error;
    control.setAttribute('aria-invalid', String(Boolean(error)));
    if (error) draft.wrong.set(field.key, error);
    else draft.wrong.delete(field.key);
    draft.put(field.key, error || same(value, field.value) ? undefined : value);
    row.classList.toggle('changed', draft.changes.has(field.key) || Boolean(error));
  };
  const control = controlFor(field, put);
  control.id = id;
  control.setAttribute('aria-describedby', `${id}-doc`);
  if (fixed) control.disabled = true;
  const mine = field.set_by && field.set_by !== 'default';
  const reset =
    field.set_by === 'local'
      ? h('button', {
          type: 'button',
          class: 'linkish',
          text: t(field.overrides ? 'settings.remove_override' : 'settings.reset'),
          on: {
            click: () => {
              draft.reset(field.key);
              row.classList.add('changed');
              problem.textContent = t(field.overrides ? 'settings.will_follow_file' : 'settings.will_reset');
            },
          },
        })
      : null;
  fill(
    row,
    h(
      'div',
      {},
      h('label', { for: id, class: 'mono', text: field.key.split('.').slice(1).join('.') || field.key }),
      h('p', { class: 'doc', id: `${id}-doc` }, before && docOf(before) === docOf(field) ? h('span', { class: 'muted', text: t('settings.as_above') }) : docParts(docOf(field))),
      h(
        'div',
        { class: 'about' },
        tag(named('applies', field.applies), field.applies === 'restart' ? 'warn' : 'accent'),
        mine && tag(named('set_by', field.set_by)),
        bounds(field) && h('span', { text: bounds(field) }),
        h('span', { text: t('settings.default', { value: written(field.default) }) }),
        field.overrides && h('strong', { class: 'bad-words', text: t('settings.overrides', { value: field.type === 'secret' ? '…' : written(field.file_value) }) }),
        reset,
      ),
    ),
    h('div', { class: 'control' }, control, problem),
  );
  return row;
}

/**
 * Whether it holds sentences, such as a prompt, and wants the whole width.
 * @param {any} field
 */
const isLong = (field) => field.type === 'str' && String(field.value ?? '').length > 60;

/**
 * @param {any} one
 * @param {any} other
 */
const same = (one, other) => JSON.stringify(one ?? null) === JSON.stringify(other ?? null);

/**
 * @param {any} field
 * @param {(value: any, error?: string) => void} put
 * @returns {any} the control
 */
function controlFor(field, put) {
  switch (field.type) {
    case 'bool': {
      const control = toggle(Boolean(field.value));
      control.addEventListener('change', () => put(control.checked));
      return control;
    }
    case 'int':
    case 'float': {
      const control = input({ inputmode: 'decimal', value: field.value ?? '', placeholder: field.value === null ? t('settings.auto') : '' });
      control.addEventListener('input', () => put(...readNumber(control.value, field)));
      return control;
    }
    case 'choice': {
      /** @type {[string, string][]} */
      const options = (field.choices ?? []).map((/** @type {any} */ each) => [String(each), String(each)]);
      if (field.optional) options.unshift(['', t('settings.auto')]);
      const control = select(options, String(field.value ?? ''));
      control.addEventListener('change', () => put(control.value === '' && field.optional ? null : control.value));
      return control;
    }
    case 'list': {
      const control = h('textarea', { class: 'input', rows: 3, spellcheck: 'false', placeholder: t('settings.one_a_line') });
      control.value = (field.value ?? []).map(String).join('\n');
      control.addEventListener('input', () => {
        const lines = control.value.split('\n').map((/** @type {string} */ each) => each.trim()).filter(Boolean);
        const numeric = field.item === 'int' || field.item === 'float';
        put(numeric ? lines.map(Number) : lines);
      });
      return control;
    }
    case 'table':
    case 'tables': {
      const control = h('textarea', { class: 'input mono', rows: 3, spellcheck: 'false' });
      control.value = field.value === null ? '' : JSON.stringify(field.value, null, 1);
      control.addEventListener('input', () => {
        try {
          put(JSON.parse(control.value || '{}'));
        } catch {
          put(undefined, t('settings.not_json'));
        }
      });
      return control;
    }
    case 'secret': {
      const control = input({ type: 'password', autocomplete: 'new-password', placeholder: field.value ? t('settings.secret_set') : t('settings.secret_none') });
      control.addEventListener('input', () => put(control.value ? control.value : field.value));
      return control;
    }
    default: {
      const text = String(field.value ?? '');
      const control = isLong(field) ? h('textarea', { class: 'input', rows: 5 }) : input();
      control.value = text;
      control.addEventListener('input', () => put(control.value === '' && field.optional ? null : control.value));
      return control;
    }
  }
}

/**
 * @param {string} text
 * @param {any} field
 * @returns {[any, string?]}
 */
function readNumber(text, field) {
  if (text.trim() === '' && field.optional) return [null];
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) return [undefined, t('settings.not_number')];
  if (field.type === 'int' && !Number.isInteger(value)) return [undefined, t('settings.not_whole')];
  const low = field.min !== null && field.min !== undefined && (field.min_exclusive ? value <= field.min : value < field.min);
  const high = field.max !== null && field.max !== undefined && (field.max_exclusive ? value >= field.max : value > field.max);
  return low || high ? [undefined, bounds(field)] : [value];
}

/** @param {any} field */
function bounds(field) {
  const low = field.min ?? null;
  const high = field.max ?? null;
  if (low !== null && high !== null) {
    const kind = field.min_exclusive ? (field.max_exclusive ? 'above_below' : 'above_to') : field.max_exclusive ? 'between_below' : 'between';
    return t(`settings.${kind}`, { low, high });
  }
  if (low !== null) return t(field.min_exclusive ? 'settings.above' : 'settings.from', { low });
  return high !== null ? t('settings.to', { high }) : '';
}

/** @param {any} value a default */
function written(value) {
  if (value === null || value === undefined || value === '') return t('settings.empty');
  if (typeof value === 'boolean') return t(value ? 'on' : 'off');
  const text = Array.isArray(value) ? value.map((each) => (typeof each === 'object' ? JSON.stringify(each) : each)).join(', ') : typeof value === 'object' ? JSON.stringify(value) : String(value);
  return text.length > 60 ? `${text.slice(0, 59)}…` : text || t('settings.empty');
}

/**
 * The name of a table.
 * @param {any} table
 */
export const tableTitle = (table) => (language() === 'zh' ? table.title_zh : table.title_en) || table.name;
