// Where the tables of a cascade graph are drawn. Pure: no DOM.
//
// A view has one table in focus: what a delete on it reaches, in layers, and the tables that take rows of it.

const MOST_NODES = 60;
const MOST_PARENTS = 12;
const LEADS_ON = new Set(["CASCADE", "INHERITS"]);

// The neighbours of each table: `takes` and `takenBy`, as edges.
export function neighbours(graph) {
  const all = graph.tables.map(() => ({ takes: [], takenBy: [] }));
  for (const edge of graph.edges) {
    all[edge.from].takes.push(edge);
    all[edge.to].takenBy.push(edge);
  }
  return all;
}

// The tables around `focus` with their layers: 0 is the focus, -1 are the tables that take rows of it.
export function around(graph, of, focus) {
  const layers = new Map([[focus, 0]]);
  let hidden = 0;
  const queue = [focus];
  const expanded = new Set();
  while (queue.length > 0) {
    const at = queue.shift();
    if (expanded.has(at)) continue;
    expanded.add(at);
    for (const edge of of[at].takes) {
      if (!layers.has(edge.to)) {
        if (layers.size >= MOST_NODES) {
          hidden += 1;
          continue;
        }
        layers.set(edge.to, layers.get(at) + 1);
      }
      if (LEADS_ON.has(edge.effect)) queue.push(edge.to);
    }
  }
  deepen(layers, of, focus);
  const parents = new Set(of[focus].takenBy.map((edge) => edge.from).filter((at) => !layers.has(at)));
  let count = 0;
  for (const parent of parents) {
    if (count < MOST_PARENTS) layers.set(parent, -1);
    else hidden += 1;
    count += 1;
  }
  const shown = (edge) => layers.has(edge.from) && layers.has(edge.to);
  // Between the tables that take rows of the focus, only the edge to the focus is of interest.
  const relevant = (edge) => layers.get(edge.from) >= 0 ? layers.get(edge.to) >= 0 : edge.to === focus;
  return { layers, edges: graph.edges.filter((edge) => shown(edge) && relevant(edge)), hidden };
}

// A table is drawn right of everything that takes rows of it: the longest way from the focus, where no circle leads back.
function deepen(layers, of, focus) {
  const state = new Map();
  const order = [];
  const stack = [[focus, 0]];
  state.set(focus, "open");
  const back = new Set();
  while (stack.length > 0) {
    const top = stack[stack.length - 1];
    const edges = of[top[0]].takes;
    if (top[1] >= edges.length) {
      state.set(top[0], "done");
      order.push(top[0]);
      stack.pop();
      continue;
    }
    const edge = edges[top[1]];
    top[1] += 1;
    if (!layers.has(edge.to)) continue;
    if (state.get(edge.to) === "open") back.add(edge);
    else if (!state.has(edge.to)) {
      state.set(edge.to, "open");
      stack.push([edge.to, 0]);
    }
  }
  for (const at of order.reverse()) {
    for (const edge of of[at].takes) {
      if (layers.has(edge.to) && !back.has(edge)) {
        layers.set(edge.to, Math.max(layers.get(edge.to), layers.get(at) + 1));
      }
    }
  }
}

// Layers side by side: for a wide screen.
export function columns(view, size) {
  const by = new Map();
  for (const [at, layer] of view.layers) {
    if (!by.has(layer)) by.set(layer, []);
    by.get(layer).push(at);
  }
  const numbers = [...by.keys()].sort((a, b) => a - b);
  const position = new Map();
  const place = () => numbers.forEach((layer) => by.get(layer).forEach((at, row) => position.set(at, row)));
  for (const nodes of by.values()) nodes.sort((a, b) => a - b);
  place();
  // Tables near what they belong to: fewer lines cross.
  for (let sweep = 0; sweep < 4; sweep += 1) {
    for (const layer of numbers) {
      const weight = (at) => {
        const others = view.edges
          .filter((edge) => edge.from !== edge.to && (edge.to === at || (sweep % 2 === 1 && edge.from === at)))
          .map((edge) => position.get(edge.to === at ? edge.from : edge.to));
        return others.length === 0 ? position.get(at) : others.reduce((sum, it) => sum + it, 0) / others.length;
      };
      const weights = new Map(by.get(layer).map((at) => [at, weight(at)]));
      by.get(layer).sort((a, b) => weights.get(a) - weights.get(b) || a - b);
      place();
    }
  }
  const most = Math.max(...numbers.map((layer) => by.get(layer).length));
  const height = most * (size.height + size.rowGap) - size.rowGap;
  const nodes = new Map();
  numbers.forEach((layer, column) => {
    const layerNodes = by.get(layer);
    const own = layerNodes.length * (size.height + size.rowGap) - size.rowGap;
    layerNodes.forEach((at, row) => nodes.set(at, {
      x: column * (size.width + size.columnGap),
      y: (height - own) / 2 + row * (size.height + size.rowGap),
      layer,
    }));
  });
  const width = numbers.length * (size.width + size.columnGap) - size.columnGap;
  return { nodes, width, height, order: numbers.flatMap((layer) => by.get(layer)) };
}

// One table below the other, indented: for a narrow screen.
export function outline(view, size, of) {
  const nodes = new Map();
  const order = [];
  const parents = [...view.layers].filter(([, layer]) => layer < 0).map(([at]) => at);
  const visit = (at, depth) => {
    if (nodes.has(at) || !view.layers.has(at)) return;
    nodes.set(at, { x: Math.min(depth, 5) * size.indent, y: order.length * (size.height + size.rowGap), layer: depth });
    order.push(at);
    for (const edge of of[at].takes) {
      // Below the one that makes it deepest, so that every line leads down.
      if (view.layers.get(edge.to) === view.layers.get(at) + 1) visit(edge.to, depth + 1);
    }
  };
  for (const parent of parents) {
    nodes.set(parent, { x: 0, y: order.length * (size.height + size.rowGap), layer: -1 });
    order.push(parent);
  }
  const focus = [...view.layers].find(([, layer]) => layer === 0)[0];
  visit(focus, parents.length > 0 ? 1 : 0);
  for (const at of view.layers.keys()) visit(at, 1);
  const widest = Math.max(...[...nodes.values()].map((node) => node.x));
  return { nodes, width: widest + size.width, height: order.length * (size.height + size.rowGap) - size.rowGap, order };
}
