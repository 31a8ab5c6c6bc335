/**
 * Parts that every page is made of.
 * @module
 */
import { fill, h } from './dom.js';
import { t } from './i18n.js';
import { icon } from './icons.js';

const TOAST_MS = 4500;
let numbers = 0;

/** @returns {string} an id that no other element of the page has */
export function freshId() {
  numbers += 1;
  return `id-${numbers}`;
}

/**
 * @param {string} label
 * @param {{icon?: string, kind?: string, square?: boolean, onClick?: (event: Event) => unknown, [attribute: string]: any}} [options]
 *   `kind`: classes such as `primary`, `quiet`, `danger`; `square`: only the icon, the label for screen readers
 * @returns {HTMLButtonElement} while what `onClick` returns is pending the button is busy; its failure is shown
 */
export function button(label, { icon: picture, kind = '', square = false, onClick, ...rest } = {}) {
  const element = h(
    'button',
    { type: 'button', class: `btn ${kind}${square ? ' square' : ''}`, ...(square ? { title: label, 'aria-label': label } : {}), ...rest },
    picture && icon(picture),
    !square && h('span', { text: label }),
  );
  if (onClick) {
    element.addEventListener('click', async (/** @type {Event} */ event) => {
      if (element.getAttribute('aria-busy') === 'true') return;
      element.setAttribute('aria-busy', 'true');
      try {
        await onClick(event);
      } catch (error) {
        toast(/** @type {Error} */ (error).message, 'bad');
      } finally {
        element.removeAttribute('aria-busy');
      }
    });
  }
  return element;
}

/**
 * Say something for a moment; screen readers read it out.
 * @param {string} words
 * @param {'' | 'bad'} [kind]
 */
export function toast(words, kind = '') {
  const element = h('div', { class: `toast ${kind}`, text: words });
  document.getElementById('toasts')?.append(element);
  setTimeout(() => element.remove(), kind === 'bad' ? TOAST_MS * 2 : TOAST_MS);
}

/**
 * @param {string} words
 * @param {'' | 'good' | 'warn' | 'bad' | 'accent'} [kind]
 */
export const tag = (words, kind = '') => h('span', { class: `tag ${kind}`, text: words });

/**
 * @param {string} words
 * @param {'' | 'good' | 'warn' | 'bad'} [kind]
 * @param {...any} more
 */
export function note(words, kind = '', ...more) {
  const picture = kind === 'good' ? 'check' : kind ? 'warn' : 'info';
  return h('div', { class: `note ${kind}`, role: kind === 'bad' ? 'alert' : undefined }, icon(picture), h('div', {}, words, ...more));
}

/**
 * What stands where there is nothing yet.
 * @param {string} picture
 * @param {string} title
 * @param {string} [words]
 * @param {...any} more
 */
export function empty(picture, title, words = '', ...more) {
  return h('div', { class: 'empty' }, icon(picture), title && h('strong', { text: title }), words && h('p', { text: words }), ...more);
}

/**
 * A place of the given height while something is loaded, so that nothing jumps.
 * @param {number} height px
 */
export const skeleton = (height) => h('div', { class: 'skeleton', 'aria-hidden': 'true', style: { height: `${height}px` } });

/**
 * A label, a control and a hint.
 * @param {string} label
 * @param {any} control
 * @param {{hint?: string, wide?: boolean}} [options]
 */
export function field(label, control, { hint = '', wide = false } = {}) {
  control.id ||= freshId();
  const words = hint ? h('span', { class: 'hint', id: `${control.id}-hint`, text: hint }) : null;
  if (words) control.setAttribute('aria-describedby', words.id);
  return h('div', { class: `field${wide ? ' wide' : ''}` }, h('label', { for: control.id, text: label }), control, words);
}

/**
 * @param {Record<string, any>} [attributes]
 * @returns {HTMLInputElement}
 */
export const input = (attributes = {}) => h('input', { class: 'input', type: 'text', autocomplete: 'off', spellcheck: 'false', ...attributes });

/**
 * @param {[string, string][]} options value and words
 * @param {string} value
 * @param {Record<string, any>} [attributes]
 * @returns {HTMLSelectElement}
 */
export function select(options, value, attributes = {}) {
  const known = options.some(([each]) => each === value) ? options : [.../** @type {[string, string][]} */ ([[value, value || '–']]), ...options];
  const element = h('select', { class: 'input', ...attributes }, ...known.map(([each, words]) => h('option', { value: each, text: words })));
  element.value = value;
  return element;
}

