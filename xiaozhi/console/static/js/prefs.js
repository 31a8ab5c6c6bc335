/**
 * What this browser remembers: language and theme. Works without storage as well, then only until the page is closed.
 * @module
 */

const PREFIX = 'xiaozhi.';
/** @type {Map<string, string>} */
const kept = new Map();

/**
 * @param {string} name
 * @returns {string | null}
 */
export function read(name) {
  try {
    return localStorage.getItem(PREFIX + name) ?? kept.get(name) ?? null;
  } catch {
    return kept.get(name) ?? null; // storage is forbidden in this browser
  }
}

/**
 * @param {string} name
 * @param {string} value
 */
export function write(name, value) {
  kept.set(name, value);
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    return; // storage is forbidden or full: `kept` has it until the page is closed
  }
}

const dark = matchMedia('(prefers-color-scheme: dark)');

/** @returns {'dark' | 'light'} */
export function theme() {
  const chosen = read('theme');
  if (chosen === 'dark' || chosen === 'light') return chosen;
  return dark.matches ? 'dark' : 'light';
}

/** Show the theme that counts. */
export function applyTheme() {
  document.documentElement.dataset.theme = theme();
}

/** Change to the other theme and remember it. */
export function toggleTheme() {
  write('theme', theme() === 'dark' ? 'light' : 'dark');
  applyTheme();
}

dark.addEventListener('change', applyTheme);
