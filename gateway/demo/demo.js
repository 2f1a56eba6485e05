// The demo page: users, sessions, the open room, the composer. What is chosen is kept in the address
// (`?user=Ada&session=…`), so that a link opens a second browser in the same place.

import { askBot, listSessions, loadUsers } from './api.js';
import { $, avatar, el, icon, splitName } from './dom.js';
import { MessageList } from './messages.js';
import { Room } from './room.js';

const TYPING_SHOWN_MS = 4_000;
const NOTICE_SHOWN_MS = 12_000;
const COMPOSER_MAX_PX = 160;

const page = { users: [], user: null, sessions: [], session: null, room: null, list: null, state: 'offline', bot: false };
const typists = new Map(); // name → the timer that takes it away
let noticeTimer;
let visit = 0; // counts choices of a user; an answer for an earlier choice is thrown away

wire();
start();

async function start() {
  $('retry').hidden = true;
  try {
    page.users = (await loadUsers()).map((user) => ({ ...user, ...splitName(user.name) }));
  } catch (error) {
    return fail('The demo is not running here', `${error.message}. It comes with "tidings dev"; start that, then try again.`);
  }
  await follow();
}

/** Goes where the address says. */
async function follow() {
  const query = new URLSearchParams(location.search);
  const wanted = query.get('user')?.toLowerCase();
  const user = page.users.find((each) => [each.name, each.short].some((name) => name.toLowerCase() === wanted)) ?? page.users[0];
  if (!user) return fail('Nobody is here', 'The gateway knows no demo users.');
  const number = (visit += 1);
  page.user = user;
  leave();
  showUsers();
  let sessions;
  try {
    sessions = await listSessions(user.name);
  } catch (error) {
    if (number === visit) fail('The sessions did not load', `${error.message}. Try again.`);
    return;
  }
  if (number !== visit) return;
  page.sessions = sessions;
  enter(page.sessions.find((each) => each.id === query.get('session')) ?? null);
}

function go(user, session) {
  const query = new URLSearchParams({ user: user.short, ...(session ? { session: session.id } : {}) });
  history.pushState(null, '', `/?${query}`);
}

function leave() {
  page.room?.close();
  page.list?.close();
  page.room = page.list = page.session = null;
  forgetTypists();
  notice('');
  $('refusal').hidden = true;
}

