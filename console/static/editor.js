"use strict";
// The editor of one camera: shapes on its picture, a form for the selected rule, a trial, and saving.
(() => {
  const root = document.getElementById("editor");
  if (!root) return;
  const byId = (id) => document.getElementById(id);
  const camera = root.dataset.camera;
  const api = "/api/cameras/" + encodeURIComponent(camera);
  const headers = { "Content-Type": "application/json", ...JSON.parse(document.body.getAttribute("hx-headers")) };
  const SQUARE = [[0.35, 0.35], [0.65, 0.35], [0.65, 0.65], [0.35, 0.65]];
  const LINE = [[0.3, 0.5], [0.7, 0.5]];
  const CORNERS = ["near left", "near right", "far right", "far left"];
  let saved = null; // the configuration as it was loaded
  let draft = null; // the same with the user's changes
  let selected = ""; // key of the selected item
  let size = [1600, 900]; // of the picture, in pixels

  const copy = (value) => JSON.parse(JSON.stringify(value));
  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key in made) made[key] = value; else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }
  function svg(name, attributes) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }
  async function call(path, method = "GET", body = undefined) {
    const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    const found = await response.json().catch(() => ({ detail: "no answer from the console (" + response.status + ")" }));
    if (!response.ok) throw new Error(found.detail);
    return found;
  }

  // --- Items: rules, masks and the ground plane -------------------------------------------------------------------
  const kindOf = (name) => saved.kinds.find((kind) => kind.type === draft.rules[name].type);
  function items() {
    const rules = Object.keys(draft.rules).filter((name) => draft.rules[name]).sort();
    const masks = (list, key, title) => list.map((_, index) => ({ key: key + ":" + index, title: title + " " + (index + 1), kind: "mask" }));
    return [
      ...rules.map((name) => ({ key: "rule:" + name, title: name, kind: draft.rules[name].type })),
      ...masks(draft.gate_masks, "gate", "motion mask"),
      ...masks(draft.redact_masks, "redact", "privacy mask"),
      ...(draft.ground ? [{ key: "ground", title: "ground plane", kind: "ground" }] : []),
    ];
  }
  function isChanged(key) {
    const [kind, name] = split(key);
    if (kind === "rule") return !same(draft.rules[name], saved.rules[name]);
    if (kind === "ground") return !same(draft.ground, saved.ground);
    const list = kind === "gate" ? "gate_masks" : "redact_masks";
    return !same(draft[list][name], saved[list][name]);
  }
  function split(key) {
    const at = key.indexOf(":");
    return at < 0 ? [key, ""] : [key.slice(0, at), key.slice(at + 1)];
  }
  // The shapes of an item. `points` is read, and `put` writes changed points.
  function shapesOf(key) {
    const [kind, name] = split(key);
    if (kind === "gate" || kind === "redact") {
      const list = kind === "gate" ? draft.gate_masks : draft.redact_masks;
      return [{ label: "", closed: true, points: list[name], put: (points) => { list[name] = points; } }];
    }
    if (kind === "ground") {
      return [{ label: "ground", closed: true, fixed: true, names: CORNERS, points: draft.ground.corners, put: (points) => { draft.ground.corners = points; } }];
    }
    const rule = draft.rules[name];
    return kindOf(name).shapes.flatMap((shape) => {
      const [first, second] = shape.settings;
      if (shape.kind === "lines") {
        return Object.keys(rule[first] || {}).map((line) => ({ label: line, points: rule[first][line], put: (points) => { rule[first][line] = points; } }));
      }
      if (!rule[first]) return [];
      if (second) {
        return [{ label: "", arrow: true, points: [rule[first], rule[second]], put: (points) => { [rule[first], rule[second]] = points; } }];
      }
      const closed = shape.kind === "polygon";
      return [{ label: closed ? "" : first, closed, points: rule[first], put: (points) => { rule[first] = points; } }];
    });
  }

  // --- Drawing ----------------------------------------------------------------------------------------------------
  const drawing = svg("svg", { class: "shapes", role: "group", "aria-label": "Lines, zones and masks" });
  const photo = element("img", { alt: "Newest picture of " + camera, hidden: true });
  byId("drawing").append(photo, drawing);
  const px = ([x, y]) => [x * size[0], y * size[1]];

  function draw() {
    drawing.setAttribute("viewBox", "0 0 " + size[0] + " " + size[1]);
    drawing.replaceChildren();
    const all = items();
    for (const item of [...all.filter((one) => one.key !== selected), ...all.filter((one) => one.key === selected)]) {
      for (const [index, shape] of shapesOf(item.key).entries()) drawShape(item, shape, index);
    }
  }
  function drawShape(item, shape, index) {
    const points = shape.points.map((point) => px(point).join(",")).join(" ");
    const look = "shape " + item.kind + (item.key === selected ? " selected" : "");
    const outline = svg(shape.closed ? "polygon" : "polyline", { points, class: look });
    outline.addEventListener("pointerdown", () => { if (item.key !== selected) select(item.key); });
    drawing.append(outline);
    if (shape.arrow) drawArrow(shape.points, look);
    const [x, y] = px(shape.points[0]);
    const text = svg("text", { x: x + size[0] / 120, y: y - size[0] / 120, class: "shape-name", "font-size": size[0] / 48 });
    text.textContent = [item.title, shape.label].filter(Boolean).join(" · ");
    drawing.append(text);
    if (item.key === selected) drawHandles(item, shape, index);
  }
  // The arrow points to the side that "forward" leads to: the right of the way from start to end.
  function drawArrow([start, end], look) {
    const [[ax, ay], [bx, by]] = [px(start), px(end)];
    const length = Math.hypot(bx - ax, by - ay) || 1;
    const [dx, dy] = [(bx - ax) / length, (by - ay) / length];
    const [mx, my, reach] = [(ax + bx) / 2, (ay + by) / 2, size[0] / 25];
    const [tx, ty] = [mx - dy * reach, my + dx * reach];
    const back = reach / 3;
    const wing = (turn) => (tx + dy * back + dx * back * turn) + "," + (ty - dx * back + dy * back * turn);
    drawing.append(svg("path", { d: "M" + mx + "," + my + "L" + tx + "," + ty + "M" + wing(1) + "L" + tx + "," + ty + "L" + wing(-1), class: look + " arrow" }));
  }
  function drawHandles(item, shape, index) {
    const radius = size[0] / 90;
    if (shape.closed && !shape.fixed) {
      shape.points.forEach((point, at) => {
        const next = shape.points[(at + 1) % shape.points.length];
        const [x, y] = px([(point[0] + next[0]) / 2, (point[1] + next[1]) / 2]);
        const between = svg("circle", { cx: x, cy: y, r: radius * 0.7, class: "handle between" });
        between.addEventListener("pointerdown", (event) => {
          event.preventDefault();
          const points = copy(shape.points);
          points.splice(at + 1, 0, fromEvent(event));
          shape.put(points);
          draw();
          drag(index, at + 1, event.pointerId);
        });
        drawing.append(between);
      });
    }
    shape.points.forEach((point, at) => {
      const [x, y] = px(point);
      const name = shape.names ? shape.names[at] : "corner " + (at + 1);
      const handle = svg("circle", { cx: x, cy: y, r: radius, class: "handle", tabindex: 0, role: "button", "data-handle": index + "," + at, "aria-label": item.title + ", " + name });
      handle.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        handle.focus();
        drag(index, at, event.pointerId);
      });
      handle.addEventListener("keydown", (event) => handleKey(event, index, at));
      drawing.append(handle);
    });
  }
  function fromEvent(event) {
    const box = drawing.getBoundingClientRect();
    return tidy([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
  }
  const tidy = (point) => point.map((part) => Math.round(Math.min(1, Math.max(0, part)) * 10000) / 10000);
  function move(index, at, point) {
    const shape = shapesOf(selected)[index];
    const points = copy(shape.points);
    points[at] = tidy(point);
    shape.put(points);
    changed();
  }
  function drag(index, at, pointer) {
    drawing.setPointerCapture(pointer);
    const onMove = (event) => move(index, at, fromEvent(event));
    const onEnd = () => {
      drawing.removeEventListener("pointermove", onMove);
      drawing.removeEventListener("pointerup", onEnd);
      drawing.removeEventListener("pointercancel", onEnd);
      focusHandle(index, at);
    };
    drawing.addEventListener("pointermove", onMove);
    drawing.addEventListener("pointerup", onEnd);
    drawing.addEventListener("pointercancel", onEnd);
  }
  function handleKey(event, index, at) {
    const step = event.shiftKey ? 0.02 : 0.004;
    const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key] || [];
    const shape = shapesOf(selected)[index];
    if (dx !== undefined) {
      event.preventDefault();
      const [x, y] = shape.points[at];
      move(index, at, [x + dx, y + dy]);
      focusHandle(index, at);
    } else if (event.key === "Delete" && shape.closed && !shape.fixed && shape.points.length > 3) {
      event.preventDefault();
      shape.put(shape.points.filter((_, number) => number !== at));
      changed();
      focusHandle(index, 0);
    }
  }
  const focusHandle = (index, at) => { const found = drawing.querySelector('[data-handle="' + index + "," + at + '"]'); if (found) found.focus(); };

  // --- The list and the form --------------------------------------------------------------------------------------
  function showItems() {
    byId("items").replaceChildren(...items().map((item) => {
      const button = element("button", { type: "button", role: "option", "aria-selected": String(item.key === selected), className: "item" },
        element("span", {}, item.title), element("small", {}, item.kind + (isChanged(item.key) ? " · changed" : "")));
      button.addEventListener("click", () => select(item.key));
      return button;
    }));
  }
  function select(key) {
    selected = items().some((item) => item.key === key) ? key : "";
    showItems();
    showForm();
    draw();
  }
  function changed() {
    const differs = !same(draft, saved);
    byId("save").disabled = byId("discard").disabled = !differs;
    showItems();
    draw();
  }
  function showForm() {
    const form = byId("form");
    form.hidden = !selected;
    form.replaceChildren();
    if (!selected) return;
    const [kind, name] = split(selected);
    form.append(element("h2", {}, kind === "rule" ? draft.rules[name].type + " " + name : items().find((item) => item.key === selected).title));
    if (kind === "rule") ruleForm(form, name);
    if (kind === "ground") {
      form.append(element("p", { className: "hint" }, "The corners of a rectangle on the ground. Rules over speeds need it."));
      for (const [key, text] of [["width_m", "Near edge in m"], ["length_m", "Right edge in m"]]) {
        const input = element("input", { type: "number", min: "0.1", step: "any", value: draft.ground[key] });
        input.addEventListener("input", () => { draft.ground[key] = Number(input.value); changed(); });
        form.append(element("label", {}, text, input));
      }
    }
    const remove = element("button", { type: "button", className: "quiet danger" }, "Remove");
    remove.addEventListener("click", () => {
      if (kind === "rule") { if (saved.rules[name]) draft.rules[name] = null; else delete draft.rules[name]; }
      else if (kind === "ground") draft.ground = null;
      else (kind === "gate" ? draft.gate_masks : draft.redact_masks).splice(Number(name), 1);
      selected = "";
      showForm();
      changed();
    });
    form.append(element("div", { className: "row" }, remove));
  }
  function ruleForm(form, name) {
    const rule = draft.rules[name];
    const kind = kindOf(name);
    form.append(element("p", { className: "hint" }, kind.summary.replaceAll("`", "")));
    const fields = element("div", { className: "fields" });
    if (!saved.rules[name]) {
      const input = element("input", { value: name, pattern: "[a-z0-9]([a-z0-9._\\-]{0,61}[a-z0-9])?", required: true });
      input.addEventListener("change", () => {
        const wanted = input.value.trim();
        if (!input.checkValidity() || draft.rules[wanted]) { say("name = " + wanted + ": expected a new name of lower-case letters, digits, . _ -", "bad"); return; }
        draft.rules[wanted] = rule;
        delete draft.rules[name];
        select("rule:" + wanted);
        changed();
      });
      fields.append(element("label", {}, "name", input));
    }
    fields.append(choice("pipeline", draft.pipelines, rule));
    for (const field of kind.fields) fields.append(fieldOf(field, rule));
    form.append(fields);
    for (const shape of kind.shapes) {
      const key = shape.settings[0];
      if (shape.kind === "lines") {
        const input = element("input", { placeholder: "name of a line" });
        const add = element("button", { type: "button" }, "Add a line");
        add.addEventListener("click", () => { if (input.value) { rule[key] = { ...rule[key], [input.value.trim()]: copy(LINE) }; showForm(); changed(); } });
        form.append(element("div", { className: "row" }, input, add));
      } else if (!shape.required) {
        const tick = element("input", { type: "checkbox", checked: Boolean(rule[key]) });
        tick.addEventListener("change", () => { if (tick.checked) rule[key] = copy(SQUARE); else delete rule[key]; changed(); });
        form.append(element("label", { className: "tick" }, tick, "only within an area"));
      }
    }
  }
  function choice(key, values, rule, fallback = "") {
    const input = element("select", {}, ...values.map((value) => element("option", { value }, value)));
    input.value = rule[key] ?? fallback;
    input.addEventListener("change", () => { rule[key] = input.value; changed(); });
    return element("label", {}, key, input);
  }
  function fieldOf(field, rule) {
    if (field.kind === "choice") return choice(field.name, field.choices, rule, field.default);
    const value = rule[field.name] ?? null;
    const write = (found) => { if (found === null) delete rule[field.name]; else rule[field.name] = found; changed(); };
    if (field.kind === "flag") {
      const tick = element("input", { type: "checkbox", checked: value ?? field.default });
      tick.addEventListener("change", () => write(tick.checked));
      return element("label", { className: "tick" }, tick, field.name);
    }
    const shown = (found) => found === null ? "" : field.kind === "texts" ? found.join(", ") : field.kind === "json" ? JSON.stringify(found) : String(found);
    const isNumber = field.kind === "number" || field.kind === "integer";
    const input = element(field.kind === "json" ? "textarea" : "input", { value: shown(value), placeholder: shown(field.default), required: field.required });
    if (isNumber) Object.assign(input, { type: "number", step: field.kind === "integer" ? "1" : "any" });
    input.addEventListener("input", () => {
      const text = input.value.trim();
      input.setCustomValidity("");
      if (!text) write(null);
      else if (isNumber) write(Number(text));
      else if (field.kind === "texts") write(text.split(",").map((part) => part.trim()).filter(Boolean));
      else if (field.kind === "json") { try { write(JSON.parse(text)); } catch { input.setCustomValidity("expected JSON"); } }
      else write(text);
    });
    return element("label", { title: field.name }, field.name, input);
  }
  function add() {
    const type = byId("add").value;
    if (type === "gate" || type === "redact") {
      const list = type === "gate" ? draft.gate_masks : draft.redact_masks;
      list.push(copy(SQUARE));
      select(type + ":" + (list.length - 1));
    } else if (type === "ground") {
      draft.ground = draft.ground || { corners: [[0.2, 0.9], [0.8, 0.9], [0.65, 0.4], [0.35, 0.4]], width_m: 7, length_m: 20 };
      select("ground");
    } else {
      const kind = saved.kinds.find((one) => one.type === type);
      let name = camera + "-" + type.replaceAll("_", "-");
      for (let number = 2; name in draft.rules; number += 1) name = camera + "-" + type.replaceAll("_", "-") + "-" + number;
      const rule = { type, pipeline: saved.pipelines[0] || "" };
      for (const shape of kind.shapes.filter((one) => one.required)) {
        const [first, second] = shape.settings;
        if (shape.kind === "lines") rule[first] = { a: copy(LINE), b: [[0.3, 0.7], [0.7, 0.7]] };
        else if (second) [rule[first], rule[second]] = copy(LINE);
        else rule[first] = copy(shape.kind === "polygon" ? SQUARE : first === "second" ? [[0.3, 0.7], [0.7, 0.7]] : LINE);
      }
      draft.rules[name] = rule;
      select("rule:" + name);
    }
    changed();
  }

  // --- The console ------------------------------------------------------------------------------------------------
  function changes() {
    const rules = {};
    for (const name of Object.keys(draft.rules)) if (!same(draft.rules[name], saved.rules[name])) rules[name] = draft.rules[name];
    const differs = (key) => (same(draft[key], saved[key]) ? null : draft[key] ?? {});
    return { rules, gate_masks: differs("gate_masks"), redact_masks: differs("redact_masks"), ground: differs("ground"), versions: saved.versions };
  }
  function say(text, look = "") {
    const message = byId("message");
    message.textContent = text;
    message.className = "note " + look;
    message.hidden = !text;
  }
  async function attempt(work) {
    say("");
    try { await work(); } catch (error) { say(error.message, "bad"); }
  }
  async function load() {
    const found = await call(api + "/configuration");
    const rules = Object.fromEntries(found.rules.map((rule) => [rule.name, rule.settings]));
    const versions = Object.fromEntries(found.rules.map((rule) => ["rule/" + rule.name, rule.version]));
    saved = { ...found, rules, versions: { ...versions, ["camera/" + camera]: found.version } };
    draft = copy(saved);
    const options = saved.kinds.map((kind) => element("option", { value: kind.type, title: kind.summary }, kind.type));
    byId("add").replaceChildren(
      element("optgroup", { label: "rule" }, ...options),
      element("optgroup", { label: "camera" }, element("option", { value: "gate" }, "motion mask"), element("option", { value: "redact" }, "privacy mask"), element("option", { value: "ground" }, "ground plane")),
    );
    select(items().length ? items()[0].key : "");
    changed();
  }
  async function loadPicture() {
    const response = await fetch(api + "/picture", { headers });
    if (!response.ok) { byId("blank").hidden = false; return; }
    photo.src = URL.createObjectURL(await response.blob());
    await photo.decode();
    URL.revokeObjectURL(photo.src);
    size = [photo.naturalWidth, photo.naturalHeight];
    photo.hidden = false;
    byId("blank").hidden = true;
    if (draft) draw();
  }
  async function tryDraft() {
    byId("try").disabled = true;
    const bar = byId("progress");
    bar.hidden = false;
    bar.removeAttribute("value");
    try {
      let trial = await call(api + "/trials", "POST", { draft: changes(), period_ms: Number(byId("period").value) });
      while (trial.state === "running") {
        await new Promise((resolve) => setTimeout(resolve, 400));
        trial = await call("/api/trials/" + encodeURIComponent(trial.id));
        if (trial.total) { bar.max = trial.total; bar.value = trial.read; }
      }
      if (trial.state === "failed") throw new Error(trial.problem);
      showReport(trial);
    } finally {
      byId("try").disabled = false;
      bar.hidden = true;
    }
  }
  function showReport(trial) {
    const count = (number, noun) => number + " " + noun + (number === 1 ? "" : "s");
    const parts = [element("p", {}, "Tried on " + count(trial.report.results, "result") + (trial.report.failed ? ", " + trial.report.failed + " could not be processed" : "") + ".")];
    for (const warning of trial.report.warnings) parts.push(element("p", { className: "note warn" }, warning));
    for (const rule of trial.report.rules) {
      const total = rule.equal + rule.moved + rule.gained;
      const details = [[rule.gained, "gained"], [rule.lost, "lost"], [rule.moved, "in another frame"], [rule.equal, "as before"]].filter(([number]) => number).map(([number, text]) => number + " " + text);
      parts.push(element("h3", {}, rule.rule + ": " + count(total, "event") + (details.length ? " (" + details.join(", ") + ")" : "")));
      const pictures = element("div", { className: "tried" });
      for (const [look, list] of [["gained", rule.gained_events], ["lost", rule.lost_events]]) {
        for (const event of list) {
          const time = element("time", { dateTime: event.time }, event.time);
          const caption = element("figcaption", {}, element("span", { className: "badge " + (look === "gained" ? "good" : "bad") }, look), " ", time, " ", event.summary);
          const source = "/api/trials/" + encodeURIComponent(trial.id) + "/pictures/" + event.picture;
          const image = event.picture === null ? [] : [element("a", { href: source, target: "_blank" }, element("img", { src: source, alt: event.summary, loading: "lazy" }))];
          pictures.append(element("figure", {}, ...image, caption));
        }
      }
      parts.push(pictures);
    }
    byId("report").replaceChildren(...parts);
    if (window.showLocalTimes) window.showLocalTimes(byId("report"));
  }
  byId("add-button").addEventListener("click", add);
  byId("refresh").addEventListener("click", () => attempt(loadPicture));
  byId("try").addEventListener("click", () => attempt(tryDraft));
  byId("discard").addEventListener("click", () => { draft = copy(saved); select(""); changed(); });
  byId("save").addEventListener("click", () => attempt(async () => {
    if (!byId("form").checkValidity()) { byId("form").reportValidity(); return; }
    await call(api + "/configuration", "PUT", { draft: changes(), comment: byId("comment").value });
    saved = draft; // nothing is left to lose
    window.location.assign(window.location.pathname + "?done=configured");
  }));
  for (const button of document.querySelectorAll("[data-undo]")) {
    button.addEventListener("click", () => attempt(async () => {
      await call("/api/changes/" + button.dataset.undo + "/undo", "POST");
      window.location.assign(window.location.pathname + "?done=configured");
    }));
  }
  window.addEventListener("beforeunload", (event) => { if (draft && !same(draft, saved)) event.preventDefault(); });
  attempt(async () => { await load(); await loadPicture(); });
})();
