// One database: its state, its cascade graph, its guards, its backups and restores.

import { el, table, verdict } from "./dom.js";
import { clock, number } from "./format.js";
import { backupSection, restoreSection } from "./backups.js";
import { conditionList, fact } from "./facts.js";
import { VERDICTS, linkTo, verdictOf, violationList } from "./fleet.js";
import { graphView } from "./graph.js";
import { guardSection } from "./guards.js";
import { Failed, askDatabase } from "./session.js";

export async function databaseView({ namespace, name, table: start }) {
  // The parts are asked for at the same time; one that fails is reported in its place.
  const parts = ["graph", "guards", "backups", "restores"].map((part) => askDatabase(namespace, name, `/${part}`).catch((error) => {
    if (error instanceof Failed && error.reason !== "Unauthenticated") return error;
    throw error;
  }));
  const settled = Promise.all(parts);
  settled.catch(() => {});
  const found = await askDatabase(namespace, name);
  const [graph, guards, backups, restores] = await settled;
  let shownGraph = null;
  const link = (at) => `${linkTo(namespace, name)}?table=${encodeURIComponent(at)}`;
  const graphPart = section("graph", "Blast radius", graph, (body) => {
    if (!body.graph) return el("div", {}, el("p", {}, verdict("unknown", `${body.message}.`)), listed(found.database));
    if (body.graph.tables.length === 0) return el("p", {}, verdict("good", "No table takes rows of another one when a row is deleted."));
    shownGraph = graphView(body.graph, { start, link, walked: (at) => history.replaceState(null, "", link(at)) });
    return [
      el("p", { class: "note" }, `Estimates from the statistics of the server, as of ${clock(body.time)}. Choose a table to see what a delete on it takes, and what takes rows of it.`),
      shownGraph.element,
    ];
  }, () => listed(found.database));
  const element = el("div", {},
    el("p", { class: "back" }, el("a", { href: "#/" }, "All databases")),
    el("h1", { tabindex: "-1" }, `${namespace}/${name}`),
    el("nav", { class: "parts", "aria-label": "Parts of this page" }, el("ul", {},
      [["state", "State"], ["graph", "Blast radius"], ["guards", "Guards"], ["backups", "Backups"], ["restores", "Restores"]].map(([id, text]) =>
        el("li", {}, el("button", { type: "button", click: () => jump(id) }, text))))),
    stateSection(found),
    graphPart,
    section("guards", "Guards", guards, guardSection),
    section("backups", "Backups", backups, backupSection),
    section("restores", "Restores", restores, restoreSection));
  return {
    element,
    title: `${namespace}/${name}`,
    time: found.time,
    note: !found.leads && "This process does not check databases",
    moved: (to) => {
      if (!to.table || !shownGraph) return false;
      shownGraph.focus(to.table);
      return true;
    },
  };
}

// A link would change the address, which names the database.
function jump(id) {
  const heading = document.getElementById(`part-${id}`);
  heading.scrollIntoView();
  heading.focus({ preventScroll: true });
}

function section(id, title, body, draw, instead) {
  const content = body instanceof Failed
    ? [el("p", {}, verdict("unknown", `Not known: ${body.message}.`)), instead?.()]
    : draw(body);
  return el("section", { "aria-labelledby": `part-${id}`, class: id },
    el("h2", { id: `part-${id}`, tabindex: "-1" }, title), content);
}

function stateSection({ database, compliance }) {
  const [kind, text] = VERDICTS[verdictOf(compliance)];
  const lines = [el("p", { class: "large" }, verdict(kind, text),
    compliance?.policies?.length > 0 ? ` by ${compliance.policies.join(", ")}` : compliance ? " by the default rules" : "")];
  if (!compliance) lines.push(el("p", {}, "You have no right to list its guards, schedules and backups, so that compliance is not shown."));
  if (compliance?.excluded) lines.push(el("p", {}, "Every policy that selects the namespace excludes this database: nothing is demanded of it."));
  if (compliance?.violations.length > 0) lines.push(violationList(compliance.violations));
  if (database) {
    lines.push(el("dl", { class: "facts" },
      fact("PostgreSQL", database.serverVersion ?? "not known"),
      fact("Tables", number(database.tables)),
      fact("Tables with a cascade and without a guard", number(database.unguardedAtRisk)),
      fact("Suspended", database.suspended ? "yes: nothing is checked" : "no")));
    lines.push(conditionList(database.conditions, database.generation));
    if (database.orphanedGuards.length > 0) {
      lines.push(el("p", {}, verdict("bad", `Guards in the database that no TableGuard declares: ${database.orphanedGuards.join(", ")}`)));
    }
  }
  return section("state", "State", lines, (body) => body);
}

// What the status lists, where there is no graph.
function listed(database) {
  if (!database || database.blastRadius.length === 0) return null;
  return table("The worst tables, without their graph", ["Table", "Rows", "Rows at risk", "Per row", "Guard"],
    database.blastRadius.map((it) => [it.table, number(it.rows), number(it.rowsAtRisk), number(it.perRow),
      it.guarded ? verdict("good", "guarded") : verdict("bad", "NOT guarded")]));
}
