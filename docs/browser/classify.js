// Runs a classifier written by `modhub export --format onnx` with onnxruntime-web.
"use strict";

ort.env.wasm.wasmPaths = new URL("node_modules/onnxruntime-web/dist/", location.href).href;
ort.env.wasm.numThreads = 1;

const element = (id) => document.getElementById(id);
const say = (text) => { element("status").textContent = text; };
let session = null, facts = null, picture = null;

// An ONNX file is one protobuf message; its field 14 holds key-value pairs (fields 1 and 2).
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0, scale = 1, byte;
    do { byte = bytes[at++]; value += (byte & 127) * scale; scale *= 128; } while (byte & 128);
    return value;
  };
  while (at < bytes.length) {
    const tag = varint(), number = Math.floor(tag / 8), kind = tag % 8;
    if (kind === 0) { varint(); continue; }
    const size = kind === 2 ? varint() : kind === 1 ? 8 : 4;
    yield [number, bytes.subarray(at, at + size)];
    at += size;
  }
}

function metadata(bytes) {
  const text = new TextDecoder();
  for (const [number, entry] of fields(bytes)) {
    if (number !== 14) continue;
    const pair = Object.fromEntries([...fields(entry)].map(([key, value]) => [key, text.decode(value)]));
    if (pair[1] === "modhub") return JSON.parse(pair[2]);
  }
  throw new Error("This file was not written by modhub export.");
}

// The picture as the file's trunks prepare it ("geometry" in its metadata), as uint8 channel by channel.
function pixels(image, [height, width], channels, geometry = { mode: "cover" }) {
  const canvas = new OffscreenCanvas(width, height), pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.imageSmoothingEnabled = geometry.interpolation !== "nearest";
  let [w, h] = [image.width, image.height], [left, top] = [0, 0];
  if (geometry.mode === "exact" && w * height !== h * width) {
    throw new Error(`This classifier takes images of the proportions ${width} : ${height} only.`);
  }
  if (geometry.mode === "stretch" || geometry.mode === "exact") [w, h] = [width, height];
  else {
    if (geometry.mode === "shorter_side") {
      const side = Math.min(height, width), longer = Math.max(1, Math.floor(side * Math.max(w, h) / Math.min(w, h)));
      [w, h] = h <= w ? [longer, side] : [side, longer];
    } else if (geometry.mode === "cover") {
      const scale = Math.max(width / w, height / h);
      [w, h] = [w * scale, h * scale];
    }
    [left, top] = [(w - width) / 2, (h - height) / 2].map(geometry.mode === "cover" ? (x) => x : Math.floor);
  }
  pen.drawImage(image, -left, -top, w, h);
  const rgba = pen.getImageData(0, 0, width, height).data, plane = width * height;
  const values = new Uint8Array(channels * plane);
  for (let i = 0; i < plane; i++) {
    const [r, g, b] = rgba.subarray(4 * i, 4 * i + 3);
    if (channels === 1) values[i] = Math.round(0.299 * r + 0.587 * g + 0.114 * b);
    else [values[i], values[plane + i], values[2 * plane + i]] = [r, g, b];
  }
  return new ort.Tensor("uint8", values, [1, channels, height, width]);
}

function probabilities(scores) {
  if (scores.length === 1) return [1 / (1 + Math.exp(-scores[0]))];
  const top = Math.max(...scores), parts = scores.map((score) => Math.exp(score - top));
  const total = parts.reduce((sum, part) => sum + part, 0);
  return parts.map((part) => part / total);
}

async function classify() {
  if (!session || !picture) return;
  const input = pixels(picture, facts.image_size, facts.channels, facts.geometry);
  const start = performance.now();
  const output = await session.run({ [session.inputNames[0]]: input });
  const taken = performance.now() - start;
  const chances = probabilities([...output.scores.data]);
  // Only a classifier that may answer "none of these" has this output; below 0 it does.
  const refused = output.acceptance?.data[0] < 0;
  const ranked = facts.labels.map((label, i) => [label, chances[i]]).sort((a, b) => b[1] - a[1]);
  element("scores").replaceChildren(...ranked.slice(0, 10).map(([label, chance]) => {
    const row = document.createElement("tr"), bar = document.createElement("meter");
    bar.value = chance;
    for (const content of [label, bar, `${(100 * chance).toFixed(1)} %`]) row.insertCell().append(content);
    return row;
  }));
  say(`${refused ? "none of these" : ranked[0][0]} (${taken.toFixed(1)} ms)`);
}

element("model").addEventListener("change", async ({ target }) => {
  try {
    const bytes = new Uint8Array(await target.files[0].arrayBuffer());
    facts = metadata(bytes);
    session = await ort.InferenceSession.create(bytes);
    say(`${facts.labels.length} classes: ${facts.labels.slice(0, 10).join(", ")}`);
    await classify();
  } catch (error) { say(error.message); }
});

element("image").addEventListener("change", async ({ target }) => {
  try {
    picture = await createImageBitmap(target.files[0]);
    element("preview").src = URL.createObjectURL(target.files[0]);
    element("preview").alt = target.files[0].name;
    element("preview").hidden = false;
    await classify();
  } catch (error) { say(`This image cannot be read: ${error.message}`); }
});
