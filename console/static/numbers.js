"use strict";
// Plots of measures and forecasts. Colours follow the page, and the values of each measure are also in a table.
(() => {
  const COLOURS = ["#0b66c3", "#d9822b", "#1a7f4b", "#a341a8", "#c0272d", "#00838f", "#8a6d00", "#5e6b78"];
  const DASHES = [[], [8, 4], [2, 3]]; // one pattern for each eight values, again from the start after 24
  const SHOWN_FIRST = COLOURS.length;
  const STORED = "sightline-lines";
  const slots = new Map(); // place of each value among those of its measure, in the order in which they were first seen
  const chosen = new Map(JSON.parse(sessionStorage.getItem(STORED) ?? "[]")); // lines that the user showed or hid
  const drawn = new WeakMap(); // plot and observer of each section
  const ALONE_S = 300; // time shown before and after a single minute; uPlot would show years
  const hours = document.getElementById("plots").dataset.hours;
  const isMean = (key) => /\.(mean|max|per_km_lane)$/.test(key) || key === "level_of_service";
  const choice = (section, key) => section.dataset.measure + " " + key;
  const isShown = (section, key) => chosen.get(choice(section, key)) ?? slot(section, key) < SHOWN_FIRST;
  const short = (value) => (value === null || value === undefined ? "" : String(Math.round(value * 100) / 100));

  function slot(section, key) {
    const measure = section.dataset.measure;
    if (!slots.has(measure)) slots.set(measure, new Map());
    const known = slots.get(measure);
    if (!known.has(key)) known.set(key, known.size);
    return known.get(key);
  }
  function style(section, key) {
    const index = slot(section, key);
    return { stroke: COLOURS[index % COLOURS.length], dash: DASHES[Math.floor(index / COLOURS.length) % DASHES.length] };
  }
  function draw(section, series, columns, bands) {
    const colours = getComputedStyle(document.documentElement);
    const axis = { stroke: colours.getPropertyValue("--muted"), grid: { stroke: colours.getPropertyValue("--edge"), width: 1 }, ticks: { show: false } };
    const target = section.querySelector(".plot");
    const size = () => ({ width: target.clientWidth, height: 220 });
    const old = drawn.get(section);
    if (old) {
      old.observer.disconnect();
      old.made.destroy();
    }
    const [first] = columns[0];
    const x = columns[0].length === 1 ? { range: [first - ALONE_S, first + ALONE_S] } : {};
    const made = new uPlot({ ...size(), series: [{}, ...series], bands, scales: { x }, axes: [axis, { ...axis, size: 56 }], legend: { show: false } }, columns, target);
    const observer = new ResizeObserver(() => made.setSize(size()));
    observer.observe(target);
    drawn.set(section, { made, observer });
  }
  function plot(section, data) {
    Object.keys(data.values).forEach((key) => slot(section, key)); // hidden values keep their places, too
    const keys = Object.keys(data.values).filter((key) => isShown(section, key));
    const series = keys.map((key) => ({ ...style(section, key), label: key, width: 2, points: { show: data.start_s.length < 90, size: 4 } }));
    draw(section, series, [data.start_s, ...keys.map((key) => data.values[key])], []);
  }
  function plotForecast(section, data) {
    const bound = { stroke: COLOURS[0] + "55", width: 1, points: { show: false } };
    const series = [{ ...bound, label: "to" }, { ...bound, label: "from" },
      { label: "forecast", stroke: COLOURS[0], width: 2, points: { show: false } },
      { label: "measured", stroke: COLOURS[1], width: 0, points: { show: true, size: 4, stroke: COLOURS[1], fill: COLOURS[1] } }];
    draw(section, series, [data.start_s, data.upper, data.lower, data.forecast, data.measured], [{ series: [1, 2], fill: COLOURS[0] + "22" }]);
  }
  function forecastTable(section, data) {
    const rows = [];
    data.start_s.forEach((start, index) => {
      if (start * 1e9 < data.made_ns) return;
      const row = document.createElement("tr");
      const time = new Date(start * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
      [time, short(data.forecast[index]), short(data.lower[index]), short(data.upper[index])].forEach((text, column) => {
        const cell = document.createElement("td");
        cell.textContent = text;
        cell.className = column ? "number" : "";
        row.append(cell);
      });
      rows.push(row);
    });
    section.querySelector("tbody").replaceChildren(...rows);
  }
  function forecastNote(data) {
    const parts = ["Model " + data.model + ", intervals of " + Math.round(data.level * 100) + " %, steps of " + data.step_s / 60 + " min."];
    if (data.mae_ratio !== null) parts.push("Error of the last day: " + Math.round(data.mae_ratio * 100) + " % of the error of the naive forecast, the value of the day before. Within the interval: " + Math.round(data.covered * 100) + " %.");
    if (data.drifting) parts.push("The model has drifted: train it again.");
    if (data.reason) parts.push("No forecast now: " + data.reason + ".");
    return parts.join(" ");
  }
  async function showForecast(section) {
    const response = await fetch("/api/forecasts/" + encodeURIComponent(section.dataset.forecast) + "?hours=" + hours);
    const note = section.querySelector(".observed");
    if (!response.ok) { note.textContent = (await response.json()).detail; return; }
    const data = await response.json();
    note.textContent = forecastNote(data);
    if (data.start_s.length) plotForecast(section, data);
    forecastTable(section, data);
  }
  function lineSwitch(section, data, key) {
    const button = document.createElement("button");
    const mark = document.createElement("span");
    const { stroke, dash: [line, gap] } = style(section, key);
    button.type = "button";
    button.className = "line-switch";
    button.title = "Show or hide this line of the plot";
    button.dataset.key = key;
    button.setAttribute("aria-pressed", isShown(section, key));
    mark.className = "mark";
    mark.style.background = gap ? `repeating-linear-gradient(90deg, ${stroke} 0 ${line}px, transparent ${line}px ${line + gap}px)` : stroke;
    button.append(mark, key);
    button.addEventListener("click", () => {
      chosen.set(choice(section, key), !isShown(section, key));
      sessionStorage.setItem(STORED, JSON.stringify([...chosen]));
      button.setAttribute("aria-pressed", isShown(section, key));
      plot(section, data);
    });
    return button;
  }
  function table(section, data) {
    const focused = section.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    const rows = Object.entries(data.values).map(([key, values]) => {
      const known = values.filter((value) => value !== null);
      const sum = known.reduce((one, other) => one + other, 0);
      const row = document.createElement("tr");
      const texts = [key, short(values.at(-1)), short(isMean(key) ? sum / (known.length || 1) : sum), known.length ? short(Math.max(...known)) : ""];
      texts.forEach((text, column) => {
        const cell = document.createElement("td");
        cell.className = column ? "number" : "";
        cell.append(column ? text : lineSwitch(section, data, key));
        row.append(cell);
      });
      return row;
    });
    section.querySelector("tbody").replaceChildren(...rows);
    const again = [...section.querySelectorAll(".line-switch")].find((each) => each.dataset.key === focused);
    if (again) again.focus({ preventScroll: true });
  }
  async function show(section) {
    const response = await fetch("/api/measures/" + encodeURIComponent(section.dataset.measure) + "?hours=" + hours);
    const note = section.querySelector(".observed");
    if (!response.ok) { note.textContent = (await response.json()).detail; return; }
    const data = await response.json();
    if (!data.start_s.length) { note.textContent = "No minutes in this period."; return; }
    const mean = data.observed.reduce((one, other) => one + other, 0) / data.observed.length;
    note.textContent = data.start_s.length + (data.start_s.length === 1 ? " minute" : " minutes") + ", observed " + Math.round(mean * 100) + " %. Minutes without observation have no values.";
    plot(section, data);
    table(section, data);
  }
  function showAll() {
    for (const section of document.querySelectorAll(".measure")) show(section);
    for (const section of document.querySelectorAll(".forecast")) showForecast(section);
  }
  showAll();
  setInterval(showAll, 60000);
})();
