// The page of `tidings dev`: subscribes, publishes, cuts its own line and comes back by cursor, and
// keeps books on itself. Every event that the page publishes carries a number of its own (`n`,
// counted per page and topic, one after the other's answer), so that a missing number is a gap.
// A publish whose answer is lost is sent again with the same `key`, which publishes nothing twice.
//
// The address ends in #KEY, as `tidings dev` printed it: whoever has the key gets a token. Further
// settings may follow: &rate=10 keeps publishing, &storm keeps cutting the line.

import { addPoint, beginAbsence, endAbsence } from "./chart.js";
import { showCursor } from "./cursor.js";
import { duration, element, instant, make, now } from "./small.js";
import { Line } from "./line.js";

const KEPT_ROWS = 200;
const KEPT_IDS = 50_000;
const KEPT_LATENCIES = 500;

const [key, ...settings] = location.hash.slice(1).split("&");
const page = Math.random().toString(36).slice(2, 8);
let session = null; // { token, topics, commands }
let topics = [];

// ---------------------------------------------------------------- the books

const books = { received: 0, replayed: 0, gaps: 0, duplicates: 0, resumes: 0 };
const lastNumber = new Map(); // page and topic → last number seen
const seenIds = new Set(); // for counting alone: nothing is dropped here
const latencies = []; // of the newest live events, in milliseconds

function enter(event, cursor, late) {
  const ms = now() - instant(event.at);
  books.received += 1;
  if (late) books.replayed += 1;
  else if (latencies.push(ms) > KEPT_LATENCIES) latencies.shift();
  if (event.id) {
    if (seenIds.has(event.id)) books.duplicates += 1;
    else if (seenIds.add(event.id).size > KEPT_IDS) seenIds.delete(seenIds.values().next().value);
  }
  const lost = missingBefore(event);
  if (lost) mark(`${lost} missing before the next one`, true);
  books.gaps += lost;
  addPoint(ms, late);
  add({ event, cursor, ms, late });
}

function missingBefore({ topic, data }) {
  if (!Number.isInteger(data?.n) || !data.page) return 0;
  const counter = `${data.page} ${topic}`;
  const last = lastNumber.get(counter) ?? data.n - 1;
  lastNumber.set(counter, Math.max(last, data.n));
  return Math.max(0, data.n - last - 1);
}

// ---------------------------------------------------------------- the stream

const line = new Line({
  get topics() {
    return topics;
  },
  get token() {
    return session.token;
  },
  event: enter,

  said(name, data) {
    if (name === "tidings.ready") ready(data);
    if (name === "tidings.bye") {
      mark(`bye: ${data.reason}`);
      if (data.reason === "expired") loadSession();
    }
    if (name === "tidings.reset") {
      // The gateway cannot tell what was missed, and says so: an answer, not a gap.
      lastNumber.clear();
      mark(`reset: ${data.reason}; what was missed is told by sync, not by the stream`, true);
    }
    paintSoon();
  },

  changed(state, words, remark) {
    showState(state, words);
    if (state === "away") beginAbsence();
    if (state === "live") endAbsence();
    if (remark) mark(remark);
    planStorm();
  },

  async refused(response) {
    notice(await problem(response), true);
    if (response.status === 401 && (await loadSession())) setTimeout(() => line.open(), 2000);
  },
});

function ready({ resumed, replayed, denied }) {
  const not = denied?.length ? ` Not allowed: ${denied.join(", ")}.` : "";
  mark((resumed ? `resumed, ${replayed} replayed.` : "live from now on.") + not);
  if (resumed) books.resumes += 1;
  // A test that drives a browser without a screen reads this.
  console.info(`tidings ${JSON.stringify(books)}`);
}

let storm = 0;

function planStorm() {
  clearTimeout(storm);
  if (!element("storm").checked || !line.live) return;
  storm = setTimeout(() => line.cut(200 + Math.random() * 800), 1000 + Math.random() * 1000);
}

