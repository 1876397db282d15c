// The page of flam-rl play: shows what the server imagines, and says which keys are held.

import { Chart } from "./chart.js";

// Okabe and Ito's colours, which the colour-blind tell apart; numbers tell apart what has the same one.
const COLORS = ["#e69f00", "#56b4e9", "#f0e442", "#cc79a7", "#009e73", "#d55e00", "#a0a0a0", "#4c93d6"];
const color = (factor) => COLORS[factor % COLORS.length];
const SETS = [
  { up: "KeyW", left: "KeyA", down: "KeyS", right: "KeyD", others: ["KeyQ", "KeyE", "KeyZ", "KeyX", "KeyC"] },
  { up: "ArrowUp", left: "ArrowLeft", down: "ArrowDown", right: "ArrowRight", others: ["Slash", "Semicolon", "Quote"] },
  { up: "KeyI", left: "KeyJ", down: "KeyK", right: "KeyL", others: ["KeyU", "KeyO", "KeyM"] },
  { up: "KeyT", left: "KeyF", down: "KeyG", right: "KeyH", others: ["KeyY", "KeyV", "KeyB"] },
  { up: "Numpad8", left: "Numpad4", down: "Numpad5", right: "Numpad6", others: ["Numpad7", "Numpad9"] },
];
const CAPS = { ArrowUp: "↑", ArrowLeft: "←", ArrowDown: "↓", ArrowRight: "→", Slash: "/", Semicolon: ";", Quote: "'" };
const cap = (code) => CAPS[code] ?? code.replace(/^Key|^Digit/, "").replace("Numpad", "num ");
const SLOTS = ["up", "left", "down", "right"];
const DEAD_ZONE = 0.5;

const $ = (id) => document.getElementById(id);
let world = null; // what hello said
let state = null; // what the latest view said
let owner = null; // the factor of each pixel
let socket = null;
let retries = 0;
let link = location.hash.startsWith("#replay=") ? location.hash.slice(8) : "";
const held = new Map(); // what holds a key -> {index, key, step}
const released = new Set(); // let go before a step saw it
let shownHeld = "";
const chart = new Chart($("chart"), $("chart-text"), color);

// --- connection

function connect() {
  const before = sessionStorage.getItem("visit") ?? "";
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/play?visit=${encodeURIComponent(before)}`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => (typeof data === "string" ? hear(JSON.parse(data)) : see(data));
  socket.onclose = ({ code, reason }) => {
    held.clear();
    if (code === 4001 || code === 4002) return status(reason);
    status("the connection dropped; trying again");
    setTimeout(connect, Math.min(5000, 300 * 2 ** retries++));
  };
}

function say(kind, more = {}) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ kind, ...more }));
}

function hear(said) {
  if (said.kind === "hello") {
    retries = 0;
    sessionStorage.setItem("visit", said.visit);
    world = said;
    begin();
    if (link) say("replay", { link });
    link = "";
    history.replaceState(null, "", location.pathname); // the token is in a cookie, the link was taken
  } else if (said.kind === "link") {
    offer(`${location.origin}${location.pathname}#replay=${said.link}`);
  } else if (said.kind === "film") {
    showFilm(said);
  } else {
    notice(said.text);
  }
}

function see(data) {
  const length = new DataView(data).getUint32(0, true);
  state = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const pixels = world.height * world.width;
  const at = 4 + length;
  drawPixels($("frame"), new Uint8Array(data, at, 3 * pixels));
  owner = new Uint8Array(data, at + 3 * pixels, pixels);
  $("task").hidden = state.task === undefined;
  if (state.task) drawPixels($("real"), new Uint8Array(data, at + 4 * pixels, 3 * pixels));
  for (const name of [...released]) {
    if (state.step > held.get(name)?.step || !held.has(name)) {
      held.delete(name);
      released.delete(name);
    }
  }
  hold();
  chart.add(state);
  show();
}

// --- what is shown

