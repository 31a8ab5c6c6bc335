/**
 * The devices: who is online, whose they are, what they remember.
 * @module
 */
import { api, listOf } from '../api.js';
import { fill, h } from '../dom.js';
import { ago, moment } from '../format.js';
import { t } from '../i18n.js';
import { icon } from '../icons.js';
import { turnDetail, turnRow } from '../turn_view.js';
import { button, confirmed, dialog, empty, field, input, loading, note, pageHead, searchBox, segmented, select, tag, toast } from '../ui.js';

const AGAIN_MS = 10_000;
const LANGUAGES = ['', 'zh', 'en', 'ja', 'ko', 'yue'];

/** @param {import('../app.js').Context} context */
export function devicesPage({ signal }) {
  const place = h('div', {});
  let words = '';
  /** @type {any[]} */
  let devices = [];
  const grid = h('div', {});
  const help = h('div', {});
  const load = async () => {
    const answer = await api('devices', { signal });
    devices = listOf(answer, 'devices');
    if (!help.children.length) fill(help, connectHelp(answer?.ota_url ?? '', Boolean(answer?.needs_code), !devices.length));
    draw();
  };
  const draw = () => {
    const found = devices.filter((device) => !words || [device.name, device.id, device.room, device.owner, device.board, device.agent].join(' ').toLowerCase().includes(words));
    found.sort((one, other) => Number(other.online) - Number(one.online) || (other.last_seen ?? 0) - (one.last_seen ?? 0));
    if (!devices.length) fill(grid, h('div', { class: 'card' }, empty('devices', t('devices.none'), t('devices.none_hint'))));
    else fill(grid, found.length ? h('div', { class: 'grid' }, ...found.map((device) => deviceCard(device, load, signal))) : h('div', { class: 'card' }, empty('search', t('nothing_found'))));
  };
  loading(place, async () => {
    await load();
    return h('div', { class: 'stack' }, grid, help);
  }, 320);
  const timer = setInterval(() => {
    // Somebody who is using a card keeps it; the next round draws it anew.
    if (document.hidden || grid.contains(document.activeElement) || !grid.isConnected) return;
    load().catch(() => undefined); // the frame says when the server is away; the next round tries again
  }, AGAIN_MS);
  signal.addEventListener('abort', () => clearInterval(timer));
  const search = searchBox(t('search'), (value) => {
    words = value;
    draw();
  });
  return [pageHead(t('nav.devices'), search, bindButton(load)), place];
}

/**
 * How a device is told about this server.
 * @param {string} url its OTA address
 * @param {boolean} needsCode a new device has to be bound
 * @param {boolean} open
 */
function connectHelp(url, needsCode, open) {
  const copy = button(t('copy'), {
    icon: 'copy',
    onClick: async () => {
      if (!navigator.clipboard) throw new Error(t('copy.cannot')); // only on https and localhost
      await navigator.clipboard.writeText(url);
      toast(t('copy.done'));
    },
  });
  const steps = [
    [t('connect.wifi')],
    [t('connect.address'), h('div', { class: 'row' }, h('code', { class: 'address', text: url }), copy)],
    [t('connect.restart')],
    needsCode && [t('connect.code')],
  ].filter((step) => step !== false);
  return h(
    'details',
    { class: 'group', open },
    h('summary', {}, icon('link'), h('span', { text: t('devices.connect') }), icon('down')),
    h('div', { class: 'inside stack' }, /\/\/(127\.|localhost\b)/.test(url) && note(t('connect.only_here'), 'warn'), h('ol', { class: 'steps' }, ...steps.map((step) => h('li', {}, ...step)))),
  );
}

/** @param {() => Promise<void>} load */
const bindButton = (load) => button(t('devices.bind'), { icon: 'link', kind: 'primary', onClick: () => bindDialog(load) });

/** @param {() => Promise<void>} load */
function bindDialog(load) {
  const code = input({ inputmode: 'numeric', maxlength: 6, class: 'input code-input', placeholder: '000000', pattern: '[0-9]*' });
  const problem = h('div', { 'aria-live': 'polite' });
  const bind = button(t('devices.bind'), {
    kind: 'primary',
    type: 'submit',
    onClick: async () => {
      try {
        const answer = await api('devices/bind', { method: 'POST', body: { code: code.value.trim() } });
        shown.close();
        toast(t('devices.bound_done', { name: answer?.device?.name || answer?.device?.id || answer?.id || '' }));
        await load();
      } catch (error) {
        fill(problem, note(/** @type {Error} */ (error).message, 'bad'));
        code.select();
      }
    },
  });
  code.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
    if (event.key === 'Enter') bind.click();
  });
  const shown = dialog(t('devices.bind'), h('div', { class: 'stack' }, h('p', { class: 'muted', text: t('devices.bind_hint') }), field(t('devices.code'), code), problem), {
    narrow: true,
    actions: [button(t('cancel'), { onClick: () => shown.close() }), bind],
  });
  code.focus();
}

