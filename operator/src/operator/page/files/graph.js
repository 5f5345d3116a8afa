// The cascade graph, to walk: one table in focus, what a delete on it takes, and what takes rows of it.

import { el, svg, table, verdict } from "./dom.js";
import { number, plural, shortened } from "./format.js";
import { around, columns, neighbours, outline } from "./layout.js";

const WIDE = { width: 196, height: 64, rowGap: 20, columnGap: 104 };
const NARROW = { width: 214, height: 64, rowGap: 26, indent: 22 };
const NARROW_BELOW = 620;
const MARGIN = 14;

const EFFECTS = {
  "CASCADE": "its rows are deleted",
  "SET NULL": "its columns are set to NULL",
  "SET DEFAULT": "its columns are set to their defaults",
  "INHERITS": "its rows are rows of the parent",
};

// `graph`: as the API has it. `start`: name of the first table in focus. `link`: the address of a table in focus.
// `walked`: called with the name of each table that gets the focus.
export function graphView(graph, { start, link, walked }) {
  const of = neighbours(graph);
  const index = new Map(graph.tables.map((node, at) => [node.table, at]));
  let focus = index.get(start) ?? 0;
  const trail = [];
  const picture = el("div", { class: "picture" });
  const about = el("div", { class: "about", role: "status" });
  const path = el("nav", { class: "trail", "aria-label": "Tables walked through" });
  const select = el("select", { id: "graph-table", change: () => walk(Number(select.value)) },
    graph.tables.map((node, at) => el("option", { value: at }, node.table)));

  function walk(at, byUser = true) {
    focus = at;
    if (trail[trail.length - 1] !== at) trail.push(at);
    if (trail.length > 8) trail.shift();
    draw();
    if (byUser) walked?.(graph.tables[at].table);
  }

  function draw() {
    select.value = String(focus);
    const width = picture.clientWidth || 800;
    const view = around(graph, of, focus);
    picture.replaceChildren(drawing(graph, of, view, focus, width, link, walk));
    about.replaceChildren(...aboutTable(graph, of, view, focus, link));
    path.replaceChildren(el("ol", {}, trail.map((at, step) => el("li", {},
      el("a", {
        href: link(graph.tables[at].table),
        "aria-current": step === trail.length - 1 ? "step" : null,
        click: () => { trail.length = step; },
      }, graph.tables[at].table)))));
  }

  let drawnFor = 0;
  new ResizeObserver(() => {
    // Not for a change of the height, which drawing itself makes.
    if (picture.clientWidth > 0 && picture.clientWidth !== drawnFor) {
      drawnFor = picture.clientWidth;
      draw();
    }
  }).observe(picture);

  const element = el("div", { class: "graph" },
    el("p", { class: "choose" }, el("label", { for: "graph-table" }, "Table in focus "), select),
    path,
    picture,
    legend(),
    about,
    graph.omitted > 0 && el("p", { class: "note" },
      `${plural(graph.omitted, "table")} with fewer rows at risk ${graph.omitted === 1 ? "is" : "are"} not shown.`),
    el("details", {}, el("summary", {}, "All tables as a list"), everything(graph, of, link)));
  walk(focus, false);
  return {
    element,
    // The address changed: the table that it names gets the focus, and its node the keyboard's.
    focus(name) {
      const at = index.get(name);
      if (at === undefined || at === focus) return;
      const hadFocus = picture.contains(document.activeElement) || path.contains(document.activeElement);
      walk(at, false);
      if (hadFocus) picture.querySelector("[data-focus]")?.focus();
    },
  };
}

function legend() {
  return el("ul", { class: "legend", "aria-label": "Legend" },
    el("li", {}, sample("guarded"), " guarded: rounded, double border"),
    el("li", {}, sample("open"), " not guarded, rows of other tables at risk: cut corners, thick border"),
    el("li", {}, sample("leaf"), " no guard, takes rows of no other table: plain"),
    el("li", {}, line(""), " CASCADE: rows are deleted"),
    el("li", {}, line("dashed"), " SET NULL, SET DEFAULT: columns are changed"));
}

function sample(kind) {
  return svg("svg", { width: 34, height: 20, viewBox: "-2 -2 38 24", "aria-hidden": "true", class: "sample" },
    shape(kind, { width: 34, height: 20 }));
}

function line(kind) {
  return svg("svg", { width: 34, height: 12, viewBox: "0 0 34 12", "aria-hidden": "true", class: "sample" },
    svg("path", { d: "M0 6H34", class: `edge ${kind}` }));
}

function kindOf(node) {
  if (node.guarded) return "guarded";
  return node.cascadeTables > 0 ? "open" : "leaf";
}

