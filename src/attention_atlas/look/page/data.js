"use strict";
// The numbers of the page: decoding, and the map of a word at a layer and head. What draws is in paint.js and page.js.

const DATA = JSON.parse(document.getElementById("data").textContent);
const W = DATA.words.length, L = DATA.layers.length, H = DATA.heads, T = DATA.tokens, N = DATA.sinks.length;
const MEAN = -1; // all layers, or all heads
const SQUARE = Float32Array.from({ length: 256 }, (_, b) => (b / 255) ** 2);

async function unpacked(text, Kind) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Kind(await new Response(stream).arrayBuffer());
}

async function unpackAll() {
  for (const map of Object.values(DATA.maps))
    for (const name of Object.keys(map))
      map[name] = await unpacked(map[name], name === "bytes" ? Uint8Array : Float32Array);
  DATA.entropy = await unpacked(DATA.entropy, Float32Array);
  for (const name of Object.keys(DATA.chance)) DATA.chance[name] = await unpacked(DATA.chance[name], Float32Array);
}

// Layers, or heads, that a slider's value stands for.
function range(value, length) {
  return value === MEAN ? Array.from({ length }, (_, i) => i) : [value];
}

// [l, h] pairs of a choice. Rollout has one map per layer, which already combines the layers before it.
function places(measure, layer, head) {
  if (measure === "rollout") return [[layer === MEAN ? L - 1 : layer, 0]];
  return range(layer, L).flatMap((l) => range(head, H).map((h) => [l, h]));
}

function at(measure, word, l, h) {
  return measure === "rollout" ? word * L + l : (word * L + l) * H + h;
}

// (T) shares of attention of a word on the image tokens, averaged over the chosen layers and heads. Without sinks the
// rest is scaled to what the sinks leave, as in summaries.without_sinks.
function mapOf(word, measure, layer, head, sinks) {
  const map = DATA.maps[measure], out = new Float32Array(T), chosen = places(measure, layer, head);
  for (const [l, h] of chosen) {
    const n = at(measure, word, l, h);
    const left = sinks || !map.sunk ? 1 : Math.max(1 - map.sunk[n], 1e-6);
    const factor = map.scale[n] / left / chosen.length;
    for (let t = 0, i = n * T; t < T; t++, i++) out[t] += factor * SQUARE[map.bytes[i]];
    if (sinks) for (let s = 0; s < N; s++) out[DATA.sinks[s]] += map.sinks[n * N + s] / chosen.length;
  }
  return out;
}

// Share of a word's attention on the whole image at one layer and head.
function shareAt(word, measure, l, h, sinks) {
  const map = DATA.maps[measure], n = at(measure, word, l, h);
  if (measure === "rollout") return mapOf(word, measure, l, 0, sinks).reduce((a, b) => a + b, 0);
  if (sinks) return map.share[n];
  let sunk = 0;
  for (let s = 0; s < N; s++) sunk += map.sinks[n * N + s];
  return (map.share[n] - sunk) / Math.max(1 - map.sunk[n], 1e-6);
}

function shareOf(word, measure, layer, head, sinks) {
  const chosen = places(measure, layer, head);
  return chosen.reduce((sum, [l, h]) => sum + shareAt(word, measure, l, h, sinks), 0) / chosen.length;
}

function chanceOf(word, layer, sinks) {
  const values = DATA.chance[sinks ? "all" : "rest"], chosen = range(layer, L);
  return chosen.reduce((sum, l) => sum + values[word * L + l], 0) / chosen.length;
}

// Statistics of one head that the grid shows: f(word, l, h, sinks), and how to print it.
const percent = (x) => `${(100 * x).toFixed(x < 0.0995 ? 2 : 1)} %`;
const STATISTICS = {
  image: { label: "share on the image", print: percent, f: (w, l, h, s) => shareAt(w, "raw", l, h, s) },
  norm: { label: "norm-based share on the image", print: percent, f: (w, l, h, s) => shareAt(w, "norm", l, h, s) },
  top: { label: "share of the strongest patch", print: percent, f: (w, l, h, s) => {
    const n = at("raw", w, l, h), map = DATA.maps.raw;
    return s ? map.top[n] : map.scale[n] / Math.max(1 - map.sunk[n], 1e-6);
  } },
  entropy: { label: "entropy (nats, sinks included)", print: (x) => x.toFixed(2), f: (w, l, h) => DATA.entropy[at("raw", w, l, h)] },
  sinks: { label: "share on sinks", print: percent, f: (w, l, h) => DATA.maps.raw.sunk[at("raw", w, l, h)] },
};
if (!DATA.maps.norm) delete STATISTICS.norm;

// The part of each image token's area that lies in the box of a thing.
const INSIDE = DATA.things.map(({ image, box }) => Float32Array.from(DATA.boxes, (b, t) => {
  if (!b || DATA.image[t] !== image) return 0;
  const wide = Math.min(b[2], box[2]) - Math.max(b[0], box[0]), high = Math.min(b[3], box[3]) - Math.max(b[1], box[1]);
  return Math.max(0, wide) * Math.max(0, high) / Math.max((b[2] - b[0]) * (b[3] - b[1]), 1e-6);
}));
const shareInBox = (values, thing) => values.reduce((sum, v, t) => sum + v * INSIDE[thing][t], 0);
DATA.things.forEach(({ name, image }, n) => {
  const label = `share in the box “${name}”${DATA.images.length > 1 ? ` of ${DATA.images[image].name}` : ""}`;
  STATISTICS[`box${n}`] = { label, print: percent, f: (w, l, h, s) => shareInBox(mapOf(w, "raw", l, h, s), n) };
});
