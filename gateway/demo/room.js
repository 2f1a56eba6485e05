// One open chat session over stock supabase-js: the ChatTwelve hook (`messages:<session>` with a
// postgres_changes filter), presence, typing, the bot's token stream, and catching up after a
// connection was lost. Knows nothing about the page; it reports through the `on` callbacks.

import { listMessages, publicKey, tokenOf } from './api.js';
import { uuid } from './dom.js';

const INSERT_LIMIT_MS = 10_000;
const TYPING_EVERY_MS = 1_500;
// The server says "Subscribed to PostgreSQL" when changes flow; should it never say so, go on anyway.
const LIVE_AT_LATEST_MS = 2_000;
// `created_at` is the time a transaction began, so a row may become visible after a younger one did.
// Asking again from a little earlier costs nothing: rows are merged by id.
const OVERLAP_MS = 120_000;
const PAGES_AT_MOST = 50;
const CATCH_UP_TRIES = 5;
// Reasons that asking again will not change; all others pass.
const REFUSAL = /^unauthorized|permission denied|row-level security/i;

/**
 * Callbacks: `state(connecting|connected|offline|refused)`, `row(row)`, `removed(id)`,
 * `loaded()`, `caughtUp(rows)`, `token(payload)`, `tokensDone(payload)`, `presence([{name, count}])`,
 * `typing(name)`, `refused(reason)`, `notice(text)`, `latency(ms)`, and `newest()`, which returns the
 * `created_at` of the newest row the page has.
 */
export class Room {
  #user;
  #session;
  #on;
  #client;
  #channel;
  #state = 'connecting';
  #closed = false;
  #offline = false;
  #joins = 0;
  #liveTimer;
  #retryTimer;
  #lastTyping = -Infinity;
  #sentAt = new Map();
  #loaded = false;
  // The newest row that was here when the connection was lost, until what follows it has been fetched.
  // Rows that arrive live after a rejoin must not move this.
  #lostAt;

