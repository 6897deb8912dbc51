"use strict";
// Live pictures. The console sends each picture with its boxes over a WebSocket; this script draws them and
// acknowledges each picture, upon which the console sends the newest picture of that camera.
(() => {
  const wall = document.getElementById("wall");
  const tiles = new Map();
  const layers = { boxes: true, trails: true, shapes: true };
  const decoder = new TextDecoder();
  const TRAIL_MS = 4000;
  let socket = null;
  let pauseMs = 500;

  const colours = ["#4fc3a1", "#f2b84b", "#6fb1fc", "#e88bc4", "#b6d957", "#ff8a65", "#a99bff", "#5fd0e6"];
  function colourOf(label) {
    let sum = 0;
    for (const character of label) sum = (sum * 31 + character.codePointAt(0)) >>> 0;
    return colours[sum % colours.length];
  }

  class Tile {
    constructor(name) {
      const part = document.getElementById("tile").content.cloneNode(true);
      this.name = name;
      this.figure = part.querySelector(".tile");
      this.canvas = part.querySelector("canvas");
      this.badge = part.querySelector(".badge");
      this.place = part.querySelector(".place");
      this.age = part.querySelector(".age");
      this.reason = part.querySelector(".reason");
      this.blank = part.querySelector(".blank");
      const link = part.querySelector(".name");
      link.textContent = name;
      link.href = "/wall/" + encodeURIComponent(name);
      this.canvas.setAttribute("aria-label", "Live picture of " + name);
      this.canvas.setAttribute("role", "img");
      this.shapes = [];
      this.tracks = [];
      this.capturedMs = 0;
      this.visible = true;
    }

    describe(camera) {
      this.shapes = camera.shapes;
      this.badge.textContent = camera.state;
      this.badge.className = "badge " + camera.look;
      this.place.textContent = [camera.site, camera.place].filter(Boolean).join(" / ");
      this.reason.textContent = camera.reason;
      this.reason.hidden = !camera.reason;
    }

    async draw(header, bytes) {
      const bitmap = await createImageBitmap(new Blob([bytes], { type: header.type }));
      if (this.canvas.width !== header.width || this.canvas.height !== header.height) {
        this.canvas.width = header.width;
        this.canvas.height = header.height;
      }
      const pen = this.canvas.getContext("2d");
      pen.drawImage(bitmap, 0, 0, header.width, header.height);
      bitmap.close();
      this.blank.hidden = true;
      this.capturedMs = header.captured_ms;
      const unit = Math.max(header.width / 640, 1);
      if (layers.shapes) this.drawShapes(pen, header, unit);
      if (header.analysed) this.follow(header);
      if (layers.trails) this.drawTrails(pen, unit);
      if (layers.boxes) this.drawBoxes(pen, header, unit);
    }

    drawShapes(pen, header, unit) {
      pen.lineWidth = 2 * unit;
      for (const shape of this.shapes) {
        const line = shape.kind === "line";
        pen.strokeStyle = shape.kind === "mask" ? "#9aa7b3" : line ? "#ffd54f" : "#6fb1fc";
        pen.setLineDash(line ? [] : [6 * unit, 4 * unit]);
        pen.beginPath();
        shape.points.forEach(([x, y], index) => pen[index ? "lineTo" : "moveTo"](x * header.width, y * header.height));
        if (!line) pen.closePath();
        pen.stroke();
        const [x, y] = shape.points[0];
        this.write(pen, shape.name, x * header.width, y * header.height, pen.strokeStyle, unit);
      }
      pen.setLineDash([]);
    }

    drawBoxes(pen, header, unit) {
      pen.lineWidth = 2 * unit;
      for (const [left, top, right, bottom, label, score] of header.boxes) {
        pen.strokeStyle = colourOf(label);
        pen.strokeRect(left, top, right - left, bottom - top);
        this.write(pen, label + " " + Math.round(score * 100) + " %", left, top, pen.strokeStyle, unit);
      }
    }

    write(pen, text, x, y, colour, unit) {
      pen.font = "600 " + 12 * unit + "px system-ui, sans-serif";
      const width = pen.measureText(text).width + 6 * unit;
      const left = Math.max(0, Math.min(x, this.canvas.width - width));
      const top = Math.max(0, y - 16 * unit);
      pen.fillStyle = "rgb(10 16 22 / 72%)";
      pen.fillRect(left, top, width, 16 * unit);
      pen.fillStyle = colour;
      pen.fillText(text, left + 3 * unit, top + 12 * unit);
    }

    // The path of each box over the last seconds. A box continues the nearest path of its label within its own size.
    follow(header) {
      const now = header.captured_ms;
      this.tracks = this.tracks.filter((track) => now - track.at < TRAIL_MS / 2 && track.at <= now);
      const free = new Set(this.tracks);
      for (const [left, top, right, bottom, label] of header.boxes) {
        const x = (left + right) / 2;
        const y = bottom;
        let best = null;
        let least = Math.max(right - left, bottom - top);
        for (const track of free) {
          const [px, py] = track.points[track.points.length - 1];
          const distance = Math.hypot(px - x, py - y);
          if (track.label === label && distance < least) [best, least] = [track, distance];
        }
        if (!best) this.tracks.push((best = { label, points: [], at: now }));
        free.delete(best);
        best.at = now;
        best.points.push([x, y, now]);
        best.points = best.points.filter((point) => now - point[2] < TRAIL_MS);
      }
    }

    drawTrails(pen, unit) {
      pen.lineWidth = 2.5 * unit;
      for (const track of this.tracks) {
        pen.strokeStyle = colourOf(track.label);
        pen.beginPath();
        track.points.forEach(([x, y], index) => pen[index ? "lineTo" : "moveTo"](x, y));
        pen.stroke();
      }
    }

    showAge() {
      if (!this.capturedMs) return;
      const seconds = (Date.now() - this.capturedMs) / 1000;
      this.age.textContent = seconds < 2 ? "" : seconds < 120 ? Math.round(seconds) + " s ago" : Math.round(seconds / 60) + " min ago";
    }
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      for (const tile of tiles.values()) if (tile.figure === entry.target) tile.visible = entry.isIntersecting;
    }
    watch();
  }, { rootMargin: "200px" });

  function send(message) {
    if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  }

  function watch() {
    const hidden = document.visibilityState === "hidden";
    send({ watch: hidden ? [] : [...tiles.values()].filter((tile) => tile.visible).map((tile) => tile.name) });
  }

  function describe(message) {
    const { site, camera: only } = wall.dataset;
    const cameras = message.cameras.filter((one) => (!only || one.name === only) && (!site || one.site === site));
    const names = new Set(cameras.map((one) => one.name));
    for (const [name, tile] of tiles) {
      if (!names.has(name)) {
        seen.unobserve(tile.figure);
        tile.figure.remove();
        tiles.delete(name);
      }
    }
    for (const camera of cameras) {
      if (!tiles.has(camera.name)) {
        const tile = new Tile(camera.name);
        tiles.set(camera.name, tile);
        wall.append(tile.figure);
        seen.observe(tile.figure);
      }
      tiles.get(camera.name).describe(camera);
    }
    document.getElementById("wall-empty").hidden = cameras.length > 0;
    show(message.outage ? "Kafka cannot be read" : cameras.length + (cameras.length === 1 ? " camera" : " cameras"), message.outage ? "bad" : "good");
    watch();
  }

  async function receive(data) {
    const length = new DataView(data).getUint32(0);
    const header = JSON.parse(decoder.decode(new Uint8Array(data, 4, length)));
    const tile = tiles.get(header.camera);
    try {
      if (tile) await tile.draw(header, new Uint8Array(data, 4 + length));
    } catch (error) {
      if (tile) tile.blank.hidden = false; // a picture that this browser cannot decode
    }
    send({ drawn: header.camera });
  }

  function show(text, look) {
    const state = document.getElementById("wall-state");
    state.textContent = text;
    state.className = "badge " + look;
  }

  function connect() {
    socket = new WebSocket(location.href.replace(/^http/, "ws").replace(/\/wall.*$/, "/live"));
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => (pauseMs = 500));
    socket.addEventListener("message", (event) => {
      if (typeof event.data === "string") describe(JSON.parse(event.data));
      else receive(event.data);
    });
    socket.addEventListener("close", () => {
      show("disconnected", "bad");
      setTimeout(connect, pauseMs);
      pauseMs = Math.min(pauseMs * 2, 15000);
    });
  }

  for (const box of document.querySelectorAll("[data-layer]")) {
    const key = "sightline-" + box.dataset.layer;
    if (localStorage.getItem(key) === "off") layers[box.dataset.layer] = box.checked = false;
    box.addEventListener("change", () => {
      layers[box.dataset.layer] = box.checked;
      localStorage.setItem(key, box.checked ? "on" : "off");
    });
  }
  wall.addEventListener("keydown", (event) => {
    const figure = event.target.closest(".tile");
    if (event.key === "Enter" && event.target === figure) figure.querySelector(".name").click();
  });
  document.addEventListener("visibilitychange", watch);
  setInterval(() => tiles.forEach((tile) => tile.showAge()), 1000);
  connect();
})();
