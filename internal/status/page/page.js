"use strict";
// The page asks /api/v1 for the view that is open, every two seconds while it can be seen. Everything that comes from there is put in as text,
// never as markup: log lines are written by anybody.

const every = 2000;
const views = [
  { id: "path", title: "Path", draw: drawPath },
  { id: "nodes", title: "Nodes", draw: drawNodes },
  { id: "containers", title: "Containers", draw: drawContainers },
  { id: "signals", title: "Signals", draw: drawList, about: "What the rules noticed, newest first.", none: "No signal yet." },
  { id: "actions", title: "Actions", draw: drawList, about: "What self-healing did or would have done, newest first.", none: "No action yet." },
  { id: "losses", title: "Losses", draw: drawList, about: "Ranges of a source that no sink will have, and jumps that may still be filled.", none: "Nothing was lost." },
  { id: "deadletters", title: "Dead letters", draw: drawList, about: "What was refused for good; weir deadletter list and replay.", none: "No dead letter." },
  { id: "search", title: "Search", draw: drawSearch },
];

const $ = id => document.getElementById(id);

// el makes an element: attributes, then children, of which strings become text.
function el(name, attrs, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attrs || {})) if (v !== undefined && v !== "") e.setAttribute(k, v);
  e.append(...children.filter(c => c !== null && c !== undefined));
  return e;
}

const number = n => n.toLocaleString("en", { maximumFractionDigits: 0 });
const rate = n => n.toLocaleString("en", { maximumFractionDigits: n < 100 ? 1 : 0 }) + "/s";
function bytes(n) {
  for (const u of ["B", "KiB", "MiB"]) {
    if (n < 1024) return (u === "B" ? n.toFixed(0) : n.toFixed(1)) + " " + u;
    n /= 1024;
  }
  return n.toFixed(1) + " GiB";
}
function span(s) {
  if (s < 60) return Math.max(0, Math.round(s)) + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s % 86400 / 3600) + " h";
}
const ago = ms => ms ? span((Date.now() - ms) / 1000) + " ago" : "-";
function clock(t) {
  const d = new Date(t), two = n => String(n).padStart(2, "0");
  if (isNaN(d)) return el("span", {}, "-");
  return el("time", { datetime: d.toISOString(), title: d.toISOString() }, `${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`);
}
const level = l => el("span", { class: /ERROR|FATAL/i.test(l) ? "bad" : /WARN/i.test(l) ? "warn" : "" }, l || "-");

// hour draws lines by the minute as bars, with the errors among them in red.
function hour(lines, errors) {
  const ns = "http://www.w3.org/2000/svg", most = Math.max(1, ...lines), sum = a => a.reduce((x, y) => x + y, 0);
  const svg = document.createElementNS(ns, "svg");
  const set = (e, attrs) => { for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v); return e; };
  set(svg, { class: "hour", viewBox: "0 0 240 28", preserveAspectRatio: "none", role: "img",
    "aria-label": `the last hour: ${number(sum(lines))} lines, ${number(sum(errors))} of them errors, at most ${number(Math.max(...lines))} in a minute` });
  const bar = (i, n, from, c) => svg.append(set(document.createElementNS(ns, "rect"), { x: i * 4, width: 3, y: 28 - (from + n) / most * 28, height: n / most * 28, class: c }));
  lines.forEach((n, i) => {
    const bad = Math.min(n, errors[i]);
    if (bad) bar(i, bad, 0, "err");
    if (n > bad) bar(i, n - bad, bad, "ok");
    else if (!n) svg.append(set(document.createElementNS(ns, "rect"), { x: i * 4, width: 3, y: 27.4, height: 0.6 }));
  });
  return svg;
}

const pairs = list => el("dl", {}, ...list.filter(Boolean).flatMap(([k, v, c]) => [el("dt", {}, k), el("dd", { class: c }, v)]));
const card = (title, list, about) => el("section", { class: "card" }, el("h2", {}, title), about ? el("div", { class: "note" }, about) : null, pairs(list));

function drawPath(p) {
  const source = p.agent
    ? card("agent", [["records", rate(p.agent.perSecond)], ["bytes", bytes(p.agent.bytesPerSecond) + "/s"], ["logs followed", number(p.agent.logs)], ["not read yet", bytes(p.agent.unread)], ["waiting in memory", bytes(p.agent.held)], ["records in all", number(p.agent.records)]])
    : card("agents", [["nodes seen", number(p.nodes)], ["lines", rate(p.lines)]]);
  const topics = (p.topics || []).map(t => card(t.name, [["batches", rate(t.perSecond)], ["kept", number(t.retained)]]));
  const groups = (p.groups || []).map(g => {
    if (!g.began) return card(g.name, [["", "has read nothing yet"]]);
    return card(g.name, [g.recordsPerSecond === null ? null : ["records", rate(g.recordsPerSecond)], ["batches", rate(g.perSecond)], ["behind", number(g.behind) + " batches", g.stuck ? "bad" : ""], g.stuck ? ["does not move", span(g.still), "bad"] : null]);
  });
  const column = cards => el("div", {}, ...(cards.length ? cards : [el("p", { class: "note" }, "Kafka did not tell yet.")]));
  return [
    el("div", { class: "path" }, column([source]), el("span", { class: "arrow" }), column(topics), el("span", { class: "arrow" }), column(groups)),
    el("h2", {}, "What this process had to put up with"),
    el("div", { class: "figures" }, ...(p.troubles || []).map((t, i) => el("div", { class: "card" }, el("b", { class: t.count && i < 3 ? "bad" : "" }, number(t.count)), t.name, el("br"), el("span", {}, t.means)))),
  ];
}

