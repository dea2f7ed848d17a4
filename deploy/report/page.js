"use strict";
// Language: the address's #zh or #en, else what was chosen last, else the browser's.
(() => {
  const root = document.documentElement;
  const remembered = { get() { try { return localStorage.getItem("language"); } catch { return null; } },
                       set(value) { try { localStorage.setItem("language", value); } catch { /* a file's page may not */ } } };
  const show = (language) => {
    root.dataset.language = language;
    root.lang = language === "zh" ? "zh-CN" : "en";
    for (const button of document.querySelectorAll("nav button"))
      button.setAttribute("aria-pressed", String(button.dataset.set === language));
  };
  const named = () => ["en", "zh"].find((language) => location.hash === "#" + language);
  for (const button of document.querySelectorAll("nav button"))
    button.addEventListener("click", () => { remembered.set(button.dataset.set); show(button.dataset.set); });
  addEventListener("hashchange", () => named() && show(named()));
  const first = named() || remembered.get() || (navigator.language.startsWith("zh") ? "zh" : "en");
  show(first === "zh" ? "zh" : "en");
})();

// Commands are folded on the screen and open on paper.
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });

// Skeletons: each clip is a table of bytes (frame, person, joint, x and y), 255 where a joint was not seen.
(() => {
  const { bones, rate, clips } = JSON.parse(document.getElementById("drawings").textContent);
  const JOINTS = 18, ABSENT = 255, LEFT = new Set([5, 6, 7, 11, 12, 13, 15, 17]), RIGHT = new Set([2, 3, 4, 8, 9, 10, 14, 16]);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const side = (joint) => LEFT.has(joint) ? "left" : RIGHT.has(joint) ? "right" : "middle";

  class Clip {
    constructor(canvas) {
      Object.assign(this, clips[canvas.dataset.sample]);
      this.canvas = canvas;
      this.bytes = Uint8Array.from(atob(this.joints), (letter) => letter.charCodeAt(0));
      this.start = performance.now();
      this.paused = still.matches ? Math.floor(this.frames / 2) : null;
      canvas.addEventListener("click", () => this.toggle());
      canvas.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.toggle(); } });
    }
    frame(now) { return this.paused ?? Math.floor((now - this.start) / 1000 * rate) % Math.max(this.frames, 1); }
    toggle() {
      const now = performance.now(), frame = this.frame(now);
      if (this.paused === null) this.paused = frame;
      else { this.start = now - frame * 1000 / rate; this.paused = null; }
    }
    draw(now, colours) {
      const { canvas } = this, size = canvas.clientWidth, scale = devicePixelRatio || 1;
      if (canvas.width !== Math.round(size * scale)) canvas.width = canvas.height = Math.round(size * scale);
      const frame = this.frame(now);
      const state = [frame, canvas.width, colours.ink].join();
      if (state === this.shown) return;
      this.shown = state;
      const pen = canvas.getContext("2d"), margin = size * .1, fit = (size - 2 * margin) / 254;
      const left = (size - this.width * fit) / 2, top = (size - this.height * fit) / 2;
      pen.setTransform(scale, 0, 0, scale, 0, 0);
      pen.clearRect(0, 0, size, size);
      pen.lineCap = "round";
      for (let person = 0; person < this.persons; person++) {
        const first = (frame * this.persons + person) * JOINTS * 2;
        const point = (joint) => {
          const x = this.bytes[first + 2 * joint], y = this.bytes[first + 2 * joint + 1];
          return x === ABSENT || y === ABSENT ? null : [left + x * fit, top + y * fit];
        };
        pen.globalAlpha = person ? .55 : 1;
        pen.lineWidth = Math.max(2, size / 90);
        for (const [a, b] of bones) {
          const from = point(a), to = point(b);
          if (!from || !to) continue;
          pen.strokeStyle = colours[side(a) === "middle" ? side(b) : side(a)];
          pen.beginPath(); pen.moveTo(...from); pen.lineTo(...to); pen.stroke();
        }
        for (let joint = 0; joint < JOINTS; joint++) {
          const at = point(joint);
          if (!at) continue;
          pen.fillStyle = colours.ink;
          pen.beginPath(); pen.arc(...at, Math.max(1.6, size / 130), 0, 7); pen.fill();
        }
      }
      pen.globalAlpha = 1;
      pen.fillStyle = colours.muted;
      pen.fillRect(0, size - 3, size * (frame + 1) / Math.max(this.frames, 1), 3);
      canvas.dataset.frame = frame;
    }
  }

  const seen = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) entry.isIntersecting ? seen.add(entry.target) : seen.delete(entry.target);
  });
  const players = new Map([...document.querySelectorAll("canvas[data-sample]")].map((canvas) => [canvas, new Clip(canvas)]));
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    return Object.fromEntries(["ink", "muted", "left", "right", "middle"].map((name) => [name, style.getPropertyValue("--" + name).trim()]));
  };
  let palette = colours();
  const refresh = () => { palette = colours(); for (const clip of players.values()) clip.draw(performance.now(), palette); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  matchMedia("print").addEventListener("change", refresh);
  const tick = (now) => { for (const canvas of seen) players.get(canvas).draw(now, palette); requestAnimationFrame(tick); };
  for (const [canvas, clip] of players) { watch.observe(canvas); clip.draw(performance.now(), palette); }
  requestAnimationFrame(tick);
})();
