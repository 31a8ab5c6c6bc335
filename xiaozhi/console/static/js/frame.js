/**
 * The frame around every page: rail on wide screens, tabs on phones, state of the connection.
 * @module
 */
import { api, setCsrf } from './api.js';
import { fill, h } from './dom.js';
import { language, t, toggleLanguage } from './i18n.js';
import { icon } from './icons.js';
import { live } from './live.js';
import { theme, toggleTheme } from './prefs.js';
import { button, dialog, field, input, note, toast } from './ui.js';

/** Names of the pages and their icons, in the order of the rail. */
const PAGES = [
  ['overview', 'overview'],
  ['turns', 'turns'],
  ['talk', 'talk'],
  ['devices', 'devices'],
  ['agents', 'agents'],
  ['model-config', 'models'],
  ['logs', 'logs'],
];
const TABS = ['overview', 'turns', 'talk', 'devices'];
// The stream breaks for a moment at every restart of the server: no need to shout.
const PATIENCE_MS = 2500;

/**
 * @param {{version: string, restart: () => void, signOut: () => Promise<void>}} options
 * @returns {{node: any, show: (name: string, page: Element) => void}}
 */
export function frame({ version, restart, signOut }) {
  const links = PAGES.map(([name, picture]) => pageLink(name, picture));
  const tabs = PAGES.filter(([name]) => TABS.includes(name)).map(([name, picture]) => pageLink(name, picture));
  const more = h('button', { type: 'button', on: { click: () => moreSheet({ restart, signOut }) } }, icon('more'), h('span', { text: t('nav.more') }));
  const main = h('main', { class: 'main', id: 'main', tabindex: '-1' });
  const banner = h('div', { class: 'offline', hidden: true }, note(t('offline'), 'warn'));
  const place = h('div', {});
  main.append(banner, place);

  const skip = h('a', { class: 'skip', href: '#main', text: t('skip') });
  skip.addEventListener('click', (/** @type {Event} */ event) => {
    event.preventDefault(); // the address after # is that of the page
    main.focus();
  });
  const state = connectionState(banner);
  const node = h(
    'div',
    { class: 'frame' },
    skip,
    h(
      'aside',
      { class: 'rail' },
      h('div', { class: 'brand' }, h('img', { src: './icon.svg', alt: '' }), h('div', {}, t('brand'), h('small', { text: version ? `v${version}` : '' }))),
      h('nav', { class: 'nav', 'aria-label': t('nav.label') }, ...links),
      h('div', { class: 'rail-foot' }, state, ...actions({ restart, signOut })),
    ),
    main,
    h('nav', { class: 'tabbar', 'aria-label': t('nav.label') }, ...tabs, more),
  );

  let shown = '';
  const show = (/** @type {string} */ name, /** @type {Element} */ page) => {
    for (const link of [...links, ...tabs]) {
      if (link.dataset.page === name) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
    if (TABS.includes(name)) more.removeAttribute('aria-current');
    else more.setAttribute('aria-current', 'page');
    fill(place, page);
    if (shown && shown !== name) {
      scrollTo(0, 0);
      main.focus({ preventScroll: true });
    }
    shown = name;
  };
  return { node, show };
}

/**
 * @param {string} name
 * @param {string} picture
 */
function pageLink(name, picture) {
  return h('a', { href: `#/${name}`, data: { page: name } }, icon(picture), h('span', { text: t(`nav.${name}`) }));
}

/** @param {{restart: () => void, signOut: () => Promise<void>}} options */
function actions({ restart, signOut }) {
  const look = h('button', { type: 'button' });
  const paint = () => fill(look, icon(theme() === 'dark' ? 'sun' : 'moon'), h('span', { text: t(theme() === 'dark' ? 'theme.light' : 'theme.dark') }));
  look.addEventListener('click', () => {
    toggleTheme();
    paint();
  });
  paint();
  const act = (/** @type {string} */ picture, /** @type {string} */ words, /** @type {() => unknown} */ click) =>
    h('button', { type: 'button', on: { click } }, icon(picture), h('span', { text: words }));
  return [
    act('globe', language() === 'zh' ? 'English' : '中文', () => {
      toggleLanguage();
      restart();
    }),
    look,
    act('key', t('password.change'), changePassword),
    act('leave', t('signout'), () => signOut().catch((error) => toast(error.message, 'bad'))),
  ];
}

/**
 * What the phone's tabs have no room for.
 * @param {{restart: () => void, signOut: () => Promise<void>}} options
 */
function moreSheet(options) {
  const rest = PAGES.filter(([name]) => !TABS.includes(name)).map(([name, picture]) => pageLink(name, picture));
  const body = h('div', { class: 'stack' }, h('nav', { class: 'nav' }, ...rest), h('div', { class: 'rail-foot' }, ...actions(options)));
  const shown = dialog(t('nav.more'), body, { narrow: true });
  for (const each of body.querySelectorAll('a, button')) each.addEventListener('click', () => shown.close());
}

/** @param {HTMLElement} banner shown while the server cannot be reached */
function connectionState(banner) {
  const dot = h('span', { class: 'dot' });
  const words = h('span', {});
  const element = h('div', { class: 'link-state', role: 'status' }, dot, words);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const paint = () => {
    clearTimeout(timer);
    const lost = live.state === 'lost';
    dot.className = `dot ${lost ? 'bad' : live.state === 'open' ? 'good' : ''}`;
    words.textContent = t(lost ? 'live.lost' : live.state === 'open' ? 'live.open' : 'live.opening');
    if (!lost) banner.hidden = true;
    else timer = setTimeout(() => (banner.hidden = false), PATIENCE_MS);
  };
  live.addEventListener('state', paint);
  paint();
  return element;
}

function changePassword() {
  const old = input({ type: 'password', autocomplete: 'current-password' });
  const fresh = input({ type: 'password', autocomplete: 'new-password', minlength: 10 });
  const problem = h('div', { 'aria-live': 'polite' });
  const save = button(t('save'), {
    kind: 'primary',
    onClick: async () => {
      try {
        const answer = await api('password', { method: 'POST', body: { old: old.value, new: fresh.value } });
        if (answer?.csrf) setCsrf(answer.csrf);
        shown.close();
        toast(t('password.changed'));
      } catch (error) {
        fill(problem, note(/** @type {Error} */ (error).message, 'bad'));
      }
    },
  });
  const body = h('div', { class: 'stack' }, field(t('password.old'), old), field(t('password.new'), fresh, { hint: t('password.hint') }), problem);
  const shown = dialog(t('password.change'), body, { narrow: true, actions: [button(t('cancel'), { onClick: () => shown.close() }), save] });
}