function table(heads, rows) {
  return el("table", {}, el("thead", {}, el("tr", {}, ...heads.map(h => el("th", { scope: "col" }, h)))), el("tbody", {}, ...rows));
}

const quote = s => '"' + s.replace(/[\\"]/g, "\\$&") + '"';
const seek = q => "#search?q=" + encodeURIComponent(q);

function drawNodes(nodes) {
  if (!nodes.length) return [el("p", { class: "note" }, "No node wrote anything since this page's process began.")];
  return [el("p", { class: "note" }, "Seen since this process began. Delay is from a line's time to here."),
    table(["Node", "Site", "Containers", "Lines", "Delay", "Last", "Lines in the last hour"], nodes.map(n => el("tr", {},
      el("td", {}, el("a", { href: seek("host.name: " + quote(n.name)), "data-key": n.name }, n.name)),
      el("td", { "data-label": n.site ? "site" : undefined }, n.site), el("td", { class: "n", "data-label": "containers" }, number(n.containers)), el("td", { class: "n", "data-label": "lines" }, rate(n.perSecond)),
      el("td", { class: "n", "data-label": "delay" }, n.delay < 1000 ? number(n.delay) + " ms" : span(n.delay / 1000)), el("td", { class: "n", "data-label": "last" }, ago(n.last)),
      el("td", { class: "chart" }, hour(n.lines, n.errors)))))];
}

function drawContainers(c) {
  const filter = el("input", { type: "search", id: "filter", placeholder: "Filter: container, app, node, image", "aria-label": "filter", maxlength: "200", autocomplete: "off", spellcheck: "false" });
  filter.value = state.filter;
  filter.addEventListener("input", () => { state.filter = filter.value; refresh(); });
  const rows = c.shown.map(c => el("tr", {},
    el("td", {}, el("a", { href: seek("container.id: " + quote(c.id)), "data-key": c.id }, c.name || c.id.slice(0, 12)), el("br"), el("small", { class: "note" }, c.image)),
    el("td", { "data-label": "app" }, c.app), el("td", { "data-label": "node" }, c.node), el("td", { "data-label": c.state ? "state" : undefined, class: /exited [1-9]|memory|unhealthy/.test(c.state) ? "bad" : "" }, c.state),
    el("td", { class: "n", "data-label": "lines" }, rate(c.perSecond)), el("td", { class: "n", "data-label": "last" }, ago(c.last)),
    el("td", { class: "chart" }, hour(c.lines, c.errors))));
  return [el("p", {}, filter), el("p", { class: "note" }, `${number(c.of)} containers` + (c.of > c.shown.length ? `, the busiest ${c.shown.length} are shown` : "") + ". Bars are lines a minute since this process began, errors in red."),
    table(["Container", "App", "Node", "State", "Lines", "Last", "Lines in the last hour"], rows)];
}

function drawList(entries, view) {
  if (!entries.length) return [el("p", { class: "note" }, view.about), el("p", {}, view.none)];
  const attr = (e, name) => ((e.attrs || []).find(([k]) => k === name) || ["", ""])[1];
  return [el("p", { class: "note" }, view.about), el("div", {}, ...entries.map(e => {
    const what = [e.what || e.node || e.event, attr(e, "weir.signal.state"), attr(e, "weir.loss.reason")].filter(s => s && s !== "point").join(", ");
    const d = el("details", {},
      el("summary", { "data-key": e.id }, clock(e.time), level(e.level), el("span", {}, what), el("span", { class: "body" }, e.body || e.event)),
      el("dl", { class: "attrs" }, el("dt", {}, "event"), el("dd", {}, e.event), el("dt", {}, "id"), el("dd", {}, e.id), ...(e.attrs || []).flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)])));
    d.open = state.open.has(e.id);
    d.addEventListener("toggle", () => d.open ? state.open.add(e.id) : state.open.delete(e.id));
    return d;
  }))];
}

function drawSearch(found) {
  if (!found) return [el("p", { class: "note" }, "Type a query in KQL above, as in Kibana: log.level: error and container.name: web*")];
  return [...(found.notes || []).map(n => el("p", { class: "warn" }, n)),
    el("p", { class: "note" }, found.hits.length ? `${found.hits.length} records, newest first` + (found.hits.length === 100 ? "; there may be more" : "") : "Nothing was found."),
    el("div", {}, ...found.hits.map(h => el("div", { class: "hit", tabindex: "0", "data-key": h.id }, clock(h.time), level(h.level), el("span", {}, h.what), el("span", { class: "body" }, h.body))))];
}

