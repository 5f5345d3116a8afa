// Elements from names, attributes and children. A string is always text: names of tables, roles and objects are written by
// others, and nothing here makes HTML from them.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "style") throw new Error("styles are in page.css");
    else if (name === "href" && !String(value).startsWith("#")) throw new Error("links stay on this page");
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  add(element, children);
  return element;
}

export function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

export function el(name, attributes, ...children) {
  return build(document.createElement(name), attributes, children);
}

export function svg(name, attributes, ...children) {
  return build(document.createElementNS(SVG_NAMESPACE, name), attributes, children);
}

// A table that is a list of cards on a narrow screen. Each row: a list of cells, in the order of the header.
export function table(caption, header, rows) {
  const cell = (content, at) =>
    at === 0
      ? el("th", { scope: "row", role: "rowheader" }, content)
      : el("td", { role: "cell", "data-label": header[at] }, el("div", {}, content));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { role: "table" },
      el("caption", {}, caption),
      el("thead", { role: "rowgroup" },
        el("tr", { role: "row" }, header.map((text) => el("th", { scope: "col", role: "columnheader" }, text)))),
      el("tbody", { role: "rowgroup" }, rows.map((cells) => el("tr", { role: "row" }, cells.map(cell))))));
}

// Good, bad, unknown or neutral: by a sign and a word, and only then by a color.
const SIGNS = { good: "✓", bad: "✗", unknown: "?", neutral: "–" };

export function verdict(kind, text) {
  return el("span", { class: `verdict ${kind}` },
    el("span", { class: "sign", "aria-hidden": "true" }, SIGNS[kind]), " ", text);
}
