"use strict";
// Controls and what they change. The state is one object; every change draws the page again.

const $ = (id) => document.getElementById(id);
const state = { word: 0, layer: MEAN, head: MEAN, measure: "raw", sinks: true, strength: 0.75, statistic: "image", falling: true, boxes: true };
const BEST = 12;
const decoded = [];
const groups = DATA.vision ? DATA.images.map((_, p) => `turn${p}`) : ["prompt", "answer"];

// The word that an image is painted for: the chosen one, or, of a vision model, the one of that name in the image.
function wordOf(image) {
  const chosen = DATA.words[state.word];
  if (!DATA.vision || chosen.image === image) return state.word;
  return DATA.words.findIndex((w) => w.image === image && w.text === chosen.text);
}

function drawImages() {
  const map = (word) => mapOf(word, state.measure, state.layer, state.head, state.sinks);
  const values = map(state.word), canvases = [...document.querySelectorAll("#images canvas")];
  const heats = canvases.map((c, p) => {
    const word = wordOf(p);
    return word < 0 ? null : density(p, word === state.word ? values : map(word), c.width, c.height);
  });
  const shared = DATA.vision ? 0 : largest(heats);
  canvases.forEach((canvas, p) => {
    if (heats[p]) paint(canvas, p, heats[p], DATA.vision ? largest([heats[p]]) : shared);
    else canvas.getContext("2d").drawImage(decoded[p], 0, 0, canvas.width, canvas.height);
    if (state.boxes) frames(canvas, p);
  });
  let top = -1;
  values.forEach((v, t) => { if (DATA.boxes[t] && (top < 0 || v > values[top])) top = t; });
  $("most").textContent = top < 0 ? "no places known" : `${percent(values[top])} in the strongest patch`;
  return { values, top };
}

const layerName = () => state.measure === "rollout"
  ? `through ${DATA.layers[state.layer === MEAN ? L - 1 : state.layer]}`
  : state.layer === MEAN ? "mean" : String(DATA.layers[state.layer]);
const headName = () => state.measure === "rollout" || state.head === MEAN ? "mean" : String(state.head);
const where = () => [
  state.measure === "rollout" ? `rollout ${layerName()}` : state.layer === MEAN ? "mean of layers" : `layer ${layerName()}`,
  state.measure === "rollout" ? "" : state.head === MEAN ? "mean of heads" : `head ${state.head}`,
].filter(Boolean).join(", ");

function describe({ values, top }) {
  const share = shareOf(state.word, state.measure, state.layer, state.head, state.sinks);
  const chance = chanceOf(state.word, state.layer, state.sinks);
  const kind = { raw: "attention", norm: "norm-based attention", rollout: "rollout" }[state.measure];
  const owner = DATA.vision && DATA.images.length > 1 ? ` of ${DATA.images[DATA.words[state.word].image].name}` : "";
  let text = `“${DATA.words[state.word].text}”${owner}, ${where()}: ${percent(share)} of its ${kind} is on the image (chance ${percent(chance)})`;
  if (chance === 0) text = `“${DATA.words[state.word].text}” precedes the image and cannot see it`;
  else if (top >= 0) {
    const box = DATA.boxes[top].map(Math.round), name = !DATA.vision && DATA.images.length > 1 ? ` of ${DATA.images[DATA.image[top]].name}` : "";
    text += `; strongest patch: ${percent(values[top])}, pixels ${box[0]}, ${box[1]} to ${box[2]}, ${box[3]}${name}`;
  }
  const inside = DATA.things.flatMap(({ name, image, box }, n) => {
    if (DATA.vision && image !== DATA.words[state.word].image) return [];
    const { width, height } = DATA.images[image], where = !DATA.vision && DATA.images.length > 1 ? ` of ${DATA.images[image].name}` : "";
    return [`${percent(shareInBox(values, n))} in “${name}”${where} (${percent(areaOf(box) / width / height)} of the area)`];
  });
  $("readout").textContent = `${text}${inside.length ? `; in boxes: ${inside.join(", ")}` : ""}.`;
}

function drawWords() {
  const shares = DATA.words.map((_, w) => shareOf(w, state.measure, state.layer, state.head, state.sinks));
  const most = Math.max(...shares) || 1;
  document.querySelectorAll(".turn button").forEach((button) => {
    const w = Number(button.dataset.word);
    button.setAttribute("aria-pressed", String(w === state.word));
    button.tabIndex = w === state.word ? 0 : -1;
    button.title = `${percent(shares[w])} on the image`;
    button.querySelector("i").style.width = `calc((100% - .6rem) * ${shares[w] / most})`;
  });
  for (const id of groups) { // each group stays reachable by Tab
    const buttons = [...$(id).querySelectorAll("button")];
    if (buttons.length && buttons.every((b) => b.tabIndex < 0)) buttons[0].tabIndex = 0;
  }
}

