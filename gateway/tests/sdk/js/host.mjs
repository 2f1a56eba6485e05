// The other end of the pipe: the Rust test. It plays everybody who is not an SDK: the third program that
// writes rows, the one who signs tokens, the network that breaks. One JSON object a line; a call
// `{"call":"insert","id":1,"args":{…}}` is answered by `{"id":1,"ok":…}` or `{"id":1,"error":"…"}`.

import { createInterface } from 'node:readline';

const CALL_LIMIT_MS = 30_000;

export class Host {
  #output;
  #calls = new Map();
  #last = 0;

  constructor(input, output) {
    this.#output = output;
    createInterface({ input }).on('line', (line) => this.#answered(JSON.parse(line)));
  }

  say(message) {
    this.#output.write(`${JSON.stringify(message)}\n`);
  }

  /** Writes rows into `chat_messages`, one statement. Returns them as PostgreSQL stored them. */
  insert(session, ...contents) {
    return this.#call('insert', { session, contents });
  }

  /** Changes the text of a row; returns the row as it is now. */
  update(id, content) {
    return this.#call('update', { id, content });
  }

  delete(...ids) {
    return this.#call('delete', { ids });
  }

  /** How many rows of this text are stored. */
  count(content) {
    return this.#call('count', { content });
  }

  /** Signs a token: `{role, sub, seconds}` and any other claims. */
  token(claims) {
    return this.#call('token', claims);
  }

  /** Breaks every connection to the gateway and refuses new ones, until `mend`. */
  cut() {
    return this.#call('cut', {});
  }

  mend() {
    return this.#call('mend', {});
  }

  /** Stops the gateway in good order and starts another at the same address. */
  restart() {
    return this.#call('restart', {});
  }

  /** Kills the gateway; `revive` starts another at the same address. */
  kill() {
    return this.#call('kill', {});
  }

  revive() {
    return this.#call('revive', {});
  }

  /** Empties the log of changes, as time does, and the gateway's memory. */
  forget() {
    return this.#call('forget', {});
  }

  /**
   * Stops this process until the gateway has closed a socket for `reason`. Rows are written when it has stopped, and further ones,
   * which are returned, before it is woken up.
   */
  asleep(session, { contents, reason, later }) {
    return this.#call('asleep', { session, contents, reason, later });
  }

  /** Waits until the gateway has closed so many sockets for this reason. */
  closed(reason, times = 1) {
    return this.#call('closed', { reason, times });
  }

  #call(call, args) {
    const id = (this.#last += 1);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`the test did not answer "${call}" in time`)), CALL_LIMIT_MS);
      this.#calls.set(id, { call, resolve, reject, timer });
      this.say({ call, id, args });
    });
  }

  #answered({ id, ok, error }) {
    const waiting = this.#calls.get(id);
    if (!waiting) return;
    this.#calls.delete(id);
    clearTimeout(waiting.timer);
    if (error === undefined) waiting.resolve(ok);
    else waiting.reject(new Error(`${waiting.call}: ${error}`));
  }
}
