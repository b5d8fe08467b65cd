"use strict";
// The page reads without this: it draws clouds of points in place of their binned pictures, and lets tables be
// filtered and sorted.
const points = (id) => {
  const raw = atob(document.getElementById(`${id}-points`).textContent);
  return new Uint16Array(Uint8Array.from(raw, (char) => char.charCodeAt(0)).buffer);
};

const draw = (box) => {
  const [left, top, width, height] = box.dataset.frame.split(" ").map(Number);
  const canvas = box.querySelector("canvas") ?? document.createElement("canvas");
  const density = window.devicePixelRatio || 1;
  const outer = box.getBoundingClientRect();
  Object.assign(canvas.style, { left: `${100 * left}%`, top: `${100 * top}%` });
  Object.assign(canvas.style, { width: `${100 * width}%`, height: `${100 * height}%` });
  canvas.width = Math.round(outer.width * width * density);
  canvas.height = Math.round(outer.height * height * density);
  canvas.setAttribute("aria-hidden", "true");
  const data = points(box.dataset.cloud);
  const size = Math.max(1, (data.length > 40000 ? 1.2 : 2) * density);
  const to = canvas.getContext("2d");
  to.fillStyle = getComputedStyle(box).color;
  to.globalAlpha = 0.3;
  for (let i = 0; i < data.length; i += 2) {
    const x = (data[i] / 1023) * canvas.width;
    const y = (1 - data[i + 1] / 1023) * canvas.height;
    to.fillRect(x - size / 2, y - size / 2, size, size);
  }
  box.prepend(canvas);
  box.classList.add("drawn");
};

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
}, { rootMargin: "400px" });
const watch = () => {
  for (const box of document.querySelectorAll("[data-cloud]")) {
    seen.unobserve(box);
    seen.observe(box);
  }
};
watch();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", watch);
addEventListener("resize", () => requestAnimationFrame(watch));

for (const table of document.querySelectorAll("table.browse")) {
  const body = table.tBodies[0];
  const label = document.createElement("label");
  const field = document.createElement("input");
  label.className = "filter";
  field.type = "search";
  label.append("Filter sentences", field);
  table.parentElement.before(label);
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.className = "sort";
    button.append(head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.ariaSort === "ascending";
      for (const other of head.parentElement.cells) other.ariaSort = null;
      head.ariaSort = down ? "descending" : "ascending";
      const key = (row) => row.cells[column].textContent;
      const order = new Intl.Collator("en", { numeric: true }).compare;
      const rows = [...body.rows].sort((one, other) => order(key(one), key(other)));
      body.append(...(down ? rows.reverse() : rows));
    });
  });
}
