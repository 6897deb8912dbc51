"use strict";
// The page Labels: one object after the other, decided by keyboard or by touch.
(() => {
  const root = document.getElementById("labelling");
  if (!root) return;
  const byId = (id) => document.getElementById(id);
  const headers = { "Content-Type": "application/json", ...JSON.parse(document.body.getAttribute("hx-headers")) };
  const picture = byId("picture"), canvas = byId("crop"), framed = byId("framed");
  const CONTEXT = 0.35; // margin around the object in the crop, as a share of its size
  const AGAIN_MS = 3000; // pause before another look for objects
  // Letters that choose a label; those of the actions are left out.
  const LETTERS = "1234567890abcdefghijklmnopqrtvwyz".split("");
  const REASONS = { disagreement: "models disagree", audit: "missed by the gate", uncertain: "low score", random: "random" };
  let waiting = []; // objects to label, the next one first
  let past = []; // decided objects, the newest last
  let labels = [], current = null, busy = false, count = 0, lookAgain = 0, again = true;
  const skipped = new Set();

  async function call(path, body) {
    const response = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : {});
    const found = await response.json().catch(() => ({ detail: "no answer from the console (" + response.status + ")" }));
    if (!response.ok) throw new Error(found.detail);
    return found;
  }
  function say(problem) {
    byId("trouble").textContent = problem;
    byId("trouble").hidden = !problem;
  }
  const address = (one) => "/api/labels/" + encodeURIComponent(one.id) + "/picture";

  async function refill() {
    clearTimeout(lookAgain);
    try {
      const found = await call("/api/labels/queue?" + root.dataset.query + (again ? "&again=true" : ""));
      again = false;
      const known = new Set([...waiting, ...past, ...(current ? [current] : [])].map((one) => one.id));
      waiting.push(...found.objects.filter((one) => !known.has(one.id) && !skipped.has(one.id)));
      labels = found.labels;
      say(found.outage ? "Labels cannot be read: " + found.outage : "");
    } catch (error) { say(error.message); }
    if (!current && waiting.length) next();
    if (!current) lookAgain = setTimeout(refill, AGAIN_MS);
  }
  function next() {
    current = waiting.shift() || null;
    show();
    if (waiting.length < 4) refill();
    if (waiting.length) new Image().src = address(waiting[0]);
  }
  function show() {
    byId("question").hidden = !current;
    byId("waiting").hidden = Boolean(current);
    canvas.hidden = !current;
    framed.hidden = !current;
    if (!current) { byId("waiting").textContent = "No object waits. New ones appear here."; picture.hidden = true; return; }
    byId("label").textContent = current.label;
    byId("score").textContent = Math.round(current.score * 100) + " % · " + current.model;
    byId("reason").textContent = REASONS[current.reason] || current.reason;
    byId("facts").textContent = current.camera + " · " + new Date(current.captured_ms).toLocaleString();
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    picture.hidden = false;
    picture.src = address(current);
    choices();
  }
  function choices() {
    const buttons = labels.map((name, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.label = name;
      button.disabled = name === current.label;
      button.textContent = name + " ";
      if (LETTERS[index]) {
        const key = document.createElement("kbd");
        key.textContent = LETTERS[index].toUpperCase();
        button.append(key);
      }
      return button;
    });
    byId("choices").replaceChildren(...buttons);
  }
  function draw() {
    if (!current) return;
    const [left, top, right, bottom] = current.box;
    const marginX = (right - left) * CONTEXT, marginY = (bottom - top) * CONTEXT;
    const x = Math.max(0, left - marginX), y = Math.max(0, top - marginY);
    const width = Math.min(picture.naturalWidth, right + marginX) - x, height = Math.min(picture.naturalHeight, bottom + marginY) - y;
    const scale = Math.min(canvas.width / width, canvas.height / height);
    const offsetX = (canvas.width - width * scale) / 2, offsetY = (canvas.height - height * scale) / 2;
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(picture, x, y, width, height, offsetX, offsetY, width * scale, height * scale);
    context.strokeStyle = "#f2777a";
    context.lineWidth = 2;
    context.strokeRect(offsetX + (left - x) * scale, offsetY + (top - y) * scale, (right - left) * scale, (bottom - top) * scale);
    const name = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(name, "svg"), rect = document.createElementNS(name, "rect");
    svg.setAttribute("viewBox", "0 0 " + picture.naturalWidth + " " + picture.naturalHeight);
    rect.setAttribute("class", "box");
    for (const [key, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top })) rect.setAttribute(key, value);
    svg.append(rect);
    for (const old of framed.querySelectorAll("svg")) old.remove();
    framed.append(svg);
  }
  picture.addEventListener("load", draw);
  picture.addEventListener("error", () => { if (current) { skipped.add(current.id); next(); } }); // expired

  async function decide(verdict, corrected = "") {
    if (busy || !current) return;
    busy = true;
    try {
      await call("/api/labels/" + encodeURIComponent(current.id) + "/decisions", { verdict, corrected });
      past.push(current);
      count += 1;
      say("");
      next();
    } catch (error) { say(error.message); }
    busy = false;
    update();
  }
  async function undo() {
    const last = past[past.length - 1];
    if (busy || !last) return;
    busy = true;
    try {
      if (!last.skipped) {
        await call("/api/labels/" + encodeURIComponent(last.id) + "/decisions", { verdict: "undo" });
        count -= 1;
      }
      past.pop();
      skipped.delete(last.id);
      if (current) waiting.unshift(current);
      current = { ...last, skipped: false };
      show();
    } catch (error) { say(error.message); }
    busy = false;
    update();
  }
  function skip() {
    if (busy || !current) return;
    skipped.add(current.id);
    past.push({ ...current, skipped: true });
    next();
    update();
  }
  function update() {
    byId("count").textContent = count;
    document.querySelector("[data-act=undo]").disabled = !past.length;
  }
  const acts = { accept: () => decide("accept"), reject: () => decide("reject"), skip, undo };
  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (event.detail) button.blur(); // after a click by mouse, Enter accepts again
    if (button.dataset.act) acts[button.dataset.act]();
    if (button.dataset.label !== undefined) decide("correct", button.dataset.label);
  });
  document.addEventListener("click", async (event) => { // a row of the newest decisions
    const button = event.target.closest("[data-withdraw]");
    if (!button) return;
    button.disabled = true;
    try {
      await call("/api/labels/" + encodeURIComponent(button.dataset.withdraw) + "/decisions", { verdict: "undo" });
      button.closest("tr").remove();
      if (!waiting.length) refill();
    } catch (error) { say(error.message); button.disabled = false; }
  });
  byId("other").addEventListener("submit", (event) => {
    event.preventDefault();
    const field = event.target.elements.corrected, text = field.value.trim();
    if (!text) return;
    field.value = "";
    field.blur();
    if (!labels.includes(text)) labels.push(text);
    decide(text === current.label ? "accept" : "correct", text === current.label ? "" : text);
  });
  const KEYS = { Enter: "accept", " ": "accept", x: "reject", Delete: "reject", s: "skip", ArrowRight: "skip", u: "undo", Backspace: "undo", ArrowLeft: "undo" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea, a, button:not([data-act], [data-label])")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.target.matches("button") && (key === "Enter" || key === " ")) return; // presses the focused button
    if (KEYS[key]) { event.preventDefault(); if (!event.repeat) acts[KEYS[key]](); return; }
    const name = labels[LETTERS.indexOf(key)];
    if (name === undefined || event.repeat || !current) return;
    event.preventDefault();
    if (name === current.label) decide("accept"); else decide("correct", name);
  });
  refill();
})();