/**
 * @param {boolean} on
 * @param {Record<string, any>} [attributes]
 * @returns {HTMLInputElement}
 */
export function toggle(on, attributes = {}) {
  const element = h('input', { type: 'checkbox', role: 'switch', class: 'switch', ...attributes });
  element.checked = on;
  return element;
}

/**
 * A few choices side by side.
 * @param {string} label for screen readers
 * @param {[string, string][]} options value and words
 * @param {string} value
 * @param {(value: string) => void} onChange
 */
export function segmented(label, options, value, onChange) {
  const group = h('div', { class: 'segmented', role: 'group', 'aria-label': label });
  for (const [each, words] of options) {
    group.append(
      h('button', {
        type: 'button',
        text: words,
        'aria-pressed': each === value,
        data: { value: each },
        on: {
          click: () => {
            for (const other of group.children) other.setAttribute('aria-pressed', String(other.dataset.value === each));
            onChange(each);
          },
        },
      }),
    );
  }
  for (const each of group.children) each.setAttribute('aria-pressed', String(each.dataset.value === value));
  return group;
}

/**
 * A field to search in.
 * @param {string} label
 * @param {(words: string) => void} onInput gets lower case
 */
export function searchBox(label, onInput) {
  const control = input({ type: 'search', placeholder: label, 'aria-label': label });
  control.addEventListener('input', () => onInput(control.value.trim().toLowerCase()));
  return h('div', { class: 'search' }, icon('search'), control);
}

/**
 * A window over the page. Escape and the cross close it; the focus returns to where it was.
 *
 * @param {string} title
 * @param {any} body
 * @param {{actions?: any[], narrow?: boolean}} [options]
 * @returns {{close: () => void, element: HTMLDialogElement, closed: Promise<void>}}
 */
export function dialog(title, body, { actions = [], narrow = false } = {}) {
  const heading = freshId();
  const element = h(
    'dialog',
    { class: narrow ? 'narrow' : '', 'aria-labelledby': heading },
    h(
      'div',
      { class: 'dialog-head' },
      h('h2', { id: heading, text: title }),
      button(t('close'), { icon: 'close', kind: 'quiet', square: true, onClick: () => element.close() }),
    ),
    h('div', { class: 'dialog-body' }, body),
    actions.length > 0 && h('div', { class: 'dialog-foot' }, ...actions),
  );
  element.addEventListener('click', (/** @type {MouseEvent} */ event) => {
    if (event.target === element) element.close(); // the backdrop
  });
  const closed = new Promise((resolve) => {
    element.addEventListener('close', () => {
      element.remove();
      resolve(undefined);
    });
  });
  document.body.append(element);
  element.showModal();
  return { close: () => element.close(), element, closed: /** @type {Promise<void>} */ (closed) };
}

/**
 * Ask before something that cannot be undone.
 * @param {string} title
 * @param {string} words
 * @param {string} action what the button says
 * @returns {Promise<boolean>}
 */
export async function confirmed(title, words, action) {
  let yes = false;
  const shown = dialog(title, h('p', { text: words }), {
    narrow: true,
    actions: [
      button(t('cancel'), { onClick: () => shown.close() }),
      button(action, {
        kind: 'danger primary',
        onClick: () => {
          yes = true;
          shown.close();
        },
      }),
    ],
  });
  await shown.closed;
  return yes;
}

/**
 * Show what a promise brings in an element: a place holder first, then the thing, or the failure with a button to try
 * again.
 * @param {Element} place
 * @param {() => Promise<any>} load gives an element
 * @param {number} height px of the place holder
 */
export async function loading(place, load, height = 180) {
  fill(place, skeleton(height));
  place.setAttribute('aria-busy', 'true');
  try {
    fill(place, await load());
  } catch (error) {
    if (/** @type {Error} */ (error).name === 'AbortError') return;
    const again = button(t('again'), { icon: 'undo', onClick: () => loading(place, load, height) });
    fill(place, h('div', { class: 'card' }, empty('warn', t('error.title'), /** @type {Error} */ (error).message, again)));
  } finally {
    place.removeAttribute('aria-busy');
  }
}

/**
 * The head of a page.
 * @param {string} title
 * @param {...any} tools at its right
 */
export function pageHead(title, ...tools) {
  return h('header', { class: 'page-head' }, h('h1', { text: title }), tools.length > 0 && h('div', { class: 'tools' }, ...tools));
}