function begin() {
  $("world").textContent = world.world;
  document.title = `${world.world} – flam-rl play`;
  for (const id of ["frame", "real"]) [$(id).width, $(id).height] = [world.width, world.height];
  $("with-task").hidden = !world.task;
  $("factors").replaceChildren();
  for (let index = 0; index < world.latent_actions; index++) $("factors").append(item(index));
}

function item(index) {
  const li = document.createElement("li");
  li.style.setProperty("--color", color(index));
  const toggle = document.createElement("button");
  toggle.className = "who-button";
  toggle.onclick = () => control(index);
  const name = world.latent_actions === 1 ? "the whole scene" : nameOf(index);
  toggle.innerHTML = `<span class="number"></span><span class="who-name"></span><span class="who-by"></span>`;
  toggle.querySelector(".number").textContent = index + 1;
  toggle.querySelector(".who-name").textContent = name;
  const pad = document.createElement("div");
  pad.className = "pad";
  pad.setAttribute("role", "group");
  pad.setAttribute("aria-label", `Keys of ${name}`);
  world.keys[index].forEach((key, number) => {
    const button = document.createElement("button");
    button.className = SLOTS.includes(key.slot) ? key.slot : "";
    const finger = `pad ${index} ${number}`;
    button.onpointerdown = (event) => {
      event.preventDefault();
      button.setPointerCapture(event.pointerId);
      press(finger, index, number);
    };
    button.onpointerup = button.onpointercancel = () => release(finger);
    button.onkeydown = (event) => {
      if (event.code !== "Space" && event.code !== "Enter") return;
      event.preventDefault();
      event.stopPropagation();
      press(finger, index, number);
    };
    button.onkeyup = button.onblur = () => release(finger);
    button.append(key.name, document.createElement("kbd"));
    pad.append(button);
  });
  li.append(toggle, pad);
  return li;
}

function nameOf(index) {
  const agent = world.agents.indexOf(index);
  if (agent < 0) return `factor ${index + 1}`;
  return world.agents.length === 1 ? "the agent" : `agent ${agent + 1}`;
}

