// The page of a report: markup, style and the script that draws. @TITLE@ and @RUNS@ are filled in by report.cc.
#pragma once

#include <string_view>

namespace capstan::sim {

inline constexpr std::string_view kReportPage = R"page(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@: a simulated run</title>
<link rel="icon" href="data:,">
<style>
:root { --ink:#1c2430; --soft:#5b6777; --line:#d8dee6; --paper:#fff; --tile:#f5f7fa; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6eaf0; --soft:#9aa7b8; --line:#333d4a; --paper:#12161c; --tile:#1b212a; } }
body { margin:0 auto; max-width:1080px; padding:32px 24px 64px; background:var(--paper); color:var(--ink);
  font:15px/1.5 system-ui, sans-serif; }
h1 { font-size:28px; margin:0 } h2 { font-size:19px; margin:40px 0 4px } p { margin:4px 0; color:var(--soft) }
.tiles { display:grid; grid-template-columns:repeat(auto-fill,minmax(165px,1fr)); gap:12px; margin:20px 0 }
.tile { background:var(--tile); border-radius:8px; padding:12px 14px } .tile b { display:block; font-size:22px }
.tile span { color:var(--soft); font-size:13px }
table { border-collapse:collapse; width:100%; margin:10px 0; font-variant-numeric:tabular-nums; font-size:14px }
th,td { border-bottom:1px solid var(--line); padding:5px 10px; text-align:right }
th:first-child,td:first-child { text-align:left }
th { color:var(--soft); font-weight:600 } .wide { overflow-x:auto }
svg { width:100%; height:auto; display:block; touch-action:none } svg text { fill:var(--soft); font-size:12px }
.legend { display:flex; flex-wrap:wrap; gap:4px 16px; font-size:13px } .legend i { display:inline-block; width:11px; height:11px;
  border-radius:3px; margin-right:6px } .reads { min-height:20px; font-size:13px; color:var(--soft) }
select { font:inherit; padding:3px 8px } @media print { body { padding:0 } h2 { break-after:avoid } svg { break-inside:avoid } }
</style></head><body>
<h1 id="title"></h1><p id="lead"></p><div class="tiles" id="tiles"></div>
<h2>Runs side by side</h2><div class="wide"><table id="compare"></table></div>
<p id="chooser"></p><div id="charts"></div><div id="tables"></div>
<h2>What a reader should know</h2><ul id="notes"></ul>
<script id="runs" type="application/json">@RUNS@</script>
<script>
"use strict";
const runs = JSON.parse(document.getElementById("runs").textContent);
const colours = ["#2f6fde","#e0793a","#2a9d78","#b4529f","#c9a227","#6a5acd","#d1495b","#4f9db8","#7d8b32","#8c6d5a"];
const seeds = new Set(runs.map(r => r.seed)).size > 1;
const named = r => (r.variant || r.scenario) + (seeds ? " #" + r.seed : "");
const make = (tag, text, parent) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text;
  if (parent) parent.appendChild(e); return e; };
const number = v => Math.abs(v) >= 1e9 ? (v / 1e9).toPrecision(3) + " G" : Math.abs(v) >= 1e6 ? (v / 1e6).toPrecision(3) + " M"
  : Math.round(v).toLocaleString("en");
const span = ms => ms < 1e4 ? (ms / 1e3).toFixed(1) + " s" : ms < 6e5 ? Math.round(ms / 1e3) + " s" : ms < 3.6e7 ?
  Math.round(ms / 6e4) + " min" : ms < 8.64e8 ? (ms / 3.6e6).toFixed(1) + " h" : (ms / 8.64e7).toFixed(1) + " days";
const shown = (name, v) => v === undefined ? "–" : name.endsWith("_milli") ? (v / 10).toFixed(1) + " %" : number(v);
const words = name => name.replace(/_milli$/, "").replace(/_/g, " ");
const first = runs[0];
document.getElementById("title").textContent = first.scenario;
document.getElementById("lead").textContent = span(first.duration_ms) + " simulated with the production controller, " +
  runs.length + (runs.length === 1 ? " run" : " runs") + ", seed " + first.seed + ", fingerprint " + first.hash;
const tiles = document.getElementById("tiles");
for (const [key, label] of [["gpus","GPUs"],["occupancy_milli","of GPU time held"],["goodput_milli","of it useful"],
  ["gpu_hours_useful","useful GPU-hours"],["workloads_done","workloads done"],["tasks_done","tasks done"],["failures","failures"],
  ["interruptions","interruptions"],["slo_attained_milli","of requests within their objective"]]) {
  if (first.totals[key] === undefined) continue;
  const tile = make("div", undefined, tiles); tile.className = "tile";
  make("b", shown(key, first.totals[key]), tile); make("span", label, tile);
}
const compare = document.getElementById("compare");
let row = make("tr", undefined, compare); make("th", "", row); runs.forEach(r => make("th", named(r), row));
const keys = [...new Set(runs.flatMap(r => Object.keys(r.totals)))];
for (const key of keys) {
  row = make("tr", undefined, compare); make("td", words(key), row);
  runs.forEach(r => make("td", shown(key, r.totals[key]), row));
}
for (const name of [...new Set(runs.flatMap(r => r.distributions.filter(d => d.count > 0).map(d => d.name)))]) {
  row = make("tr", undefined, compare); make("td", name + ": mean, p50, p95, p99", row);
  for (const r of runs) {
    const d = r.distributions.find(x => x.name === name && x.count > 0);
    make("td", d ? [d.mean_ms, d.p50_ms, d.p95_ms, d.p99_ms].map(span).join(" · ") : "–", row);
  }
}
function axis(low, high, count) {
  const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough), out = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step / 1e6; v += step) out.push(v);
  return out;
}
function draw(chart, into) {
  make("h2", chart.title, into); make("p", chart.note, into);
  const W = 1040, H = 300, L = 64, R = 12, T = 10, B = 34, NS = "http://www.w3.org/2000/svg", n = chart.times_ms.length;
  if (n < 2 || chart.series.length === 0) { make("p", "Nothing to draw.", into); return; }
  const svg = document.createElementNS(NS, "svg"); svg.setAttribute("viewBox", `0 0 ${W} ${H}`); svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", chart.title);
  const put = (tag, set) => { const e = document.createElementNS(NS, tag); for (const k in set) e.setAttribute(k, set[k]);
    svg.appendChild(e); return e; };
  const sums = new Array(n).fill(0), layers = chart.series.map(s => s.points.map((v, i) =>
    chart.stacked ? [sums[i], sums[i] += v] : [0, v]));
  const top = Math.max(1, ...layers.flat().map(p => p[1])) * 1.05, end = chart.times_ms[n - 1] || 1;
  const x = ms => L + ms / end * (W - L - R), y = v => H - B - v / top * (H - T - B);
  for (const v of axis(0, top, 5)) {
    put("line", { x1: L, x2: W - R, y1: y(v), y2: y(v), stroke: "var(--line)" });
    put("text", { x: L - 8, y: y(v) + 4, "text-anchor": "end" }).textContent = number(v);
  }
  const unit = end > 3 * 8.64e7 ? [8.64e7, "days"] : end > 3 * 3.6e6 ? [3.6e6, "hours"] : [6e4, "minutes"];
  for (const v of axis(0, end / unit[0], 8)) put("text", { x: x(v * unit[0]), y: H - 14, "text-anchor": "middle" }).textContent =
    Math.round(v * 100) / 100;
  put("text", { x: W - R, y: H - 1, "text-anchor": "end" }).textContent = unit[1];
  layers.forEach((points, at) => {
    const colour = colours[at % colours.length], up = points.map((p, i) => x(chart.times_ms[i]) + "," + y(p[1]));
    if (chart.stacked) {
      const down = points.map((p, i) => x(chart.times_ms[i]) + "," + y(p[0])).reverse();
      put("polygon", { points: up.concat(down).join(" "), fill: colour, "fill-opacity": .8 });
    } else put("polyline", { points: up.join(" "), fill: "none", stroke: colour, "stroke-width": 1.8 });
  });
  const hair = put("line", { y1: T, y2: H - B, stroke: "var(--ink)", "stroke-opacity": 0 });
  into.appendChild(svg);
  const reads = make("div", "", into); reads.className = "reads";
  const legend = make("div", undefined, into); legend.className = "legend";
  chart.series.forEach((s, at) => { const item = make("span", undefined, legend), dot = make("i", undefined, item);
    dot.style.background = colours[at % colours.length]; item.appendChild(document.createTextNode(s.name)); });
  svg.addEventListener("pointermove", e => {
    const box = svg.getBoundingClientRect(), ms = ((e.clientX - box.left) / box.width * W - L) / (W - L - R) * end;
    let i = chart.times_ms.findIndex(t => t >= ms); if (i < 0) i = n - 1;
    hair.setAttribute("x1", x(chart.times_ms[i])); hair.setAttribute("x2", x(chart.times_ms[i]));
    hair.setAttribute("stroke-opacity", .4);
    reads.textContent = "after " + span(chart.times_ms[i]) + ": " +
      chart.series.map(s => s.name + " " + number(s.points[i])).join(", ");
  });
}
function show(run) {
  const charts = document.getElementById("charts"), tables = document.getElementById("tables");
  charts.replaceChildren(); tables.replaceChildren();
  run.charts.forEach(chart => draw(chart, charts));
  for (const t of run.tables) {
    make("h2", t.title, tables); const box = make("div", undefined, tables); box.className = "wide";
    const table = make("table", undefined, box), head = make("tr", undefined, table); make("th", "", head);
    t.columns.forEach(c => make("th", c, head));
    for (const r of t.rows) {
      const tr = make("tr", undefined, table); make("td", r.name, tr); r.cells.forEach(c => make("td", c, tr));
    }
  }
}
if (runs.length > 1) {
  const chooser = document.getElementById("chooser"), select = make("select", undefined, chooser);
  chooser.prepend("Curves and tables of "); select.setAttribute("aria-label", "run");
  runs.forEach((r, i) => { const o = make("option", named(r), select); o.value = i; });
  select.addEventListener("change", () => show(runs[select.value]));
}
show(first);
const notes = document.getElementById("notes");
for (const note of new Set(runs.flatMap(r => r.notes))) make("li", note, notes);
make("li", "Hosts, failures and what work takes are simulated; placement, queue and recovery are the production " +
  "controller's own decisions. Equal inputs give equal fingerprints.", notes);
</script></body></html>
)page";

}  // namespace capstan::sim
