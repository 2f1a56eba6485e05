// A real browser on the demo page, and what a person would look for on it.

import { chromium } from 'playwright-core';

const LIMIT_MS = 15_000;
// Headless, quiet, and asking nobody on the network for anything.
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export class Browser {
  /** What went wrong on any page: exceptions, violations of the content security policy, failed requests. */
  complaints = [];
  #chromium;
  #url;

  static async launch(executablePath, url) {
    const browser = new Browser();
    browser.#chromium = await chromium.launch({ executablePath, args: FLAGS, timeout: 60_000 });
    browser.#url = url;
    return browser;
  }

  close() {
    return this.#chromium.close();
  }

  /** A browser of its own for one person: nothing is shared with the others. */
  person(options = {}) {
    return this.#chromium.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  }

  async open(context, user, session) {
    const page = await context.newPage();
    page.setDefaultTimeout(LIMIT_MS);
    page.on('pageerror', (error) => this.complaints.push(`${user}: ${error.stack}`));
    page.on('console', (message) => {
      if (message.type() === 'error') this.complaints.push(`${user}: ${message.text()} (${message.location().url})`);
    });
    await page.goto(`${this.#url}/?user=${user}${session ? `&session=${session}` : ''}`);
    return new Tab(page, user);
  }

  blank(options) {
    return this.#chromium.newPage(options);
  }
}

export class Tab {
  constructor(page, user) {
    this.page = page;
    this.user = user;
  }

  at(id) {
    return this.page.getByTestId(id);
  }

  /** Waits until the status line says this, and nothing else. */
  async status(wanted) {
    await this.#until(`the status "${wanted}"`, (text) => text === wanted, () => this.at('status').innerText());
    return this;
  }

  /** The messages as they are shown, from top to bottom. */
  async messages() {
    return this.at('message').locator('.body').allInnerTexts();
  }

  async shows(text) {
    await this.#until(`the message "${text}"`, (all) => all.includes(text), () => this.messages());
  }

  async online(wanted) {
    const sorted = (names) => JSON.stringify([...names].sort());
    const read = () => this.at('online-user').evaluateAll((items) => items.map((item) => item.title));
    await this.#until(`online: ${wanted}`, (names) => sorted(names) === sorted(wanted), read);
  }

  async says(id, pattern) {
    return this.#until(`${id} to say ${pattern}`, (text) => pattern.test(text), () => this.at(id).innerText());
  }

  async send(text) {
    await this.at('composer').fill(text);
    await this.at('composer').press('Enter');
  }

  /** Looks until it fits; the page's own rendering is waited for, never a fixed time. */
  async #until(what, fits, look) {
    const end = Date.now() + LIMIT_MS;
    for (;;) {
      const seen = await look();
      if (fits(seen)) return seen;
      if (Date.now() > end) throw new Error(`${this.user}: waited for ${what}. Seen: ${JSON.stringify(seen)}`);
      await this.page.waitForTimeout(25);
    }
  }
}
