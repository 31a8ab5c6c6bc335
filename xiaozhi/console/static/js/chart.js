/**
 * Line charts over time, drawn as SVG so that they take the theme's colours by themselves.
 * @module
 */
import { fill, h, svg } from './dom.js';
import { clock } from './format.js';
import { t } from './i18n.js';

const LEFT = 40;
const RIGHT = 6;
const TOP = 10;
const BOTTOM = 20;
// Room for the unit above the scale.
const UNIT = 14;
// Points further apart than this were not measured in between: the line is broken there.
const GAP_S = 40;
// Zero, half, full: more lines would only make it look exact.
const ROWS = 2;

/**
 * @typedef {object} Line
 * @property {string} key of the points' objects
 * @property {string} name for the legend
 * @property {string} colour class: c-accent, c-hear, c-think, c-wait
 * @property {boolean} [area] filled below
 */

/**
 * The smallest round number that is not below `value`.
 * @param {number} value
 */
export function niceTop(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10].find((each) => each * power >= value) ?? 10;
  return step * power;
}

/**
 * A chart that draws itself again when its place changes its width.
 *
 * @param {string} label for screen readers
 * @param {Line[]} lines
 * @param {{height?: number, least?: number, unit?: string, write?: (value: number) => string}} [options] `least`: the
 *   scale ends no lower; `unit`: stands above the scale and behind values; `write`: how a value is written
 * @returns {{node: any, set: (points: any[]) => void}} points carry `at`, seconds since 1970, the oldest first
 */
export function lineChart(label, lines, { height = 150, least = 1, unit = '', write = String } = {}) {
  const roof = unit ? TOP + UNIT : TOP;
  const tip = h('div', { class: 'chart-tip', hidden: true });
  const drawing = svg('svg', { height, role: 'img', 'aria-label': label });
  const nothing = h('div', { class: 'chart-empty', text: t('plot.none') });
  const figure = h('div', { class: 'chart', style: { height: `${height}px` } }, drawing, nothing, tip);
  const legend = h('div', { class: 'legend' }, ...lines.map((line) => h('span', {}, h('i', { class: line.colour }), line.name)));
  /** @type {any[]} */
  let points = [];
  let width = 0;
  /** @type {(at: number) => number} */
  let across = () => LEFT;

  const draw = () => {
    if (width < LEFT + RIGHT + 20) return;
    const values = points.flatMap((point) => lines.map((line) => point[line.key])).filter(Number.isFinite);
    const top = niceTop(Math.max(least, ...values));
    const [first, last] = points.length ? [points[0].at, points[points.length - 1].at] : [0, 1];
    const span = Math.max(60, last - first);
    across = (at) => LEFT + ((at - (last - span)) / span) * (width - LEFT - RIGHT);
    const down = (/** @type {number} */ value) => roof + (1 - value / top) * (height - roof - BOTTOM);
    nothing.hidden = values.length > 0;
    drawing.setAttribute('viewBox', `0 0 ${width} ${height}`);
    drawing.replaceChildren();
    if (unit) drawing.append(svg('text', { x: LEFT - 6, y: TOP, 'text-anchor': 'end' }, unit));
    for (let row = 0; row <= ROWS; row += 1) {
      const value = (top * row) / ROWS;
      const y = Math.round(down(value)) + 0.5;
      drawing.append(svg('line', { class: 'grid-line', x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
      drawing.append(svg('text', { x: LEFT - 6, y: y + 4, 'text-anchor': 'end' }, write(value)));
    }
    if (points.length) {
      drawing.append(svg('text', { x: LEFT, y: height - 3 }, clock(last - span).slice(0, 5)));
      drawing.append(svg('text', { x: width - RIGHT, y: height - 3, 'text-anchor': 'end' }, clock(last).slice(0, 5)));
    }
    if (points.length) drawing.append(svg('text', { x: (LEFT + width - RIGHT) / 2, y: height - 3, 'text-anchor': 'middle' }, t('plot.time')));
    for (const line of lines) {
      const runs = runsOf(points, line.key);
      for (const run of runs) {
        const path = run.map(([at, value], index) => `${index ? 'L' : 'M'}${across(at).toFixed(1)} ${down(value).toFixed(1)}`).join('');
        const end = `L${across(run[run.length - 1][0]).toFixed(1)} ${down(0)}L${across(run[0][0]).toFixed(1)} ${down(0)}Z`;
        if (line.area) drawing.append(svg('path', { class: `area ${line.colour}`, d: path + end }));
        drawing.append(svg('path', { class: `line ${line.colour}`, d: run.length > 1 ? path : `${path}h1.5` }));
      }
    }
  };

  const point = (/** @type {PointerEvent} */ event) => {
    if (!points.length) return;
    const x = event.clientX - figure.getBoundingClientRect().left;
    const near = points.reduce((best, each) => (Math.abs(across(each.at) - x) < Math.abs(across(best.at) - x) ? each : best));
    const at = across(near.at);
    drawing.querySelector('.cursor')?.remove();
    drawing.append(svg('line', { class: 'cursor', x1: at, x2: at, y1: roof, y2: height - BOTTOM }));
    const rows = lines.map((line) => h('div', { text: `${line.name}  ${Number.isFinite(near[line.key]) ? `${write(near[line.key])} ${unit}` : '–'}` }));
    fill(tip, h('div', { text: clock(near.at) }), ...rows);
    tip.hidden = false;
    tip.style.setProperty('left', `${Math.max(0, Math.min(at + 8, width - tip.offsetWidth))}px`);
  };
  const leave = () => {
    tip.hidden = true;
    drawing.querySelector('.cursor')?.remove();
  };
  figure.addEventListener('pointermove', point);
  figure.addEventListener('pointerdown', point);
  figure.addEventListener('pointerleave', leave);
  new ResizeObserver((entries) => {
    width = Math.floor(entries[0].contentRect.width);
    draw();
  }).observe(figure);

  return {
    node: h('figure', { class: 'stack' }, figure, lines.length > 1 && legend),
    set: (/** @type {any[]} */ given) => {
      points = given;
      draw();
    },
  };
}

/**
 * The stretches of points that have a value.
 * @param {any[]} points
 * @param {string} key
 * @returns {[number, number][][]}
 */
export function runsOf(points, key) {
  /** @type {[number, number][][]} */
  const runs = [];
  let before = -Infinity;
  for (const point of points) {
    const value = point[key];
    if (!Number.isFinite(value)) {
      before = -Infinity;
      continue;
    }
    if (point.at - before > GAP_S) runs.push([]);
    runs[runs.length - 1].push([point.at, value]);
    before = point.at;
  }
  return runs;
}
