// `pgrail blast-radius -o html`: the graph in one file.

import { el } from "./dom.js";
import { graphView } from "./graph.js";

const main = document.getElementById("main");
const { graph, chosen } = JSON.parse(document.getElementById("data").textContent);
const named = () => decodeURIComponent(location.hash.replace(/^#table=/, ""));
if (graph.tables.length === 0) {
  main.append(el("p", {}, "No table takes rows of another one when a row is deleted."));
} else {
  const link = (name) => `#table=${encodeURIComponent(name)}`;
  const view = graphView(graph, {
    start: named() || chosen[0],
    link,
    walked: (name) => history.replaceState(null, "", link(name)),
  });
  main.append(view.element);
  addEventListener("hashchange", () => view.focus(named()));
}
