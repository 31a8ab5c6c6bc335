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

/** @type {[RegExp, string][] | null} what the server says, as patterns, the most particular first */
let patterns = null;

/**
 * What the server says in its own words, in the language of the page; as it is where there are none.
 * @param {string} words
 * @returns {string}
 */
export function said(words) {
  patterns ??= Object.keys(STRINGS)
    .filter((key) => key.startsWith('said.'))
    .sort((one, other) => literal(other) - literal(one))
    .map((key) => [new RegExp(`^${key.slice(5).replace(/[.*+?^$()|[\]\\]/g, '\\$&').replace(/\{(\w+)\}/g, '(?<$1>.*)')}$`, 's'), key]);
  for (const [pattern, key] of patterns) {
    const found = pattern.exec(words);
    if (found) return t(key, Object.fromEntries(Object.entries(found.groups ?? {}).map(([name, value]) => [name, name === 'what' ? placeOf(value) : value])));
  }
  return words;
}

/** @param {string} key */
const literal = (key) => key.replace(/\{\w+\}/g, '').length;

/**
 * The field of an endpoint by its name on the page, and what stands in it.
 * @param {string} what such as `llm.endpoints[0].weight = -1`
 */
function placeOf(what) {
  const field = /^llm\.endpoints\[\d+\]\.(\w+)(.*)$/s.exec(what);
  const label = field && STRINGS[`field.${field[1]}`];
  return label ? `${t(`field.${field[1]}`)}${field[2]}` : what;
}

/**
 * Words for a value the server names; the value itself where there are none.
 * @param {string} prefix
 * @param {string} value
 */
export function named(prefix, value) {
  return STRINGS[`${prefix}.${value}`] ? t(`${prefix}.${value}`) : value;
}
