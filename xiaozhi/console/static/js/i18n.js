/**
 * Which language the console speaks, and its words in it.
 * @module
 */
import { read, write } from './prefs.js';
import { STRINGS } from './strings.js';

/** @returns {'zh' | 'en'} the one that was chosen, or the browser's */
export function language() {
  const chosen = read('language');
  if (chosen === 'zh' || chosen === 'en') return chosen;
  return (navigator.languages ?? [navigator.language]).some((each) => each.startsWith('zh')) ? 'zh' : 'en';
}

/** Change to the other language and remember it. */
export function toggleLanguage() {
  write('language', language() === 'zh' ? 'en' : 'zh');
}

/**
 * Words in the language of the console.
 * @param {string} key of the table in strings.js
 * @param {Record<string, string | number>} [values] for `{name}` in the words
 * @returns {string}
 */
export function t(key, values = {}) {
  const pair = STRINGS[key];
  const words = pair ? pair[language() === 'zh' ? 0 : 1] : key;
  return words.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/**
 * Words for a value the server names; the value itself where there are none.
 * @param {string} prefix
 * @param {string} value
 */
export function named(prefix, value) {
  return STRINGS[`${prefix}.${value}`] ? t(`${prefix}.${value}`) : value;
}
