"use strict";
// The cards of one condition, and the training curves.

const LEADS = {
  "in-distribution": "The workbench's own catalog, tasks in phrasings that no training has seen.",
  prices: "Known names and descriptions; which tools there are, what they cost and how long they take is drawn for every task.",
  unseen: "Names, descriptions, mixes of tools, prices and users' wishes are drawn for every task: a router has to read its catalog.",
  preferences: "Every task has a user with a wish, and is run again without it, or with another one. Every second wish is to avoid a tool that the best plan would call.",
  budget: "The same tasks under several limits of turns, and of dollars. A run whose budget is used up still ends in an answer.",
};

const who = (name) => make("span", { class: "who" }, make("span", { class: "dot", style: `background:${shade("router", name)}` }), name);
const quality = (routers) => (Object.values(routers).every((row) => row.utility) ? "utility" : "success");
const byQuality = (routers) => {
  const metric = quality(routers);
  return Object.keys(routers).sort((a, b) => (routers[b][metric]?.value ?? -1) - (routers[a][metric]?.value ?? -1));
};

function legend(names, { onPick = null } = {}) {
  const picked = { name: null };
  return make("ul", { class: "legend" }, names.map((name) => {
    const label = [make("span", { class: "dot", style: `background:${shade("router", name)}` }), name];
    if (!onPick) return make("li", {}, label);
    const pick = () => onPick((picked.name = picked.name === name ? null : name));
    return make("li", {}, make("button", { type: "button", onclick: pick, title: "Show this one alone, or all again" }, label));
  }));
}

function frontierCard(condition) {
  const { routers } = condition, options = ["success", "utility"].filter((metric) => Object.values(routers).some((row) => row[metric]));
  let metric = "success";
  const chart = fitted((width) => frontierChart(width, routers, metric, condition.frontier[metric] || [], condition.aside || []));
  const tools = options.length > 1 ? choice("Quality", options.map((m) => [m, METRICS[m].label]), metric, (picked) => ((metric = picked), chart.redraw())) : null;
  const made = card("Cost and quality", "Filled points lie on the frontier: no other router is as cheap and as good. A diamond is a bound, no router. Lines are 95% bounds over tasks and seeds.", { size: "seven", tools, id: "frontier" });
  made.append(chart);
  return made;
}

function sharesCard(condition) {
  const rows = byQuality(condition.routers).map((name) => [name, condition.routers[name].shares]);
  const totals = {};
  for (const [, shares] of rows) for (const [tool, share] of Object.entries(shares)) totals[tool] = (totals[tool] || 0) + share;
  const order = [...places.tool.keys()].filter((tool) => totals[tool]);
  const made = card("Who gets the calls", "Shares of all calls, by the expert behind a name. A router that has collapsed calls one of them only.", { size: "five", id: "shares" });
  made.append(fitted((width) => shareChart(width, rows, order)));
  made.append(make("ul", { class: "legend" }, order.map((tool) => make("li", {}, make("span", { class: "square", style: `background:${shade("tool", tool)}` }), tool))));
  return made;
}

function placesCard(condition) {
  const { routers } = condition, names = byQuality(routers), spots = [...new Set(names.flatMap((name) => Object.keys(routers[name].places)))].map(Number).sort((a, b) => a - b);
  const top = Math.max(...names.flatMap((name) => Object.values(routers[name].places)));
  const cell = (share = 0) => make("td", { class: "heat", style: `background: color-mix(in srgb, var(--accent) ${Math.round((34 * share) / top)}%, transparent)` }, percent(share, 0));
  const made = card("By place in the catalog", "The order of the tools is drawn: a router without a favourite place calls each about as often, the last ones less, since catalogs differ in length.", { id: "places" });
  made.append(make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "router"), spots.map((spot) => make("th", { scope: "col" }, String(spot))))), make("tbody", {}, names.map((name) => make("tr", {}, make("td", {}, who(name)), spots.map((spot) => cell(routers[name].places[spot]))))))));
  return made;
}

