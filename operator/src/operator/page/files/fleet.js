// All databases that the user may read, worst first.

import { el, table, verdict } from "./dom.js";
import { age, number, plural } from "./format.js";
import { ask } from "./session.js";

// Kept while the page is open.
const filter = { text: "", verdict: "" };

export function linkTo(namespace, name) {
  return `#/database/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
}

export const VERDICTS = {
  violating: ["bad", "not compliant"],
  unknown: ["unknown", "not known"],
  excluded: ["neutral", "excluded"],
  compliant: ["good", "compliant"],
};

// Rules that say that compliance is not known.
const NOT_KNOWN = new Set(["Undeclared", "Unreachable", "Suspended", "NotReady", "NotChecked"]);

export function verdictOf(row) {
  if (!row) return "unknown";
  if (row.excluded) return "excluded";
  if (row.compliant) return "compliant";
  return row.violations.every((violation) => NOT_KNOWN.has(violation.rule)) ? "unknown" : "violating";
}

export function violationList(violations) {
  return el("ul", { class: "violations" }, violations.map((violation) => el("li", {},
    el("strong", {}, violation.rule), violation.object ? ` ${violation.object}` : "", ": ", violation.message)));
}

export async function fleetView() {
  const fleet = await ask("fleet");
  const rows = fleet.databases.map((row) => ({ ...row, verdict: verdictOf(row) }))
    .concat(fleet.notEvaluated.map((metadata) => ({ metadata, verdict: "unknown", notEvaluated: true, violations: [] })));
  const list = el("div", {});
  const count = el("p", { role: "status", class: "note" });
  const draw = () => {
    const wanted = rows.filter(matches);
    count.textContent = wanted.length === rows.length ? "" : `${plural(wanted.length, "database")} of ${number(rows.length)} shown`;
    list.replaceChildren(rows.length === 0 ? empty(fleet) : databases(wanted, fleet.time));
  };
  draw();
  const element = el("div", {},
    el("h1", { tabindex: "-1" }, "Databases"),
    notes(fleet),
    rows.length > 0 && [
      summary(rows),
      el("form", { class: "filter", role: "search", submit: (event) => event.preventDefault() },
        el("label", { for: "filter-text" }, "Filter"),
        el("input", { id: "filter-text", type: "search", value: filter.text, input: (event) => { filter.text = event.target.value; draw(); } }),
        el("label", { for: "filter-verdict" }, "Verdict"),
        choice(draw)),
      count,
    ],
    list,
    byPolicy(rows));
  return { element, title: "Databases", time: fleet.time, note: fleet.namespace && `Only the namespace ${fleet.namespace}` };
}

function choice(draw) {
  const select = el("select", { id: "filter-verdict", change: () => { filter.verdict = select.value; draw(); } },
    el("option", { value: "" }, "all"),
    Object.entries(VERDICTS).map(([key, [, text]]) => el("option", { value: key }, text)));
  select.value = filter.verdict;
  return select;
}

function matches(row) {
  if (filter.verdict && row.verdict !== filter.verdict) return false;
  const text = [row.metadata.namespace, row.metadata.name, ...row.violations.map((it) => `${it.rule} ${it.object}`)].join(" ");
  return filter.text.toLowerCase().split(/\s+/).every((word) => text.toLowerCase().includes(word));
}

function notes(fleet) {
  const texts = [];
  if (!fleet.leads) texts.push("This process does not check databases, so that late checks are not known here.");
  for (const policy of fleet.unreadablePolicies) {
    texts.push(`The GuardrailPolicy ${policy} cannot be read as its type, so that compliance with it is not known.`);
  }
  return texts.length > 0 && el("ul", { class: "warnings" }, texts.map((text) => el("li", {}, verdict("unknown", text))));
}

function summary(rows) {
  return el("ul", { class: "counts", "aria-label": "Databases by verdict" },
    Object.entries(VERDICTS).map(([key, [kind, text]]) => {
      const count = rows.filter((row) => row.verdict === key).length;
      return el("li", { class: count === 0 ? "none" : kind }, el("strong", {}, number(count)), " ", verdict(kind, text));
    }));
}

function empty(fleet) {
  return el("div", { class: "empty" },
    el("p", {}, "There is no ProtectedDatabase that this token may read."),
    el("p", {}, fleet.namespace ? `pgrail is limited to the namespace ${fleet.namespace}. ` : "",
      "A database is listed if you may get and list protecteddatabases.pgrail.dev in its namespace: ",
      el("code", {}, "kubectl auth can-i list protecteddatabases.pgrail.dev --namespace NAMESPACE")));
}

function databases(rows, now) {
  return table("Databases, worst first",
    ["Database", "Verdict", "Guards enforced", "Tables unguarded", "Verified backup", "Drill", "Violations"],
    rows.map((row) => {
      const { namespace, name } = row.metadata;
      const [kind, text] = VERDICTS[row.verdict];
      const isDeclared = row.violations[0]?.rule !== "Undeclared";
      const title = isDeclared ? el("a", { href: linkTo(namespace, name) }, `${namespace}/${name}`) : `${namespace}/${name}`;
      if (row.notEvaluated) {
        const reason = "you have no right to list its guards, schedules and backups";
        return [title, verdict(kind, text), "not known", "not known", "not known", "not known", reason];
      }
      if (!isDeclared) return [title, verdict(kind, "no ProtectedDatabase"), "none", "not known", "not known", "not known", row.violations[0].message];
      return [
        title,
        verdict(kind, text),
        row.guards === 0 ? "none" : `${row.guardsEnforced} of ${row.guards}`,
        number(row.unguardedAtRisk),
        age(row.lastVerifiedTime, now),
        age(row.lastDrillTime, now),
        row.violations.length === 0 ? "none" : `${row.violations.length}, worst: ${[row.violations[0].rule, row.violations[0].object].join(" ").trim()}`,
      ];
    }));
}

function byPolicy(rows) {
  const policies = new Map();
  for (const row of rows) {
    for (const [policy, count] of Object.entries(row.violationsByPolicy ?? {})) {
      if (!policies.has(policy)) policies.set(policy, { count: 0, rows: [] });
      const found = policies.get(policy);
      found.count += count;
      found.rows.push(row);
    }
  }
  if (policies.size === 0) return null;
  const sorted = [...policies].sort(([a, x], [b, y]) => y.count - x.count || a.localeCompare(b));
  return el("section", { "aria-labelledby": "by-policy" },
    el("h2", { id: "by-policy" }, "Violations by policy"),
    sorted.map(([policy, found]) => el("details", {},
      el("summary", {}, `${policy}: ${plural(found.count, "violation")} in ${plural(found.rows.length, "database")}`),
      el("ul", {}, found.rows.map((row) => el("li", {},
        el("a", { href: linkTo(row.metadata.namespace, row.metadata.name) }, `${row.metadata.namespace}/${row.metadata.name}`),
        `: ${row.violationsByPolicy[policy]}`))))));
}