function drawHeads() {
  const { f, print, label } = STATISTICS[state.statistic], all = [];
  for (let l = 0; l < L; l++) for (let h = 0; h < H; h++) all.push({ l, h, value: f(state.word, l, h, state.sinks) });
  const most = Math.max(...all.map((a) => a.value)), least = Math.min(...all.map((a) => a.value));
  document.querySelectorAll("#grid button").forEach((button, n) => {
    const { l, h, value } = all[n];
    button.style.background = `rgb(${CELL[Math.round((255 * (value - least)) / (most - least || 1))]})`;
    button.title = `layer ${DATA.layers[l]}, head ${h}: ${print(value)}`;
    button.setAttribute("aria-label", button.title);
  });
  $("grid-note").textContent = `Rows are layers, columns are heads; ${label}, from ${print(least)} (dark) to ${print(most)} (bright).`;
  all.sort((a, b) => (state.falling ? b.value - a.value : a.value - b.value) || a.l - b.l || a.h - b.h);
  const measure = state.measure === "rollout" ? "raw" : state.measure;
  const maps = all.slice(0, BEST).map(({ l, h }) => mapOf(state.word, measure, l, h, state.sinks));
  const counts = DATA.images.map((_, p) => maps.reduce((sum, m) => sum + m.reduce((a, v, t) => a + (DATA.image[t] === p ? v : 0), 0), 0));
  const image = counts.indexOf(Math.max(...counts));
  $("best").replaceChildren(...all.slice(0, BEST).map(({ l, h, value }, n) => {
    const button = document.createElement("button"), canvas = document.createElement("canvas");
    canvas.width = 132; canvas.height = Math.max(1, Math.round((132 * decoded[image].height) / decoded[image].width));
    const heat = density(image, maps[n], canvas.width, canvas.height);
    paint(canvas, image, heat, largest([heat]));
    button.type = "button";
    button.append(canvas, `L${DATA.layers[l]} H${h}`, document.createElement("br"), print(value));
    button.setAttribute("aria-label", `layer ${DATA.layers[l]}, head ${h}: ${label} ${print(value)}`);
    button.dataset.head = l * H + h;
    button.onclick = () => { change({ layer: l, head: h, measure }); $("best").children[n]?.focus(); };
    return button;
  }));
}

// The chosen head among all, and among the first ones.
function markHead() {
  const chosen = state.layer !== MEAN && state.head !== MEAN && state.measure !== "rollout" ? state.layer * H + state.head : -1;
  document.querySelectorAll("#grid [aria-pressed=true]").forEach((b) => b.setAttribute("aria-pressed", "false"));
  document.querySelectorAll('#grid [tabindex="0"]').forEach((b) => { b.tabIndex = -1; });
  const buttons = $("grid").querySelectorAll("button");
  buttons[chosen]?.setAttribute("aria-pressed", "true");
  buttons[Math.max(0, chosen)].tabIndex = 0;
  for (const b of $("best").children) b.setAttribute("aria-pressed", String(Number(b.dataset.head) === chosen));
}

// The box that sorts the heads is one of the chosen image: of a vision model nearly all attention is on the image.
function followBox() {
  const { image, text } = DATA.words[state.word], number = /^box(\d+)$/.exec(state.statistic)?.[1];
  if (number === undefined && state.statistic !== "image" || number !== undefined && DATA.things[number].image === image) return;
  const own = DATA.things.findIndex((t) => t.image === image && t.name === text);
  const first = own < 0 ? DATA.things.findIndex((t) => t.image === image) : own;
  state.statistic = first < 0 ? "top" : `box${first}`;
  $("statistic").value = state.statistic;
}

let headsShown = ""; // what the heads were last drawn for: a slider should not draw a thousand of them again
function change(what) {
  Object.assign(state, what);
  if (DATA.vision) followBox();
  const rollout = state.measure === "rollout";
  $("layer").value = state.layer; $("head").value = state.head;
  $("layer-value").textContent = layerName(); $("head-value").textContent = headName();
  $("layer").setAttribute("aria-valuetext", layerName()); $("head").setAttribute("aria-valuetext", headName());
  $("head").disabled = rollout;
  $("strength-value").textContent = `${Math.round(100 * state.strength)} %`;
  $("sinks").setAttribute("aria-pressed", String(!state.sinks));
  $("sinks").textContent = state.sinks ? "Leave out" : "Left out";
  $("boxes").textContent = state.boxes ? "Hide boxes" : "Show boxes";
  $("order").textContent = state.falling ? "highest first" : "lowest first";
  document.querySelectorAll("#measure button").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.measure === state.measure)));
  drawWords();
  describe(drawImages());
  const { word, statistic, falling, sinks, strength } = state;
  const wanted = JSON.stringify([word, statistic, falling, sinks, strength, rollout ? "raw" : state.measure]);
  if (wanted !== headsShown) drawHeads();
  headsShown = wanted;
  markHead();
}

