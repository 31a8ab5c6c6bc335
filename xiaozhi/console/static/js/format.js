/**
 * Numbers and times as people read them.
 * @module
 */
import { language, t } from './i18n.js';

const locale = () => (language() === 'zh' ? 'zh-CN' : 'en-GB');

/**
 * @param {number | null | undefined} value
 * @param {number} [digits] after the point
 */
export function number(value, digits = 0) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  return value.toLocaleString(locale(), { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

/** @param {number | null | undefined} value milliseconds */
export function ms(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  return value >= 10_000 ? `${number(value / 1000, 1)} s` : `${number(value)} ms`;
}

/** @param {number | null | undefined} share 0 to 1 */
export function percent(share) {
  if (share === null || share === undefined || !Number.isFinite(share)) return '–';
  return `${number(share * 100, share > 0 && share < 0.1 ? 1 : 0)} %`;
}

/** @param {number} at seconds since 1970 */
export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString(locale(), { hour12: false });
}

/** @param {number} at seconds since 1970 */
export function moment(at) {
  const then = new Date(at * 1000);
  if (then.toDateString() === new Date().toDateString()) return clock(at);
  return then.toLocaleString(locale(), { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', hour12: false });
}

/** @param {number | null | undefined} at seconds since 1970; 0 is never */
export function ago(at) {
  if (!at) return t('time.never');
  const seconds = Math.max(0, Date.now() / 1000 - at);
  if (seconds < 60) return t('time.now');
  const words = new Intl.RelativeTimeFormat(locale(), { numeric: 'auto' });
  if (seconds < 3600) return words.format(-Math.round(seconds / 60), 'minute');
  if (seconds < 86_400) return words.format(-Math.round(seconds / 3600), 'hour');
  return words.format(-Math.round(seconds / 86_400), 'day');
}

/**
 * The share of hits.
 * @param {{hits?: number, misses?: number} | undefined} cache
 */
export function hitShare(cache) {
  const all = (cache?.hits ?? 0) + (cache?.misses ?? 0);
  return all ? (cache?.hits ?? 0) / all : null;
}