function tableCard(condition) {
  const { routers, against, differences = {} } = condition, gain = quality(routers);
  const columns = Object.keys(METRICS).filter((metric) => Object.values(routers).every((row) => row[metric]));
  const reach = Math.max(0.01, ...Object.values(differences).flatMap((found) => [Math.abs(found[gain].difference.low), Math.abs(found[gain].difference.high)]).filter(known));
  let sorted = gain, down = true;
  const place = make("div", { class: "scroll" });
  function render() {
    const names = Object.keys(routers).sort((a, b) => (down ? 1 : -1) * ((routers[b][sorted].value ?? -1) - (routers[a][sorted].value ?? -1)));
    const heads = columns.map((metric) => make("th", { scope: "col", "aria-sort": metric === sorted ? (down ? "descending" : "ascending") : null },
      make("button", { type: "button", tabindex: "0", onclick: () => ((down = metric === sorted ? !down : METRICS[metric].up), (sorted = metric), render()) }, METRICS[metric].label + (metric === sorted ? (down ? " ↓" : " ↑") : ""))));
    const body = names.map((name) => make("tr", { "data-router": name }, make("td", {}, who(name), routers[name].broken ? make("small", { class: "no" }, count(routers[name].broken, "run") + " broke") : null),
      columns.map((metric) => make("td", {}, METRICS[metric].show(routers[name][metric].value), metric === "success" || metric === "utility" ? make("small", {}, bounds(metric, routers[name][metric])) : null)),
      against ? gainCell(differences[name]?.[gain].difference, gain, reach) : null));
    place.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "router"), heads, against ? make("th", { scope: "col" }, `${METRICS[gain].label} over ${against}`) : null)), make("tbody", {}, body)));
  }
  render();
  const made = card("Figures", `Means over ${count(condition.units, "task")}, the same for every router; under them 95% bounds of a bootstrap over tasks and seeds. A difference whose bounds do not touch zero holds.`, { id: "figures" });
  made.append(place);
  return made;
}

function gainCell(difference, metric, reach) {
  if (!difference || !known(difference.low)) return make("td", { class: "muted" }, UNKNOWN);
  const verdict = difference.low > 0 ? "better" : difference.high < 0 ? "worse" : "";
  const sign = (value) => (value >= 0 ? "+" : "−") + METRICS[metric].show(Math.abs(value));
  const colour = verdict === "better" ? "var(--good)" : verdict === "worse" ? "var(--bad)" : "var(--muted)";
  return make("td", { class: verdict }, whisker(difference, reach, colour), " ", sign(difference.value), make("small", {}, `${sign(difference.low)} to ${sign(difference.high)}`));
}

function kindsCard(condition, title, note) {
  const { routers } = condition, names = byQuality(routers), kinds = Object.keys(routers[names[0]].kinds).filter((kind) => !kind.includes(" instead of "));
  if (kinds.length < 2) return null;
  let metric = "success";
  const options = ["success", "utility", "dollars", "seconds"].filter((m) => names.every((name) => kinds.every((kind) => routers[name].kinds[kind][m])));
  const place = make("div", { class: "scroll" });
  function render() {
    const value = (name, kind) => routers[name].kinds[kind][metric]?.value;
    const all = names.flatMap((name) => kinds.map((kind) => value(name, kind))).filter(known), top = Math.max(...all), bottom = metric === "dollars" || metric === "seconds" ? 0 : Math.min(...all, 0);
    const cell = (name, kind) => {
      const found = value(name, kind), share = known(found) ? (found - bottom) / (top - bottom || 1) : 0;
      const tint = `background: color-mix(in srgb, var(--accent) ${Math.round(34 * share)}%, transparent)`;
      return make("td", { class: "heat", style: tint }, METRICS[metric].show(found, 0));
    };
    const head = make("tr", {}, make("th", { scope: "col" }, "router"), kinds.map((kind) => make("th", { scope: "col" }, kind)));
    place.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, names.map((name) => make("tr", {}, make("td", {}, who(name)), kinds.map((kind) => cell(name, kind)))))));
  }
  render();
  const made = card(title, note, { tools: choice("Figure", options.map((m) => [m, METRICS[m].label]), metric, (picked) => ((metric = picked), render())), id: "kinds" });
  made.append(place);
  return made;
}

