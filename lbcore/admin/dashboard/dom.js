// Building and updating the page. Text goes in as text, never as markup, and what has not changed
// is not touched: with hundreds of backends that is what keeps an update cheap.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

function dress(node, props) {
  for (const [key, value] of Object.entries(props || {})) {
    if (value == null || value === false) continue;
    if (key === "on") {
      for (const [name, listener] of Object.entries(value)) node.addEventListener(name, listener);
    } else if (key === "text") node.textContent = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
}

// An HTML element: h("p", {class: "hint"}, "words", anotherElement). `on` holds listeners.
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  dress(node, props);
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

// The same for SVG.
export function svg(tag, props, ...children) {
  const node = document.createElementNS(SVG, tag);
  dress(node, props);
  node.append(...children);
  return node;
}

// One of the symbols in index.html; for the eye only, words stand beside it.
export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true", focusable: "false" },
    svg("use", { href: `#i-${name}` }));
}

// Another symbol in an icon made above.
export function turn(drawn, name) {
  put(drawn.firstChild, "href", `#i-${name}`);
}

// The text of an element, if it is another one.
export function say(node, text) {
  const words = String(text);
  if (node.said !== words) {
    node.said = words;
    node.textContent = words;
  }
}

// An attribute, if it is another one; null removes it.
export function put(node, name, value) {
  const known = (node.known ??= {});
  if (known[name] === value) return;
  known[name] = value;
  if (value == null || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : value);
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

// Makes the children of `parent` those of `items`, in order, by key. `make(item)` returns
// {el, update(item)}. Elements stay where they are as long as they can: moving one takes the
// keyboard focus from it.
export function keyed(parent, items, keyOf, make) {
  const rows = (parent.keyedRows ??= new Map());
  const wanted = new Set(items.map(keyOf));
  for (const [key, row] of rows) {
    if (!wanted.has(key)) {
      row.el.remove();
      rows.delete(key);
    }
  }
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let row = rows.get(key);
    if (!row) {
      row = make(item);
      rows.set(key, row);
    }
    if (row.el === at) at = at.nextElementSibling;
    else parent.insertBefore(row.el, at);
    row.update(item);
  }
}