function drawPixels(canvas, rgb) {
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(world.width, world.height);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    image.data[to] = rgb[from];
    image.data[to + 1] = rgb[from + 1];
    image.data[to + 2] = rgb[from + 2];
    image.data[to + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
}

function show() {
  const { running, step, seed } = state;
  const doing = state.replaying ? "replaying" : running ? "playing" : "paused";
  status(`step ${step} · seed ${seed} · ${doing}${state.recording ? ` · ${state.recording} frames recorded` : ""}`);
  $("run").firstChild.textContent = running ? "Pause " : "Play ";
  $("undo").disabled = !state.undo;
  $("record").setAttribute("aria-pressed", state.recording !== null);
  $("record-text").textContent = state.recording === null ? "Record" : "Stop";
  $("ended").hidden = !state.ended;
  if (document.activeElement !== $("speed")) $("speed").value = state.fps;
  $("speed-text").textContent = state.fps;
  if (document.activeElement !== $("seed")) $("seed").value = seed;
  $("task-on").checked = state.task !== undefined;
  if (state.task) $("task-caption").textContent = `real task, same keys${state.task.ended ? " · ended" : ""}`;
  [...$("factors").children].forEach((li, index) => showFactor(li, index));
  $("frame").setAttribute("aria-label", `The imagined frame. ${words()}`);
  if (!running) speak(words());
  outline();
  if ($("research").open) numbers();
}

function showFactor(li, index) {
  const place = state.controlled.indexOf(index);
  const yours = place >= 0;
  li.className = state.presence[index] ? "" : "absent";
  const toggle = li.querySelector(".who-button");
  toggle.setAttribute("aria-pressed", yours);
  const acting = state.acting.includes(index);
  const by = !state.presence[index] ? "not there" : acting ? (state.replaying ? "the link" : "you") : yours ? "yours; the prior acts" : "the prior";
  li.querySelector(".who-by").textContent = acting && state.actions[world.agents.indexOf(index)] ? `${by}: ${state.actions[world.agents.indexOf(index)]}` : by;
  const pad = li.querySelector(".pad");
  pad.hidden = !yours;
  if (!yours) return;
  const codes = codesOf(index, place);
  [...pad.children].forEach((button, number) => {
    const kbd = button.querySelector("kbd");
    kbd.hidden = !codes[number];
    kbd.textContent = codes[number] ? cap(codes[number]) : "";
    button.classList.toggle("held", state.held.some(([i, key]) => i === index && key === number));
  });
}

function words() {
  const who = state.boxes.map((box, factor) => {
    const name = nameOf(factor);
    const by = state.controlled.includes(factor) ? ", yours," : "";
    if (!box) return state.presence[factor] ? "" : `${name} is not there`;
    return `${name}${by} is at ${Math.round((box[0] + box[2]) / 2)}, ${Math.round((box[1] + box[3]) / 2)}`;
  });
  return `Step ${state.step}: ${who.filter(Boolean).join("; ")}.`;
}

function outline() {
  const canvas = $("overlay");
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * scale);
  canvas.height = Math.round(canvas.clientHeight * scale);
  const pen = canvas.getContext("2d");
  const size = canvas.width / world.width;
  const kind = $("drawn").value;
  if (!kind) return;
  for (let factor = 0; factor < world.factors; factor++) {
    if (!state.presence[factor]) continue;
    const path = kind === "mask" ? contour(factor, size) : rectangle(state.boxes[factor], size);
    if (!path) continue;
    const yours = state.controlled.includes(world.latent_actions > 1 ? factor : 0);
    pen.lineJoin = "round";
    pen.setLineDash([]);
    pen.strokeStyle = "#000b";
    pen.lineWidth = (yours ? 6 : 4) * scale;
    pen.stroke(path);
    pen.setLineDash(yours ? [] : [5 * scale, 4 * scale]);
    pen.strokeStyle = color(factor);
    pen.lineWidth = (yours ? 3.5 : 2) * scale;
    pen.stroke(path);
    if (state.boxes[factor]) tag(pen, factor, state.boxes[factor], size, scale);
  }
}

function contour(factor, size) {
  const { width, height } = world;
  const own = (x, y) => x >= 0 && y >= 0 && x < width && y < height && owner[y * width + x] === factor;
  const path = new Path2D();
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!own(x, y)) continue;
      const edges = [[!own(x, y - 1), x, y, x + 1, y], [!own(x, y + 1), x, y + 1, x + 1, y + 1], [!own(x - 1, y), x, y, x, y + 1], [!own(x + 1, y), x + 1, y, x + 1, y + 1]];
      for (const [edge, x0, y0, x1, y1] of edges) {
        if (!edge) continue;
        path.moveTo(x0 * size, y0 * size);
        path.lineTo(x1 * size, y1 * size);
      }
    }
  }
  return path;
}

function rectangle(box, size) {
  if (!box) return null;
  const path = new Path2D();
  path.rect(box[0] * size, box[1] * size, (box[2] - box[0]) * size, (box[3] - box[1]) * size);
  return path;
}