const GUARDED = { guarded: "guarded", open: "NOT guarded", leaf: "no guard" };

function shape(kind, { width, height }) {
  if (kind === "guarded") {
    const radius = Math.min(12, height / 3);
    return [
      svg("rect", { width, height, rx: radius, class: "shape guarded" }),
      svg("rect", { x: 3, y: 3, width: width - 6, height: height - 6, rx: radius - 3, class: "inner" }),
    ];
  }
  if (kind === "open") {
    const cut = Math.min(10, height / 3);
    const d = `M${cut} 0H${width - cut}L${width} ${cut}V${height - cut}L${width - cut} ${height}H${cut}L0 ${height - cut}V${cut}Z`;
    return [svg("path", { d, class: "shape open" })];
  }
  return [svg("rect", { width, height, class: "shape leaf" })];
}

function rowsOf(node) {
  if (node.cascadeTables === 0) return plural(node.rows, "row");
  return `${plural(node.rowsAtRisk, "row")} at risk`;
}

function described(node) {
  const risk = node.cascadeTables === 0
    ? "takes rows of no other table"
    : `${plural(node.rowsAtRisk, "row")} at risk in ${plural(node.cascadeTables, "table")}, ${number(node.perRow)} for each row on average`;
  return `${node.table}: ${plural(node.rows, "row")}, ${risk}, ${GUARDED[kindOf(node)]}`;
}

function drawing(graph, of, view, focus, width, link, walk) {
  const isNarrow = width < NARROW_BELOW;
  const size = isNarrow ? NARROW : WIDE;
  const placed = isNarrow ? outline(view, size, of) : columns(view, size);
  const root = svg("svg", {
    width: placed.width + 2 * MARGIN,
    height: placed.height + 2 * MARGIN,
    viewBox: `${-MARGIN} ${-MARGIN} ${placed.width + 2 * MARGIN} ${placed.height + 2 * MARGIN}`,
    role: "group",
    "aria-label": `Cascade graph around ${graph.tables[focus].table}. Arrow keys move between tables, Enter puts one in focus.`,
    keydown: (event) => move(event, root, placed, of),
  }, arrowHeads());
  for (const edge of view.edges) root.append(drawnEdge(edge, placed, size, isNarrow));
  for (const at of placed.order) root.append(drawnNode(graph.tables[at], at, placed.nodes.get(at), size, focus, link, walk));
  return root;
}

function arrowHeads() {
  return svg("defs", {},
    svg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 8, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" },
      svg("path", { d: "M0 0L8 4L0 8Z", class: "arrow" })));
}

function drawnEdge(edge, placed, size, isNarrow) {
  const from = placed.nodes.get(edge.from);
  const to = placed.nodes.get(edge.to);
  const isDashed = edge.effect === "SET NULL" || edge.effect === "SET DEFAULT";
  const [d, x, y] = edge.from === edge.to ? loop(from, size) : isNarrow ? elbow(from, to, size) : curve(from, to, size);
  return svg("g", { "aria-hidden": "true" },
    svg("path", { d, class: `edge${isDashed ? " dashed" : ""}`, "marker-end": "url(#arrow)" }),
    svg("text", { x, y, class: "effect", "text-anchor": isNarrow && edge.from !== edge.to ? "start" : "middle" }, edge.effect));
}

function loop(from, size) {
  const x = from.x + size.width - 40;
  const y = from.y;
  return [`M${x} ${y}C${x - 6} ${y - 16} ${x + 30} ${y - 16} ${x + 24} ${y}`, x + 10, y - 4];
}

function curve(from, to, size) {
  const middle = size.height / 2;
  if (to.x > from.x) {
    const [x1, y1, x2, y2] = [from.x + size.width, from.y + middle, to.x, to.y + middle];
    const bend = Math.max(40, (x2 - x1) / 2);
    const [px, py] = [x2 - size.columnGap / 2 + 2, at(0.7, y1, y1, y2, y2)];
    return [`M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`, px, py - 4];
  }
  // Back, or within a layer: around the right side.
  const [x1, y1, x2, y2] = [from.x + size.width, from.y + middle + 10, to.x + size.width, to.y + middle - 10];
  const right = Math.max(x1, x2) + size.columnGap / 2;
  return [`M${x1} ${y1}C${right} ${y1} ${right} ${y2} ${x2} ${y2}`, right - 12, (y1 + y2) / 2];
}

function at(t, a, b, c, d) {
  const u = 1 - t;
  return u * u * u * a + 3 * u * u * t * b + 3 * u * t * t * c + t * t * t * d;
}