// The arrow keys move among the buttons of a group; `next(n, key)` gives the index of the neighbour.
function arrows(group, next) {
  group.addEventListener("keydown", (event) => {
    const buttons = [...group.querySelectorAll("button")], n = buttons.indexOf(event.target), to = buttons[next(n, event.key)];
    if (n < 0 || !to) return;
    event.preventDefault();
    to.click(); to.focus();
  });
}
const along = (n, key) => n + ({ ArrowRight: 1, ArrowLeft: -1 }[key] ?? NaN);
const across = (n, key) => {
  if ((key === "ArrowRight" && n % H === H - 1) || (key === "ArrowLeft" && n % H === 0)) return NaN;
  return n + ({ ArrowRight: 1, ArrowLeft: -1, ArrowDown: H, ArrowUp: -H }[key] ?? NaN);
};

// A vision model has no words: one turn for each image, with its class token and its boxes.
function buildVision() {
  document.title = "Attention Atlas: look at a vision model";
  $("title").textContent = "What each part of an image looks at";
  document.querySelectorAll("#words .turn").forEach((turn) => turn.remove());
  DATA.images.forEach(({ name }, p) => {
    const turn = document.createElement("div"), label = document.createElement("h2"), group = document.createElement("div");
    turn.className = "turn wide"; label.id = `turn${p}-label`; label.textContent = name.replace(/\.\w+$/, "");
    group.id = `turn${p}`; group.setAttribute("role", "group"); group.setAttribute("aria-labelledby", label.id);
    turn.append(label, group);
    $("hint").before(turn);
  });
  $("words").setAttribute("aria-label", "Images and what is in them");
  $("hint").textContent = "Choose the class token, which sums up the image for the model, or a box. Bright patches get its attention. Each image shows its own token or box of that name, coloured from 0 to its strongest patch; the other images stay plain.";
  $("how").textContent = "Each image is a pass of its own, and its patches see that image only. A box attends from all patches whose centre lies in it, averaged; “all patches” is the mean over the image. Attention that is not on the image is on the class token or on registers.";
}