/**
 * @param {any} device
 * @param {() => Promise<void>} load
 * @param {AbortSignal} signal
 */
function deviceCard(device, load, signal) {
  return h(
    'article',
    { class: 'card thing', data: { device: device.id } },
    h(
      'div',
      { class: 'stack', style: { gap: '6px' } },
      h('div', { class: 'title' }, h('span', { class: `dot ${device.online ? 'good' : ''}` }), h('h3', { class: 'grow clip', text: device.name || device.id }), device.blocked ? tag(t('devices.blocked'), 'bad') : !device.bound && tag(t('devices.unbound'))),
      h('p', { class: 'about', text: [device.room, device.owner, device.agent].filter(Boolean).join(' · ') || t('devices.no_place') }),
      ...listOf(device, 'waiting').map((each) => waitingNote(each, load)),
      h('p', { class: 'muted small' }, h('span', { class: 'mono', text: device.id }), h('br'), [device.board, device.firmware, device.online ? t('devices.online') : t('devices.seen', { ago: ago(device.last_seen) })].filter(Boolean).join(' · ')),
    ),
    h(
      'div',
      { class: 'row' },
      button(t('devices.open'), { icon: 'edit', onClick: () => deviceDialog(device, load, signal) }),
      button(t('devices.say'), { icon: 'speak', disabled: !device.online, title: device.online ? '' : t('devices.say_offline'), onClick: () => sayDialog(device) }),
      h('a', { class: 'btn quiet', href: `#/turns?device=${encodeURIComponent(device.id)}` }, icon('turns'), h('span', { text: t('nav.turns') })),
    ),
  );
}

/**
 * Another client that wants to be a device: a board that was erased, or a stranger.
 * @param {{code: string, address: string}} waiting
 * @param {() => Promise<void>} load
 */
function waitingNote(waiting, load) {
  const release = button(t('devices.release'), {
    icon: 'check',
    onClick: async () => {
      await api('devices/bind', { method: 'POST', body: { code: waiting.code } });
      await load();
    },
  });
  const words = t('devices.waiting', { code: waiting.code, address: waiting.address || 'localhost' });
  return h('div', { class: 'stack' }, note(words, 'warn'), h('div', { class: 'row' }, release));
}

/** @param {any} device */
function sayDialog(device) {
  const words = h('textarea', { class: 'input', rows: 3, maxlength: 300 });
  const say = button(t('devices.say'), {
    kind: 'primary',
    icon: 'speak',
    onClick: async () => {
      const answer = await api(`devices/${encodeURIComponent(device.id)}/say`, { method: 'POST', body: { text: words.value.trim() } });
      shown.close();
      const told = answer?.told ?? 'spoken';
      toast(t(`told.${told}`), ['dropped', 'refused'].includes(told) ? 'bad' : '');
    },
  });
  const shown = dialog(t('devices.say_to', { name: device.name || device.id }), field(t('devices.words'), words), { narrow: true, actions: [button(t('cancel'), { onClick: () => shown.close() }), say] });
  words.focus();
}

/**
 * @param {any} device
 * @param {() => Promise<void>} load
 * @param {AbortSignal} signal
 */
function deviceDialog(device, load, signal) {
  const path = `devices/${encodeURIComponent(device.id)}`;
  const place = h('div', {});
  const form = deviceForm(device, signal);
  const show = (/** @type {string} */ tab) => {
    foot.hidden = tab !== 'about';
    if (tab === 'about') fill(place, form.node);
    else if (tab === 'memories') loading(place, () => memories(path, signal), 160);
    else loading(place, () => history(path, signal), 160);
  };
  const tabs = segmented(t('devices.tabs'), ['about', 'memories', 'history'].map((each) => [each, t(`devices.${each}`)]), 'about', show);
  const shown = dialog(device.name || device.id, h('div', { class: 'stack' }, tabs, place), {
    actions: [
      button(t('delete'), {
        icon: 'bin',
        kind: 'danger quiet',
        onClick: async () => {
          if (!(await confirmed(t('devices.delete'), t('devices.delete_sure', { name: device.name || device.id }), t('delete')))) return;
          await api(path, { method: 'DELETE' });
          shown.close();
          await load();
        },
      }),
      h('span', { class: 'grow' }),
      button(t('cancel'), { onClick: () => shown.close() }),
      button(t('save'), {
        kind: 'primary',
        icon: 'check',
        onClick: async () => {
          const changes = form.changes();
          if (Object.keys(changes).length) await api(path, { method: 'PATCH', body: changes });
          shown.close();
          await load();
        },
      }),
    ],
  });
  const foot = /** @type {HTMLElement} */ (shown.element.querySelector('.dialog-foot'));
  show('about');
}

