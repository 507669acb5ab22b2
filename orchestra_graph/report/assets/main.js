"use strict";
// Unpacks the data and puts the page together.

async function unpack() {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent.trim()), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function theme() {
  const button = document.getElementById("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  const current = () => document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  const show = () => (button.textContent = current() === "dark" ? "☀" : "☾");
  button.addEventListener("click", () => ((document.documentElement.dataset.theme = current() === "dark" ? "light" : "dark"), show()));
  dark.addEventListener("change", show);
  show();
}

function showCondition(name, condition, place) {
  const cards = [make("p", { class: "lead" }, LEADS[name] || `The tasks of ${name}.`)];
  if (name === "budget") cards.push(budgetCard(condition));
  if (name === "preferences") cards.push(wishesCard(condition));
  cards.push(frontierCard(condition), sharesCard(condition), tableCard(condition));
  if (name !== "budget") cards.push(kindsCard(condition, name === "preferences" ? "By wish" : "By kind of task", name === "preferences" ? "“no …” are the same tasks without the wish." : "Darker is more."));
  if (name === "prices" || name === "unseen") cards.push(placesCard(condition));
  place.replaceChildren(...cards.filter(Boolean));
}

async function main() {
  theme();
  const { result, runs, curves } = await unpack();
  const conditions = Object.entries(result.conditions);
  const routers = [...new Set(conditions.flatMap(([, condition]) => byQuality(condition.routers)))];
  routers.forEach((name) => shade("router", name));
  const shares = {};
  for (const [, condition] of conditions) for (const row of Object.values(condition.routers)) for (const [tool, share] of Object.entries(row.shares)) shares[tool] = (shares[tool] || 0) + share;
  Object.keys(shares).sort((a, b) => shares[b] - shares[a]).forEach((tool) => shade("tool", tool));

  const all = conditions.reduce((sum, [, condition]) => sum + Object.values(condition.routers).reduce((runs, row) => runs + row.runs, 0), 0);
  document.getElementById("subtitle").textContent = `${count(routers.length, "router")}, ${count(conditions.length, "condition")}, ${count(all, "run")}`;
  const place = make("div", { id: "condition", role: "tabpanel" }), tabs = document.getElementById("tabs");
  const list = runs.runs.length ? runsCard(runs, conditions[0]?.[0]) : null;
  const buttons = conditions.map(([name, condition]) => make("button", { type: "button", role: "tab", id: "tab-" + name, "aria-controls": "condition", onclick: () => open(name, condition) }, name));
  function open(name, condition) {
    hideTip();
    for (const button of buttons) {
      const selected = button.textContent === name;
      button.setAttribute("aria-selected", String(selected));
      button.tabIndex = selected ? 0 : -1;
    }
    place.setAttribute("aria-labelledby", "tab-" + name);
    showCondition(name, condition, place);
    list?.showCondition(name);
  }
  tabs.append(...buttons);
  tabs.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
  });
  document.getElementById("main").replaceChildren(...[place, curvesCard(curves), list].filter(Boolean));
  if (conditions.length) open(...conditions[0]);
  const notes = ["Bounds are 95% percentiles of a bootstrap over tasks and seeds, paired on the same tasks."];
  if (result.reference) notes.push(`Utility and score are against the reference of ${result.reference.policy}, SHA-256 ${result.reference.sha256.slice(0, 12)}….`);
  if (result.note) notes.push(result.note);
  if (all > runs.runs.length) notes.push(`The list holds ${runs.runs.length.toLocaleString("en")} of ${count(all, "run")}; all are in the run log.`);
  document.getElementById("footer").replaceChildren(...notes.map((note) => make("p", {}, note)));
  document.body.dataset.ready = "true";
}

main().catch((error) => {
  document.getElementById("main").replaceChildren(make("p", {}, `This page could not be drawn: ${error.message}`));
  throw error;
});
