// The last minute as a picture: one dot for each event, by its latency, and the time without a line.

import { element, now } from "./small.js";

const points = []; // { at, ms, late }
const absences = []; // { from, to }, the last one perhaps without its end

export function addPoint(ms, late) {
  points.push({ at: now(), ms, late });
}

export function beginAbsence() {
  if (absences.at(-1)?.to !== null) absences.push({ from: now(), to: null });
}

export function endAbsence() {
  const last = absences.at(-1);
  if (last && last.to === null) last.to = now();
}

const MINUTE = 60_000;
const GRID = [1, 10, 100, 1000, 10_000];

function draw() {
  const canvas = element("chart");
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = devicePixelRatio;
  if (canvas.width !== Math.round(width * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`);
  const end = now();
  while (points.length && points[0].at < end - MINUTE) points.shift();
  while (absences.length && absences[0].to !== null && absences[0].to < end - MINUTE) absences.shift();
  const left = 52;
  const x = (at) => left + (width - left - 6) * (1 - (end - at) / MINUTE);
  const y = (ms) => height - 20 - (height - 32) * (Math.log10(Math.min(Math.max(ms, 0.5), 60_000) / 0.5) / Math.log10(120_000));
  const c = canvas.getContext("2d");
  c.setTransform(scale, 0, 0, scale, 0, 0);
  c.clearRect(0, 0, width, height);
  c.font = "11px system-ui, sans-serif";
  for (const { from, to } of absences) {
    c.fillStyle = colour("bad-soft");
    const begin = Math.max(x(from), left);
    c.fillRect(begin, 0, Math.max(x(to ?? end) - begin, 1.5), height - 16);
  }
  c.textAlign = "right";
  for (const ms of GRID) {
    c.fillStyle = colour("line");
    c.fillRect(left, Math.round(y(ms)), width - left, 1);
    c.fillStyle = colour("soft");
    c.fillText(ms < 1000 ? `${ms} ms` : `${ms / 1000} s`, left - 7, y(ms) + 4);
  }
  c.fillText("now", width - 2, height - 3);
  c.textAlign = "left";
  c.fillText("1 min ago", left, height - 3);
  c.fillStyle = colour("live");
  c.strokeStyle = colour("late");
  c.lineWidth = 1.5;
  for (const { at, ms, late } of points) {
    c.beginPath();
    c.arc(x(at), y(ms), late ? 3 : 2.2, 0, 7);
    late ? c.stroke() : c.fill();
  }
}

// Twenty frames a second are smooth enough for dots that take a minute.
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
setInterval(() => document.hidden || requestAnimationFrame(draw), calm ? 1000 : 50);
