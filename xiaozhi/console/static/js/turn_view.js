/**
 * One turn as it is shown in lists and in full.
 * @module
 */
import { fill, h } from './dom.js';
import { moment, ms } from './format.js';
import { t } from './i18n.js';
import { dialog } from './ui.js';
import { spanOf, waterfall } from './waterfall.js';

// The page “Talk” connects under such a name.
const CONSOLE = 'anonymous-console-';

/** @param {any} turn */
const deviceName = (turn) => (turn.device?.startsWith(CONSOLE) ? t('turn.here') : turn.device_name || turn.device);

/** @param {any} turn */
const heard = (turn) => {
  if (turn.heard) return turn.heard;
  if (turn.trace?.outcome === 'unheard') return t('turn.unheard');
  return t(turn.said ? 'turn.unasked' : 'turn.nothing_heard');
};

/**
 * A turn in a list.
 * @param {any} turn
 * @param {{onOpen: (turn: any, row: HTMLElement) => void, device?: boolean, fresh?: boolean}} options
 */
export function turnRow(turn, { onOpen, device = true, fresh = false }) {
  const wait = spanOf(turn.trace, 'first_packet');
  const row = h(
    'button',
    { type: 'button', class: `turn${fresh ? ' fresh' : ''}`, 'aria-pressed': 'false', data: { turn: turn.id } },
    h('span', { class: 'heard clip', text: heard(turn) }),
    h('span', { class: 'wait', text: ms(wait) }),
    h('span', { class: 'said clip', text: turn.said || turn.trace?.error || '' }),
    h('span', { class: 'meta', text: moment(turn.at) }),
    device && h('span', { class: 'meta clip', text: deviceName(turn) }),
  );
  row.addEventListener('click', () => onOpen(turn, row));
  return h('li', {}, row);
}

/**
 * Everything about a turn.
 * @param {any} turn
 */
export function turnDetail(turn) {
  return h(
    'div',
    { class: 'stack' },
    h('div', { class: 'speech' }, h('p', { class: 'mine', text: heard(turn) }), turn.said && h('p', { text: turn.said })),
    waterfall(turn.trace),
    h('p', { class: 'muted small', text: [deviceName(turn), moment(turn.at)].filter(Boolean).join(' · ') }),
  );
}

/**
 * A list of turns whose chosen one is shown beside it where there is room, otherwise in a window.
 * @param {Element | null} aside
 */
export function turnOpener(aside) {
  const roomy = matchMedia('(min-width: 1001px)');
  /** @type {HTMLElement | null} */
  let chosen = null;
  return (/** @type {any} */ turn, /** @type {HTMLElement} */ row) => {
    chosen?.setAttribute('aria-pressed', 'false');
    chosen = row;
    row.setAttribute('aria-pressed', 'true');
    if (aside && roomy.matches) fill(aside, turnDetail(turn));
    else dialog(t('turn.title'), turnDetail(turn));
  };
}
