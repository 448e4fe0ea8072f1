"use strict";
// The page works without this script: videos have their own controls, and clips are grouped by prompt.

// Sort a table by a click on a column's head; a third click restores the order of the file.
for (const table of document.querySelectorAll(".numbers")) {
  const body = table.tBodies[0], original = [...body.rows];
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { none: "descending", descending: "ascending", ascending: "none" }[head.ariaSort || "none"];
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      if (next !== "none") head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const value = (row) => (index ? Number(row.cells[index].dataset.value ?? NaN) : row.cells[0].textContent);
      const order = [...original];
      if (next !== "none") {
        order.sort((a, b) => {
          const [x, y] = [value(a), value(b)];
          if (index === 0) return sign * x.localeCompare(y);
          if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // values that were not measured stay at the bottom
          return sign * (x - y);
        });
      }
      body.append(...order);
    });
  });
}

const gallery = document.getElementById("gallery");
if (gallery) {
  const controls = document.querySelector(".controls");
  const cards = [...gallery.querySelectorAll(".card")];
  const groups = new Map([["prompt", [...gallery.children]]]);
  const play = document.getElementById("play");
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  controls.hidden = false;

  const visible = new Set();
  const update = (video) => (playing && visible.has(video) ? video.play().catch(() => {}) : video.pause());
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      isIntersecting ? visible.add(target) : visible.delete(target);
      update(target);
    }
  }, { rootMargin: "20%" });
  const label = () => {
    play.textContent = playing ? "Pause" : "Play";
    play.setAttribute("aria-pressed", String(playing));
  };
  for (const card of cards) {
    const video = card.querySelector("video");
    video.controls = false;
    video.tabIndex = 0;
    const toggle = () => (video.paused ? video.play() : video.pause());
    video.addEventListener("click", toggle);
    video.addEventListener("keydown", (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      toggle();
    });
    observer.observe(video);
  }
  label();
  play.addEventListener("click", () => {
    playing = !playing;
    label();
    for (const card of cards) {
      const video = card.querySelector("video");
      if (playing) video.currentTime = 0; // restart all together
      update(video);
    }
  });

  const bySystem = () => {
    const sections = new Map();
    for (const card of cards) {
      const name = card.dataset.system;
      if (!sections.has(name)) {
        const section = document.createElement("section"), title = document.createElement("h3");
        const row = document.createElement("div");
        section.className = "group";
        row.className = "cards";
        title.textContent = name;
        section.append(title, row);
        sections.set(name, section);
      }
    }
    return [...sections.values()];
  };
  const regroup = (by) => {
    if (!groups.has(by)) groups.set(by, bySystem());
    const sections = new Map(groups.get(by).map((section) => [section.querySelector("h3").textContent, section]));
    for (const card of cards) sections.get(card.dataset[by].trim()).querySelector(".cards").append(card);
    gallery.dataset.group = by;
    gallery.replaceChildren(...sections.values());
    hide();
  };
  const hide = () => {
    const chosen = new Set([...controls.querySelectorAll("[name=system]:checked")].map((box) => box.dataset.name));
    for (const card of cards) card.hidden = !chosen.has(card.dataset.system);
    for (const section of gallery.children) {
      const shown = section.querySelectorAll(".card:not([hidden])").length;
      section.hidden = !shown;
      section.querySelector(".cards").style.setProperty("--count", shown || 1);
    }
  };
  controls.addEventListener("change", ({ target }) => {
    if (target.name === "group") regroup(target.value);
    if (target.name === "show") gallery.dataset.show = target.value;
    if (target.name === "system") hide();
  });
  controls.addEventListener("submit", (event) => event.preventDefault());
}