  constructor(user, session, on) {
    this.#user = user;
    this.#session = session;
    this.#on = on;
    this.#client = globalThis.supabase.createClient(location.origin, publicKey(), {
      accessToken: () => tokenOf(user.name),
    });
  }

  async open() {
    const id = this.#session;
    const binding = { schema: 'public', table: 'chat_messages', filter: `session_id=eq.${id}` };
    this.#setState('connecting');
    // The history does not wait for the socket; what is written in between comes with the first catch-up.
    this.#fetch(false);
    // A join that leaves before the SDK has asked for the token would carry only the public key.
    await this.#client.realtime.setAuth();
    if (this.#closed) return;
    this.#channel = this.#client
      .channel(`messages:${id}`, { config: { presence: { key: this.#user.short } } })
      .on('postgres_changes', { event: 'INSERT', ...binding }, (change) => this.#inserted(change))
      .on('postgres_changes', { event: 'DELETE', ...binding }, (change) => this.#on.removed(change.old.id))
      .on('presence', { event: 'sync' }, () => this.#presence())
      .on('broadcast', { event: 'typing' }, ({ payload }) => {
        if (typeof payload?.name === 'string') this.#on.typing(payload.name.slice(0, 40));
      })
      .on('broadcast', { event: 'token' }, ({ payload }) => this.#on.token(payload))
      .on('broadcast', { event: 'done' }, ({ payload }) => this.#on.tokensDone(payload))
      .on('system', {}, (message) => this.#system(message))
      .subscribe((status, error) => this.#status(status, error));
    if (this.#offline) this.#client.realtime.disconnect();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#liveTimer);
    clearTimeout(this.#retryTimer);
    this.#client.removeAllChannels();
    this.#client.realtime.disconnect();
  }

  /** Stores a message, as this user. Resolves to `{row}` or to `{refusal}`; rejects when nobody knows. */
  async send(id, content) {
    this.#sentAt.set(id, performance.now());
    if (this.#sentAt.size > 50) this.#sentAt.delete(this.#sentAt.keys().next().value);
    const { data, error, status } = await this.#client
      .from('chat_messages')
      .insert({ id, session_id: this.#session, role: 'user', content, metadata: { author: this.#user.short } })
      .select()
      .abortSignal(AbortSignal.timeout(INSERT_LIMIT_MS));
    if (!error) return { row: data[0] };
    this.#sentAt.delete(id);
    // The id is already there: an earlier attempt was stored, only its answer got lost.
    if (error.code === '23505') {
      this.#fetch(false);
      return {};
    }
    if (status === 401 || status === 403) return { refusal: error.message };
    throw new Error(status === 0 ? 'the gateway cannot be reached.' : error.message);
  }

  newId() {
    return uuid();
  }

  typing() {
    const now = performance.now();
    if (this.#state !== 'connected' || now - this.#lastTyping < TYPING_EVERY_MS) return;
    this.#lastTyping = now;
    this.#channel.send({ type: 'broadcast', event: 'typing', payload: { name: this.#user.short } });
  }

  /** The next key press is reported at once again: a message was sent in between. */
  typingEnded() {
    this.#lastTyping = -Infinity;
  }

  setOffline(offline) {
    if (this.#closed || this.#state === 'refused') return;
    this.#offline = offline;
    if (offline) {
      clearTimeout(this.#liveTimer);
      clearTimeout(this.#retryTimer);
      this.#client.realtime.disconnect();
      this.#on.presence([]);
      this.#setState('offline');
    } else {
      this.#setState('connecting');
      this.#client.realtime.connect();
    }
  }

  /** The browser found its network again: do not wait for the SDK's next attempt. */
  networkBack() {
    if (!this.#closed && !this.#offline && this.#state !== 'refused') this.#client.realtime.connect();
  }

  #status(status, error) {
    if (this.#closed || this.#state === 'refused') return;
    if (status === 'SUBSCRIBED') {
      this.#joins += 1;
      this.#setState('connected');
      this.#channel.track({ name: this.#user.short });
      clearTimeout(this.#liveTimer);
      this.#liveTimer = setTimeout(() => this.#live(), LIVE_AT_LATEST_MS);
      return;
    }
    const reason = error?.cause?.reason ?? error?.message ?? '';
    if (REFUSAL.test(reason)) return this.#refuse(reason);
    if (this.#offline) return;
    // Everything else passes: the SDK connects and joins again by itself.
    clearTimeout(this.#liveTimer);
    this.#on.presence([]);
    this.#setState('connecting');
    if (status === 'CHANNEL_ERROR' && error?.cause?.reason) this.#on.notice(`The gateway answers: ${reason}. Trying again.`);
    if (status === 'CLOSED') this.#on.notice('The gateway closed this subscription. Reload the page to come back.');
  }

  #system({ extension, status, message }) {
    if (this.#closed) return;
    if (status === 'error') {
      if (REFUSAL.test(message)) return this.#refuse(message);
      // An expired token, or a database that is busy: not a verdict about this user.
      return this.#on.notice(`The gateway says: ${message}`);
    }
    if (extension === 'postgres_changes' && this.#liveTimer) this.#live();
  }

  #refuse(reason) {
    clearTimeout(this.#liveTimer);
    clearTimeout(this.#retryTimer);
    this.#setState('refused');
    this.#on.presence([]);
    this.#on.refused(reason);
    // Without this the SDK would ask again every few seconds; the answer would be the same.
    this.#client.removeAllChannels();
    this.#client.realtime.disconnect();
  }

  /** From now on every change is delivered; fetch what was written before that. Once for each join. */
  #live() {
    clearTimeout(this.#liveTimer);
    this.#liveTimer = undefined;
    this.#fetch(this.#joins > 1);
  }

  async #fetch(announce, attempt = 1, missed = []) {
    try {
      const since = this.#lostAt ?? this.#on.newest();
      const start = since ? new Date(Date.parse(since) - OVERLAP_MS) : new Date(0);
      // The first time the server chooses how many of the latest rows; later nothing may be left out.
      let after = since || this.#loaded ? start.toISOString() : undefined;
      for (let page = 1; ; page += 1) {
        const rows = await listMessages(this.#user.name, this.#session, after);
        if (this.#closed) return;
        missed.push(...rows.filter((row) => this.#on.row(row)));
        const last = rows.at(-1)?.created_at;
        if (!after || !last || last === after) break;
        if (page === PAGES_AT_MOST) {
          this.#on.notice('More was written meanwhile than this page fetches. Reload it to see the latest.');
          break;
        }
        after = last;
      }
      this.#loaded = true;
      if (this.#state === 'connected') this.#lostAt = undefined;
      this.#on.loaded();
      if (announce && missed.length > 0) this.#on.caughtUp(missed);
    } catch (error) {
      if (this.#closed || this.#offline) return;
      if (attempt < CATCH_UP_TRIES) {
        this.#retryTimer = setTimeout(() => this.#fetch(announce, attempt + 1, missed), 500 * 2 ** attempt);
      } else {
        this.#on.notice(`Could not fetch the messages: ${error.message}. Reload the page to try again.`);
      }
    }
  }

  #inserted(change) {
    // A row that was too large for the wire arrives without its long values: ask for it instead.
    if (change.errors?.length) return void this.#fetch(false);
    const sent = this.#sentAt.get(change.new.id);
    if (sent !== undefined) {
      this.#sentAt.delete(change.new.id);
      this.#on.latency(performance.now() - sent);
    }
    this.#on.row(change.new);
  }

  #presence() {
    const state = this.#channel.presenceState();
    this.#on.presence(
      Object.entries(state)
        .map(([name, metas]) => ({ name, count: metas.length }))
        .sort((a, b) => a.name.localeCompare(b.name)),
    );
  }

  #setState(state) {
    if (this.#state === 'connected' && state !== 'connected') this.#lostAt ??= this.#on.newest();
    this.#state = state;
    this.#on.state(state);
  }
}