function tag(pen, factor, box, size, scale) {
  const radius = 9 * scale;
  const x = Math.min(Math.max(box[0] * size, radius + scale), pen.canvas.width - radius - scale);
  const y = Math.min(Math.max(box[1] * size, radius + scale), pen.canvas.height - radius - scale);
  pen.setLineDash([]);
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fillStyle = color(factor);
  pen.fill();
  pen.strokeStyle = "#000b";
  pen.lineWidth = 1.5 * scale;
  pen.stroke();
  pen.fillStyle = "#000";
  pen.font = `700 ${11 * scale}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillText(factor + 1, x, y + 0.5 * scale);
}

function numbers() {
  const cells = (tag, values) => values.map((value) => `<${tag}>${value}</${tag}>`).join("");
  const dims = state.latent[0]?.length ?? 0;
  const head = cells("th", ["", "there", "by", "likelihood", ...Array.from({ length: dims }, (_, i) => `z${i + 1}`)]);
  const rows = Array.from({ length: world.latent_actions }, (_, index) => {
    const odds = state.likelihood[index];
    const values = [
      world.latent_actions === 1 || state.presence[index] ? "yes" : "no",
      state.acting.includes(index) ? "you" : "prior",
      odds === undefined ? "–" : `${(100 * odds).toFixed(1)}%`,
      ...(state.latent[index] ?? []).map((value) => value.toFixed(2)),
    ];
    return `<tr><th scope="row"><span class="swatch" data-factor="${index}"></span>${index + 1}</th>${cells("td", values)}</tr>`;
  });
  $("numbers").innerHTML = `<caption class="unseen">Latent actions of step ${state.step}</caption><thead><tr>${head}</tr></thead><tbody>${rows.join("")}</tbody>`;
  for (const swatch of $("numbers").querySelectorAll(".swatch")) swatch.style.setProperty("--color", color(swatch.dataset.factor));
  const heads = world.labels ? [["predicted reward", state.reward.toFixed(3)], ["chance of an end", state.end.toFixed(3)], ["real action", state.actions.join(", ") || "–"]] : [["reward and end", "this world has no labels"]];
  if (state.task) heads.push(["real reward", state.task.reward.toFixed(2)]);
  $("heads").replaceChildren(...heads.flatMap(([name, value]) => [Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value })]));
  chart.draw(world.labels);
}

const status = (text) => ($("status").textContent = text);
let speaking = 0;
function speak(text) {
  clearTimeout(speaking);
  speaking = setTimeout(() => ($("said").textContent = text), 400);
}

let noticed = 0;
function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = false;
  clearTimeout(noticed);
  noticed = setTimeout(() => ($("notice").hidden = true), 8000);
}

async function offer(address) {
  try {
    await navigator.clipboard.writeText(address);
    notice("The link that replays this is copied.");
  } catch {
    notice(address);
  }
}

function showFilm({ frames, link }) {
  const address = `film/${encodeURIComponent(world.visit)}`;
  const fresh = `?${Date.now()}`;
  $("film").hidden = false;
  $("film-text").textContent = `${frames} frames: `;
  $("video").src = $("mp4").href = `${address}.mp4${fresh}`;
  $("latents").href = `${address}.json${fresh}`;
  $("replay").hidden = !link;
  $("replay").href = `${location.pathname}#replay=${link}`;
}

// --- what the visitor does

function codesOf(index, place) {
  const set = SETS[place];
  const others = [...(set?.others ?? [])];
  return world.keys[index].map((key) => (set ? (SLOTS.includes(key.slot) ? set[key.slot] : others.shift()) : undefined));
}

function keyOf(code) {
  for (const [place, index] of (state?.controlled ?? []).entries()) {
    const key = codesOf(index, place).indexOf(code);
    if (key >= 0) return [index, key];
  }
  return null;
}

function press(name, index, key) {
  released.delete(name);
  if (held.has(name)) return;
  held.set(name, { index, key, step: state.step });
  hold();
}

function release(name) {
  if (!held.has(name)) return;
  if (state.running && state.step <= held.get(name).step) return void released.add(name); // a short tap counts too
  held.delete(name);
  hold();
}

function hold() {
  const keys = [...held.values()].reverse().map(({ index, key }) => [index, key]);
  const text = JSON.stringify(keys);
  if (text !== shownHeld) say("hold", { keys });
  shownHeld = text;
}

function control(index) {
  const others = state.controlled.filter((one) => one !== index);
  say("control", { indices: others.length < state.controlled.length ? others : [...others, index] });
}