function elbow(from, to, size) {
  const y2 = to.y + size.height / 2;
  if (to.x > from.x) {
    const x = from.x + 8;
    return [`M${x} ${from.y + size.height}V${y2}H${to.x}`, to.x + 6, to.y - 6];
  }
  const right = Math.max(from.x, to.x) + size.width;
  const y1 = from.y + size.height / 2;
  return [`M${from.x + size.width} ${y1}H${right + 6}V${y2}H${to.x + size.width}`, to.x + 6, to.y - 6];
}

function drawnNode(node, index, { x, y }, size, focus, link, walk) {
  const kind = kindOf(node);
  const isFocus = index === focus;
  const text = (line, className, content) => svg("text", { x: 12, y: 20 + line * 17, class: className }, content);
  return svg("a", {
    href: link(node.table),
    class: `node ${kind}${isFocus ? " focus" : ""}`,
    transform: `translate(${x} ${y})`,
    "aria-current": isFocus ? "true" : null,
    "data-index": index,
    "data-focus": isFocus || null,
    click: (event) => {
      event.preventDefault();
      walk(index);
      document.querySelector(".picture [data-focus]")?.focus();
    },
  },
    svg("title", {}, `${described(node)}${isFocus ? "; in focus" : ""}`),
    shape(kind, size),
    text(0, "name", shortened(node.table, 24)),
    text(1, "rows", rowsOf(node)),
    text(2, "state", `${kind === "guarded" ? "✓ " : kind === "open" ? "✗ " : ""}${GUARDED[kind]}${isFocus ? " · in focus" : ""}`));
}

// Arrow keys: along the edges to the left and right, within the layer up and down.
function move(event, root, placed, of) {
  const node = event.target.closest?.("[data-index]");
  if (!node) return;
  const from = Number(node.dataset.index);
  const shown = (edges, end) => edges.map((edge) => edge[end]).filter((at) => at !== from && placed.nodes.has(at));
  const step = placed.order.indexOf(from);
  const to = {
    ArrowRight: () => shown(of[from].takes, "to")[0],
    ArrowLeft: () => shown(of[from].takenBy, "from")[0],
    ArrowDown: () => placed.order[step + 1],
    ArrowUp: () => placed.order[step - 1],
    Home: () => placed.order[0],
    End: () => placed.order[placed.order.length - 1],
  }[event.key]?.();
  if (to === undefined) return;
  event.preventDefault();
  root.querySelector(`[data-index="${to}"]`)?.focus();
}

function guardedVerdict(node) {
  const kind = { guarded: "good", open: "bad", leaf: "neutral" }[kindOf(node)];
  return verdict(kind, GUARDED[kindOf(node)]);
}

function aboutTable(graph, of, view, focus, link) {
  const node = graph.tables[focus];
  const listed = (edges, end, none) => edges.length === 0
    ? el("p", {}, none)
    : el("ul", {}, edges.map((edge) => el("li", {},
      el("a", { href: link(graph.tables[edge[end]].table) }, graph.tables[edge[end]].table),
      ` ${edge.effect}: ${end === "to" ? EFFECTS[edge.effect] : "from there"}, `,
      `${rowsOf(graph.tables[edge[end]])}, ${GUARDED[kindOf(graph.tables[edge[end]])]}`)));
  return [
    el("h3", {}, node.table),
    el("p", {}, guardedVerdict(node), ` ${plural(node.rows, "row")}. `,
      node.cascadeTables === 0
        ? "A delete on it takes rows of no other table."
        : `A delete on it can take ${plural(node.rowsAtRisk, "row")} of ${plural(node.cascadeTables, "other table")}, ${number(node.perRow)} for each deleted row on average.`),
    view.hidden > 0 && el("p", { class: "note" }, `${plural(view.hidden, "more table")} around it: put one of its neighbours in focus.`),
    el("div", { class: "two" },
      el("div", {}, el("h4", {}, "A delete on it takes"), listed(of[focus].takes, "to", "Nothing of other tables.")),
      el("div", {}, el("h4", {}, "Its rows are taken by a delete on"), listed(of[focus].takenBy, "from", "No other table."))),
  ].filter(Boolean);
}

function everything(graph, of, link) {
  return table("Tables of the cascade graph, worst first",
    ["Table", "Rows", "Rows at risk", "Per row", "Guard", "Takes directly"],
    graph.tables.map((node, at) => [
      el("a", { href: link(node.table) }, node.table),
      number(node.rows),
      number(node.rowsAtRisk),
      number(node.perRow),
      guardedVerdict(node),
      of[at].takes.map((edge) => `${graph.tables[edge.to].table} (${edge.effect})`).join(", ") || "nothing",
    ]));
}
