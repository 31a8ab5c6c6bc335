/**
 * Talking with the server from the browser, as a device does.
 * @module
 */
import { api } from '../api.js';
import { fill, h } from '../dom.js';
import { ms } from '../format.js';
import { t } from '../i18n.js';
import { icon } from '../icons.js';
import { Conversation } from '../talk/conversation.js';
import { meter } from '../talk/meter.js';
import { Microphone } from '../talk/microphone.js';
import { Speaker } from '../talk/speaker.js';
import { support } from '../talk/support.js';
import { button, empty, input, note, pageHead, segmented } from '../ui.js';
import { spanOf, waterfall } from '../waterfall.js';

const MOST_LINES = 200;

/** @param {import('../app.js').Context} context */
export function talkPage({ signal }) {
  const able = support();
  const face = h('div', { class: 'face', role: 'img', data: { state: 'idle', role: 'face' } });
  const status = h('p', { class: 'muted', role: 'status', data: { role: 'state' } });
  const subtitle = h('p', { class: 'subtitle', 'aria-live': 'polite', data: { role: 'subtitle' } });
  const words = h('div', { class: 'speech scroll', data: { role: 'words' }, tabindex: '0', 'aria-label': t('talk.words') });
  const trace = h('div', {}, empty('wave', t('talk.no_turn'), t('talk.no_turn_hint')));
  const problems = h('div', { class: 'stack', 'aria-live': 'assertive' });
  const hints = h('div', { class: 'stack' }, ...able.hints.map((hint) => note(t(hint, { host: location.host }), 'warn')));
  const mine = meter(t('talk.microphone'), '--s-hear');
  const theirs = meter(t('talk.speaker'), '--accent');
  /** @type {import('../talk/conversation.js').Mode} */
  let mode = 'auto';
  let replying = false;

  const complain = (/** @type {Error} */ error) => fill(problems, note(wordsFor(error), 'bad'));
  const microphone = new Microphone({
    onPacket: (packet) => conversation.sendPacket(/** @type {Uint8Array<ArrayBuffer>} */ (packet)),
    onLevel: mine.push,
    onError: complain,
  });
  const speaker = new Speaker({ onLevel: theirs.push, onError: complain });
  const conversation = new Conversation(null, able.sound ? speaker : null);

  const start = button(t('talk.start'), {
    icon: 'talk',
    kind: 'primary big',
    'data-role': 'start',
    onClick: async () => {
      fill(problems);
      if (conversation.state !== 'idle') {
        conversation.close();
        return;
      }
      try {
        await hear();
        await conversation.connect(address(await api('talk', { signal })), mode);
        draw();
      } catch (error) {
        if (!signal.aborted) complain(/** @type {Error} */ (error));
      }
    },
  });
  const hear = async () => {
    if (!able.microphone || conversation.microphone) return;
    try {
      await microphone.start();
      conversation.microphone = microphone;
    } catch (error) {
      await microphone.stop();
      complain(/** @type {Error} */ (error)); // text can be typed all the same
    }
  };
  const hold = button(t('talk.hold'), { icon: 'talk', kind: 'big hold primary', 'aria-pressed': 'false', hidden: true });
  const press = () => {
    conversation.press();
    hold.setAttribute('aria-pressed', String(conversation.held));
  };
  const release = () => {
    conversation.release();
    hold.setAttribute('aria-pressed', 'false');
  };
  hold.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    hold.setPointerCapture(event.pointerId);
    press();
  });
  for (const end of ['pointerup', 'pointercancel', 'blur']) hold.addEventListener(end, release);
  hold.addEventListener('keydown', (event) => {
    if (event.key !== ' ' && event.key !== 'Enter') return;
    event.preventDefault();
    if (!event.repeat) press();
  });
  hold.addEventListener('keyup', release);
  hold.addEventListener('contextmenu', (event) => event.preventDefault());
  const stop = button(t('talk.interrupt'), { icon: 'stop', kind: 'big', disabled: true, onClick: () => conversation.interrupt() });
  const modes = segmented(t('talk.mode'), ['auto', 'manual', 'realtime'].map((each) => [each, t(`talk.${each}`)]), mode, (value) => {
    mode = /** @type {typeof mode} */ (value);
    if (conversation.state !== 'idle') conversation.setMode(mode);
    paint();
  });
  const typed = input({ placeholder: t('talk.type'), 'aria-label': t('talk.type'), maxlength: 2000, name: 'typed', spellcheck: 'true' });
  const form = h('form', { class: 'typed' }, typed, button(t('send'), { icon: 'send', type: 'submit', square: true, kind: 'primary' }));
  form.addEventListener('submit', async (/** @type {Event} */ event) => {
    event.preventDefault();
    const text = typed.value.trim();
    if (!text) return;
    if (conversation.state === 'idle') {
      start.click();
      await new Promise((resolve) => {
        const look = () => (conversation.state === 'listening' || start.getAttribute('aria-busy') !== 'true' ? resolve(undefined) : setTimeout(look, 50));
        look();
      });
    }
    if (conversation.state === 'idle') return;
    conversation.type(text);
    typed.value = '';
  });

  const paint = () => {
    const { state } = conversation;
    face.dataset.state = state;
    if (state === 'idle') fill(face, icon('wave'));
    status.textContent = t(mode === 'manual' && state === 'listening' ? 'talk.state_ready' : `talk.state_${state}`);
    fill(start, icon(state === 'idle' ? 'talk' : 'close'), h('span', { text: t(state === 'idle' ? 'talk.start' : 'talk.end') }));
    start.classList.toggle('primary', state === 'idle');
    hold.hidden = mode !== 'manual' || state === 'idle' || !conversation.microphone;
    stop.disabled = state !== 'speaking';
  };
  fill(words, empty('talk', '', t('talk.no_words')));
  const line = (/** @type {string} */ text, mineToo = false) => {
    words.querySelector('.empty')?.remove();
    words.append(h('p', { class: mineToo ? 'mine' : '', text }));
    while (words.children.length > MOST_LINES) words.firstElementChild?.remove();
    words.scrollTop = words.scrollHeight;
  };
  const on = (/** @type {string} */ kind, /** @type {(detail: any) => void} */ listener) => conversation.addEventListener(kind, (event) => listener(/** @type {CustomEvent} */ (event).detail));
  on('state', (state) => {
    if (state !== 'speaking') replying = false;
    paint();
  });
  on('heard', (text) => {
    if (text) line(text, true);
  });
  on('emotion', ({ name, text }) => {
    face.textContent = text || '🙂';
    face.setAttribute('aria-label', name);
  });
  on('sentence', (text) => {
    if (!text) return;
    subtitle.textContent = text;
    const last = words.lastElementChild;
    if (replying && last && !last.classList.contains('mine')) last.textContent += /[A-Za-z0-9.,!?]$/.test(last.textContent ?? '') ? ` ${text}` : text;
    else line(text);
    words.scrollTop = words.scrollHeight;
    replying = true;
  });
  on('trace', (message) => {
    const wait = spanOf(message, 'first_packet');
    fill(trace, h('div', { class: 'stack' }, h('div', { class: 'hero-number', style: { 'font-size': 'var(--t-2xl)' } }, ms(wait)), h('p', { class: 'muted small', text: t('talk.first_word') }), waterfall(message)));
  });
  on('closed', (reason) => {
    subtitle.textContent = reason ? t('talk.closed_because', { reason }) : '';
    theirs.push(0);
    mine.push(0);
    paint();
    if (!conversation.microphone) return;
    conversation.microphone = null; // nobody listens any more: the browser's sign that it does goes out
    microphone.stop().catch((error) => console.warn('closing the microphone', error));
  });

  // For whoever looks from outside, such as a test: what really went through the loudspeaker.
  let frame = 0;
  const draw = () => {
    cancelAnimationFrame(frame);
    mine.draw();
    theirs.draw();
    Object.assign(face.dataset, { sent: String(microphone.packets), received: String(speaker.packets), decoded: String(speaker.frames), peak: theirs.peak().toFixed(4) });
    if (!signal.aborted) frame = requestAnimationFrame(draw);
  };
  frame = requestAnimationFrame(draw);
  signal.addEventListener('abort', () => {
    conversation.close();
    Promise.all([microphone.stop(), speaker.stop()]).catch((error) => console.warn('closing audio', error));
  });
  paint();

  const stage = h(
    'section',
    { class: 'card stage' },
    modes,
    h('p', { class: 'muted small', text: t('talk.modes_hint') }),
    face,
    status,
    subtitle,
    h('div', { class: 'controls' }, start, hold, stop),
    h('div', { class: 'meters' }, mine.node, theirs.node),
    form,
  );
  const head = (/** @type {string} */ title) => h('div', { class: 'card-head' }, h('h2', { text: title }));
  return [
    pageHead(t('nav.talk')),
    hints,
    problems,
    h('div', { class: 'talk' }, stage, h('div', { class: 'stack' }, h('section', { class: 'card' }, head(t('talk.words')), words), h('section', { class: 'card' }, head(t('talk.times')), trace))),
  ];
}

/**
 * The address with everything in its query: browsers cannot set headers on a WebSocket.
 * @param {{websocket: string, token: string, device_id: string, client_id?: string}} pass
 */
function address(pass) {
  const url = new URL(pass.websocket, location.href.replace(/^http/, 'ws'));
  if (location.protocol === 'https:') url.protocol = 'wss:'; // a secure page may open no other
  const set = (/** @type {string} */ name, /** @type {string | undefined} */ value) => {
    if (value && !url.searchParams.has(name)) url.searchParams.set(name, value);
  };
  set('device-id', pass.device_id);
  set('client-id', pass.client_id ?? 'console');
  set('authorization', `Bearer ${pass.token}`);
  return url.href;
}

/** @param {Error} error */
function wordsFor(error) {
  if (error.name === 'NotAllowedError') return t('talk.mic_denied');
  if (error.name === 'NotFoundError') return t('talk.mic_missing');
  if (error.name === 'NotReadableError') return t('talk.mic_busy');
  return t(error.message);
}
