/**
 * The server's log, live.
 * @module
 */
import { api, listOf } from '../api.js';
import { fill, h } from '../dom.js';
import { clock } from '../format.js';
import { named, t } from '../i18n.js';
import { live } from '../live.js';
import { button, empty, loading, pageHead, searchBox, segmented } from '../ui.js';

const LEVELS = ['debug', 'info', 'warning', 'error'];
const MOST = 2000;
// So far from the end somebody is still reading the end.
const NEAR_PX = 60;

/** @param {import('../app.js').Context} context */
export function logsPage({ signal }) {
  let level = 'info';
  let words = '';
  let paused = false;
  /** @type {any[]} */
  let lines = [];
  const list = h('ol', { class: 'log', tabindex: '0', role: 'log', 'aria-live': 'off', 'aria-label': t('nav.logs') });
  const place = h('div', { class: 'card flush' });

  const fits = (/** @type {any} */ line) => LEVELS.indexOf(line.level) >= LEVELS.indexOf(level) && (!words || `${line.text} ${line.logger} ${line.device}`.toLowerCase().includes(words));
  const toEnd = () => list.scrollTo(0, list.scrollHeight);
  const draw = () => {
    const shown = lines.filter(fits);
    fill(list, ...(shown.length ? shown.map(lineRow) : [empty('logs', t('logs.none'))]));
    requestAnimationFrame(toEnd);
  };
  const load = () =>
    loading(place, async () => {
      lines = listOf(await api(`logs?level=${level}&limit=1000`, { signal }), 'lines');
      queueMicrotask(draw);
      return list;
    }, 420);
  const hold = button(t('logs.pause'), {
    icon: 'pause',
    'aria-pressed': 'false',
    onClick: () => {
      paused = !paused;
      hold.setAttribute('aria-pressed', String(paused));
      hold.querySelector('span')?.replaceChildren(t(paused ? 'logs.go_on' : 'logs.pause'));
      if (!paused) draw();
    },
  });
  live.on('log', (line) => {
    lines.push(line);
    if (lines.length > MOST) lines = lines.slice(-MOST);
    if (paused || !fits(line) || !list.isConnected) return;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_PX;
    list.querySelector('.empty')?.remove();
    list.append(lineRow(line));
    while (list.children.length > MOST) list.firstElementChild?.remove();
    if (atEnd) toEnd();
  }, signal);
  load();
  const levels = segmented(t('logs.level'), LEVELS.map((each) => [each, t(`logs.${each}`)]), level, (value) => {
    level = value;
    load();
  });
  const search = searchBox(t('search'), (value) => {
    words = value;
    draw();
  });
  return [pageHead(t('nav.logs'), levels, search, hold), place];
}

/** @param {any} line */
function lineRow(line) {
  return h(
    'li',
    {},
    h('span', { class: 'at', text: clock(line.at) }),
    h('span', { class: line.level, text: named('logs', line.level) }),
    h('span', { class: 'where clip', title: `${line.logger} ${line.device}`, text: line.device || line.logger.replace(/^xiaozhi\./, '') }),
    h('span', { class: 'text', text: line.text }),
  );
}
