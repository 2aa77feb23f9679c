"""The page of head views: HTML, styles and script in one text."""

# ruff: noqa: E501

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Head views: the same captions, seen and unseen</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 1.2rem auto; max-width: 1080px; padding: 0 1rem }
h1 { font-size: 1.35rem; margin: 0 0 .3rem } p { margin: .2rem 0 .8rem; color: #555 }
label { margin-right: 1.2rem } select { font: inherit; max-width: 34rem }
main { display: flex; flex-wrap: wrap; gap: 1.6rem; align-items: flex-start; margin-top: 1rem }
figure { margin: 0 } figcaption { font-size: .85rem; color: #555; margin-top: .25rem }
img { width: 220px; border-radius: 4px; display: block }
svg { display: block } svg text { font-size: 14px } svg text.word { cursor: default }
svg rect.head { cursor: pointer } svg rect.head:focus { outline: 2px solid #D55E00 }
</style></head><body>
<h1>Head views: the same captions, seen and unseen</h1>
<p>Left: the word that is being generated. Right: what the head attends to. Darker line: more attention. Point at a
word to see only its lines. In the grid, darker cells are heads with higher entropy; choose one.</p>
<label>Caption <select id="caption"></select></label>
<label>Model <select id="model"></select></label>
<label><input type="checkbox" id="start"> show START</label>
<main>
<figure><img id="image" alt="the image that was captioned"><figcaption id="caption-text"></figcaption></figure>
<figure><svg id="grid" role="group" aria-label="heads"></svg><figcaption>layer (down) and head (across), from 1</figcaption></figure>
<figure><svg id="view"></svg><figcaption id="which"></figcaption></figure>
</main>
<script id="data" type="application/json">{{ data | safe }}</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const pick = id => document.getElementById(id);
const state = { caption: 0, model: Object.keys(data.models)[0], layer: 0, head: 0, over: null };
const NS = "http://www.w3.org/2000/svg";
function make(parent, tag, attributes, text) {
  const element = document.createElementNS(NS, tag);
  for (const [k, v] of Object.entries(attributes)) element.setAttribute(k, v);
  if (text !== undefined) element.textContent = text;
  parent.appendChild(element);
  return element;
}
function option(select, value, text) {
  const o = document.createElement("option"); o.value = value; o.textContent = text; select.appendChild(o);
}
data.captions.forEach((c, i) => option(pick("caption"), i, `${c.words.join(" ")} (chosen ${c.chosen})`));
for (const [k, v] of Object.entries(data.models)) option(pick("model"), k, v);
function grid() {
  const svg = pick("grid"), entropy = data.captions[state.caption].models[state.model].entropy, size = 22;
  svg.replaceChildren();
  svg.setAttribute("width", entropy[0].length * size + 2); svg.setAttribute("height", entropy.length * size + 2);
  entropy.forEach((row, l) => row.forEach((value, h) => {
    const light = Math.round(96 - 62 * Math.min(1, value)), chosen = l === state.layer && h === state.head;
    const cell = make(svg, "rect", { class: "head", tabindex: 0, x: h * size + 1, y: l * size + 1,
      width: size - 2, height: size - 2, fill: `hsl(205 60% ${light}%)`,
      stroke: chosen ? "#D55E00" : "none", "stroke-width": 2.5 });
    make(cell, "title", {}, `layer ${l + 1}, head ${h + 1}: entropy ${value}`);
    const choose = () => { state.layer = l; state.head = h; draw(); };
    cell.addEventListener("click", choose);
    cell.addEventListener("keydown", e => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); choose(); } });
  }));
}
function view() {
  const svg = pick("view"), c = data.captions[state.caption], m = c.models[state.model];
  const attention = m.attention[state.layer][state.head], step = 24, left = 130, right = 330;
  const first = pick("start").checked ? 0 : 1, sources = ["START", ...c.words].slice(0, attention[0].length);
  svg.replaceChildren();
  svg.setAttribute("width", 460); svg.setAttribute("height", (Math.max(attention.length, sources.length) + 2) * step);
  const y = i => (i + 2) * step;  // START is one line above the first word
  attention.forEach((row, t) => row.forEach((weight, s) => {
    if (s < first || weight < 0.005) return;
    const dim = state.over && !(state.over[0] === "t" ? state.over[1] === t : state.over[1] === s);
    make(svg, "line", { x1: left, y1: y(t) - 5, x2: right, y2: y(s - 1) - 5, stroke: "#0072B2",
      "stroke-width": 0.6 + 2.6 * weight, opacity: dim ? 0.03 : Math.max(0.05, weight) });
  }));
  const over = (element, where) => {
    element.addEventListener("mouseenter", () => { state.over = where; view(); });
  };
  c.words.slice(0, attention.length).forEach((w, t) =>
    over(make(svg, "text", { class: "word", x: left - 6, y: y(t), "text-anchor": "end" }, w), ["t", t]));
  sources.forEach((w, s) => { if (s >= first)
    over(make(svg, "text", { class: "word", x: right + 6, y: y(s - 1) }, w), ["s", s]); });
  pick("which").textContent = `${data.models[state.model]}: layer ${state.layer + 1}, head ${state.head + 1}, ` +
    `normalised entropy ${m.entropy[state.layer][state.head]}`;
}
function draw() {
  const c = data.captions[state.caption], shape = c.models[state.model].entropy;
  state.layer = Math.min(state.layer, shape.length - 1); state.head = Math.min(state.head, shape[0].length - 1);
  pick("image").src = c.image; pick("caption-text").textContent = c.words.join(" ");
  grid(); view();
}
pick("caption").addEventListener("change", e => { state.caption = Number(e.target.value); draw(); });
pick("model").addEventListener("change", e => { state.model = e.target.value; draw(); });
pick("start").addEventListener("change", draw);
pick("view").addEventListener("mouseleave", () => { state.over = null; view(); });
draw();
</script></body></html>
"""
