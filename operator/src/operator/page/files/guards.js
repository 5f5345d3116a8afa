// The guards of a database: what they hold, what they stopped over time, and what is left of their windows.

import { el, svg, table, verdict } from "./dom.js";
import { age, clock, number, plural } from "./format.js";
import { conditionList, fact } from "./facts.js";

const HOUR = 3600;
const HOURS = 24;

export function guardSection({ guards, time, unreadable }) {
  return [
    unreadable > 0 && el("p", {}, verdict("unknown", `${plural(unreadable, "TableGuard")} of the namespace cannot be read as its type: see its condition Stalled.`)),
    guards.length === 0
      ? el("p", {}, verdict("bad", "No TableGuard is declared: nothing limits deletes in this database."))
      : guards.map((guard) => oneGuard(guard, time)),
  ];
}

function oneGuard(guard, now) {
  const enforced = guard.conditions.find((condition) => condition.type === "Enforced");
  const [kind, text] = !guard.isCurrent || !enforced || enforced.status === "Unknown"
    ? ["unknown", "not known whether it is enforced"]
    : enforced.status === "True" ? ["good", "enforced"] : ["bad", `not enforced: ${enforced.reason}`];
  return el("article", { class: "card" },
    el("h3", {}, guard.name, " ", verdict(kind, text)),
    guard.mode === "Warn" && el("p", {}, verdict("bad", "Mode Warn: statements are allowed, and only counted.")),
    el("dl", { class: "facts" },
      fact("Tables enforced", `${number(guard.tablesEnforced)} of ${number(guard.tablesMatched)}`),
      fact("Limits", limits(guard.limits)),
      fact("Allowances", number(guard.allowances)),
      fact("Blocked attempts", `${number(guard.blockedAttempts)}${guard.lastBlockedTime ? `, the last ${age(guard.lastBlockedTime, now)}` : ""}`),
      fact("Repairs", number(guard.driftRepairs ?? 0))),
    attempts(guard, now),
    windows(guard),
    el("details", {}, el("summary", {}, "Conditions"), conditionList(guard.conditions)),
    guard.tables.length > 0 && el("details", {}, el("summary", {}, `Tables (${guard.tables.length})`), tables(guard)));
}

function limits(limits) {
  const parts = [`${number(limits.maxRows)} rows`, `${number(limits.maxCascadeRows)} rows by cascades`];
  if (limits.maxTransactionRows !== undefined) parts.push(`${number(limits.maxTransactionRows)} rows in a transaction`);
  if (limits.maxUpdatedRows !== undefined) parts.push(`${number(limits.maxUpdatedRows)} updated rows`);
  return parts.join(", ");
}

const STATES = { Enforced: "good", Renamed: "good", Pending: "unknown" };

function tables(guard) {
  return table(`Tables of the guard ${guard.name}`, ["Table", "State", "Rows at risk", "Blocked attempts", "Message"],
    guard.tables.map((it) => [it.table, verdict(STATES[it.state] ?? "bad", it.state), number(it.rowsAtRisk),
      number(it.blockedAttempts), it.message || "none"]));
}

// The last 24 hours, by the hour. Before `since` nothing is known: that part is hatched, not empty.
function attempts(guard, now) {
  const series = guard.attempts;
  if (!series) return el("p", { class: "note" }, "Blocked attempts over time are not kept for this guard.");
  const end = Math.ceil(Date.parse(now) / 1000 / HOUR) * HOUR;
  const begin = end - HOURS * HOUR;
  const counts = new Array(HOURS).fill(0);
  for (const [start, count] of series.buckets) {
    const at = Math.floor((start - begin) / HOUR);
    if (at >= 0 && at < HOURS) counts[at] += count;
  }
  const since = Date.parse(series.since) / 1000;
  const total = counts.reduce((sum, count) => sum + count, 0);
  const most = Math.max(...counts);
  const worst = counts.indexOf(most);
  const hour = (at) => clock((begin + at * HOUR) * 1000).slice(11);
  const text = total === 0
    ? `No blocked attempt since ${clock(series.since)}.`
    : `${plural(total, "blocked attempt")} since ${clock(series.since)}; most from ${hour(worst)} to ${hour(worst + 1)}: ${number(most)}.`;
  const place = el("div", {});
  let drawnFor = 0;
  new ResizeObserver(() => {
    const width = Math.max(240, place.clientWidth);
    if (width === drawnFor) return;
    drawnFor = width;
    place.replaceChildren(chart({ counts, most, width, known: Math.max(0, (since - begin) / HOUR), hour, text }));
  }).observe(place);
  return el("figure", { class: "attempts" }, place,
    el("figcaption", {}, text, since > begin ? " What is hatched was before pgrail began to count: not known." : ""));
}

function chart({ counts, most, width, known, hour, text }) {
  const height = 56;
  const step = width / HOURS;
  const tall = (count) => Math.max(3, (count / most) * (height - 4));
  const bars = counts.map((count, at) => count > 0 && svg("rect", {
    x: at * step + 1, width: step - 2, y: height - tall(count), height: tall(count), class: "bar",
  }, svg("title", {}, `${hour(at)} to ${hour(at + 1)}: ${number(count)}`)));
  return svg("svg", { viewBox: `0 0 ${width} ${height + 16}`, width, height: height + 16, role: "img", "aria-label": `Blocked attempts in the last 24 hours. ${text}` },
    svg("defs", {}, svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse" }, svg("path", { d: "M0 6L6 0", class: "hatch" }))),
    known > 0 && svg("rect", { width: Math.min(HOURS, known) * step, height, fill: "url(#hatch)" }),
    svg("path", { d: `M0 ${height}H${width}`, class: "axis" }),
    bars,
    [0, 6, 12, 18].map((at) => svg("text", { x: at * step, y: height + 13, class: "tick" }, hour(at))));
}

function windows(guard) {
  const used = guard.tables.filter((it) => it.window);
  if (!guard.window) return null;
  if (used.length === 0) return el("p", {}, verdict("unknown", "A window is declared; what is left of it is not known yet."));
  const left = (removed, limit) => {
    if (limit === null || limit === undefined) return "not limited";
    if (removed === null || removed === undefined) return verdict("unknown", "not known");
    const rest = Math.max(0, limit - removed);
    return [meter(removed, limit), ` ${number(rest)} of ${number(limit)} left`, rest === 0 && [" ", verdict("bad", "used up")]];
  };
  return table(`Windows of the guard ${guard.name}: ${guard.window.duration}`,
    ["Table", "Rows of the table", "Rows of other tables", "Counted since"],
    used.map(({ table: name, window }) => [name, left(window.removed, window.limit),
      left(window.cascadeRemoved, window.cascadeLimit), clock(window.since)]));
}

function meter(removed, limit) {
  const share = limit > 0 ? Math.min(1, removed / limit) : 1;
  return svg("svg", { class: "meter", viewBox: "0 0 100 10", "aria-hidden": "true" },
    svg("rect", { width: 100, height: 10, class: "track" }),
    svg("rect", { width: 100 * share, height: 10, class: share >= 0.9 ? "used much" : "used" }));
}

