"use strict";
// What a report does beyond being read: themes, sorting, copying, curves that tell their values. It asks for nothing
// from anywhere; without it the page says the same.

const root = document.documentElement;

function made(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function remembered(value) {
  try { // a page opened from a file may have no memory
    if (value) localStorage.setItem("metarule-theme", value);
    return localStorage.getItem("metarule-theme");
  } catch { return null; }
}

function themes() {
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const button = made("button", { className: "theme", type: "button" });
  const say = () => {
    button.textContent = dark() ? "Light theme" : "Dark theme";
  };
  const before = remembered();
  if (before === "light" || before === "dark") root.dataset.theme = before;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    remembered(root.dataset.theme);
    say();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", say);
  say();
  document.querySelector("header").append(button);
}

function value(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = Number(text.replace("−", "-"));
  return text !== "" && !Number.isNaN(number) ? number : text;
}

function order(one, other) {
  const kinds = [typeof one, typeof other];
  if (kinds[0] !== kinds[1]) return kinds[0] === "number" ? -1 : 1; // what is no number comes last
  return kinds[0] === "number" ? one - other : one.localeCompare(other);
}

function sortable(table) {
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headers.forEach((header, column) => {
    if (header.classList.contains("drawn")) return;
    const button = made("button", { className: "sort", type: "button", textContent: header.textContent });
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const first = header.classList.contains("number") ? "descending" : "ascending";
      const second = first === "descending" ? "ascending" : "descending";
      const way = header.getAttribute("aria-sort") === first ? second : first;
      headers.forEach((each) => each.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", way);
      const sign = way === "ascending" ? 1 : -1;
      body.append(...[...body.rows].sort((a, b) => sign * order(value(a, column), value(b, column))));
    });
  });
}

function scrolled(box) { // only what is too wide needs to be reached
  const look = () => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };
  new ResizeObserver(look).observe(box);
  look();
}

function copyable(box) {
  const button = made("button", { className: "copy", type: "button", textContent: "Copy" });
  const name = box.querySelector(".label").textContent;
  button.setAttribute("aria-label", `Copy ${name}`);
  button.addEventListener("click", async () => {
    const text = box.querySelector("pre");
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch { // no leave to use the clipboard: select it, so that the reader can
      getSelection().selectAllChildren(text);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  });
  box.append(button);
}

function numbers(figure) {
  return JSON.parse(document.getElementById(`${figure.id}-numbers`).textContent);
}

function reader(plot) {
  const said = made("div", { className: "unseen" });
  said.setAttribute("aria-live", "polite");
  plot.after(said);
  const parts = [];
  return {
    clear() { parts.splice(0).forEach((part) => part.remove()); },
    put(className, style) {
      const part = made("div", { className });
      Object.assign(part.style, style);
      plot.append(part);
      parts.push(part);
      return part;
    },
    box(across, lines) {
      const box = this.put("read", across < 0.5 ? { left: `calc(${100 * across}% + 10px)` } : { right: `calc(${100 - 100 * across}% + 10px)` });
      box.append(...lines);
      const [left, right] = [box.getBoundingClientRect().left, box.getBoundingClientRect().right];
      const off = Math.min(left - 4, 0) || Math.max(right - root.clientWidth + 4, 0); // no part of it beside the screen
      if (off) box.style.translate = `${-off}px`;
      said.textContent = lines.map((line) => line.textContent).join(", ");
    },
  };
}

function moves(plot, size, show, hide, at) {
  let place = null;
  const go = (next) => { place = size.map((n, axis) => Math.min(Math.max(next[axis], 0), n - 1)); show(place); };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    go(at((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height));
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const [x, y] = place ?? size.map((n) => n - 1);
    const keys = { ArrowLeft: [x - 1, y], ArrowRight: [x + 1, y], ArrowUp: [x, y + 1], ArrowDown: [x, y - 1], Home: [0, y], End: [size[0] - 1, y] };
    if (event.key === "Escape") hide();
    if (!(event.key in keys) || (size[1] === 1 && event.key.endsWith("p")) || (size[1] === 1 && event.key.endsWith("n"))) return;
    event.preventDefault();
    go(keys[event.key]);
  });
}

function nearest(places, x) {
  let best = 0;
  places.forEach((place, k) => { if (Math.abs(place - x) < Math.abs(places[best] - x)) best = k; });
  return best;
}

function curves(figure) {
  const told = numbers(figure);
  const plot = figure.querySelector(".plot");
  const groups = [...figure.querySelectorAll("g[data-line]")];
  const shown = told.lines.map((line) => line.shown);
  const read = reader(plot);
  const show = ([place]) => {
    read.clear();
    const x = told.grid[place];
    read.put("cross", { left: `${100 * x}%` });
    const lines = [made("div", {}, made("b", { textContent: `${told.across} ${told.x[place]}` }))];
    told.lines.forEach((line, k) => {
      const here = line.x ? line.x.indexOf(x) : place;
      if (!shown[k] || here < 0 || line.height[here] === null) return;
      const dot = read.put(`dot s${k % 8}`, { left: `${100 * x}%`, top: `${100 - 100 * line.height[here]}%` });
      dot.hidden = line.height[here] < 0 || line.height[here] > 1;
      const name = told.lines.length > 1 ? [figure.querySelector(`li[data-line="${k}"] .swatch`).cloneNode(true), made("span", { textContent: `${line.name} ` })] : [];
      lines.push(made("div", {}, ...name, made("b", { textContent: line.text[here] })));
    });
    read.box(x, lines);
  };
  moves(plot, [told.grid.length, 1], show, () => read.clear(), (x) => [nearest(told.grid, x), 0]);
  figure.querySelectorAll(".legend li").forEach((entry, k) => {
    const button = made("button", { type: "button" }, ...entry.childNodes);
    delete entry.dataset.off;
    const say = () => {
      button.setAttribute("aria-pressed", String(shown[k]));
      groups[k].classList.toggle("off", !shown[k]);
    };
    button.addEventListener("click", () => { shown[k] = !shown[k]; read.clear(); say(); });
    entry.append(button);
    say();
  });
}

function surface(figure) {
  const told = numbers(figure);
  const plot = figure.querySelector(".plot");
  const read = reader(plot);
  const size = [told.x.length, told.y.length];
  const show = ([x, y]) => {
    read.clear();
    read.put("box", { left: `${100 * x / size[0]}%`, width: `${100 / size[0]}%`, bottom: `${100 * y / size[1]}%`, height: `${100 / size[1]}%` });
    const line = (name, text) => made("div", {}, made("span", { textContent: `${name} ` }), made("b", { textContent: text }));
    read.box((x + 0.5) / size[0], [line("ΔW", told.change[y][x]), line(told.x_name, told.x[x]), line(told.y_name, told.y[y])]);
  };
  moves(plot, size, show, () => read.clear(), (x, y) => [Math.floor(x * size[0]), Math.floor((1 - y) * size[1])]);
}

themes();
document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".scroll").forEach(scrolled);
document.querySelectorAll(".copied").forEach(copyable);
document.querySelectorAll("figure.chart").forEach((figure) => (figure.classList.contains("surface") ? surface : curves)(figure));