function toggle() {
  const { state } = element("state").dataset;
  const seconds = element("away").value;
  if (state === "away") line.open();
  else if (state !== "closed") line.cut(seconds ? Number(seconds) * 1000 : null);
}

function subscribe() {
  topics = [...new Set(element("topics").value.split(/[\s,]+/).filter(Boolean))];
  // What came while a topic was not subscribed was never promised.
  for (const counter of lastNumber.keys()) {
    if (!topics.includes(counter.split(" ")[1])) lastNumber.delete(counter);
  }
  notice("");
  line.open();
}

// ---------------------------------------------------------------- publishing

let queue = Promise.resolve();
const numbers = new Map(); // topic → last number published

function publish() {
  const [topic, type, text] = ["topic", "type", "text"].map((id) => element(id).value.trim());
  queue = queue.then(() => send(topic, type, text));
  return queue;
}

async function send(topic, type, text) {
  const n = (numbers.get(topic) ?? 0) + 1;
  const body = JSON.stringify({ topic, type, data: { n, page, text }, key: `${page}-${n}` });
  for (let waitMs = 250; ; waitMs = Math.min(waitMs * 2, 5000)) {
    const headers = { authorization: `Bearer ${session.token}`, "content-type": "application/json" };
    const response = await fetch("/v1/events", { method: "POST", headers, body }).catch(() => null);
    if (response?.ok) {
      numbers.set(topic, n);
      return notice("");
    }
    notice(`Not published. ${response ? await problem(response) : "The gateway does not answer; trying again."}`, true);
    if (response?.status === 401) await loadSession();
    else if (response && response.status < 500 && response.status !== 429) return setRate(0);
    await new Promise((done) => setTimeout(done, waitMs));
  }
}

let rate = 0;
let publishing = false;

async function setRate(perSecond) {
  rate = perSecond;
  for (const input of document.getElementsByName("rate")) input.checked = Number(input.value) === rate;
  if (publishing) return;
  publishing = true;
  for (let due = performance.now(); rate > 0; ) {
    await publish();
    // A slow answer is caught up with, but no further than a tenth of a second.
    due = Math.max(due + 1000 / rate, performance.now() - 100);
    await new Promise((done) => setTimeout(done, Math.max(0, due - performance.now())));
  }
  publishing = false;
}

// ---------------------------------------------------------------- painting

const pending = []; // rows that are not yet in the table
let chosen = null;
let due = false;

function add(entry) {
  if (pending.push(entry) > KEPT_ROWS) pending.shift();
  paintSoon();
}

function mark(text, bad = false) {
  add({ text, bad });
}

// A hidden page paints nothing, and loses nothing by it but rows.
function paintSoon() {
  if (!due) requestAnimationFrame(paint);
  due = true;
}

function paint() {
  due = false;
  const { received, replayed, gaps, duplicates, resumes } = books;
  for (const [id, count] of Object.entries({ received, gaps, duplicates })) element(id).textContent = count.toLocaleString("en");
  for (const id of ["gaps", "duplicates"]) element(id).parentElement.classList.toggle("bad", books[id] > 0);
  if (replayed) element("replayed").textContent = `${replayed.toLocaleString("en")} replayed in ${resumes} resume${resumes === 1 ? "" : "s"}`;
  const sorted = [...latencies].sort((a, b) => a - b);
  if (sorted.length) {
    element("median").replaceChildren(...duration(sorted[sorted.length >> 1]));
    element("p99").replaceChildren("p99 ", ...duration(sorted[Math.floor(sorted.length * 0.99)]), " · insert to screen");
  }
  const log = element("log");
  element("empty").hidden ||= pending.length > 0;
  log.prepend(...pending.splice(0).reverse().map((entry) => (entry.text ? remark(entry) : row(entry))));
  while (log.rows.length > KEPT_ROWS) log.lastElementChild.remove();
  if (!chosen && line.cursor) showCursor(line.cursor, "now");
}

function remark({ text, bad }) {
  const tr = make("tr", "", bad ? "mark bad" : "mark");
  const cell = make("td", `${new Date().toLocaleTimeString("en-GB")}  ${text}`);
  cell.colSpan = 4; // a phone shows no fifth column
  tr.append(cell, make("td", ""));
  return tr;
}

