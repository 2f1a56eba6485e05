// Small helpers around the DOM. Everything that came over the network enters the page as text
// through here; nothing is ever parsed as HTML.

export const $ = (id) => document.getElementById(id);

/** Builds an element. `props` are attributes; `text` sets the text, `on…` adds a listener. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === 'text') node.textContent = value;
    else if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** An icon from the sprite in index.html. */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A round avatar with the first two letters of a name, in a colour that stays with the name. */
export function avatar(name) {
  let hash = 0;
  for (const char of name) hash = (hash * 31 + char.codePointAt(0)) >>> 0;
  const [first = '?', second = ''] = name;
  // The letters are drawn by the style sheet, so that they are not part of anybody's name.
  return el('span', { class: `avatar hue-${hash % 6}`, 'aria-hidden': 'true', 'data-initials': first.toUpperCase() + second });
}

/** "Anon (read only)" → { short: "Anon", hint: "read only" }. */
export function splitName(name) {
  const match = /^(.*?)\s*\((.*)\)$/.exec(name);
  return match ? { short: match[1], hint: match[2] } : { short: name, hint: '' };
}

/** The time of day; with the date when it is not today's. */
export function clock(iso) {
  const date = new Date(iso);
  const time = date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  if (date.toDateString() === new Date().toDateString()) return time;
  return `${date.toLocaleDateString([], { month: 'short', day: 'numeric' })}, ${time}`;
}

/** A version 4 UUID. `crypto.randomUUID` exists only on secure origins, and a phone in the same
 * network opens this page over plain HTTP. */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
