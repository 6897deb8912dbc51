"use strict";
// The list of events: a button tells of new events, and loads them.
(() => {
  const button = document.getElementById("news");
  if (button) {
    let count = 0;
    const stream = new EventSource("/api/stream?kinds=event");
    stream.addEventListener("event", () => {
      count += 1;
      button.textContent = count === 1 ? "Show 1 new event" : "Show " + count + " new events";
      button.hidden = false;
    });
    button.addEventListener("click", () => location.reload());
    window.addEventListener("pagehide", () => stream.close());
  }

  // The page of one event: its shapes on a frame that has no annotated copy.
  for (const framed of document.querySelectorAll("[data-overlay]")) {
    const picture = framed.querySelector("img");
    const { shape, box, trail } = JSON.parse(framed.dataset.overlay);
    const draw = () => {
      const name = "http://www.w3.org/2000/svg";
      const svg = document.createElementNS(name, "svg");
      svg.setAttribute("viewBox", `0 0 ${picture.naturalWidth} ${picture.naturalHeight}`);
      const add = (tag, kind, attributes) => {
        const node = document.createElementNS(name, tag);
        node.setAttribute("class", kind);
        for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
        svg.append(node);
      };
      const path = (points) => points.map(([x, y]) => x + "," + y).join(" ");
      if (shape.length) add(shape.length > 2 ? "polygon" : "polyline", "shape", { points: path(shape) });
      if (trail.length) add("polyline", "trail", { points: path(trail) });
      if (box) add("rect", "box", { x: box[0], y: box[1], width: box[2] - box[0], height: box[3] - box[1] });
      framed.append(svg);
    };
    if (picture.complete && picture.naturalWidth) draw();
    else picture.addEventListener("load", draw);
  }

  // A picture that has expired leaves an empty space.
  document.addEventListener("error", (event) => {
    if (event.target instanceof HTMLImageElement) event.target.classList.add("gone");
  }, true);
})();