function build() {
  const { model, layers, depth, images } = DATA;
  const shown = layers.length < depth ? `${layers.length} of ${depth} layers (${layers.join(", ")})` : `${depth} layers`;
  $("about").textContent = `${model} · ${shown} × ${H} heads · ${T} image positions · ${DATA.vision ? "a model that sees images only" : DATA.generated ? "answer by the model" : "answer given"}`;
  if (DATA.vision) buildVision();
  DATA.words.forEach((word, w) => {
    const button = document.createElement("button"), bar = document.createElement("i");
    button.type = "button"; button.dataset.word = w; button.className = word.space ? "" : "joined";
    button.append(word.text, bar);
    button.onclick = () => change({ word: w });
    $(DATA.vision ? `turn${word.image}` : word.part).append(button);
  });
  images.forEach((image, p) => {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
    const size = LONGEST / Math.max(image.width, image.height);
    canvas.width = Math.round(size * image.width); canvas.height = Math.round(size * image.height);
    canvas.style.maxWidth = `calc(68vh * ${image.width / image.height})`;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${image.name} with the attention of the chosen word; described below`);
    figure.style.flexGrow = image.width / image.height; // side by side at one height
    caption.textContent = `${image.name}, ${image.width} × ${image.height}`;
    figure.append(canvas, caption);
    $("images").append(figure);
    canvas.onpointermove = (event) => point(event, p);
    canvas.onpointerleave = () => { $("pointer").textContent = ""; };
  });
  const context = $("scale").getContext("2d");
  for (let x = 0; x < 256; x++) { context.fillStyle = `rgb(${HEAT[x]})`; context.fillRect(x, 0, 1, 10); }
  for (const id of ["layer", "head"]) {
    $(id).min = MEAN; $(id).max = (id === "layer" ? L : H) - 1;
    $(id).oninput = () => change({ [id]: Number($(id).value) });
  }
  $("strength").oninput = () => change({ strength: $("strength").value / 100 });
  $("sinks").onclick = () => change({ sinks: !state.sinks });
  const others = DATA.sink_tokens.length ? `${DATA.vision ? "" : "others: "}${DATA.sink_tokens.join(", ")}` : "";
  $("sinks-note").textContent = [`${N} in the image`, others].filter(Boolean).join("; ");
  $("sinks").disabled = !N && !others;
  $("boxes").hidden = !DATA.things.length;
  $("boxes").onclick = () => change({ boxes: !state.boxes });
  if (DATA.predicted_by) DATA.notes.unshift(`The boxes are predictions of ${DATA.predicted_by}, not annotations.`);
  $("order").onclick = () => change({ falling: !state.falling });
  for (const [name, { label }] of Object.entries(STATISTICS)) $("statistic").append(new Option(label, name));
  if (DATA.vision) $("statistic").querySelector("[value=image]").remove(); // 100 % but for the class token
  $("statistic").onchange = () => change({ statistic: $("statistic").value });
  document.querySelectorAll("#measure button").forEach((button) => {
    button.disabled = !DATA.maps[button.dataset.measure];
    button.onclick = () => change({ measure: button.dataset.measure });
  });
  $("grid").style.setProperty("--cell", `${Math.max(9, Math.min(34, Math.floor(380 / H) - 1))}px`);
  $("grid").style.setProperty("--line-height", `${Math.max(8, Math.min(14, Math.floor(330 / L) - 1))}px`);
  for (let l = 0; l < L; l++) {
    const row = $("grid").insertRow(), head = document.createElement("th");
    head.scope = "row"; head.textContent = layers[l];
    row.append(head);
    for (let h = 0; h < H; h++) {
      const button = document.createElement("button");
      button.type = "button"; button.tabIndex = -1;
      button.onclick = () => change({ layer: l, head: h, measure: state.measure === "rollout" ? "raw" : state.measure });
      row.insertCell().append(button);
    }
  }
  for (const id of [...groups, "measure"]) arrows($(id), along);
  arrows($("grid"), across);
  $("download").onclick = download;
  for (const note of DATA.notes) $("notes").append(Object.assign(document.createElement("li"), { textContent: note }));
}

function point(event, image) {
  const x = (event.offsetX / event.target.clientWidth) * DATA.images[image].width;
  const y = (event.offsetY / event.target.clientHeight) * DATA.images[image].height;
  const word = wordOf(image);
  if (word < 0) return;
  const values = mapOf(word, state.measure, state.layer, state.head, state.sinks);
  const hit = DATA.boxes.findIndex((b, t) => b && DATA.image[t] === image && b[0] <= x && x < b[2] && b[1] <= y && y < b[3]);
  $("pointer").textContent = hit < 0 ? "not seen by the model" : `here: ${percent(values[hit])}`;
}

// The images side by side with a caption, at the size of the embedded images.
function composed() {
  const parts = [...document.querySelectorAll("#images canvas")], gap = 12;
  const out = document.createElement("canvas"), context = out.getContext("2d");
  out.width = parts.reduce((sum, c) => sum + c.width, gap * (parts.length - 1));
  const line = Math.round(20 + out.width / 80);
  out.height = Math.max(...parts.map((c) => c.height)) + 2 * line;
  context.fillStyle = "#fff"; context.fillRect(0, 0, out.width, out.height);
  let x = 0;
  for (const canvas of parts) { context.drawImage(canvas, x, 0); x += canvas.width + gap; }
  context.fillStyle = "#1d2229"; context.font = `${Math.round(0.62 * line)}px system-ui, "DejaVu Sans", sans-serif`;
  context.fillText($("readout").textContent.split(";")[0], 8, out.height - 1.35 * line, out.width - 16);
  context.fillStyle = "#5b6470";
  context.fillText(DATA.model, 8, out.height - 0.45 * line, out.width - 16);
  return out;
}

function download() {
  composed().toBlob((blob) => {
    const link = document.createElement("a"), name = `${DATA.words[state.word].text}_${where()}`;
    link.href = URL.createObjectURL(blob);
    link.download = `${name.replace(/[^\p{L}\p{N}]+/gu, "_").replace(/^_|_$/g, "")}.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

async function start() {
  if (typeof DecompressionStream === "undefined") {
    $("about").textContent = "This page needs a browser from 2023 or later.";
    return;
  }
  await unpackAll();
  for (const { source } of DATA.images) {
    const image = Object.assign(new Image(), { src: source });
    await image.decode();
    decoded.push(image);
  }
  build();
  $("main").hidden = false;
  // Begin with the first word of a vision model, else with the word of the answer that looks most at the image.
  const shares = DATA.words.map((word, w) => DATA.vision ? -w : word.part === "answer" ? shareOf(w, "raw", MEAN, MEAN, true) : -1);
  // A vision model's few sink patches would hide all others, and its last layer is the one that tasks use.
  change({ word: shares.indexOf(Math.max(...shares)), ...(DATA.vision ? { sinks: false, layer: L - 1 } : {}) });
  document.body.dataset.ready = "true";
}
start();