function budgetCard(condition) {
  const { routers } = condition, names = byQuality(routers), kinds = Object.keys(routers[names[0]].kinds);
  const options = ["success", "utility", "priciest_share"].filter((m) => names.every((name) => routers[name].kinds[kinds[0]][m]));
  let metric = "success", alone = null;
  const panels = [["turns at most", (kind) => (/^\d+ turns?$/.test(kind) ? parseFloat(kind) : null), String, false], ["dollars at most", (kind) => (kind.startsWith("$") ? parseFloat(kind.slice(1)) : null), round, true]];
  const charts = panels.map(([title, at, show, log]) => fitted((width) => {
    const limits = kinds.map((kind) => [kind, at(kind)]).filter(([, limit]) => limit !== null);
    const lines = names.map((name) => ({ name, colour: shade("router", name), points: limits.filter(([kind]) => known(routers[name].kinds[kind][metric].value)).map(([kind, limit]) => {
      const found = routers[name].kinds[kind][metric];
      return { x: limit, y: found.value, low: found.low, high: found.high, told: [`at most ${kind}`, `${METRICS[metric].label} ${METRICS[metric].show(found.value)} (${bounds(metric, found)})`, `${money(routers[name].kinds[kind].dollars.value)} spent a task`] };
    }) }));
    return lineChart(width, lines, { label: `${METRICS[metric].label} by ${title}`, showX: show, showY: (tick) => METRICS[metric].show(tick, 0), titleX: title + " →", titleY: "↑ " + METRICS[metric].label, log, from: 0, to: 1, faded: alone, even: !log });
  }));
  const redraw = () => charts.forEach((chart) => chart.redraw());
  const made = card("Budget curve", "What a router makes of more turns, and of more dollars. Look at the share of the priciest tool as well: it should not rise unless success does.", { id: "budget", tools: choice("Figure", options.map((m) => [m, METRICS[m].label]), metric, (picked) => ((metric = picked), redraw())) });
  made.append(make("div", { class: "panels" }, charts), legend(names, { onPick: (name) => ((alone = name), redraw()) }));
  return made;
}

function wishesCard(condition) {
  if (!condition.wishes) return null;
  const { routers, wishes } = condition, names = byQuality(routers);
  const ratio = (name, kind, other, metric) => wishes[name][kind]?.[other]?.[metric]?.ratio;
  const change = (found) => (!found || !known(found.value) ? UNKNOWN : Math.abs(found.value - 1) < 0.005 ? "±0%" : (found.value > 1 ? "+" : "−") + percent(Math.abs(found.value - 1), 0));
  const cell = (found) => make("td", { class: found && known(found.high) ? (found.high < 1 ? "better" : found.low > 1 ? "worse" : "") : "" }, change(found), found && known(found.low) ? make("small", {}, `${change({ value: found.low })} to ${change({ value: found.high })}`) : null);
  const share = (name, kind, good) => {
    const found = routers[name].kinds[kind]?.wished_share;
    return make("td", { class: found ? (good(found) ? "better" : "") : "" }, percent(found?.value), found && known(found.low) ? make("small", {}, `${percent(found.low)} to ${percent(found.high)}`) : null);
  };
  const made = card("Are wishes kept?", "What “cheap” saves and “fast” gains, against the opposite wish and against none, on the same tasks; and how many runs called the tool that was to be avoided, or preferred. Green where the bounds say so.", { id: "wishes" });
  const heads = ["router", "dollars, “cheap” to “fast”", "to no wish", "seconds, “fast” to “cheap”", "to no wish", "“avoid X”: runs that call X", "“prefer X”: runs that call X"];
  made.append(make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, names.map((name) => make("tr", {}, make("td", {}, who(name)), cell(ratio(name, "cheap", "fast", "dollars")), cell(ratio(name, "cheap", "none", "dollars")), cell(ratio(name, "fast", "cheap", "seconds")), cell(ratio(name, "fast", "none", "seconds")), share(name, "avoid", (f) => f.high < 0.02), share(name, "prefer", (f) => f.low > 0.5)))))));
  return made;
}

function curvesCard(curves) {
  if (!curves.length) return null;
  const metrics = [...new Set(curves.flatMap((curve) => Object.keys(curve.series)))];
  const first = metrics.filter((metric) => curves.some((curve) => curve.series[metric]?.length > 1));
  const made = card("Training", "What the trainer measured, step by step.", { id: "curves" });
  const shown = 6, panels = make("div", { class: "panels" });
  const add = (metric) => {
    const lines = curves.filter((curve) => curve.series[metric]).map((curve) => ({ name: curve.name, colour: shade("curve", curve.name), points: curve.series[metric].map(([x, y]) => ({ x, y, told: [`step ${x}`, `${metric} ${+y.toPrecision(5)}`] })) }));
    panels.append(make("div", {}, make("h3", {}, metric), fitted((width) => lineChart(width, lines, { height: 190, label: metric, showX: (tick) => tick.toLocaleString("en"), showY: (tick) => String(+tick.toPrecision(4)) }))));
  };
  first.slice(0, shown).forEach(add);
  made.append(panels, make("ul", { class: "legend" }, curves.map(({ name }) => make("li", {}, make("span", { class: "dot", style: `background:${shade("curve", name)}` }), name))));
  if (first.length > shown) made.append(make("button", { type: "button", class: "more", onclick: (event) => (event.target.remove(), first.slice(shown).forEach(add)) }, `Show ${first.length - shown} more`));
  return made;
}
