/**
 * The way in.
 * @module
 */
import { api } from '../api.js';
import { fill, h } from '../dom.js';
import { language, t, toggleLanguage } from '../i18n.js';
import { button, field, input, note } from '../ui.js';

/** @param {{version: string, program: string, signedIn: (session: any) => void, redraw: () => void}} options */
export function signInPage({ version, program, signedIn, redraw }) {
  const password = input({ type: 'password', autocomplete: 'current-password', required: true, autofocus: true, name: 'password' });
  const problem = h('div', { 'aria-live': 'polite' });
  const enter = button(t('signin.enter'), { kind: 'primary', type: 'submit' });
  const form = h(
    'form',
    { class: 'card', id: 'main' },
    h('img', { class: 'mark', src: './icon.svg', alt: '' }),
    h('div', {}, h('h1', { text: t('brand') }), h('p', { class: 'muted', text: t('signin.title') })),
    // Password managers want a name to go with the password; there is only one user.
    h('input', { type: 'text', name: 'username', value: 'owner', autocomplete: 'username', hidden: true }),
    field(t('signin.password'), password, { hint: t('signin.hint') }),
    h('p', { class: 'muted small' }, t('signin.lost'), ' ', h('code', { text: `${program} console password` })),
    problem,
    enter,
  );
  form.addEventListener('submit', async (/** @type {Event} */ event) => {
    event.preventDefault();
    enter.setAttribute('aria-busy', 'true');
    try {
      const answer = await api('sign-in', { method: 'POST', body: { password: password.value } });
      signedIn({ version, ...answer });
    } catch (error) {
      fill(problem, note(/** @type {Error} */ (error).message, 'bad'));
      password.setAttribute('aria-invalid', 'true');
      password.select();
    } finally {
      enter.removeAttribute('aria-busy');
    }
  });
  queueMicrotask(() => password.focus());
  const other = button(language() === 'zh' ? 'English' : '中文', {
    icon: 'globe',
    kind: 'quiet',
    onClick: () => {
      toggleLanguage();
      redraw();
    },
  });
  return h('main', { class: 'sign-in' }, form, other);
}
