// The demo page in Chromium: two people, one row that a third program writes, who is online, who types,
// a refusal, a way offline and back, and the bot. CHROMIUM names the browser; SCREENSHOT takes the last view.

import { strict as assert } from 'node:assert';

import { Browser } from '../browser.mjs';
import { ADAS_SESSION, BOBS_SESSION } from '../support.mjs';

export default async function page({ host, url, environment }) {
  const browser = await Browser.launch(environment.CHROMIUM, url);
  try {
    const ada = await browser.open(await browser.person(), 'Ada', ADAS_SESSION);
    const bob = await browser.open(await browser.person({ colorScheme: 'dark' }), 'Bob', BOBS_SESSION);
    await Promise.all([ada.status('connected'), bob.status('connected')]);

    await aRowOfAThirdProgram(host, ada, bob);
    const anon = await browser.open(await browser.person({ viewport: { width: 360, height: 740 } }), 'Anon', ADAS_SESSION);
    await anon.status('connected');
    await whoIsThere(browser, ada, anon);
    await writing(host, ada, anon);
    await offlineAndBack(host, ada);
    await theBot(host, ada, anon);
    await aForeignSession(host, ada, bob);
    for (const tab of [ada, bob, anon]) await fits(tab);
    await ada.page.screenshot({ path: environment.SCREENSHOT, animations: 'disabled' });

    // A refused insert is a 401 or 403, which Chromium itself notes on the console.
    const refusals = /Failed to load resource: the server responded with a status of 40[13] .*\/rest\/v1\/chat_messages/;
    assert.deepEqual(browser.complaints.filter((complaint) => !refusals.test(complaint)), []);
  } finally {
    await browser.close();
  }
}

async function aRowOfAThirdProgram(host, ada, bob) {
  const before = await bob.messages();
  await host.insert(ADAS_SESSION, 'written by a third program');
  await host.insert(BOBS_SESSION, 'a marker for Bob');
  await Promise.all([ada.shows('written by a third program'), bob.shows('a marker for Bob')]);
  assert.deepEqual(await bob.messages(), [...before, 'a marker for Bob']);
  assert.ok(!(await ada.messages()).includes('a marker for Bob'));
}

async function whoIsThere(browser, ada, anon) {
  await Promise.all([ada, anon].map((tab) => tab.online(['Ada', 'Anon'])));
  const second = await browser.open(ada.page.context(), 'Ada', ADAS_SESSION);
  await second.status('connected');
  await Promise.all([ada, anon, second].map((tab) => tab.online(['Ada ×2', 'Anon'])));
  await second.page.close();
  await Promise.all([ada, anon].map((tab) => tab.online(['Ada', 'Anon'])));
}

async function writing(host, ada, anon) {
  await ada.at('composer').pressSequentially('Is anybody');
  await anon.says('typing', /^Ada is typing$/);
  await ada.send('Is anybody here?');
  await Promise.all([ada.shows('Is anybody here?'), anon.shows('Is anybody here?')]);
  await anon.says('typing', /^$/);
  await ada.says('latency', /^[\d.]+ ms$/);
  await ada.page.locator('[data-testid=message][data-state=stored]', { hasText: 'Is anybody here?' }).waitFor();
  assert.equal(await host.count('Is anybody here?'), 1);

  // Who may only listen is told so by the database, and keeps the text.
  await anon.send('May I?');
  await anon.says('refusal', /row-level security|permission denied/i);
  assert.equal(await anon.at('composer').inputValue(), 'May I?');
  assert.ok(!(await anon.messages()).includes('May I?'));
  assert.equal(await host.count('May I?'), 0);
  await anon.page.getByRole('button', { name: 'Dismiss' }).click();
}

async function offlineAndBack(host, ada) {
  await ada.at('offline-toggle').click();
  await ada.status('offline');
  await ada.online([]);
  const before = await ada.messages();
  for (const content of ['missed 1', 'missed 2', 'missed 3']) await host.insert(ADAS_SESSION, content);
  assert.deepEqual(await ada.messages(), before);
  await ada.at('offline-toggle').click();
  await ada.status('connected');
  await ada.says('caught-up', /^caught up 3 messages$/i);
  assert.deepEqual(await ada.messages(), [...before, 'missed 1', 'missed 2', 'missed 3']);
  await host.insert(ADAS_SESSION, 'and live again');
  await ada.shows('and live again');
  assert.deepEqual(await ada.messages(), [...before, 'missed 1', 'missed 2', 'missed 3', 'and live again']);
  await ada.online(['Ada', 'Anon']);
}

async function theBot(host, ada, anon) {
  const stored = anon.page.locator('.bot[data-testid=message][data-state=stored]');
  const before = await stored.count();
  await anon.page.evaluate(watchStream);
  await ada.at('ask-bot').click();
  await ada.send('What is row-level security?');
  await stored.nth(before).waitFor();
  const answer = await stored.nth(before).locator('.body').innerText();
  // It grew where everybody can watch, and what grew is what was stored.
  const grown = await anon.page.evaluate(() => globalThis.grown);
  assert.ok(grown.length >= 5, `it grew in steps: ${JSON.stringify(grown)}`);
  for (const text of grown) assert.ok(answer.startsWith(text.trim()), `${JSON.stringify(answer)} begins with ${JSON.stringify(text)}`);
  assert.equal(await anon.page.locator('[data-state=streaming], [data-state=done]').count(), 0);
  assert.equal(await host.count(answer), 1);
  await ada.shows(answer);
  const once = async (tab) => assert.equal((await tab.messages()).filter((text) => text === answer).length, 1);
  await Promise.all([ada, anon].map(once));

  await ada.page.reload();
  await ada.status('connected');
  await ada.shows(answer);
  await once(ada);
}

/** Runs in the page: notes every text that an answer has while it streams in. */
function watchStream() {
  globalThis.grown = [];
  const look = () => {
    const text = document.querySelector('[data-testid=message][data-state=streaming] .body')?.textContent;
    if (text && text !== globalThis.grown.at(-1)) globalThis.grown.push(text);
  };
  const everything = { subtree: true, childList: true, characterData: true, attributes: true };
  new MutationObserver(look).observe(document.querySelector('[data-testid=message-list]'), everything);
}

async function aForeignSession(host, ada, bob) {
  await bob.at(`session-${ADAS_SESSION}`).click();
  await bob.status('refused');
  await bob.says('refusal', new RegExp(`Unauthorized: You do not have permissions to read .*messages:${ADAS_SESSION}`));
  await host.insert(ADAS_SESSION, 'Bob is looking');
  await ada.shows('Bob is looking');
  assert.deepEqual(await bob.messages(), []);
  await bob.online([]);
  // Nothing is broken for him: his own session is one click away.
  await bob.at(`session-${BOBS_SESSION}`).click();
  await bob.status('connected');
  await bob.shows('a marker for Bob');
}

/** Nothing sticks out: on a phone, too, the page scrolls up and down only. */
async function fits(tab) {
  const [content, window] = await tab.page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(content <= window, `${tab.user}: the page is ${content} px wide in a window of ${window}`);
}
