/**
 * The console's beginning: signs in, draws the frame, shows the page that the address names.
 * @module
 */
import { api, setCsrf, whenSignedOut } from './api.js';
import { fill, h } from './dom.js';
import { frame } from './frame.js';
import { language, t } from './i18n.js';
import { live } from './live.js';
import { agentsPage } from './pages/agents.js';
import { devicesPage } from './pages/devices.js';
import { logsPage } from './pages/logs.js';
import { modelsPage } from './pages/models.js';
import { overviewPage } from './pages/overview.js';
import { signInPage } from './pages/sign_in.js';
import { talkPage } from './pages/talk.js';
import { turnsPage } from './pages/turns.js';
import { applyTheme } from './prefs.js';
import { button, empty } from './ui.js';

/**
 * @typedef {object} Context
 * @property {string[]} path what follows the page's name in the address
 * @property {URLSearchParams} query what follows the question mark in it
 * @property {AbortSignal} signal aborted when the page is left
 * @typedef {(context: Context) => any} Page gives its element
 */

/** @type {Record<string, Page>} */
const PAGES = {
  overview: overviewPage,
  turns: turnsPage,
  'model-config': modelsPage,
  devices: devicesPage,
  agents: agentsPage,
  talk: talkPage,
  logs: logsPage,
};

const root = /** @type {HTMLElement} */ (document.getElementById('app'));
/** @type {ReturnType<typeof frame> | null} */
let shell = null;
let leaving = new AbortController();
let version = '';
let program = 'xiaozhi'; // as it is called on the server's command line

/** Show the page that the address names. */
function show() {
  if (!shell) return;
  const [where, question = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [name, ...path] = where.split('/').map(decode);
  if (!PAGES[name]) {
    location.replace('#/overview');
    return;
  }
  leaving.abort();
  leaving = new AbortController();
  for (const each of document.querySelectorAll('dialog')) /** @type {HTMLDialogElement} */ (each).close();
  const page = h('div', { class: 'page' });
  shell.show(name, page);
  fill(page, ...[PAGES[name]({ path, query: new URLSearchParams(question), signal: leaving.signal })].flat());
  document.title = `${t(`nav.${name}`)} · XiaoZhi`;
}

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // somebody typed a lone percent sign
  }
}

/** Draw everything anew, as after a change of the language. */
function restart() {
  document.documentElement.lang = language() === 'zh' ? 'zh-CN' : 'en';
  shell = frame({ version, restart, signOut });
  fill(root, shell.node);
  show();
}

/** @param {{csrf: string | null, version?: string}} session */
function signedIn(session) {
  setCsrf(session.csrf);
  version = session.version ?? version;
  live.open();
  restart();
}

function signedOut() {
  leaving.abort();
  live.close();
  shell = null;
  for (const each of document.querySelectorAll('dialog')) /** @type {HTMLDialogElement} */ (each).close();
  document.documentElement.lang = language() === 'zh' ? 'zh-CN' : 'en';
  document.title = `${t('signin.title')} · XiaoZhi`;
  fill(root, signInPage({ version, program, signedIn, redraw: signedOut }));
}

async function signOut() {
  await api('sign-out', { method: 'POST' });
  signedOut();
}

async function start() {
  applyTheme();
  try {
    const session = await api('session');
    version = session.version ?? '';
    program = session.program ?? program;
    if (session.signed_in) signedIn(session);
    else signedOut();
  } catch (error) {
    const again = button(t('again'), { icon: 'undo', onClick: start });
    fill(root, h('main', { class: 'sign-in' }, empty('warn', t('error.title'), /** @type {Error} */ (error).message, again)));
  }
}

/** The stream of events was refused: find out whether we are still signed in. */
async function askAgain() {
  try {
    const session = await api('session');
    if (session.signed_in) setCsrf(session.csrf);
    else signedOut();
  } catch {
    return; // the server is away; the stream tries again, and then we ask again
  }
}

whenSignedOut(signedOut);
live.addEventListener('refused', askAgain);
addEventListener('hashchange', show);
await start();