// state is what the page itself knows: the filter, the entries that are open, and what it drew last.
const state = { filter: "", open: new Set(), drawn: "", view: null, asked: 0 };

function where() {
  const [id, query] = location.hash.slice(1).split("?");
  return { view: views.find(v => v.id === id) || views[0], params: new URLSearchParams(query || "") };
}

async function ask(path) {
  const token = sessionStorage.getItem("token");
  const answer = await fetch("/api/v1/" + path, { headers: token ? { Authorization: "Bearer " + token } : {}, cache: "no-store" });
  if (answer.status === 401) {
    if (!$("ask").open) $("ask").showModal();
    throw new Error("This weir asks for its token.");
  }
  const text = await answer.text();
  if (!answer.ok) {
    let why = text;
    try { why = JSON.parse(text).error; } catch { /* an answer of something in between */ }
    throw new Error(why);
  }
  return text;
}

// put shows what was drawn and keeps the focus where it was.
function put(nodes) {
  const focused = document.activeElement, key = focused && focused.dataset.key, id = focused && focused.id, at = focused && focused.selectionStart;
  $("view").replaceChildren(...nodes);
  if (id === "filter" && $("filter")) { $("filter").focus(); $("filter").setSelectionRange(at, at); }
  else if (key) items().find(e => e.dataset.key === key)?.focus({ preventScroll: true });
}

const items = () => [...$("view").querySelectorAll("[data-key]")];

async function refresh() {
  const { view, params } = where(), turn = ++state.asked;
  let path = view.id;
  if (view.id === "containers") path += "?filter=" + encodeURIComponent(state.filter);
  if (view.id === "search") path = params.get("q") === null ? "" : "search?q=" + encodeURIComponent(params.get("q")) + "&since=" + encodeURIComponent(params.get("since") || "15m");
  if (view !== state.view) {
    state.view = view;
    state.drawn = "";
    document.title = "weir: " + view.title;
    for (const a of $("nav").children) a.getAttribute("href") === "#" + view.id ? a.setAttribute("aria-current", "page") : a.removeAttribute("aria-current");
    put([el("p", { class: "note" }, "…")]);
  }
  try {
    const text = path ? await ask(path) : "null";
    if (turn !== state.asked) return; // another view was asked for meanwhile
    const selecting = String(getSelection()) && $("view").contains(getSelection().anchorNode);
    if (text !== state.drawn && !selecting) {
      put(view.draw(JSON.parse(text), view));
      state.drawn = text;
    }
    $("view").dataset.shows = view.id;
    $("fault").hidden = true;
    foot(JSON.parse(view.id === "path" ? text : await ask("path")));
  } catch (e) {
    if (turn !== state.asked) return;
    if (view.id === "search") put([]);
    $("fault").textContent = e instanceof TypeError ? "weir does not answer; trying again." : e.message;
    $("fault").hidden = false;
  }
}

function foot(p) {
  $("state").textContent = `weir ${p.version}, up ${span(p.uptime)}` + (p.skipped ? `; ${number(p.skipped)} batches were passed over to keep up, so counts are too low` : "");
  if (p.fault) { $("fault").textContent = p.fault; $("fault").hidden = false; }
}

function go() {
  const { view, params } = where();
  if (view.id === "search") { $("q").value = params.get("q") || ""; $("since").value = params.get("since") || "15m"; state.view = null; }
  refresh();
}

for (const [i, v] of views.entries()) $("nav").append(el("a", { href: "#" + v.id, title: "key " + (i + 1) }, v.title));
addEventListener("hashchange", go);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
setInterval(() => { if (!document.hidden && where().view.id !== "search" && !$("ask").open) refresh(); }, every);
document.querySelector(".skip").addEventListener("click", e => { e.preventDefault(); $("view").focus(); });
$("help").addEventListener("click", () => $("keys").showModal());
$("find").addEventListener("submit", e => {
  e.preventDefault();
  const to = "#search?" + new URLSearchParams({ q: $("q").value, since: $("since").value });
  if (location.hash === to) go(); else location.hash = to;
  $("view").focus();
});
$("login").addEventListener("submit", e => {
  e.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  $("token").value = "";
  $("ask").close();
  refresh();
});
addEventListener("keydown", e => {
  if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName);
  if (typing) { if (e.key === "Escape") e.target.blur(); return; }
  if (e.key >= "1" && e.key <= String(views.length)) location.hash = "#" + views[e.key - 1].id;
  else if (e.key === "/") $("q").focus();
  else if (e.key === "?") $("keys").showModal();
  else if (e.key === "j" || e.key === "k") {
    const all = items(), at = all.indexOf(document.activeElement);
    all[Math.min(all.length - 1, Math.max(0, at + (e.key === "j" ? 1 : -1)))]?.focus();
  } else return;
  e.preventDefault();
});
go();
