// The page: login, and one view for each address after `#`.

import { el } from "./dom.js";
import { clock } from "./format.js";
import { databaseView } from "./database.js";
import { fleetView } from "./fleet.js";
import { Failed, ask, hasToken, login, logout } from "./session.js";

const REFRESH_EVERY = 60_000;
const main = document.getElementById("main");
const state = document.getElementById("state");
const actions = document.getElementById("actions");
let shown = null;
let visit = 0;

// The address: `#/` the fleet, `#/database/NAMESPACE/NAME` one database, with `?table=` the table in focus.
function address() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const words = path.split("/").filter((word) => word !== "").map(decode);
  const table = new URLSearchParams(query ?? "").get("table");
  return words[0] === "database" && words.length === 3
    ? { kind: "database", namespace: words[1], name: words[2], table, key: `database/${words[1]}/${words[2]}` }
    : { kind: "fleet", key: "fleet" };
}

function decode(word) {
  try {
    return decodeURIComponent(word);
  } catch {
    return word;
  }
}

async function show({ isNew }) {
  const number = ++visit;
  const to = address();
  if (!hasToken()) return showLogin();
  if (!isNew && shown?.key === to.key && shown.view.moved?.(to)) return undefined;
  main.setAttribute("aria-busy", "true");
  try {
    const view = to.kind === "database" ? await databaseView(to) : await fleetView();
    if (number !== visit) return undefined;
    const isOther = shown?.key !== to.key;
    const scroll = scrollY;
    main.replaceChildren(view.element);
    view.start?.();
    shown = { key: to.key, view };
    document.title = `${view.title} – pgrail`;
    state.textContent = `As of ${clock(view.time)}${view.note ? `. ${view.note}` : ""}`;
    state.classList.remove("stale");
    showActions();
    if (isOther) {
      main.querySelector("h1")?.focus();
      scrollTo(0, 0);
    } else {
      scrollTo(0, scroll);
    }
  } catch (error) {
    if (number !== visit) return undefined;
    failed(error, to);
  } finally {
    if (number === visit) main.removeAttribute("aria-busy");
  }
  return undefined;
}

function failed(error, to) {
  if (!(error instanceof Failed)) throw error;
  if (error.reason === "Unauthenticated") {
    logout();
    showLogin(error);
    return;
  }
  if (shown?.key === to.key) {
    // What is there stays, and is marked as old.
    state.textContent = `NOT up to date: ${error.message}`;
    state.classList.add("stale");
    return;
  }
  shown = null;
  const heading = { Forbidden: "No access", NotFound: "Not found" }[error.reason] ?? "Not known";
  main.replaceChildren(el("h1", { tabindex: "-1" }, heading),
    el("p", { role: "alert" }, `${error.message}.`),
    el("p", {}, el("a", { href: "#/" }, "All databases"), " ", el("button", { type: "button", click: () => show({ isNew: true }) }, "Try again")));
  document.title = `${heading} – pgrail`;
  state.textContent = "";
  showActions();
}

function showActions() {
  actions.replaceChildren(
    el("button", { type: "button", click: () => show({ isNew: true }) }, "Refresh"),
    el("button", { type: "button", click: () => { logout(); shown = null; showLogin(); } }, "Log out"));
}

async function showLogin(error) {
  shown = null;
  visit += 1;
  const number = visit;
  state.textContent = "";
  actions.replaceChildren();
  main.removeAttribute("aria-busy");
  document.title = "Log in – pgrail";
  const field = el("input", {
    id: "token", type: "password", autocomplete: "off", spellcheck: "false", autocapitalize: "off", required: true,
    "aria-describedby": "token-help",
  });
  const message = el("p", { role: "alert", class: "problem" }, error && hadToken(error) ? `${error.message}.` : "");
  const help = el("p", { id: "token-help" });
  const submit = async (event) => {
    event.preventDefault();
    login(field.value);
    try {
      await ask("session");
      field.value = "";
      await show({ isNew: true });
    } catch (problem) {
      if (!(problem instanceof Failed)) throw problem;
      logout();
      message.textContent = `${problem.message}.`;
      field.focus();
    }
  };
  main.replaceChildren(
    el("h1", { tabindex: "-1" }, "Log in"),
    el("p", {}, "Log in with a Kubernetes token. You see the databases that the token may read, and nothing else."),
    el("form", { class: "login", submit }, el("label", { for: "token" }, "Token"), field, help, message,
      el("button", { type: "submit" }, "Log in")));
  field.focus();
  explain(help, error?.body?.audiences ?? await audiences());
  return number;
}

function hadToken(error) {
  return error.message !== "a Kubernetes token is required";
}

async function audiences() {
  try {
    await ask("session");
  } catch (error) {
    return error instanceof Failed ? error.body?.audiences : undefined;
  }
  return undefined;
}

function explain(help, audiences) {
  const audience = audiences?.length > 0 ? ` --audience ${audiences[0]}` : "";
  help.replaceChildren(
    "Create one with ",
    el("code", {}, `kubectl create token SERVICEACCOUNT --namespace NAMESPACE${audience}`),
    ". The service account needs the role view in the namespaces of the databases. The token is kept in this tab only.");
}

addEventListener("hashchange", () => show({ isNew: false }));
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
setInterval(() => {
  // Never under the hands of the user.
  const isUsed = main.contains(document.activeElement) && !["MAIN", "H1"].includes(document.activeElement.tagName);
  if (hasToken() && shown && !document.hidden && !isUsed && !main.querySelector("details[open]")) show({ isNew: true });
}, REFRESH_EVERY);
show({ isNew: true });
