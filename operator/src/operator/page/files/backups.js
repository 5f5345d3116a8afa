// Backups on a time line, and restores.

import { el, svg, table, verdict } from "./dom.js";
import { age, bytes, clock, duration, number, plural } from "./format.js";
import { conditionList, fact } from "./facts.js";

export function backupSection({ schedules, backups, older, time }) {
  if (schedules.length === 0 && backups.length === 0) {
    return el("p", {}, verdict("bad", "There is no BackupSchedule and no DatabaseBackup: this database has no backup that pgrail knows of."));
  }
  return [
    schedules.length === 0 && el("p", {}, verdict("bad", "No BackupSchedule: no further backup will be made.")),
    schedules.map((schedule) => oneSchedule(schedule, time)),
    backups.length === 0
      ? el("p", {}, verdict("bad", "No backup was made yet."))
      : [timeline(backups, time), legend(), list(backups, older, time)],
  ];
}

function oneSchedule(schedule, now) {
  return el("article", { class: "card" },
    el("h3", {}, schedule.name),
    schedule.suspended && el("p", {}, verdict("bad", "Suspended: no backup is made.")),
    el("dl", { class: "facts" },
      fact("Schedule", `${schedule.schedule} (${schedule.timeZone})`),
      fact("Next backup", schedule.nextScheduleTime ? clock(schedule.nextScheduleTime) : "not known"),
      fact("Verified backup", age(schedule.lastVerifiedTime, now)),
      fact("Drill", schedule.lastDrillTime
        ? `${age(schedule.lastDrillTime, now)}, took ${duration(schedule.lastDrillSeconds)}`
        : schedule.drillSchedule ? "never" : "not declared"),
      fact("Failures since the last success", number(schedule.consecutiveFailures))),
    schedule.shrinks.length > 0 && el("ul", { class: "violations" }, schedule.shrinks.map((shrink) => el("li", {},
      verdict("bad", `${clock(shrink.time)}: rows were lost in ${plural(shrink.tables, "table")}`),
      ` ${shrink.worst}. The backup before, ${shrink.before}, ${shrink.kept ? "is kept until this is acknowledged" : "is NOT kept for it"}.`))),
    el("details", {}, el("summary", {}, "Conditions"), conditionList(schedule.conditions)));
}

// What a backup is, in words; the first one decides its mark.
function marks(backup) {
  const found = [];
  if (backup.phase === "Failed") found.push("failed");
  else if (["Pending", "Running", "Verifying"].includes(backup.phase)) found.push("running");
  else if (backup.verified && backup.verification?.level === "Drill") found.push("drilled");
  else if (backup.verified) found.push("verified");
  else found.push("unverified");
  if (backup.comparison?.shrunkTables > 0) found.push("shrunk");
  if (backup.pinned || backup.keptBecause.length > 0) found.push("kept");
  return found;
}

const WORDS = {
  verified: ["good", "verified"],
  drilled: ["good", "drilled: all rows were restored"],
  unverified: ["unknown", "not verified"],
  running: ["unknown", "not finished"],
  failed: ["bad", "failed"],
  shrunk: ["bad", "rows were lost since the backup before"],
  kept: ["neutral", "kept, with a reason"],
};

function mark(kind) {
  switch (kind) {
    case "verified": return svg("circle", { r: 7, class: "mark verified" });
    case "drilled": return [svg("circle", { r: 7, class: "mark verified" }), svg("path", { d: "M-3.5 0L-1 2.8L4 -3", class: "tick-mark" })];
    case "unverified": return svg("circle", { r: 6.5, class: "mark hollow" });
    case "running": return svg("circle", { r: 6.5, class: "mark hollow dashed" });
    case "failed": return svg("path", { d: "M-6 -6L6 6M6 -6L-6 6", class: "mark cross" });
    case "shrunk": return svg("path", { d: "M-6 12H6L0 20Z", class: "mark shrunk" });
    default: return svg("path", { d: "M-6 -12H6", class: "mark kept" });
  }
}

function describe(backup) {
  return marks(backup).map((kind) => kind === "kept" ? `kept: ${reasons(backup)}` : WORDS[kind][1]).join(", ");
}

function reasons(backup) {
  const reasons = backup.pinned ? ["Pinned", ...backup.keptBecause] : backup.keptBecause;
  return [...new Set(reasons)].join(", ");
}