function row({ event, cursor, ms, late }) {
  const tr = make("tr", "", late ? "late" : "");
  const data = JSON.stringify(event.data);
  const show = make("button", cursor ?? "a signal has none");
  show.title = cursor ? `Explain ${cursor}` : "";
  show.disabled = !cursor;
  show.tabIndex = -1; // the arrow keys lead through the rows; two hundred stops would not
  show.onclick = () => choose(tr, cursor, event.id);
  const cells = [make("td", event.topic), make("td", event.type), make("td", data), make("td", "", "number"), make("td", "")];
  cells[2].title = data;
  cells[3].append(...duration(ms));
  cells[4].append(show);
  tr.append(...cells);
  return tr;
}

function choose(tr, cursor, id) {
  chosen?.classList.remove("chosen");
  chosen = chosen === tr ? null : tr;
  chosen?.classList.add("chosen");
  if (chosen) showCursor(cursor, `after event ${id}`);
  paintSoon();
}

function walk(event) {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  if (event.key === "Escape") chosen?.querySelector("button").click();
  if (!step) return;
  event.preventDefault();
  let tr = chosen?.isConnected ? chosen[step] : element("log").firstElementChild;
  while (tr?.classList.contains("mark")) tr = tr[step];
  tr?.querySelector("button").click();
  tr?.scrollIntoView({ block: "nearest" });
}

function showState(state, words) {
  element("state").dataset.state = state;
  element("state").lastElementChild.textContent = words;
  const button = element("cut");
  button.disabled = state === "closed";
  button.textContent = state === "away" ? "Come back now" : "Cut the line";
  button.classList.toggle("back", state === "away");
}

function notice(text, bad = false) {
  const box = element("notice");
  box.hidden = !text;
  box.toggleAttribute("data-bad", bad);
  if (box.textContent !== text) box.textContent = text;
}

async function problem(response) {
  const { title, detail } = await response.json().catch(() => ({ title: `HTTP ${response.status}` }));
  return detail ? `${title}: ${detail}` : title;
}

function showCommands(commands) {
  element("commands").replaceChildren(...commands.flatMap(({ title, text }) => {
    const box = make("div", "", "command");
    const copy = make("button", "Copy");
    copy.setAttribute("aria-label", `Copy: ${title}`);
    copy.onclick = async () => {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy"), 1500);
    };
    box.append(make("pre", text), copy);
    return [make("h3", title), box];
  }));
}

// ---------------------------------------------------------------- beginning

async function loadSession() {
  const response = await fetch(`/dev/session/${encodeURIComponent(key)}`, { cache: "no-store" }).catch(() => null);
  if (response?.ok) session = await response.json();
  else if (response) notice("This page needs the whole address that `tidings dev` printed, with the key after the #. Each start makes a new one.", true);
  else notice("The gateway does not answer.", true);
  return response?.ok ?? false;
}

element("subscribe").onsubmit = (event) => {
  event.preventDefault();
  if (session) subscribe();
};
element("publish").onsubmit = (event) => {
  event.preventDefault();
  if (session) publish();
};
element("cut").onclick = toggle;
element("events").onkeydown = walk;
element("storm").onchange = planStorm;
for (const input of document.getElementsByName("rate")) input.onchange = () => session && setRate(Number(input.value));
addEventListener("hashchange", () => location.reload());
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !session) return;
  if (event.target.matches("input:not([type=radio], [type=checkbox]), select")) return;
  if (event.key === "c") toggle();
  if (event.key === "p") publish();
});

if (await loadSession()) {
  element("topics").value = session.topics.join(", ");
  element("topic").value = session.topics[0];
  showCommands(session.commands);
  element("storm").checked = settings.includes("storm");
  subscribe();
  const wanted = settings.find((setting) => setting.startsWith("rate="));
  if (wanted) setRate(Number(wanted.slice(5)));
}