function enter(session) {
  leave();
  page.session = session;
  showSessions();
  $('app').dataset.view = session ? 'chat' : 'list';
  $('welcome').hidden = Boolean(session);
  $('room').hidden = !session;
  document.title = session ? `${session.title} · Tidings` : 'Tidings';
  if (!session) return;
  const places = { list: $('messages'), scroller: $('scroller'), jump: $('jump') };
  const list = new MessageList(places, page.user.short, session.mine);
  page.list = list;
  $('room-title').textContent = session.title;
  $('second').href = location.href;
  $('latency').hidden = true;
  $('empty').hidden = true;
  showPresence([]);
  page.room = new Room(page.user, session.id, {
    state: showState,
    newest: () => list.newest(),
    row: (row) => {
      stoppedTyping(row.role === 'user' ? row.metadata?.author : undefined);
      const fresh = list.store(row);
      $('empty').hidden = true;
      return fresh;
    },
    removed: (id) => {
      list.remove(id);
      showEmpty();
    },
    loaded: showEmpty,
    caughtUp: (rows) => list.caughtUp(rows),
    token: (piece) => {
      $('empty').hidden = true;
      list.token(piece);
    },
    tokensDone: (piece) => list.tokensDone(piece),
    presence: showPresence,
    typing: startedTyping,
    refused: (reason) => refuse(reason, 'read'),
    notice,
    latency: (ms) => {
      $('latency').textContent = `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
      $('latency').hidden = false;
    },
  });
  page.room.open();
  if (matchMedia('(hover: hover)').matches) $('composer').focus();
}

function showUsers() {
  $('users').replaceChildren(
    ...page.users.map((user) =>
      el(
        'button',
        {
          type: 'button',
          class: 'chip',
          'aria-pressed': String(user === page.user),
          'data-testid': `user-chip-${user.short}`,
          onclick: () => {
            go(user, page.session);
            follow();
          },
        },
        avatar(user.short),
        el('span', { class: 'chip-name', text: user.short }),
        user.hint ? el('small', { text: user.hint }) : null,
      ),
    ),
  );
}

function showSessions() {
  $('sessions').replaceChildren(
    ...[...page.sessions]
      .sort((a, b) => Number(b.mine) - Number(a.mine))
      .map((session) => {
        const owner = page.users.find((user) => user.sub === session.owner)?.short ?? session.owner;
        const button = el(
          'button',
          {
            type: 'button',
            class: session.mine ? 'session' : 'session foreign',
            'aria-current': session === page.session ? 'true' : undefined,
            'data-testid': `session-${session.id}`,
            onclick: () => {
              go(page.user, session);
              enter(session);
            },
          },
          el('span', { class: 'session-title', text: session.title }),
          el('small', { text: session.mine ? 'yours' : `${owner}’s` }),
          session.mine ? null : icon('lock'),
        );
        return el('li', {}, button);
      }),
  );
}

function showState(state) {
  page.state = state;
  $('status').textContent = state;
  $('status').dataset.state = state;
  const offline = state === 'offline';
  $('offline').textContent = offline ? 'Go online' : 'Go offline';
  $('offline').setAttribute('aria-pressed', String(offline));
  $('offline').disabled = state === 'refused';
  $('composer').placeholder = offline ? 'You are offline' : 'Write a message';
  $('room').dataset.state = state;
  if (state === 'connected') {
    notice('');
  } else {
    $('latency').hidden = true;
    forgetTypists();
  }
  showSend();
}

function showSend() {
  $('send').disabled = page.state === 'offline' || $('composer').value.trim() === '';
}

function showEmpty() {
  $('empty').hidden = page.state === 'refused' || page.list?.size !== 0;
}

function showPresence(people) {
  $('online').replaceChildren(
    ...people.map(({ name, count }) => {
      const text = count > 1 ? `${name} ×${count}` : name;
      return el('li', { 'data-testid': 'online-user', title: text }, avatar(name), el('span', { text }));
    }),
  );
}

function startedTyping(name) {
  clearTimeout(typists.get(name));
  if (typists.size > 20 && !typists.has(name)) return;
  typists.set(name, setTimeout(() => stoppedTyping(name), TYPING_SHOWN_MS));
  showTyping();
}

function stoppedTyping(name) {
  clearTimeout(typists.get(name));
  if (typists.delete(name)) showTyping();
}

function forgetTypists() {
  for (const timer of typists.values()) clearTimeout(timer);
  typists.clear();
  showTyping();
}

function showTyping() {
  const names = [...typists.keys()];
  const who = names.length > 2 ? `${names.length} people are` : `${names.join(' and ')} ${names.length > 1 ? 'are' : 'is'}`;
  $('typing').textContent = names.length ? `${who} typing` : '';
}

/** Says what the database refused, in its own words, and what that means. */
function refuse(reason, what) {
  const policy = /row-level security|^unauthorized/i.test(reason);
  const { short, role } = page.user;
  $('refusal-title').textContent = policy ? 'PostgreSQL’s row-level security says no' : 'PostgreSQL says no';
  $('refusal-reason').textContent = reason;
  $('refusal-hint').textContent =
    what === 'read'
      ? `You are ${short}, and no policy lets ${short} read this session. The page asked anyway; the decision is the database’s.`
      : `${short} (role ${role}) may not write here. Nothing was stored; your text is back in the box below.`;
  $('refusal').classList.toggle('whole', page.state === 'refused');
  $('refusal').hidden = false;
  if (what === 'read') $('empty').hidden = true;
}

function notice(text) {
  clearTimeout(noticeTimer);
  $('notice').textContent = text;
  if (text) noticeTimer = setTimeout(() => notice(''), NOTICE_SHOWN_MS);
}

function fail(title, text) {
  leave();
  $('app').dataset.view = 'chat';
  $('welcome').hidden = false;
  $('room').hidden = true;
  $('welcome').classList.add('failed');
  $('welcome-title').textContent = title;
  $('welcome-text').textContent = text;
  $('retry').hidden = false;
}

async function submit() {
  const content = $('composer').value.trim();
  if (content === '' || page.state === 'offline' || !page.room) return;
  $('composer').value = '';
  fitComposer();
  $('empty').hidden = true;
  page.room.typingEnded();
  await post(content, page.bot);
}

/** A retry uses the same id, so that a message whose answer got lost is not stored twice. */
async function post(content, bot, id = page.room.newId()) {
  const { room, list, user, session } = page;
  list.discard(id);
  list.pending(id, content);
  try {
    const { row, refusal } = await room.send(id, content);
    if (refusal) {
      list.discard(id);
      if (room !== page.room) return;
      showEmpty();
      refuse(refusal, 'write');
      $('composer').value ||= content;
      return fitComposer();
    }
    if (row) list.store(row);
    if (room === page.room && !$('refusal').classList.contains('whole')) $('refusal').hidden = true;
  } catch (error) {
    return list.failed(id, error.message, () => room === page.room && post(content, bot, id));
  }
  if (!bot) return;
  try {
    await askBot(user.name, session.id, content);
  } catch (error) {
    if (room === page.room) notice(`The bot cannot be asked now: ${error.message}`);
  }
}

function fitComposer() {
  const box = $('composer');
  box.style.height = 'auto';
  box.style.height = `${Math.min(box.scrollHeight, COMPOSER_MAX_PX)}px`;
  showSend();
}

function wire() {
  $('form').addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
  $('composer').addEventListener('input', () => {
    fitComposer();
    if ($('composer').value.trim() !== '') page.room?.typing();
  });
  $('composer').addEventListener('keydown', (event) => {
    // While an input method composes a word, Enter chooses the word.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  $('bot').addEventListener('click', () => {
    page.bot = !page.bot;
    $('bot').setAttribute('aria-pressed', String(page.bot));
  });
  $('offline').addEventListener('click', () => page.room?.setOffline(page.state !== 'offline'));
  $('back').addEventListener('click', () => {
    go(page.user, null);
    enter(null);
  });
  $('refusal-close').addEventListener('click', () => ($('refusal').hidden = true));
  $('retry').addEventListener('click', () => location.reload());
  $('theme').addEventListener('click', () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
    root.dataset.theme = dark ? 'light' : 'dark';
    try {
      localStorage.setItem('tidings-theme', root.dataset.theme);
    } catch {
      // Without storage the choice lasts until the page is closed.
    }
  });
  addEventListener('popstate', follow);
  addEventListener('online', () => page.room?.networkBack());
  addEventListener('pagehide', () => page.room?.close());
  addEventListener('pageshow', (event) => event.persisted && follow());
}