// One line for each schedule. The width is that of the place where it is drawn.
function timeline(backups, now) {
  const figure = el("figure", { class: "timeline" });
  const known = backups.filter((backup) => backup.time);
  const lines = new Map();
  for (const backup of known) {
    const line = backup.schedule ?? "by hand";
    if (!lines.has(line)) lines.set(line, []);
    lines.get(line).push(backup);
  }
  const end = Date.parse(now);
  const first = Math.min(end - 86_400_000, ...known.map((backup) => Date.parse(backup.time)));
  let drawnFor = 0;
  const draw = () => {
    const width = Math.max(280, figure.clientWidth || 700);
    if (width === drawnFor) return;
    drawnFor = width;
    const [left, right] = [14, 14];
    const x = (time) => left + ((Date.parse(time) - first) / Math.max(1, end - first)) * (width - left - right);
    const height = lines.size * 64 + 26;
    figure.replaceChildren(svg("svg", {
      viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
      "aria-label": `Time line of ${plural(known.length, "backup")}, from ${clock(first)} to ${clock(now)}. The table below has each of them.`,
    },
    [...lines].map(([name, of], at) => {
      const y = at * 64 + 40;
      return svg("g", {},
        svg("text", { x: left, y: y - 24, class: "line-name" }, name),
        svg("path", { d: `M${left} ${y}H${width - right}`, class: "axis" }),
        // The oldest first, so that the newest is on top.
        of.slice().reverse().map((backup) => svg("g", { transform: `translate(${x(backup.time)} ${y})` },
          svg("title", {}, `${clock(backup.time)} ${backup.name}: ${describe(backup)}`), marks(backup).map(mark))));
    }),
    ticks(first, end, width).map(([time, text]) => svg("text", { x: x(new Date(time).toISOString()), y: height - 6, class: "tick", "text-anchor": "middle" }, text))));
  };
  new ResizeObserver(draw).observe(figure);
  return figure;
}

function ticks(first, end, width) {
  const count = Math.max(1, Math.floor(width / 130));
  const days = (end - first) > 3 * 86_400_000;
  return Array.from({ length: count }, (_, at) => {
    const time = first + ((at + 0.5) / count) * (end - first);
    return [time, days ? clock(time).slice(0, 10) : clock(time).slice(5)];
  });
}

// Where the marks are that stand above and below a backup.
const SAMPLES = { shrunk: 5, kept: -23 };

function legend() {
  return el("ul", { class: "legend", "aria-label": "Legend" }, Object.entries(WORDS).map(([kind, [, text]]) =>
    el("li", {}, svg("svg", { width: 22, height: 22, viewBox: `-11 ${SAMPLES[kind] ?? -11} 22 22`, "aria-hidden": "true", class: "sample" }, mark(kind)), " ", text)));
}

function list(backups, older, now) {
  return [
    table("Backups, newest first", ["Backup", "Snapshot", "State", "Kept because", "Rows", "Size"],
      backups.map((backup) => [
        backup.name,
        `${clock(backup.time)} (${age(backup.time, now)})`,
        marks(backup).filter((kind) => kind !== "kept").map((kind) => [verdict(...WORDS[kind]), kind === "shrunk" && lost(backup), " "])
          .concat(backup.partial ? [verdict("bad", `partial: ${backup.partialBecause.join(", ")}`)] : [])
          .concat(backup.phase === "Failed" && backup.message ? [el("details", {}, el("summary", {}, "Message"), el("pre", {}, backup.message))] : []),
        reasons(backup) || (backup.phase === "Succeeded" ? "no reason: the next retention removes it" : "not a backup"),
        number(backup.rows),
        bytes(backup.sizeBytes),
      ])),
    older > 0 && el("p", { class: "note" }, `${plural(older, "older backup")} ${older === 1 ? "is" : "are"} not shown.`),
  ];
}

function lost(backup) {
  const tables = backup.comparison.tables.map((it) =>
    it.dropped ? `${it.table} was dropped` : `${it.table} from ${number(it.before)} to ${number(it.after)}`);
  return tables.length > 0 ? ` (${tables.join("; ")})` : "";
}

const PHASES = { Succeeded: "good", Failed: "bad" };

export function restoreSection({ restores, older, unreadable, time }) {
  return [
    unreadable > 0 && el("p", {}, verdict("unknown", `${plural(unreadable, "DatabaseRestore")} of the namespace cannot be read as its type.`)),
    restores.length === 0
      ? el("p", {}, "Nothing was restored.")
      : table("Restores, newest first", ["Restore", "Created", "State", "Backup", "Into", "Rows"],
        restores.map((it) => [
          it.name,
          `${clock(it.created)} (${age(it.created, time)})`,
          [verdict(PHASES[it.phase] ?? "unknown", `${it.phase ?? "not started"}${it.dryRun ? ", dry run" : ""}`),
            it.message && el("span", { class: "message" }, it.message)],
          it.source ?? "not known",
          `${it.mode ?? "default"}${it.target ? `: ${it.target}` : ""}`,
          `${number(it.restoredRows)} of ${number(it.expectedRows)}${it.skippedRows ? `, ${number(it.skippedRows)} were there` : ""}${it.seconds ? `, ${duration(it.seconds)}` : ""}`,
        ])),
    older > 0 && el("p", { class: "note" }, `${plural(older, "older restore")} not shown.`),
  ];
}
