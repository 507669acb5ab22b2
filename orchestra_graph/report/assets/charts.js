"use strict";
// Scales and the charts themselves; each returns an SVG of the given width.

function linear(low, high, from, to) {
  const span = high - low || 1;
  const scale = (value) => from + ((value - low) / span) * (to - from);
  const raw = span / 5, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw * 0.999);
  scale.ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-6; tick += step) scale.ticks.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
  return scale;
}

function logarithmic(low, high, from, to) {
  const inner = linear(Math.log10(low), Math.log10(high), from, to);
  const scale = (value) => inner(Math.log10(Math.max(value, low)));
  const digits = high / low > 300 ? [1] : high / low > 12 ? [1, 3] : [1, 2, 5];
  scale.ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const digit of digits) {
      const tick = digit * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) scale.ticks.push(tick);
    }
  return scale;
}

function frame(width, height, label) {
  return draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": label });
}

function axes(svg, x, y, box, { showX, showY, titleX = "", titleY = "" }) {
  for (const tick of y.ticks) {
    svg.append(draw("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }));
    svg.append(draw("text", { x: box.left - 8, y: y(tick) + 4, "text-anchor": "end" }, showY(tick)));
  }
  svg.append(draw("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  for (const tick of x.ticks) {
    svg.append(draw("line", { class: "axis", x1: x(tick), x2: x(tick), y1: box.bottom, y2: box.bottom + 4 }));
    svg.append(draw("text", { x: x(tick), y: box.bottom + 17, "text-anchor": "middle" }, showX(tick)));
  }
  if (titleX) svg.append(draw("text", { x: box.right, y: box.bottom + 35, "text-anchor": "end" }, titleX));
  if (titleY) svg.append(draw("text", { x: box.left - 8, y: box.top - 12, "text-anchor": "start" }, titleY));
}

const path = (points) => points.map(([x, y], place) => (place ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1)).join("");

// Cost against quality: points with bounds, and the line of those that none beats in both.
function frontierChart(width, routers, metric, frontier, aside) {
  const height = Math.max(320, Math.min(430, width * 0.6));
  const box = { left: 52, right: width - 20, top: 26, bottom: height - 44 };
  const svg = frame(width, height, "Cost against quality");
  const names = Object.keys(routers).filter((name) => known(routers[name][metric]?.value));
  if (!names.length) return svg;
  const costs = names.flatMap((name) => [routers[name].dollars.low, routers[name].dollars.high, routers[name].dollars.value].filter((cost) => cost > 0));
  if (!costs.length) costs.push(1);
  const free = names.some((name) => !(routers[name].dollars.value > 0)); // they stand at the left end, which a log scale has none of
  const marks = names.flatMap((name) => [routers[name][metric].low, routers[name][metric].high, routers[name][metric].value].filter(known));
  const x = logarithmic(Math.min(...costs) / (free ? 4 : 1.3), Math.max(...costs) * 1.3, box.left, box.right);
  if (free) x.ticks = [0, ...x.ticks.filter((tick) => x(tick) > box.left + 40)];
  const low = Math.max(0, Math.min(...marks) - 0.06), high = Math.max(...marks) + 0.05;
  const y = linear(low, metric === "success" || metric === "utility" ? Math.min(1, high) : high, box.bottom, box.top);
  axes(svg, x, y, box, { showX: (tick) => (tick ? round(tick) : "$0"), showY: (tick) => METRICS[metric].show(tick, 0), titleX: "dollars a task, on a log scale →", titleY: "↑ " + METRICS[metric].label });
  const line = frontier.filter((name) => names.includes(name)).map((name) => [x(routers[name].dollars.value), y(routers[name][metric].value)]);
  if (line.length) {
    const steps = line.flatMap((point, place) => (place ? [[point[0], line[place - 1][1]], point] : [point]));
    svg.append(draw("path", { d: path([...steps, [box.right, line[line.length - 1][1]]]), fill: "none", stroke: "var(--muted)", "stroke-width": 1.5, "stroke-dasharray": "2 4", "stroke-linecap": "round" }));
  }
  const labels = [];
  for (const name of names) {
    const { dollars, [metric]: quality } = routers[name], colour = shade("router", name);
    const [cx, cy] = [x(dollars.value), y(quality.value)];
    const best = frontier.includes(name), told = aside.includes(name) ? "knows what no router can: a bound" : best ? "on the frontier" : "another one is no dearer and no worse";
    const lines = [name, `${METRICS[metric].label} ${METRICS[metric].show(quality.value)} (${bounds(metric, quality)})`, `${money(dollars.value)} a task (${bounds("dollars", dollars)})`, told];
    const bars = [];
    if (known(quality.low)) bars.push(draw("line", { x1: cx, x2: cx, y1: y(quality.low), y2: y(quality.high), stroke: colour, "stroke-width": 1.5, opacity: 0.55 }));
    if (known(dollars.low) && dollars.low > 0) bars.push(draw("line", { x1: x(dollars.low), x2: x(dollars.high), y1: cy, y2: cy, stroke: colour, "stroke-width": 1.5, opacity: 0.55 }));
    svg.append(mark(lines, ...bars, draw("circle", { cx, cy, r: 16, fill: "transparent" }),
      aside.includes(name) ? draw("path", { d: `M${cx} ${cy - 8}L${cx + 8} ${cy}L${cx} ${cy + 8}L${cx - 8} ${cy}Z`, fill: "var(--card)", stroke: colour, "stroke-width": 2 })
        : draw("circle", { cx, cy, r: best ? 7 : 5.5, fill: best ? colour : "var(--card)", stroke: colour, "stroke-width": 2.5 })));
    labels.push({ name, cx, cy });
  }
  placeLabels(svg, labels, box);
  return svg;
}

// Names beside their points, moved apart where they would cover each other.
function placeLabels(svg, labels, box) {
  const taken = labels.map(({ cx, cy }) => [cx - 7, cy - 7, cx + 7, cy + 7]);
  const free = (spot) => spot[0] >= box.left && spot[2] <= box.right + 16 && spot[1] >= box.top - 22 &&
    !taken.some((other) => spot[0] < other[2] && spot[2] > other[0] && spot[1] < other[3] && spot[3] > other[1]);
  for (const { name, cx, cy } of [...labels].sort((a, b) => a.cy - b.cy)) {
    const size = name.length * 6.9;
    const spots = [[11, -6], [11, 15], [-11 - size, -6], [-11 - size, 15], [-size / 2, -13], [-size / 2, 24], [11, -20], [-11 - size, -20], [11, 30]]
      .map(([dx, dy]) => [cx + dx, cy + dy - 10, cx + dx + size, cy + dy + 3]);
    const spot = spots.find(free) || spots[0];
    taken.push(spot);
    svg.append(draw("text", { class: "name", x: spot[0], y: spot[1] + 10, "aria-hidden": "true" }, name));
  }
}

// How calls are spread: one bar a router, its parts in the same order everywhere.
function shareChart(width, rows, order) {
  const label = Math.min(150, 14 + 7.2 * Math.max(...rows.map(([name]) => name.length)));
  const step = rows.length > 7 ? 32 : 38, bar = step - 9, height = rows.length * step + 6;
  const svg = frame(width, height, "Share of calls by tool");
  rows.forEach(([name, shares], row) => {
    const y = row * step + 4;
    svg.append(draw("text", { class: "value", x: 0, y: y + bar / 2 + 4.5 }, name));
    let at = label;
    for (const tool of order.filter((tool) => shares[tool])) {
      const size = shares[tool] * (width - label);
      const shapes = [draw("rect", { x: at, y, width: Math.max(0, size - 1.5), height: bar, rx: 3, fill: shade("tool", tool) })];
      if (size > 15 + 6.4 * tool.length) shapes.push(draw("text", { x: at + 7, y: y + bar / 2 + 4, style: "fill: #fff; font-weight: 600; paint-order: stroke; stroke: rgb(0 0 0 / 30%); stroke-width: 2px" }, tool));
      svg.append(mark([tool, `${percent(shares[tool])} of the calls of ${name}`], ...shapes));
      at += size;
    }
  });
  return svg;
}

// Lines with bands: a line a router, or a training run.
function lineChart(width, lines, { height = 250, showX, showY, titleX = "", titleY = "", log = false, from = null, to = null, label, faded = null, even = false }) {
  const box = { left: 54, right: width - 12, top: 24, bottom: height - 40 };
  const svg = frame(width, height, label);
  const points = lines.flatMap((line) => line.points);
  if (!points.length) return svg;
  const xs = points.map((point) => point.x), ys = points.flatMap((point) => [point.y, point.low, point.high]).filter(known);
  const values = [...new Set(xs)].sort((a, b) => a - b);
  const x = (log ? logarithmic : linear)(values[0], values[values.length - 1], box.left + 6, box.right - 6);
  if (even) x.ticks = values;
  else if (log) x.ticks = values;
  // Not by spreading: a call takes some ten thousand arguments at most.
  const y = linear(from ?? ys.reduce((a, b) => Math.min(a, b), Infinity), to ?? ys.reduce((a, b) => Math.max(a, b), -Infinity), box.bottom, box.top);
  axes(svg, x, y, box, { showX, showY, titleX, titleY });
  if (values.length > 60) svg.append(reader(lines, values, x, box, showX, showY));
  for (const line of lines) {
    const dim = faded && faded !== line.name ? " faded" : "";
    const band = line.points.filter((point) => known(point.low));
    if (band.length > 1 && (!faded || faded === line.name))
      svg.append(draw("path", { d: path([...band.map((p) => [x(p.x), y(p.high)]), ...band.reverse().map((p) => [x(p.x), y(p.low)])]) + "Z", fill: line.colour, opacity: faded ? 0.2 : 0.08 }));
    svg.append(draw("path", { class: dim, d: path(line.points.map((p) => [x(p.x), y(p.y)])), fill: "none", stroke: line.colour, "stroke-width": 2, "stroke-linejoin": "round" }));
    if (line.points.length > 60) continue;
    for (const point of line.points)
      svg.append(mark([line.name, ...point.told], draw("circle", { cx: x(point.x), cy: y(point.y), r: 10, fill: "transparent" }),
        draw("circle", { class: dim, cx: x(point.x), cy: y(point.y), r: 3.5, fill: line.colour, stroke: "var(--card)", "stroke-width": 1.5 })));
  }
  return svg;
}

// Where there are too many points to mark each: the values under the pointer.
function reader(lines, values, x, box, showX, showY) {
  const cursor = draw("line", { class: "axis", y1: box.top, y2: box.bottom, visibility: "hidden" });
  const area = draw("rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top, fill: "transparent" });
  area.addEventListener("pointermove", (event) => {
    const at = event.clientX - area.getBoundingClientRect().left + box.left;
    const step = values.reduce((best, value) => (Math.abs(x(value) - at) < Math.abs(x(best) - at) ? value : best));
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(step));
    cursor.setAttribute("visibility", "visible");
    const told = lines.map((line) => [line.name, line.points.find((point) => point.x === step)]).filter(([, point]) => point);
    showTip([`step ${showX(step)}`, ...told.map(([name, point]) => `${name}: ${showY(point.y)}`)], event.clientX, event.clientY);
  });
  area.addEventListener("pointerleave", () => (cursor.setAttribute("visibility", "hidden"), hideTip()));
  return draw("g", {}, cursor, area);
}

// A difference with its bounds beside zero, small enough for a table.
function whisker(estimate, reach, colour) {
  const width = 110, height = 18, x = linear(-reach, reach, 4, width - 4), middle = height / 2;
  const svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  svg.append(draw("line", { class: "axis", x1: x(0), x2: x(0), y1: 0, y2: height }));
  svg.append(draw("line", { x1: x(estimate.low), x2: x(estimate.high), y1: middle, y2: middle, stroke: colour, "stroke-width": 2 }));
  svg.append(draw("circle", { cx: x(estimate.value), cy: middle, r: 3.5, fill: colour }));
  return svg;
}
