"use strict";
(() => {
  const root = document.documentElement;
  const palettes = JSON.parse(document.getElementById("palettes").textContent);
  const ink = {
    light: { page: "#fbfaf7", text: "#4b5058", strong: "#1b1d22", grid: "#8a8f98" },
    dark: { page: "#13151a", text: "#b6bac3", strong: "#ecebe6", grid: "#5c626d" },
  };

  // --- scheme: the reader's system decides, the button overrules, printing is always light
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("scheme");
  const remembered = () => { try { return localStorage.getItem("cvi-scheme"); } catch { return null; } };
  let chosen = remembered();
  const scheme = () => chosen || (dark.matches ? "dark" : "light");

  const changes = {
    // Filled, because Bokeh clears nothing under a transparent border: what it drew before it knew its width would stay.
    Figure: (m, c) => ({ border_fill_color: c.page }),
    Axis: (m, c) => ({ axis_label_text_color: c.text, major_label_text_color: c.text }),
    Title: (m, c) => ({ text_color: c.strong }),
    Legend: (m, c) => ({ label_text_color: c.text }),
    ColorBar: (m, c) => ({ title_text_color: c.text, major_label_text_color: c.text }),
    Grid: (m, c) => (m.grid_line_color ? { grid_line_color: c.grid } : {}),
  };
  const kind = (type) => (/Axis$/.test(type) ? "Axis" : type);

  // Before a plot is drawn its colours are changed in its JSON, which spares drawing it twice.
  function paintItem(node, name) {
    if (Array.isArray(node)) { for (const part of node) paintItem(part, name); return; }
    if (node === null || typeof node !== "object") return;
    if (node.type === "object" && node.attributes) {
      const has = node.attributes, tag = (has.tags || [])[0];
      if (node.name === "LinearColorMapper" && palettes[name][tag]) has.palette = palettes[name][tag];
      const change = changes[kind(node.name)];
      if (change) Object.assign(has, change(has, ink[name]));
    }
    for (const part of Object.values(node)) paintItem(part, name);
  }

  function paintPlots(name) {
    for (const doc of window.Bokeh ? Bokeh.documents : []) {
      for (const top of doc.roots()) {
        for (const model of top.references()) {
          const tag = (model.tags || [])[0];
          if (model.type === "LinearColorMapper" && palettes[name][tag]) model.palette = palettes[name][tag];
          const change = changes[kind(model.type)];
          if (change) model.setv(change(model, ink[name]));
        }
      }
    }
  }
  function paint(name) {
    root.dataset.scheme = name;
    button.setAttribute("aria-pressed", String(name === "dark"));
    paintPlots(name);
    if (redraw) redraw();
  }
  let redraw = null;
  root.dataset.scheme = scheme();
  button.addEventListener("click", () => {
    chosen = scheme() === "dark" ? "light" : "dark";
    try { localStorage.setItem("cvi-scheme", chosen); } catch { /* private windows keep nothing */ }
    paint(chosen);
  });
  dark.addEventListener("change", () => { if (!chosen) paint(scheme()); });
  window.addEventListener("beforeprint", () => paint("light"));
  window.addEventListener("afterprint", () => paint(scheme()));

  // --- plots
  // One after the other, in the order of reading, so that the page answers while the later ones are drawn.
  const breath = () => new Promise((resolve) => { setTimeout(resolve, 0); });
  async function draw() {
    const items = document.querySelectorAll("script.plot-item");
    for (const script of items) {
      const item = JSON.parse(script.textContent), now = scheme();
      paintItem(item.doc.roots, now);
      await Bokeh.embed.embed_item(item, script.parentElement.querySelector(".plot"));
      await breath();
      if (now !== scheme()) paintPlots(scheme());
    }
    root.dataset.plots = String(items.length);
    performance.mark("cvi-plots");
  }

  // --- navigation: say which part is being read
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((a) => a.classList.remove("here"));
      const link = links.get(entry.target.id);
      link.classList.add("here");
      const strip = link.parentElement;
      strip.scrollTo({ left: link.offsetLeft - strip.offsetLeft - 40 });
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  document.querySelectorAll("main > section").forEach((s) => seen.observe(s));

  // --- scrubber
  const minus = (text) => String(text).replace("-", "\u2212");
  const fixed = (value, places = 1) => minus(value.toFixed(places));

  async function scrubber() {
    const holder = document.getElementById("scrubber-meta");
    if (!holder) return;
    const meta = JSON.parse(holder.textContent);
    const packed = atob(document.getElementById("scrubber-blob").textContent.trim());
    const bytes = Uint8Array.from(packed, (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const raw = new Uint8Array(await new Response(stream).arrayBuffer());

    const [channels, height, width] = meta.shape;
    const size = channels * height * width, frames = meta.frames.length, latents = meta.latents.length;
    const at = (i) => raw.subarray(i * size, (i + 1) * size);
    const original = (e) => at(e);
    const untouched = (e) => at(meta.shown + e);
    const frame = (e, z, f) => at(2 * meta.shown + (e * latents + z) * frames + f);
    const nearest = (value) => meta.frames.reduce((best, v, i) => (Math.abs(v - value) < Math.abs(meta.frames[best] - value) ? i : best), 0);
    let example = 0, latent = null, step = null;

    function put(canvas, pixels) {
      canvas.width = width; canvas.height = height;
      const out = new ImageData(width, height), n = width * height;
      for (let i = 0; i < n; i++) {
        for (let c = 0; c < 3; c++) out.data[4 * i + c] = pixels[(channels > 1 ? c : 0) * n + i];
        out.data[4 * i + 3] = 255;
      }
      canvas.getContext("2d").putImageData(out, 0, 0);
    }
    function putDifference(canvas, a, b) {
      canvas.width = width; canvas.height = height;
      const style = getComputedStyle(root), rgb = (n) => style.getPropertyValue(n).split(",").map(Number);
      const less = rgb("--negative"), more = rgb("--positive");
      const out = new ImageData(width, height), n = width * height;
      for (let i = 0; i < n; i++) {
        let d = 0;
        for (let c = 0; c < channels; c++) d += (b[c * n + i] - a[c * n + i]) / channels;
        const colour = d < 0 ? less : more;
        for (let c = 0; c < 3; c++) out.data[4 * i + c] = colour[c];
        out.data[4 * i + 3] = Math.min(255, Math.abs(d));
      }
      canvas.getContext("2d").putImageData(out, 0, 0);
    }
    function measure(pixels) {
      let mass = 0, x = 0, y = 0;
      const n = width * height;
      for (let c = 0; c < channels; c++) {
        for (let i = 0; i < n; i++) {
          const p = pixels[c * n + i] / (255 * channels);
          mass += p; x += p * (i % width); y += p * Math.floor(i / width);
        }
      }
      return { mass, x: x / mass, y: y / mass };
    }
    function told(before, after) {
      const a = measure(before), b = measure(after), said = [];
      const dx = b.x - a.x, dy = b.y - a.y, grown = 100 * (b.mass / a.mass - 1);
      if (Math.abs(dx) >= 0.3) said.push(`${Math.abs(dx).toFixed(1)}\u00a0px to the ${dx > 0 ? "right" : "left"}`);
      if (Math.abs(dy) >= 0.3) said.push(`${Math.abs(dy).toFixed(1)}\u00a0px ${dy > 0 ? "down" : "up"}`);
      const moved = said.length ? `moves the picture ${said.join(" and ")}` : "leaves the picture where it is";
      const size = Math.abs(grown) >= 3 ? `, and makes it ${Math.abs(grown).toFixed(0)}\u00a0% ${grown > 0 ? "larger" : "smaller"}` : "";
      let sum = 0;
      for (let i = 0; i < before.length; i++) sum += ((after[i] - before[i]) / 255) ** 2;
      return `${moved}${size}. Distance from the untouched picture: ${Math.sqrt(sum).toFixed(1)}.`;
    }

    const boxes = [];
    function show() {
      const base = untouched(example);
      const now = latent === null ? base : frame(example, latent, step);
      put(document.getElementById("edited"), now);
      put(document.getElementById("before"), base);
      putDifference(document.getElementById("difference"), base, now);
      boxes.forEach((box, z) => {
        const own = meta.own[example][z], set = z === latent;
        box.row.classList.toggle("set", set);
        if (!set) box.input.value = nearest(own);
        box.output.textContent = fixed(set ? meta.frames[step] : own, 2);
        box.input.setAttribute("aria-valuetext", set ? `set to ${fixed(meta.frames[step], 2)}` : `untouched, ${fixed(own, 2)}`);
        const [low, high] = [meta.frames[0], meta.frames[frames - 1]];
        const share = Math.max(0, Math.min(1, (own - low) / (high - low)));
        box.own.style.left = `calc(8px + (100% - 16px) * ${share})`;
      });
      document.getElementById("telling").textContent = latent === null
        ? "Nothing is touched yet. Move a slider: the others stay at this example's own code."
        : `Setting z${meta.latents[latent]} to ${fixed(meta.frames[step], 2)} (its own value is ${fixed(meta.own[example][latent], 2)}) ${told(base, now)}`;
    }
    redraw = show;

    const live = document.getElementById("sliders"), rest = document.getElementById("dead-sliders");
    const order = meta.latents.map((_, z) => z).sort((a, b) => (meta.strength[b] || 0) - (meta.strength[a] || 0));
    const dead = meta.active.filter((a) => !a).length;
    for (const z of order) {
      const row = document.createElement("div"), id = `z${meta.latents[z]}`;
      row.className = meta.active[z] ? "slider" : "slider dead";
      const name = Object.assign(document.createElement("label"), { htmlFor: `slide-${id}`, textContent: id });
      const groove = Object.assign(document.createElement("div"), { className: "groove" });
      const input = Object.assign(document.createElement("input"), { type: "range", id: `slide-${id}`, min: 0, max: frames - 1, step: 1 });
      const own = Object.assign(document.createElement("i"), { className: "own", title: "this example's own value" });
      const output = Object.assign(document.createElement("output"), { htmlFor: `slide-${id}` });
      groove.append(input, own);
      row.append(name, groove, output);
      (meta.active[z] || dead === latents ? live : rest.querySelector("div")).append(row);
      boxes[z] = { row, input, output, own };
      input.addEventListener("input", () => { latent = z; step = Number(input.value); show(); });
    }
    if (dead && dead < latents) {
      rest.hidden = false;
      rest.querySelector("summary").textContent = dead === 1 ? "1 dead latent" : `${dead} dead latents`;
    }
    document.getElementById("untouched").addEventListener("click", () => { latent = step = null; show(); });
    const chooser = document.getElementById("examples");
    for (let e = 0; e < meta.shown; e++) {
      const label = document.createElement("label"), thumb = document.createElement("canvas");
      const input = Object.assign(document.createElement("input"), { type: "radio", name: "example", value: e, checked: e === 0 });
      input.setAttribute("aria-label", `Example ${e + 1}`);
      put(thumb, original(e));
      label.append(input, thumb);
      chooser.append(label);
      input.addEventListener("change", () => { example = e; show(); });
    }
    latent = meta.first;
    step = meta.own[0][latent] < (meta.frames[0] + meta.frames[frames - 1]) / 2 ? frames - 2 : 1;
    boxes[latent].input.value = step;
    show();
    root.dataset.scrubber = "ready";
    performance.mark("cvi-scrubber");
  }

  scrubber().then(draw, (error) => {
    console.error(error);
    document.getElementById("telling").textContent = "This browser cannot unpack the stored frames; a current one can.";
    return draw();
  }).catch((error) => { console.error(error); });
})();
