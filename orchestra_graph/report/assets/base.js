"use strict";
// Shared by all parts: elements, numbers as text, colours, tooltips. Texts of runs only ever become text nodes.

const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
const UNKNOWN = "–";

function money(value) {
  if (!known(value)) return UNKNOWN;
  if (value === 0) return "$0";
  const size = Math.abs(value);
  if (size >= 1) return "$" + value.toFixed(2);
  return "$" + value.toFixed(Math.min(7, 2 - Math.floor(Math.log10(size))));
}
const round = (value) => "$" + +value.toPrecision(3);  // for ticks and limits, which are round numbers
const percent = (value, digits = 1) => (known(value) ? (100 * value).toFixed(digits) + "%" : UNKNOWN);
const seconds = (value) => (known(value) ? (value < 0.095 ? value.toFixed(2) : value.toFixed(1)) + " s" : UNKNOWN);
const decimal = (value) => (known(value) ? value.toFixed(3) : UNKNOWN);
const count = (number, noun) => number.toLocaleString("en") + " " + noun + (number === 1 ? "" : "s");

const METRICS = {
  success: { label: "solved", show: percent, up: true },
  utility: { label: "utility", show: decimal, up: true },
  score: { label: "score (6)", show: decimal, up: true },
  dollars: { label: "dollars a task", show: money, up: false },
  seconds: { label: "seconds a task", show: seconds, up: false },
  turns: { label: "turns", show: (value) => (known(value) ? value.toFixed(1) : UNKNOWN), up: false },
  priciest_share: { label: "to the priciest", show: percent, up: false },
  malformed_share: { label: "malformed", show: percent, up: false },
};

const bounds = (metric, estimate) =>
  known(estimate.low) ? `${METRICS[metric].show(estimate.low)} to ${METRICS[metric].show(estimate.high)}` : "";

// A router keeps its colour, and a tool its shade, on the whole page.
const places = { router: new Map(), tool: new Map(), curve: new Map() };
function shade(kind, name) {
  const known = places[kind];
  if (!known.has(name)) known.set(name, known.size);
  return `var(--${kind === "tool" ? "t" : "c"}${known.get(name) % 10})`;
}

const tip = () => document.getElementById("tip");
function showTip(lines, x, y) {
  const box = tip();
  box.replaceChildren(make("b", {}, lines[0]), lines.length > 1 ? "\n" + lines.slice(1).join("\n") : "");
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  box.style.left = Math.max(8, Math.min(x + 14, innerWidth - width - 8)) + "px";
  box.style.top = (y + 18 + height > innerHeight ? y - height - 12 : y + 18) + "px";
}
function hideTip() {
  tip().hidden = true;
}

// A mark that tells its figures under the pointer, at the keyboard and to a screen reader.
function mark(lines, ...shapes) {
  const group = draw("g", { class: "mark", tabindex: "0", role: "img", "aria-label": lines.join(", ") }, ...shapes);
  group.addEventListener("pointermove", (event) => showTip(lines, event.clientX, event.clientY));
  group.addEventListener("pointerleave", hideTip);
  group.addEventListener("focus", () => {
    const box = group.getBoundingClientRect();
    showTip(lines, box.right, box.top);
  });
  group.addEventListener("blur", hideTip);
  return group;
}

function choice(label, options, current, onPick) {
  const buttons = options.map(([value, text]) =>
    make("button", { type: "button", "aria-pressed": String(value === current), "data-value": value, onclick: () => pick(value) }, text));
  function pick(value) {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.value === value));
    onPick(value);
  }
  return make("div", { class: "switch", role: "group", "aria-label": label }, buttons);
}

function card(title, note, { size = "", tools = null, id = null } = {}) {
  return make("section", { class: "card " + size, id, "aria-label": title },
    make("header", {}, make("h2", {}, title), tools), note ? make("p", { class: "note" }, note) : null);
}

// Draws a chart as wide as its place, and again when that changes.
function fitted(drawAt) {
  const place = make("div", { class: "fitted" });
  let width = 0;
  const redraw = () => {
    const now = Math.round(place.clientWidth);
    if (now && now !== width) place.replaceChildren(drawAt((width = now)));
  };
  place.redraw = () => ((width = 0), redraw());
  new ResizeObserver(redraw).observe(place);
  return place;
}
