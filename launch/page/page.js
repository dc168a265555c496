"use strict";

// The page of `tessera serve`: a chat over /v1/chat/completions, and what /status tells of the engine.

const LOOK_MS = 1000; // between two looks at the engine
const MEMORY = 60; // looks that rates and latencies are worked out over

const $ = (id) => document.getElementById(id);

// ---- talking with the server

const key = {
  get: () => sessionStorage.getItem("key"),
  set: (value) => sessionStorage.setItem("key", value),
};

async function call(path, body, signal) {
  const headers = {};
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {
    method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal, cache: "no-store",
  });
  $("key-form").hidden = answer.status !== 401;
  if (!answer.ok) {
    const told = await answer.json().catch(() => null);
    throw new Error(told?.error?.message ?? `the server answers ${answer.status}`);
  }
  return answer;
}

// The objects of a stream of server-sent events; it must come to its [DONE].
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the answer was cut off");
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

// ---- the chat

const said = []; // {role, content}
let stopping = null; // of the answer that is coming

function add(kind, text) {
  const item = document.createElement("li");
  item.className = kind;
  const words = document.createElement("p");
  words.textContent = text;
  item.append(words);
  $("messages").append(item);
  return item;
}

function note(item, text, isBad) {
  const line = document.createElement("div");
  line.className = isBad ? "note bad" : "note";
  line.textContent = text;
  item.append(line);
  return line;
}

function scrollDown() {
  const list = $("messages");
  if (list.scrollHeight - list.scrollTop - list.clientHeight < 140) list.scrollTop = list.scrollHeight;
}

function setBusy(busy) {
  $("send").textContent = busy ? "Stop" : "Send";
  if (!busy) stopping = null;
}

function told(usage, startedAt, firstAt) {
  const n = usage?.completion_tokens ?? 0;
  const seconds = (performance.now() - firstAt) / 1000;
  const rate = n > 1 && seconds > 0 ? ` · ${((n - 1) / seconds).toFixed(1)} a second` : "";
  return `${n} ${n === 1 ? "token" : "tokens"}${rate} · first after ${((firstAt - startedAt) / 1000).toFixed(2)} s`;
}

async function answer() {
  const system = $("system").value.trim();
  const item = add("answer open", "");
  const words = item.firstChild;
  const startedAt = performance.now();
  let firstAt = startedAt;
  let usage = null;
  stopping = new AbortController();
  setBusy(true);
  scrollDown();
  try {
    const stream = await call("/v1/chat/completions", {
      messages: system ? [{ role: "system", content: system }, ...said] : said,
      temperature: Number($("temperature").value), max_completion_tokens: Number($("most").value),
      stream: true, stream_options: { include_usage: true },
    }, stopping.signal);
    for await (const chunk of events(stream)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const text = chunk.choices[0]?.delta.content;
      if (text && !words.textContent) firstAt = performance.now();
      if (text) words.append(text);
      usage = chunk.usage ?? usage;
      scrollDown();
    }
    note(item, told(usage, startedAt, firstAt));
    said.push({ role: "assistant", content: words.textContent });
  } catch (fault) {
    if (stopping.signal.aborted) {
      note(item, "stopped");
      said.push({ role: "assistant", content: words.textContent });
    } else {
      offerAgain(item, fault);
    }
  } finally {
    item.classList.remove("open");
    setBusy(false);
    scrollDown();
  }
}

function offerAgain(item, fault) {
  const again = document.createElement("button");
  again.type = "button";
  again.textContent = "Try again";
  again.addEventListener("click", () => {
    item.remove();
    answer();
  });
  note(item, fault.message, true).append(again);
}

function ask(event) {
  event.preventDefault();
  if (stopping) {
    stopping.abort();
    return;
  }
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  grow();
  // An answer that failed leaves its question behind; two of them would confuse a model.
  if (said.at(-1)?.role === "user") said.pop();
  said.push({ role: "user", content: text });
  add("mine", text);
  $("messages").scrollTop = $("messages").scrollHeight;
  answer();
}