/**
 * @param {any} device
 * @param {AbortSignal} signal
 * @returns {{node: any, changes: () => Record<string, any>}}
 */
function deviceForm(device, signal) {
  const agent = select([['', t('agents.default')]], device.agent ?? '');
  api('agents', { signal })
    .then((answer) => {
      const chosen = agent.value;
      fill(agent, h('option', { value: '', text: t('agents.default') }), ...listOf(answer, 'agents').map((each) => h('option', { value: each.name, text: each.name })));
      agent.value = chosen;
    })
    .catch((error) => toast(error.message, 'bad'));
  /** @type {Record<string, any>} */
  const controls = {
    name: input({ value: device.name, maxlength: 60 }),
    room: input({ value: device.room, maxlength: 60 }),
    owner: input({ value: device.owner, maxlength: 60 }),
    agent,
    language: select(LANGUAGES.map((each) => [each, t(`language.${each || 'auto'}`)]), device.language ?? ''),
    priority: select(['', 'high', 'low'].map((each) => [each, t(`priority.${each || 'normal'}`)]), device.priority ?? ''),
  };
  const access = device.blocked ? 'blocked' : device.allowed ? 'allowed' : '';
  const door = select(['', 'allowed', 'blocked'].map((each) => [each, t(`access.${each || 'normal'}`)]), access);
  const facts = [
    ['ID', device.id],
    [t('devices.board'), [device.board, device.firmware].filter(Boolean).join(' ')],
    [t('devices.last'), device.last_seen ? moment(device.last_seen) : t('time.never')],
  ].filter(([, value]) => value);
  const node = h(
    'div',
    { class: 'stack' },
    h('div', { class: 'fields' }, ...['name', 'room', 'owner', 'agent', 'language', 'priority'].map((name) => field(t(`devices.${name}`), controls[name])), field(t('devices.access'), door)),
    h('dl', { class: 'facts' }, ...facts.flatMap(([name, value]) => [h('dt', { text: name }), h('dd', { class: 'mono', text: value })])),
  );
  const changes = () => ({
    ...Object.fromEntries(
      Object.entries(controls)
        .map(([name, control]) => [name, control.value.trim()])
        .filter(([name, value]) => value !== (device[name] ?? '')),
    ),
    ...(door.value !== access && { blocked: door.value === 'blocked', allowed: door.value === 'allowed' }),
  });
  return { node, changes };
}

/**
 * @param {string} path
 * @param {AbortSignal} signal
 */
async function memories(path, signal) {
  const kept = listOf(await api(`${path}/memories`, { signal }), 'memories');
  const none = empty('agents', t('devices.no_memories'), t('devices.no_memories_hint'));
  const list = h('ul', { class: 'lines' });
  const add = (/** @type {any} */ memory) => {
    none.hidden = true;
    const row = h(
      'li',
      {},
      h('span', { class: 'grow', text: memory.text }),
      h('span', { class: 'muted small', text: moment(memory.created_at) }),
      button(t('delete'), {
        icon: 'bin',
        kind: 'quiet danger',
        square: true,
        onClick: async () => {
          await api(`${path}/memories/${memory.id}`, { method: 'DELETE' });
          row.remove();
          none.hidden = list.children.length > 0;
        },
      }),
    );
    list.append(row);
  };
  kept.forEach(add);
  const words = input({ placeholder: t('devices.remember'), 'aria-label': t('devices.remember'), maxlength: 500 });
  const form = h('form', { class: 'typed' }, words, button(t('save'), { icon: 'plus', square: true, type: 'submit' }));
  form.addEventListener('submit', async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!words.value.trim()) return;
    try {
      add(await api(`${path}/memories`, { method: 'POST', body: { text: words.value.trim() } }));
      words.value = '';
    } catch (error) {
      toast(/** @type {Error} */ (error).message, 'bad');
    }
  });
  return h('div', { class: 'stack' }, form, none, list);
}

/**
 * @param {string} path
 * @param {AbortSignal} signal
 */
async function history(path, signal) {
  const turns = listOf(await api(`${path}/turns`, { signal }), 'turns');
  if (!turns.length) return empty('turns', t('devices.no_history'));
  const list = h('ul', {}, ...turns.map((turn) => turnRow(turn, { device: false, onOpen: () => dialog(t('turn.title'), turnDetail(turn)) })));
  const clear = button(t('devices.clear'), {
    icon: 'bin',
    kind: 'danger quiet',
    onClick: async () => {
      if (!(await confirmed(t('devices.clear'), t('devices.clear_sure'), t('delete')))) return;
      await api(`${path}/turns`, { method: 'DELETE' });
      place.replaceWith(empty('turns', t('devices.no_history')));
    },
  });
  const place = h('div', { class: 'stack' }, list, h('div', { class: 'row end' }, clear));
  return place;
}