const ACTIONS = {
  Space: () => say("run", { on: !state.running }),
  Period: () => say("step"),
  Backspace: () => say("undo", { steps: 1 }),
  KeyN: () => say("restart", { seed: state.seed + 1 }),
  KeyR: () => say("record", { on: state.recording === null }),
};
for (const [id, code] of Object.entries({ run: "Space", step: "Period", undo: "Backspace", anew: "KeyN", record: "KeyR" })) {
  $(id).onclick = () => state && ACTIONS[code]();
}

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input:not([type=checkbox]), select, textarea, video");
  if (!state || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const onButton = event.target.closest?.("button, a, summary, input");
  if (onButton && (event.code === "Space" || event.code === "Enter")) return; // the button's own
  const key = keyOf(event.code);
  const digit = /^Digit([1-9])$/.exec(event.code);
  if (key) press(event.code, ...key);
  else if (digit && digit[1] <= world.latent_actions && !event.repeat) control(digit[1] - 1);
  else if (ACTIONS[event.code] && (!event.repeat || event.code === "Backspace" || event.code === "Period")) ACTIONS[event.code]();
  else if (!ACTIONS[event.code]) return;
  event.preventDefault();
});
addEventListener("keyup", (event) => release(event.code));
addEventListener("blur", () => [...held.keys()].forEach((name) => release(name)));

$("overlay").onclick = (event) => {
  if (!state) return;
  const box = event.target.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * world.width;
  const y = ((event.clientY - box.top) / box.height) * world.height;
  const factor = nearest(x, y);
  if (factor !== null) control(world.latent_actions > 1 ? factor : 0);
};

function nearest(x, y) {
  const there = owner[Math.floor(y) * world.width + Math.floor(x)];
  if (there !== 255 && there !== undefined) return there;
  let found = null;
  let least = 0.1 * Math.max(world.width, world.height); // a finger is not exact
  state.boxes.forEach((box, factor) => {
    if (!box) return;
    const away = Math.hypot(Math.max(box[0] - x, 0, x - box[2]), Math.max(box[1] - y, 0, y - box[3]));
    if (away < least) [found, least] = [factor, away];
  });
  return found;
}

$("speed").oninput = () => say("speed", { fps: Number($("speed").value) });
$("seed").onchange = () => {
  const seed = Number($("seed").value);
  if ($("seed").value !== "" && $("seed").checkValidity() && Number.isInteger(seed)) say("restart", { seed });
};
$("drawn").onchange = () => state && outline();
$("task-on").onchange = () => say("task", { on: $("task-on").checked });
$("link").onclick = () => say("link");
$("open").onclick = () => $("file").click();
$("file").onchange = () => $("file").files[0] && upload($("file").files[0]);
$("research").ontoggle = () => state && numbers();
addEventListener("resize", () => state && (outline(), $("research").open && numbers()));
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#replay=")) say("replay", { link: location.hash.slice(8) });
  history.replaceState(null, "", location.pathname);
});

async function upload(file) {
  status("reading the file");
  const answer = await fetch(`start?visit=${encodeURIComponent(world.visit)}&name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
  if (!answer.ok) notice((await answer.text()).trim());
  $("file").value = "";
}
let dragged = 0;
addEventListener("dragenter", () => (dragged++, ($("drop").hidden = false)));
addEventListener("dragleave", () => --dragged <= 0 && ($("drop").hidden = true));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  dragged = 0;
  $("drop").hidden = true;
  if (event.dataTransfer.files[0]) upload(event.dataTransfer.files[0]);
});

function gamepads() {
  if (state) {
    [...navigator.getGamepads()].filter(Boolean).forEach((pad, place) => {
      const index = state.controlled[place];
      if (index === undefined) return;
      const [x, y] = pad.axes;
      const pushed = (button) => Boolean(pad.buttons[button]?.pressed);
      const on = { up: y < -DEAD_ZONE || pushed(12), left: x < -DEAD_ZONE || pushed(14), down: y > DEAD_ZONE || pushed(13), right: x > DEAD_ZONE || pushed(15) };
      let button = 0;
      world.keys[index].forEach((key, number) => {
        const name = `gamepad ${place} ${number}`;
        if (on[key.slot] ?? pushed(button++)) press(name, index, number);
        else release(name);
      });
    });
  }
  requestAnimationFrame(gamepads);
}

connect();
gamepads();
