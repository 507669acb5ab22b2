"use strict";
// The list of runs: filtered, a page at a time; a run is drawn when it is opened, a turn when it is opened.

const PAGE = 60;

function runsCard(data, start) {
  const { texts, runs } = data;
  const distinct = (name) => [...new Set(runs.map((run) => run[name]))].map((place) => texts[place]);
  const select = (name, label, options) => make("select", { id: "filter-" + name, "aria-label": label }, make("option", { value: "" }, label), options.map((option) => make("option", { value: option }, option)));
  const search = make("input", { id: "search", type: "search", placeholder: "Search questions, answers, tools …", "aria-label": "Search the runs" });
  const router = select("router", "all routers", distinct("router"));
  const condition = select("condition", "all conditions", distinct("condition"));
  const kind = select("kind", "all kinds", distinct("kind").sort());
  const outcome = make("select", { id: "filter-outcome", "aria-label": "Outcome" }, [["", "any outcome"], ["solved", "solved"], ["failed", "not solved"]].map(([value, text]) => make("option", { value }, text)));
  const found = make("span", { id: "count", role: "status" });
  const list = make("ul", { class: "runlist", id: "runlist" });
  const more = make("button", { type: "button", class: "more", hidden: true }, "Show more");
  let hits = [], shown = 0, applied = "";

  const words = (run) => (run.words ??= [run.question, run.answer, run.wish, run.kind, ...run.turns.flatMap((turn) => turn.calls.map((call) => call.tool))].map((place) => texts[place]).concat(run.turns.flatMap((turn) => turn.calls.map((call) => expert(call.tool, run, data)))).join("\n").toLowerCase());
  const fits = (run) =>
    (!router.value || texts[run.router] === router.value) && (!condition.value || texts[run.condition] === condition.value) &&
    (!kind.value || texts[run.kind] === kind.value) && (!outcome.value || run.solved === (outcome.value === "solved")) &&
    (!search.value || search.value.toLowerCase().split(/\s+/).every((word) => words(run).includes(word)));
  const wanted = () => [search, router, condition, kind, outcome].map((input) => input.value).join("\n");
  function apply() {
    applied = wanted();
    hits = runs.filter(fits);
    shown = 0;
    list.replaceChildren();
    found.textContent = hits.length === runs.length ? count(runs.length, "run") : `${hits.length.toLocaleString("en")} of ${count(runs.length, "run")}`;
    next();
  }
  function next() {
    list.append(...hits.slice(shown, shown + PAGE).map((run) => runRow(run, data)));
    shown = Math.min(hits.length, shown + PAGE);
    more.hidden = shown >= hits.length;
    more.textContent = `Show ${Math.min(PAGE, hits.length - shown)} more`;
  }
  more.addEventListener("click", next);
  let timer = 0;
  search.addEventListener("input", () => (clearTimeout(timer), (timer = setTimeout(() => wanted() !== applied && apply(), 120))));
  for (const input of [router, condition, kind, outcome]) input.addEventListener("change", apply);

  const made = card("Runs", "Open a run, then a turn: what the router could choose from, what it chose and why, what came back, and the bill.", { id: "runs" });
  made.append(make("div", { class: "filters" }, search, router, condition, kind, outcome, found), list, more);
  condition.value = distinct("condition").includes(start) ? start : "";
  apply();
  made.showCondition = (name) => ((condition.value = distinct("condition").includes(name) ? name : ""), apply());
  return made;
}

// Who is behind a name, where names are drawn.
function expert(place, run, data) {
  const tool = run.catalog === null ? undefined : data.catalogs[run.catalog].map((line) => data.tools[line]).find((line) => line[0] === place);
  return tool ? data.texts[tool[8]] : "";
}
const total = (run, name) => run.turns.reduce((sum, turn) => sum + turn[name] + (name === "dollars" ? turn.calls.reduce((all, call) => all + call.dollars, 0) : Math.max(0, ...turn.calls.map((call) => call.seconds))), 0);
const sign = (solved) => (solved === null ? make("span", { class: "unknown", title: "not judged" }, "?") : solved ? make("span", { class: "ok", title: "solved" }, "✓") : make("span", { class: "no", title: "not solved" }, "✗"));

