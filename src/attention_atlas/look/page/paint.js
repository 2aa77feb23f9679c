"use strict";
// Colours, and painting attention over an image. `state` and `decoded` are those of page.js.

const LONGEST = 1200; // pixels of a canvas: small images are enlarged, so that patches have sharp edges
// matplotlib's inferno and viridis (CC0), 25 stops.
const INFERNO = "000004050417110a30210c4a320a5e450a6957106e67166e781c6d8a226a9a2865ab2f5ebc3754ca404ad84c3ee45a31ed6925f57b17f98e09fca108fbb61af9cb35f4df53f2f27dfcffa4";
const VIRIDIS = "440154471063481f70472d7b4439834046883b528b365d8d31688e2c728e287c8e24868e21918c1f9a8a20a48628ae8035b77948c16e5ec96275d05490d743addc30c8e020e5e419fde725";
const VEIL = 0.35; // darkens the image below the overlay, so that bright colours stand out

function colours(hex) {
  const stops = hex.match(/../g).map((x) => parseInt(x, 16)), last = stops.length / 3 - 1;
  return Array.from({ length: 256 }, (_, i) => {
    const x = (i / 255) * last, n = Math.min(Math.floor(x), last - 1), f = x - n;
    return [0, 1, 2].map((c) => Math.round(stops[3 * n + c] * (1 - f) + stops[3 * n + 3 + c] * f));
  });
}
const HEAT = colours(INFERNO), CELL = colours(VIRIDIS);

// Overlay of a value relative to the largest, in 255ths: [r, g, b, alpha]; weak values leave the image visible.
function overlay(step) {
  return [...HEAT[step], Math.round(255 * state.strength * Math.pow(step / 255, 1.2))];
}

// Area of a box in the original image, and for each image that of its usual token.
const areaOf = (box) => (box[2] - box[0]) * (box[3] - box[1]);
const USUAL = DATA.images.map((_, p) => {
  const areas = DATA.boxes.filter((b, t) => b && DATA.image[t] === p).map(areaOf).sort((a, b) => a - b);
  return areas[areas.length >> 1] || 1;
});

// (height × width) attention per area, in shares of the usual token: a token spreads its share over its box. Boxes may
// overlap and differ in size (tiles and a thumbnail).
function density(image, values, width, height) {
  const out = new Float32Array(width * height), { width: w0, height: h0 } = DATA.images[image];
  DATA.boxes.forEach((box, t) => {
    if (!box || DATA.image[t] !== image || !values[t]) return;
    const [x1, x2] = [box[0], box[2]].map((x) => Math.round((x / w0) * width));
    const [y1, y2] = [box[1], box[3]].map((y) => Math.round((y / h0) * height));
    const value = (values[t] * USUAL[image]) / Math.max(areaOf(box), 1e-6);
    for (let y = y1; y < y2; y++) for (let x = x1; x < x2; x++) out[y * width + x] += value;
  });
  return out;
}

function largest(arrays) {
  let most = 0;
  for (const a of arrays) for (let i = 0; i < a.length; i++) if (a[i] > most) most = a[i];
  return most;
}

function paint(canvas, image, heat, most) {
  const { width, height } = canvas, context = canvas.getContext("2d");
  context.drawImage(decoded[image], 0, 0, width, height);
  if (!most || !state.strength) return;
  context.fillStyle = `rgba(0,0,0,${VEIL})`;
  context.fillRect(0, 0, width, height);
  const layer = new OffscreenCanvas(width, height), inner = layer.getContext("2d");
  const pixels = inner.createImageData(width, height), four = new Uint32Array(pixels.data.buffer);
  const table = new Uint32Array(Uint8Array.from({ length: 1024 }, (_, i) => overlay(i >> 2)[i & 3]).buffer);
  for (let i = 0; i < heat.length; i++) four[i] = table[Math.round((255 * heat[i]) / most)];
  inner.putImageData(pixels, 0, 0);
  context.drawImage(layer, 0, 0);
}

// The boxes in an image, with their names.
function frames(canvas, image) {
  const context = canvas.getContext("2d"), scale = canvas.width / DATA.images[image].width, chosen = DATA.words[state.word];
  const size = Math.round(canvas.width / 34);
  context.font = `600 ${size}px system-ui, "DejaVu Sans", sans-serif`;
  context.lineWidth = Math.max(2, canvas.width / 300);
  const taken = [];
  for (const { name, image: own, box } of DATA.things) {
    if (own !== image) continue;
    const [x, y, right, bottom] = box.map((v) => v * scale), here = DATA.vision && chosen.image === own && chosen.text === name;
    const inset = context.lineWidth / 2, wide = context.measureText(name).width + size * 0.7;
    context.strokeStyle = context.fillStyle = here ? "#ffffff" : "#40c4ff";
    context.strokeRect(x + inset, y + inset, right - x - 2 * inset, bottom - y - 2 * inset);
    let top = y; // labels of boxes that begin at one place stand below each other
    while (taken.some(([l, t, r]) => l < x + wide && x < r && Math.abs(t - top) < 1.3 * size)) top += 1.3 * size;
    taken.push([x, top, x + wide]);
    context.fillRect(x, top, wide, 1.3 * size);
    context.fillStyle = "#10151a";
    context.fillText(name, x + size * 0.35, top + size);
  }
}
