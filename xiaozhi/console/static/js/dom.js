/**
 * Elements without HTML strings: text only ever becomes text, so nothing that a device or a model says can become markup.
 * @module
 */

/** @typedef {Node | string | number | false | null | undefined} Child */

/**
 * Make an element.
 *
 * @param {string} tag
 * @param {Record<string, any>} [props] `class`, `text`, `on` (listeners by event), `style` (set property by property, as
 *   the content security policy demands), `data`; the rest are attributes: true is present, false and null are absent.
 * @param {...(Child | Child[])} children
 * @returns {any} the element; its exact kind follows from `tag`
 */
export function h(tag, props = {}, ...children) {
  const element = /** @type {any} */ (document.createElement(tag));
  for (const [name, value] of Object.entries(props)) {
    if (name === 'text') element.textContent = value ?? '';
    else if (name === 'on') for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === 'style') for (const [key, each] of Object.entries(value)) element.style.setProperty(key, each);
    else if (name === 'data') Object.assign(element.dataset, value);
    else if (name === 'value') element.value = value ?? '';
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  append(element, children);
  return element;
}

/**
 * @param {Element} element
 * @param {(Child | Child[])[]} children
 */
function append(element, children) {
  for (const child of children.flat()) {
    if (child === false || child === null || child === undefined) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/**
 * Replace what is in an element.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

const SVG = 'http://www.w3.org/2000/svg';

/**
 * Make an SVG element.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Element | string)} children
 * @returns {any}
 */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}