function grow() {
  const box = $("text");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

// ---- the engine

const looks = []; // {at, status}, the newest last

function rateOver(from, to) {
  const seconds = (to.at - from.at) / 1000;
  return seconds > 0 ? Math.max(0, to.status.tokens.generated - from.status.tokens.generated) / seconds : 0;
}

// The value below which a share of what was counted between two histograms lies.
function quantile(from, to, share) {
  const counts = to.counts.map((n, i) => n - from.counts[i]);
  let left = share * counts.reduce((a, b) => a + b, 0);
  if (left <= 0) return null;
  for (let i = 0; i < counts.length; i++) {
    if (left <= counts[i]) {
      const low = i > 0 ? to.bounds[i - 1] : 0;
      return i < to.bounds.length ? low + (to.bounds[i] - low) * (left / counts[i]) : low;
    }
    left -= counts[i];
  }
  return null;
}

function seconds(value) {
  return value < 1 ? `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms` : `${value.toFixed(1)} s`;
}

function showLatency(id, name) {
  const half = quantile(looks[0].status.latency[name], looks.at(-1).status.latency[name], 0.5);
  const most = quantile(looks[0].status.latency[name], looks.at(-1).status.latency[name], 0.9);
  $(id).textContent = half === null ? "–" : `${seconds(half)} `;
  if (half !== null) {
    const small = document.createElement("small");
    small.textContent = `(${seconds(most)})`;
    $(id).append(small);
  }
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; n >= 1024 && unit < 4; unit++) n /= 1024;
  return `${unit ? n.toFixed(1) : n} ${units[unit]}`;
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Sequences that follow one another get hues that lie far apart.
function colorOf(owner) {
  if (owner < 0) return color("--kept");
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
    || (document.documentElement.dataset.theme === undefined && matchMedia("(prefers-color-scheme: dark)").matches);
  return `hsl(${(owner * 137.508 + 205) % 360} ${dark ? "38% 58%" : "42% 56%"})`;
}

function prepare(canvas, height) {
  const scale = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  canvas.style.height = `${height}px`;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  return { pen, width };
}

// Tiles in rows; colors holds one for each.
function drawTiles(canvas, colors, side, gap) {
  const width = canvas.clientWidth || 1;
  const columns = Math.max(1, Math.floor((width + gap) / (side + gap)));
  const rows = Math.max(1, Math.ceil(colors.length / columns));
  const { pen } = prepare(canvas, rows * (side + gap) - gap);
  colors.forEach((fill, i) => {
    pen.fillStyle = fill;
    pen.beginPath();
    pen.roundRect((i % columns) * (side + gap), Math.floor(i / columns) * (side + gap), side, side, side / 4);
    pen.fill();
  });
}

function drawSpark() {
  const rates = looks.slice(1).map((look, i) => rateOver(looks[i], look));
  const { pen, width } = prepare($("spark"), 48);
  const most = Math.max(1, ...rates);
  pen.strokeStyle = color("--accent");
  pen.lineWidth = 1.5;
  pen.lineJoin = "round";
  pen.beginPath();
  rates.forEach((rate, i) => {
    const x = width - (rates.length - 1 - i) * (width / MEMORY);
    const y = 46 - 42 * (rate / most);
    if (i) pen.lineTo(x, y);
    else pen.moveTo(x, y);
  });
  pen.stroke();
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function range(first, n) {
  return n === 0 ? "none" : n === 1 ? `${first}` : `${first}–${first + n - 1}`;
}

function drawHeads(card, rank, ranks) {
  const last = ranks.at(-1).heads;
  const nHeads = Math.max(...ranks.map((one) => one.heads[0] + one.heads[1]), last[0] + last[1]);
  const own = (i) => i >= rank.heads[0] && i < rank.heads[0] + rank.heads[1];
  const canvas = element("canvas", "heads");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `heads ${range(...rank.heads)} of ${nHeads}`);
  card.append(canvas);
  drawTiles(canvas, Array.from({ length: nHeads }, (_, i) => color(own(i) ? "--accent" : "--empty")), 10, 3);
}

function drawTier(card, tier) {
  const line = element("div", "tier");
  line.append(element("span", "", `${tier.name} memory`),
    element("span", "", `${tier.blocks} of ${tier.slots} blocks`));
  card.append(line);
  const colors = [];
  const owners = tier.owners ?? [];
  for (let i = 0; i < owners.length; i += 2) {
    for (let k = 0; k < owners[i + 1]; k++) colors.push(colorOf(owners[i]));
  }
  const canvas = element("canvas", "blocks");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${colors.length} blocks in ${tier.name} memory`);
  canvas.dataset.blocks = colors.length;
  canvas.dataset.sequences = new Set(owners.filter((_, i) => i % 2 === 0 && owners[i] >= 0)).size;
  card.append(canvas);
  // What is free is shown as far as the last row goes, so that an empty cache is seen to be one.
  const columns = Math.floor(((canvas.clientWidth || 1) + 2) / 11);
  const free = Math.min(tier.slots - tier.blocks, Math.max(columns * 2 - colors.length, (columns - colors.length % columns) % columns));
  for (let i = 0; i < free; i++) colors.push(color("--empty"));
  drawTiles(canvas, colors, 9, 2);
}

function showRanks(status) {
  const cards = (status.ranks ?? []).map((rank) => {
    const card = element("article", "rank");
    const title = element("h2", "", `rank ${rank.rank}`);
    title.append(element("span", "", `heads ${range(...rank.heads)} · KV ${range(...rank.kv_heads)} · ${bytes(rank.weight_bytes)}`));
    card.append(title);
    return card;
  });
  $("ranks").replaceChildren(...cards);
  cards.forEach((card, i) => { // in the page already: canvases need a width
    drawHeads(card, status.ranks[i], status.ranks);
    for (const tier of status.ranks[i].tiers) drawTier(card, tier);
  });
}

function show(status) {
  const from = looks[Math.max(0, looks.length - 4)];
  $("model").textContent = status.model;
  document.title = `${status.model} · Tessera`;
  $("rate").textContent = looks.length > 1 ? rateOver(from, looks.at(-1)).toFixed(1) : "–";
  $("running").textContent = status.requests.running;
  $("waiting").textContent = status.requests.waiting;
  $("cached").textContent = status.tokens.prompt ? `${(100 * status.tokens.cached / status.tokens.prompt).toFixed(0)} %` : "–";
  showLatency("first", "first_token");
  showLatency("gap", "token_gap");
  if (status.engine) {
    $("preempted").textContent = status.engine.preemptions;
    $("block-tokens").textContent = status.engine.block_tokens;
    $("device").textContent = `${status.engine.ranks} ${status.engine.ranks === 1 ? "rank" : "ranks"}, ${status.engine.device}, `
      + `${status.engine.comm}; context of ${status.engine.context} tokens. Tessera ${status.version}.`;
  }
  drawSpark();
  showRanks(status);
}

function setState(state, text) {
  if ($("state").dataset.state === state && $("state").textContent === text) return;
  $("state").dataset.state = state;
  $("state").textContent = text;
}

async function look() {
  try {
    const status = await (await call("/status")).json();
    // A server that was started again counts from 0.
    if (looks.length && status.tokens.generated < looks.at(-1).status.tokens.generated) looks.length = 0;
    looks.push({ at: performance.now(), status });
    if (looks.length > MEMORY) looks.shift();
    show(status);
    if (status.state === "ok") setState("up", "at work");
    else setState("down", status.state === "lost" ? "the engine is being restarted" : "the server is ending");
  } catch (fault) {
    setState("down", $("key-form").hidden ? "waiting for the server" : "a key is wanted");
  }
}

async function watch() {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((resolve) => { setTimeout(resolve, LOOK_MS); });
  }
}

// ---- the page itself

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

$("ask").addEventListener("submit", ask);
$("text").addEventListener("input", grow);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) ask(event);
});
$("fresh").addEventListener("click", () => {
  if (stopping) stopping.abort();
  said.length = 0;
  $("messages").replaceChildren();
  $("text").focus();
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value);
  look();
});
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  localStorage.setItem("theme", dark ? "light" : "dark");
  setTheme(dark ? "light" : "dark");
});
for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    document.body.dataset.view = button.dataset.show;
    if (looks.length) show(looks.at(-1).status);
  });
}
addEventListener("resize", grow);
setTheme(localStorage.getItem("theme"));
grow();
watch();
