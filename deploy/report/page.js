"use strict";
const root = document.documentElement;
const remembered = {
  get(name) { try { return localStorage.getItem(name); } catch { return null; } },
  set(name, value) { try { localStorage.setItem(name, value); } catch { /* a file's page may not */ } },
};

// Language: the address's #zh or #en, else what was chosen last, else the browser's.
(() => {
  const buttons = document.querySelectorAll("[data-set]");
  const show = (language) => {
    root.dataset.language = language;
    root.lang = language === "zh" ? "zh-CN" : "en";
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.set === language));
  };
  const named = () => ["en", "zh"].find((language) => location.hash === "#" + language);
  for (const button of buttons) button.addEventListener("click", () => { remembered.set("language", button.dataset.set); show(button.dataset.set); });
  addEventListener("hashchange", () => named() && show(named()));
  const first = named() || remembered.get("language") || (navigator.language.startsWith("zh") ? "zh" : "en");
  show(first === "zh" ? "zh" : "en");
})();

// Theme: what was chosen last, else the system's.
(() => {
  const buttons = document.querySelectorAll("[data-theme-choice]"), system = matchMedia("(prefers-color-scheme: dark)");
  const show = (chosen) => {
    if (chosen) root.dataset.theme = chosen;
    const dark = (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
    for (const button of buttons) button.setAttribute("aria-pressed", String((button.dataset.themeChoice === "dark") === dark));
    dispatchEvent(new Event("colours"));
  };
  for (const button of buttons) button.addEventListener("click", () => { remembered.set("theme", button.dataset.themeChoice); show(button.dataset.themeChoice); });
  system.addEventListener("change", () => show());
  show({ light: "light", dark: "dark" }[remembered.get("theme")]);
})();

// Copying and saving.
(() => {
  const copy = async (text) => {
    try { return await navigator.clipboard.writeText(text); } catch { /* a file's page may have no clipboard */ }
    const field = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  };
  for (const button of document.querySelectorAll("[data-copy]"))
    button.addEventListener("click", async () => {
      await copy(button.dataset.copy);
      button.classList.add("good");
      setTimeout(() => button.classList.remove("good"), 1200);
    });
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const files = { json: () => [JSON.stringify(read("summary"), null, 1) + "\n", "application/json"], csv: () => [read("csv"), "text/csv"] };
  for (const button of document.querySelectorAll("[data-download]"))
    button.addEventListener("click", () => {
      const [text, type] = files[button.dataset.download]();
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type }));
      link.download = "summary." + button.dataset.download;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
})();

// What is folded on the screen is open on paper, in browsers too that cannot be told so by a style.
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });

// Skeletons: a clip is a table of bytes (frame, person, joint, x and y), 255 where a joint was not seen.
(() => {
  const { skeleton, clips } = JSON.parse(document.getElementById("drawings").textContent);
  if (!skeleton) return;
  const { joints: JOINTS, limbs, rate, head } = skeleton;
  const ABSENT = 255, LEFT = new Set(skeleton.left), RIGHT = new Set(skeleton.right);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const side = (a, b) => [a, b].some((joint) => LEFT.has(joint)) ? "left" : [a, b].some((joint) => RIGHT.has(joint)) ? "right" : "middle";

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
      const frame = this.frame(now), state = [frame, canvas.width, colours.ink].join();
      if (state === this.shown) return;
      this.shown = state;
      const pen = canvas.getContext("2d"), margin = size * .12, fit = (size - 2 * margin) / 254;
      const left = (size - this.width * fit) / 2, top = (size - this.height * fit) / 2, ground = top + this.height * fit + size * .03;
      pen.setTransform(scale, 0, 0, scale, 0, 0);
      pen.clearRect(0, 0, size, size);
      pen.lineCap = pen.lineJoin = "round";
      pen.fillStyle = colours.ground;
      pen.fillRect(0, ground, size, size - ground);
      for (let person = this.persons - 1; person >= 0; person--) {
        const first = (frame * this.persons + person) * JOINTS * 2;
        const points = Array.from({ length: JOINTS }, (_, joint) => {
          const x = this.bytes[first + 2 * joint], y = this.bytes[first + 2 * joint + 1];
          return x === ABSENT || y === ABSENT ? null : [left + x * fit, top + y * fit];
        });
        const there = points.filter(Boolean);
        if (!there.length) continue;
        const xs = there.map(([x]) => x), tall = Math.max(...there.map(([, y]) => y)) - Math.min(...there.map(([, y]) => y));
        const middle = (Math.min(...xs) + Math.max(...xs)) / 2, thick = Math.max(3, Math.min(tall / 16, size / 26));
        pen.globalAlpha = .18;
        pen.fillStyle = colours.ink;
        pen.beginPath(); pen.ellipse(middle, ground + 2, Math.max(12, (Math.max(...xs) - middle) * .9), Math.max(3, size / 60), 0, 0, 7); pen.fill();
        pen.globalAlpha = person ? .6 : 1;
        for (const [a, b] of limbs) {
          const from = points[a], to = points[b];
          if (!from || !to) continue;
          pen.strokeStyle = colours[side(a, b)];
          pen.lineWidth = thick;
          pen.beginPath(); pen.moveTo(...from); pen.lineTo(...to); pen.stroke();
        }
        pen.fillStyle = colours.card;
        for (const at of there) { pen.beginPath(); pen.arc(...at, thick / 4, 0, 7); pen.fill(); }
        if (head !== null && points[head]) {
          pen.fillStyle = colours.middle;
          pen.beginPath(); pen.arc(...points[head], Math.max(thick * 1.3, tall / 16), 0, 7); pen.fill();
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
    const style = getComputedStyle(root);
    return Object.fromEntries(["ink", "card", "muted", "left", "right", "middle", "ground"].map((name) => [name, style.getPropertyValue("--" + name).trim()]));
  };
  let palette = colours();
  const refresh = () => { palette = colours(); for (const clip of players.values()) clip.draw(performance.now(), palette); };
  addEventListener("colours", refresh);
  matchMedia("print").addEventListener("change", refresh);
  const tick = (now) => { for (const canvas of seen) players.get(canvas).draw(now, palette); requestAnimationFrame(tick); };
  for (const [canvas, clip] of players) { watch.observe(canvas); clip.draw(performance.now(), palette); }
  requestAnimationFrame(tick);
})();
