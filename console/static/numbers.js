"use strict";
// Plots of measures. Colours follow the page, and the values of each measure are also in a table.
(() => {
  const COLOURS = ["#0b66c3", "#d9822b", "#1a7f4b", "#a341a8", "#c0272d", "#00838f", "#8a6d00", "#5e6b78"];
  const MAX_LINES = COLOURS.length;
  const hours = document.getElementById("plots").dataset.hours;
  const isMean = (key) => /\.(mean|max|per_km_lane)$/.test(key) || key === "level_of_service";
  const short = (value) => (value === null || value === undefined ? "" : String(Math.round(value * 100) / 100));

  function plot(section, data) {
    const style = getComputedStyle(document.documentElement);
    const axis = { stroke: style.getPropertyValue("--muted"), grid: { stroke: style.getPropertyValue("--edge"), width: 1 }, ticks: { show: false } };
    const keys = Object.keys(data.values).slice(0, MAX_LINES);
    const series = keys.map((key, index) => ({ label: key, stroke: COLOURS[index], width: 2, points: { show: data.start_s.length < 90, size: 4 } }));
    const target = section.querySelector(".plot");
    const size = () => ({ width: target.clientWidth, height: 220 });
    target.replaceChildren();
    const made = new uPlot({ ...size(), series: [{}, ...series], axes: [axis, { ...axis, size: 46 }], legend: { show: false } },
      [data.start_s, ...keys.map((key) => data.values[key])], target);
    new ResizeObserver(() => made.setSize(size())).observe(target);
  }
  function table(section, data) {
    const rows = Object.entries(data.values).map(([key, values], index) => {
      const known = values.filter((value) => value !== null);
      const sum = known.reduce((one, other) => one + other, 0);
      const row = document.createElement("tr");
      const texts = [key, short(values.at(-1)), short(isMean(key) ? sum / (known.length || 1) : sum), known.length ? short(Math.max(...known)) : ""];
      texts.forEach((text, column) => {
        const cell = document.createElement("td");
        cell.textContent = text;
        cell.className = column ? "number" : "";
        if (!column && index < MAX_LINES) {
          const mark = document.createElement("span");
          mark.className = "mark";
          mark.style.background = COLOURS[index];
          cell.prepend(mark);
        }
        row.append(cell);
      });
      return row;
    });
    section.querySelector("tbody").replaceChildren(...rows);
  }
  async function show(section) {
    const response = await fetch("/api/measures/" + encodeURIComponent(section.dataset.measure) + "?hours=" + hours);
    const note = section.querySelector(".observed");
    if (!response.ok) { note.textContent = (await response.json()).detail; return; }
    const data = await response.json();
    if (!data.start_s.length) { note.textContent = "No minutes in this period."; return; }
    const mean = data.observed.reduce((one, other) => one + other, 0) / data.observed.length;
    note.textContent = data.start_s.length + " minutes, observed " + Math.round(mean * 100) + " %. Minutes without observation have no values.";
    plot(section, data);
    table(section, data);
  }
  function showAll() { for (const section of document.querySelectorAll(".measure")) show(section); }
  showAll();
  setInterval(showAll, 60000);
})();
