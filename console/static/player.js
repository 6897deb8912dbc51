"use strict";
// Clips: keys that jump to a moment, and the server's reason for a clip that cannot be played.
(() => {
  const FRAME_S = 0.1; // agents send up to ten frames per second
  const jumps = {
    ArrowLeft: (video) => video.currentTime - 1,
    ArrowRight: (video) => video.currentTime + 1,
    ",": (video) => video.currentTime - FRAME_S,
    ".": (video) => video.currentTime + FRAME_S,
    Home: () => 0,
    End: (video) => video.duration,
  };

  // In the capturing phase, so that the browser's own controls do not jump as well.
  document.addEventListener("keydown", (event) => {
    const video = event.target;
    const jump = jumps[event.key];
    if (!(video instanceof HTMLVideoElement) || !jump || event.altKey || event.ctrlKey || event.metaKey) return;
    if (!Number.isFinite(video.duration)) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "," || event.key === ".") video.pause();
    video.currentTime = Math.min(video.duration, Math.max(0, jump(video)));
  }, true);

  document.addEventListener("error", async (event) => {
    const video = event.target;
    if (!(video instanceof HTMLVideoElement)) return;
    const note = video.parentElement.querySelector(".note");
    let reason = "this browser cannot play it";
    try {
      const address = "/api" + new URL(video.src).pathname; // the API gives reasons as JSON
      const response = await fetch(address, { headers: { Range: "bytes=0-0" } });
      if (!response.ok) reason = (await response.json()).detail;
    } catch (error) {
      reason = "the console does not answer";
    }
    note.textContent = "The clip cannot be shown: " + reason + ".";
    note.hidden = false;
  }, true);
})();
