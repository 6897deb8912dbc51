"use strict";
// A path on the picture of a camera: drawn with a pointer, or point by point with the keyboard.
(() => {
  const area = document.querySelector(".sketch");
  if (!area) return;
  const form = area.closest("form");
  const field = form.elements.path;
  const picture = area.querySelector("img");
  const NS = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(NS, "svg");
  const line = document.createElementNS(NS, "polyline");
  const head = document.createElementNS(NS, "circle");
  const cross = document.createElementNS(NS, "path");
  cross.setAttribute("class", "cross");
  svg.append(line, head, cross);
  area.append(svg);
  let points = field.value.split(";").map((one) => one.split(",").map(Number)).filter((one) => one.length === 2 && one.every(Number.isFinite));
  let cursor = null;
  let isDrawing = false;
  const MOST = 60;

  const draw = () => {
    const [width, height] = [picture.naturalWidth, picture.naturalHeight];
    if (!width) return;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    line.setAttribute("points", points.map((one) => one.join(",")).join(" "));
    const last = points[points.length - 1];
    head.setAttribute("r", last ? width / 90 : 0);
    if (last) { head.setAttribute("cx", last[0]); head.setAttribute("cy", last[1]); }
    const arm = width / 40;
    cross.setAttribute("d", cursor ? `M${cursor[0] - arm} ${cursor[1]}h${2 * arm}M${cursor[0]} ${cursor[1] - arm}v${2 * arm}` : "");
  };
  const store = () => {
    while (points.length > MOST) points = points.filter((_, number) => number % 2 === 0 || number === points.length - 1);
    field.value = points.map((one) => one.map(Math.round).join(",")).join(";");
    field.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const at = (event) => {
    const box = picture.getBoundingClientRect();
    const share = (value, most) => Math.min(1, Math.max(0, value)) * most;
    return [share((event.clientX - box.left) / box.width, picture.naturalWidth), share((event.clientY - box.top) / box.height, picture.naturalHeight)];
  };

  area.addEventListener("pointerdown", (event) => {
    isDrawing = true;
    area.setPointerCapture(event.pointerId);
    points = [at(event)];
    draw();
  });
  area.addEventListener("pointermove", (event) => {
    if (!isDrawing) return;
    const [x, y] = at(event);
    const last = points[points.length - 1];
    if (Math.hypot(x - last[0], y - last[1]) >= picture.naturalWidth / 60) points.push([x, y]);
    draw();
  });
  area.addEventListener("pointerup", () => {
    isDrawing = false;
    if (points.length > 1) store();
  });
  area.addEventListener("keydown", (event) => {
    const step = picture.naturalWidth / (event.shiftKey ? 10 : 40);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    cursor = cursor || [picture.naturalWidth / 2, picture.naturalHeight / 2];
    if (moves[event.key]) {
      cursor = [Math.min(picture.naturalWidth, Math.max(0, cursor[0] + moves[event.key][0])), Math.min(picture.naturalHeight, Math.max(0, cursor[1] + moves[event.key][1]))];
    } else if (event.key === "Enter") {
      points.push([...cursor]);
      if (points.length > 1) store();
    } else if (event.key === "Backspace") {
      points.pop();
      if (points.length !== 1) store();
    } else return;
    event.preventDefault();
    draw();
  });
  document.getElementById("no-path").addEventListener("click", () => { points = []; store(); draw(); });
  if (picture.complete) draw();
  picture.addEventListener("load", draw);
})();
