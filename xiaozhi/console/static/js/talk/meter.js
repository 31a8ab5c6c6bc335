/**
 * A picture of how loud it has been: bars that wander to the left.
 * @module
 */
import { h } from '../dom.js';

const BARS = 64;
const FLOOR_DB = -60;

/**
 * @param {string} label
 * @param {string} colour a variable of the style sheet, such as `--accent`
 * @returns {{node: any, push: (rms: number) => void, draw: () => void, peak: () => number}}
 */
export function meter(label, colour) {
  const canvas = h('canvas', { role: 'img', 'aria-label': label });
  const number = h('span', { class: 'muted', text: '– dB' });
  /** @type {number[]} */
  const levels = new Array(BARS).fill(0);
  let loudest = 0;
  let changed = true;
  const push = (/** @type {number} */ rms) => {
    const decibels = rms > 0 ? Math.max(FLOOR_DB, 20 * Math.log10(rms)) : FLOOR_DB;
    levels.push(1 - decibels / FLOOR_DB);
    levels.shift();
    loudest = Math.max(loudest, rms);
    number.textContent = decibels > FLOOR_DB ? `${Math.round(decibels)} dB` : '– dB';
    changed = true;
  };
  const draw = () => {
    const width = Math.round(canvas.clientWidth * devicePixelRatio);
    const height = Math.round(canvas.clientHeight * devicePixelRatio);
    if (!changed && canvas.width === width) return;
    changed = false;
    canvas.width = width;
    canvas.height = height;
    const pen = canvas.getContext('2d');
    const style = getComputedStyle(canvas);
    const step = width / BARS;
    for (const [index, level] of levels.entries()) {
      const tall = Math.max(2 * devicePixelRatio, level * height);
      pen.fillStyle = style.getPropertyValue(level > 0.02 ? colour : '--line-2');
      pen.beginPath();
      pen.roundRect(index * step + step * 0.2, (height - tall) / 2, step * 0.6, tall, step * 0.3);
      pen.fill();
    }
  };
  const node = h('div', { class: 'meter' }, h('div', { class: 'field-label' }, h('span', { text: label }), number), canvas);
  return { node, push, draw, peak: () => loudest };
}
