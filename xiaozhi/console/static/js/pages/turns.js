/**
 * Turns as they happen: what was heard, what was said, and where the time went.
 * @module
 */
import { api, listOf } from '../api.js';
import { fill, h } from '../dom.js';
import { t } from '../i18n.js';
import { live } from '../live.js';
import { turnOpener, turnRow } from '../turn_view.js';
import { button, empty, loading, pageHead, select } from '../ui.js';

const PAGE = 50;
// What a list holds at most: a busy house would fill the browser otherwise.
const MOST = 400;

/** @param {import('../app.js').Context} context */
export function turnsPage({ query, signal }) {
  let device = query.get('device') ?? '';
  const filter = select([['', t('turns.all_devices')], .../** @type {[string, string][]} */ (device ? [[device, device]] : [])], device, { 'aria-label': t('turns.filter') });
  const aside = h('div', {});
  const list = h('ul', {});
  const place = h('div', { class: 'card flush' });
  const older = h('div', { class: 'older' });
  const open = turnOpener(aside);
  let none = true;

  const load = async (/** @type {string} */ before) => {
    const words = new URLSearchParams({ limit: String(PAGE), ...(device && { device }), ...(before && { before }) });
    const turns = listOf(await api(`turns?${words}`, { signal }), 'turns');
    list.append(...turns.map((turn) => turnRow(turn, { onOpen: open })));
    const last = turns[turns.length - 1];
    fill(older, turns.length === PAGE && list.children.length < MOST && button(t('turns.older'), { icon: 'down', kind: 'quiet', onClick: () => load(last.id) }));
    return turns;
  };
  const start = () =>
    loading(place, async () => {
      fill(list);
      fill(aside, empty('turns', t('turns.choose'), t('turns.choose_hint')));
      const turns = await load('');
      none = !turns.length;
      if (turns.length && matchMedia('(min-width: 1001px)').matches) queueMicrotask(() => list.querySelector('button')?.click());
      return none ? empty('talk', t('turns.none'), t('turns.none_hint'), h('a', { class: 'btn primary', href: '#/talk', text: t('nav.talk') })) : h('div', {}, list, older);
    }, 420);
  filter.addEventListener('change', () => {
    device = filter.value;
    start();
  });
  live.on('turn', (turn) => {
    if (device && turn.device !== device) return;
    if (none) {
      none = false;
      fill(place, h('div', {}, list, older));
    }
    if (list.querySelector(`[data-turn="${CSS.escape(turn.id)}"]`)) return;
    list.prepend(turnRow(turn, { onOpen: open, fresh: true }));
    while (list.children.length > MOST) list.lastElementChild?.remove();
  }, signal);
  start();
  fillDevices(filter, signal);
  return [pageHead(t('nav.turns'), h('div', { style: { 'min-width': '210px' } }, filter)), h('div', { class: 'split' }, place, h('section', { class: 'aside card', 'aria-live': 'polite' }, aside))];
}

/**
 * @param {HTMLSelectElement} filter
 * @param {AbortSignal} signal
 */
async function fillDevices(filter, signal) {
  let devices;
  try {
    devices = listOf(await api('devices', { signal }), 'devices');
  } catch {
    return; // the filter still offers all devices; the list beside it says what is wrong with the server
  }
  const chosen = filter.value;
  for (const device of devices) {
    if (device.id !== chosen) filter.append(h('option', { value: device.id, text: device.name || device.id }));
    else for (const option of filter.options) if (option.value === chosen) option.textContent = device.name || device.id;
  }
}
