// The token, and what is asked of pgrail. The token is kept for this tab only, and is sent in a header: there are no cookies.

const KEY = "pgrail-token";
let token = sessionStorage.getItem(KEY) ?? "";

export class Failed extends Error {
  constructor(reason, message, body) {
    super(message);
    this.reason = reason;
    this.body = body;
  }
}

export function hasToken() {
  return token !== "";
}

export function login(text) {
  token = text.trim();
  sessionStorage.setItem(KEY, token);
}

export function logout() {
  token = "";
  sessionStorage.removeItem(KEY);
}

export async function ask(path) {
  const headers = token === "" ? {} : { Authorization: `Bearer ${token}` };
  let answer;
  try {
    answer = await fetch(`./api/v1/${path}`, { headers, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch {
    throw new Failed("Offline", "pgrail does not answer: the connection may be interrupted, or kubectl port-forward has ended");
  }
  let body;
  try {
    body = await answer.json();
  } catch {
    body = {};
  }
  if (!answer.ok) throw new Failed(body.reason ?? "Failed", body.message ?? `pgrail answers ${answer.status}`, body);
  return body;
}

export function askDatabase(namespace, name, part = "") {
  return ask(`databases/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}${part}`);
}