function runRow(run, data) {
  const { texts } = data, name = texts[run.router], id = "run-" + run.id + "-" + data.runs.indexOf(run);
  const row = make("button", { type: "button", class: "runrow", "aria-expanded": "false", "aria-controls": id },
    sign(run.solved), make("span", { class: "r" }, make("span", { class: "dot", style: `background:${shade("router", name)}` }), make("span", {}, name)),
    make("span", { class: "q" }, texts[run.question]), make("span", { class: "k" }, texts[run.kind]),
    make("span", { class: "n t" }, count(run.turns.length, "turn")), make("span", { class: "n" }, money(total(run, "dollars"))), make("span", { class: "n t" }, seconds(total(run, "seconds"))));
  const item = make("li", {}, row);
  row.addEventListener("click", () => {
    const open = row.getAttribute("aria-expanded") === "true";
    row.setAttribute("aria-expanded", String(!open));
    if (open) item.lastChild.remove();
    else item.append(runDetails(run, data, id));
  });
  return item;
}

function runDetails(run, data, id) {
  const { texts } = data;
  const facts = [["Question", texts[run.question]], ["Wish", texts[run.wish]], ["Answer", texts[run.answer]], ["Ended", run.stopped === "answer" ? "" : `stopped by ${run.stopped}`], ["Run", run.id]];
  return make("div", { class: "run", id },
    make("dl", {}, facts.filter(([, text]) => text).flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])),
    make("div", {}, run.turns.map((turn, number) => turnDetails(turn, number, run, data))));
}

function turnDetails(turn, number, run, data) {
  const { texts } = data, names = turn.calls.map((call) => texts[call.tool]);
  const paid = turn.dollars + turn.calls.reduce((sum, call) => sum + call.dollars, 0);
  const took = turn.seconds + Math.max(0, ...turn.calls.map((call) => call.seconds));
  const details = make("details", { class: "turn" }, make("summary", {}, make("span", { class: "muted" }, `turn ${number + 1}`), make("span", { class: "choice" }, names.join(", ") || "no call"), turn.calls.map((call) => expert(call.tool, run, data)).filter(Boolean).map((name) => make("span", { class: "tag" }, name)),
    turn.by ? make("span", { class: "tag" }, `by ${turn.by}`) : null, turn.problem !== undefined ? make("span", { class: "tag bad" }, "malformed") : null,
    turn.calls.some((call) => call.error) ? make("span", { class: "tag bad" }, "failed") : turn.calls.some((call) => call.ends) ? make("span", { class: "tag good" }, "answered") : null,
    make("span", { class: "cost" }, `${money(paid)} · ${seconds(took)}`)));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(turnBody(turn, names, run, data));
  });
  return details;
}

function turnBody(turn, names, run, data) {
  const { texts } = data, body = make("div", { class: "body" });
  const facts = [["Reason", turn.reason], ["Refused", turn.problem]].filter(([, place]) => place !== undefined);
  const deciding = `${money(turn.dollars)} · ${seconds(turn.seconds)}`;
  body.append(make("dl", {}, facts.flatMap(([name, place]) => [make("dt", {}, name), make("dd", {}, texts[place])]), make("dt", {}, "Deciding"), make("dd", {}, deciding)));
  for (const call of turn.calls)
    body.append(make("div", {}, make("h3", {}, `${texts[call.tool]} ${call.error ? "failed" : call.ends ? "answered" : "brought"} · ${money(call.dollars)} · ${seconds(call.seconds)}`), texts[call.args] ? make("p", { class: "muted" }, texts[call.args]) : null, make("pre", { class: "result", tabindex: "0" }, texts[call.result] || "(nothing)")));
  if (run.catalog !== null) body.append(make("div", {}, make("h3", {}, "It could choose from"), optionsTable(data, run, names)));
  return body;
}

function optionsTable(data, run, chosen) {
  const { texts, tools, catalogs } = data;
  const price = ([, , input, output, call, second]) => [input || output ? `${money(input)} / ${money(output)} per million` : "", call ? `${money(call)} a call` : "", second ? `${money(second)} a second` : ""].filter(Boolean).join(" + ") || "free";
  const rows = catalogs[run.catalog].map((place) => tools[place]).map((tool) => make("tr", { class: chosen.includes(texts[tool[0]]) ? "chosen" : null },
    make("td", {}, texts[tool[0]], texts[tool[8]] ? make("small", {}, texts[tool[8]]) : null), make("td", { class: "what" }, texts[tool[1]]), make("td", {}, price(tool)), make("td", {}, seconds(tool[6])), make("td", {}, tool[7] ? "ends" : "goes on")));
  const head = make("tr", {}, make("th", { scope: "col" }, "tool"), make("th", { scope: "col", style: "text-align:left" }, "what it says of itself"), make("th", { scope: "col" }, "price (tokens in / out)"), make("th", { scope: "col" }, "latency"), make("th", { scope: "col" }, ""));
  return make("div", { class: "scroll" }, make("table", { class: "options" }, make("thead", {}, head), make("tbody", {}, rows)));
}
