// Facts and conditions of an object, as every section shows them.

import { el, verdict } from "./dom.js";

export function fact(name, value) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value));
}

// Where `True` is bad news.
const NEGATIVE = new Set(["Stalled", "Shrunk"]);

function conditionKind(condition) {
  // What was not asked for is neither good nor bad.
  if (condition.reason === "NotRequested" || condition.reason === "NotDeclared") return "neutral";
  if (condition.status === "Unknown") return "unknown";
  return (condition.status === "True") === NEGATIVE.has(condition.type) ? "bad" : "good";
}

// `generation`: of the object; a condition of an earlier one says nothing of the present spec.
export function conditionList(conditions, generation) {
  if (conditions.length === 0) return el("p", {}, verdict("unknown", "pgrail has not reported any condition yet."));
  return el("ul", { class: "conditions", "aria-label": "Conditions" }, conditions.map((condition) => {
    const isOld = generation && condition.observedGeneration && condition.observedGeneration !== generation;
    return el("li", {},
      verdict(isOld ? "unknown" : conditionKind(condition), `${condition.type}: ${condition.status}`),
      ` ${condition.reason}${isOld ? " (of an earlier spec)" : ""}`,
      condition.message && el("span", { class: "message" }, condition.message));
  }));
}
