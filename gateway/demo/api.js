// The gateway's own demo endpoints, and the users' tokens. Posting messages is not here: that goes
// through stock supabase-js (room.js).

const REQUEST_LIMIT_MS = 10_000;
const RENEW_BEFORE_MS = 60_000;

let users = [];

export async function loadUsers() {
  users = await request('/demo/users');
  return users;
}

/** The user's token, renewed when it is about to expire. */
export async function tokenOf(name) {
  const find = () => users.find((user) => user.name === name);
  if (expiresAt(find()?.token) - Date.now() < RENEW_BEFORE_MS) {
    // If the gateway cannot be reached now, the old token may still do; the server judges it.
    await loadUsers().catch(() => {});
  }
  return find()?.token ?? null;
}

/** The key that every request carries beside the token: the anonymous user's, as with Supabase. */
export function publicKey() {
  return (users.find((user) => user.role === 'anon') ?? users[0]).token;
}

export async function listSessions(name) {
  return request('/demo/sessions', { token: await tokenOf(name) });
}

export async function listMessages(name, sessionId, after) {
  const query = new URLSearchParams({ session_id: sessionId });
  if (after) query.set('after', after);
  return request(`/demo/messages?${query}`, { token: await tokenOf(name) });
}

export async function askBot(name, sessionId, prompt) {
  return request('/demo/bot', { token: await tokenOf(name), body: { session_id: sessionId, prompt } });
}

async function request(path, { token, body } = {}) {
  const response = await fetch(path, {
    method: body ? 'POST' : 'GET',
    headers: {
      ...(token ? { authorization: `Bearer ${token}` } : {}),
      ...(body ? { 'content-type': 'application/json' } : {}),
    },
    body: body ? JSON.stringify(body) : undefined,
    signal: AbortSignal.timeout(REQUEST_LIMIT_MS),
  });
  const text = await response.text();
  let data = null;
  try {
    data = text ? JSON.parse(text) : null;
  } catch {
    // Not JSON: a proxy's error page, say. The status below tells enough.
  }
  if (!response.ok) {
    const error = new Error(data?.message ?? data?.error ?? `${path.split('?')[0]} answered ${response.status}`);
    error.status = response.status;
    throw error;
  }
  return data;
}

function expiresAt(token) {
  try {
    const claims = JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')));
    return claims.exp ? claims.exp * 1000 : Infinity;
  } catch {
    return Infinity; // An opaque key: it has no end that could be seen here.
  }
}
