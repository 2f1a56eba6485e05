// The list of messages: stored rows in order and each once, messages on their way, the bot's answer
// while it grows, and the "caught up" divider.

import { clock, el, icon } from './dom.js';

// Old messages leave the page beyond this, so that a demo that runs for days stays light.
const ROWS_AT_MOST = 500;
const DRAFTS_AT_MOST = 8;
const DRAFT_SILENCE_MS = 20_000;
const GROUP_WITHIN_MS = 3 * 60_000;
const NEAR_BOTTOM_PX = 80;

export class MessageList {
  #list;
  #scroller;
  #jump;
  #me;
  #mine;
  #rows = []; // stored entries, sorted by key
  #byId = new Map(); // every entry, also those that are not stored yet
  #tail = []; // pending messages and drafts, in order of arrival
  #removed = new Set();
  #floor = '';
  #divider = null;
  #stick = true; // the reader is at the bottom and stays there
  #resized = new ResizeObserver(() => this.#stick && this.#toBottom());

  /** `me` is the user's name, `mine` whether the session is theirs. */
  constructor({ list, scroller, jump }, me, mine) {
    this.#list = list;
    this.#scroller = scroller;
    this.#jump = jump;
    this.#me = me;
    this.#mine = mine;
    list.replaceChildren();
    jump.hidden = true;
    jump.onclick = () => this.#toBottom('smooth');
    scroller.onscroll = () => {
      this.#stick = this.#nearBottom();
      if (this.#stick) jump.hidden = true;
    };
    // A phone's keyboard and a refusal's card take room away from below or above.
    this.#resized.observe(scroller);
  }

  get size() {
    return this.#rows.length + this.#tail.length;
  }

  newest() {
    return this.#rows.at(-1)?.row.created_at;
  }

  /** Takes a stored row. Returns whether it is new to this page. */
  store(row) {
    const key = sortKey(row.created_at);
    if (this.#removed.has(row.id) || key < this.#floor) return false;
    const known = this.#byId.get(row.id) ?? this.#draftOf(row);
    if (known?.row) return false;
    // The sender's own message is on the page already; storing it is no news.
    const fresh = known?.kind !== 'pending';
    if (known) this.#forget(known);
    const entry = { id: row.id, kind: 'row', key, row, el: known?.el ?? this.#element(), author: this.#author(row) };
    this.#byId.set(row.id, entry);
    let at = this.#rows.length;
    while (at > 0 && this.#rows[at - 1].key > key) at -= 1;
    this.#keepingBottom(() => {
      this.#rows.splice(at, 0, entry);
      this.#list.insertBefore(entry.el, this.#rows[at + 1]?.el ?? this.#tail[0]?.el ?? null);
      this.#paint(entry, { text: row.content, time: row.created_at, state: 'stored', model: row.model });
      this.#group(at);
      this.#group(at + 1);
      if (this.#rows.length > ROWS_AT_MOST) this.#dropOldest();
    });
    return fresh;
  }

  /** Shows a message that is being sent. */
  pending(id, content) {
    if (this.#byId.has(id)) return;
    const author = { name: this.#me, kind: 'mine' };
    const entry = { id, kind: 'pending', el: this.#element(), author, content };
    this.#byId.set(id, entry);
    this.#tail.push(entry);
    this.#list.append(entry.el);
    this.#paint(entry, { text: content, state: 'pending', note: 'sending…' });
    this.#toBottom();
  }

  /** Says that a message could not be sent, and offers `retry`. */
  failed(id, reason, retry) {
    const entry = this.#byId.get(id);
    if (entry?.kind !== 'pending') return;
    this.#paint(entry, { text: entry.content, state: 'failed', note: `Not sent: ${reason}`, retry });
  }

  /** Takes a message that was refused, or that gave way to a retry, off the page. */
  discard(id) {
    const entry = this.#byId.get(id);
    if (entry?.kind !== 'pending') return;
    this.#forget(entry);
    entry.el.remove();
  }

  remove(id) {
    this.#removed.add(id);
    if (this.#removed.size > ROWS_AT_MOST) this.#removed.delete(this.#removed.values().next().value);
    const entry = this.#byId.get(id);
    if (!entry) return;
    const at = this.#rows.indexOf(entry);
    if (at >= 0) this.#rows.splice(at, 1);
    this.#forget(entry);
    entry.el.remove();
    this.#group(at);
  }

  /** One piece of the bot's answer. Pieces are put together by number, so a late one finds its place. */
  token({ id, text, n }) {
    if (typeof id !== 'string' || typeof text !== 'string') return;
    let entry = this.#byId.get(id);
    if (!entry) {
      if (this.#tail.filter((other) => other.kind === 'draft').length >= DRAFTS_AT_MOST) return;
      const author = { name: 'Bot', kind: 'bot' };
      entry = { id, kind: 'draft', el: this.#element(), author, pieces: [], done: false };
      this.#byId.set(id, entry);
      this.#tail.push(entry);
      this.#list.append(entry.el);
    }
    if (entry.kind !== 'draft') return; // The stored row overtook the last pieces.
    const place = Number.isInteger(n) && n >= 0 && n < 100_000 ? n : entry.pieces.length;
    entry.pieces[place] = text;
    this.#keepingBottom(() => this.#paint(entry, { text: entry.pieces.join(''), state: 'streaming' }));
    clearTimeout(entry.timer);
    entry.timer = setTimeout(() => this.#interrupted(entry), DRAFT_SILENCE_MS);
  }

  tokensDone({ id }) {
    const entry = this.#byId.get(id);
    if (entry?.kind !== 'draft') return;
    entry.done = true;
    this.#paint(entry, { text: entry.pieces.join(''), state: 'done' });
  }

  /** Marks where the messages begin that were missed while there was no connection. */
  caughtUp(rows) {
    this.#divider?.remove();
    const first = this.#rows.find((entry) => rows.some((row) => row.id === entry.id));
    if (!first) return;
    const text = `caught up ${rows.length} ${rows.length === 1 ? 'message' : 'messages'}`;
    this.#divider = el('li', { class: 'divider', 'data-testid': 'caught-up' }, el('span', { text }));
    this.#keepingBottom(() => this.#list.insertBefore(this.#divider, first.el));
  }

  close() {
    this.#resized.disconnect();
    for (const entry of this.#tail) clearTimeout(entry.timer);
  }

  #element() {
    return el('li', { class: 'message', 'data-testid': 'message' });
  }

  #paint(entry, { text, time, state, model, note, retry }) {
    const { el: item, author } = entry;
    item.dataset.id = entry.id;
    item.dataset.state = state;
    item.classList.remove('mine', 'theirs', 'bot');
    item.classList.add(author.kind);
    item.setAttribute('aria-busy', String(state === 'streaming'));
    // The text node is kept while an answer grows: a selection in it survives, and so does its layout.
    let body = item.querySelector('.body');
    if (!body) {
      body = el('div', { class: 'body' });
      item.append(el('p', { class: 'who' }), body, el('p', { class: 'note' }));
    }
    if (body.textContent !== text) body.textContent = text;
    const who = [author.kind === 'bot' ? icon('wave') : null, el('b', { text: author.name })];
    if (model) who.push(el('span', { class: 'model', text: model }));
    if (time) {
      const title = new Date(time).toLocaleString();
      who.push(el('time', { datetime: time, title, text: clock(time) }));
    }
    item.querySelector('.who').replaceChildren(...who.filter(Boolean));
    const notes = note ? [el('span', { text: note })] : [];
    if (retry) notes.push(el('button', { type: 'button', class: 'link', text: 'Try again', onclick: retry }));
    item.querySelector('.note').replaceChildren(...notes);
  }

  /** A message that follows one of the same author closely does not repeat the name. */
  #group(at) {
    const entry = this.#rows[at];
    if (!entry) return;
    const before = this.#rows[at - 1];
    const close = before && Date.parse(entry.row.created_at) - Date.parse(before.row.created_at) < GROUP_WITHIN_MS;
    entry.el.classList.toggle('follows', Boolean(close && before.author.name === entry.author.name));
  }

  #author({ role, metadata }) {
    if (role === 'assistant') return { name: 'Bot', kind: 'bot' };
    if (role === 'system') return { name: 'System', kind: 'bot' };
    const stated = typeof metadata?.author === 'string' ? metadata.author.slice(0, 40) : '';
    const mine = stated ? stated === this.#me : this.#mine;
    return { name: stated || (mine ? this.#me : 'Owner'), kind: mine ? 'mine' : 'theirs' };
  }

  /** The growing answer that this row is the end of. Should the ids differ, the text tells. */
  #draftOf(row) {
    if (row.role !== 'assistant') return undefined;
    const drafts = this.#tail.filter((entry) => entry.kind === 'draft');
    const named = drafts.find((entry) => entry.id === row.metadata?.answer_id);
    const start = (entry) => row.content.trim().startsWith(entry.pieces.join('').trim());
    return named ?? drafts.find(start) ?? drafts.find((entry) => entry.done);
  }

  #interrupted(entry) {
    if (entry.kind !== 'draft' || this.#byId.get(entry.id) !== entry) return;
    this.#paint(entry, { text: entry.pieces.join(''), state: 'failed', note: 'The answer stopped here.' });
  }

  #forget(entry) {
    clearTimeout(entry.timer);
    this.#byId.delete(entry.id);
    this.#tail = this.#tail.filter((other) => other !== entry);
  }

  #dropOldest() {
    const oldest = this.#rows.shift();
    this.#byId.delete(oldest.id);
    oldest.el.remove();
    this.#floor = this.#rows[0].key;
    this.#group(0);
  }

  #nearBottom() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM_PX;
  }

  /** Stays at the bottom if the reader is there; otherwise says that there is something new. */
  #keepingBottom(change) {
    const stay = this.#stick || this.#nearBottom();
    change();
    if (stay) this.#toBottom();
    else this.#jump.hidden = false;
  }

  #toBottom(behavior = 'instant') {
    this.#scroller.scrollTo({ top: this.#scroller.scrollHeight, behavior });
    this.#jump.hidden = true;
    this.#stick = true;
  }
}

/** PostgreSQL's microseconds, which `Date` would cut off, in a form that sorts as text. */
function sortKey(iso) {
  const fraction = /\.(\d+)/.exec(iso)?.[1] ?? '';
  return new Date(iso).toISOString().slice(0, 19) + fraction.padEnd(6, '0').slice(0, 6);
}
