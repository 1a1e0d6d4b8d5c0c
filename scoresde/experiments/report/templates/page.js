"use strict";
// Sorting, hover values, zoom, playing and the theme. Without this script the page shows the same content.

const SVG = "http://www.w3.org/2000/svg";
const tip = document.getElementById("tip");

function say(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 4)) + "px";
  tip.style.top = (y + 16 + tip.offsetHeight < innerHeight ? y + 14 : y - 14 - tip.offsetHeight) + "px";
}

function circle(svg, name, radius) {
  const dot = document.createElementNS(SVG, "circle");
  dot.setAttribute("class", name);
  dot.setAttribute("r", radius);
  return svg.appendChild(dot);
}

function move(dot, [x, y]) {
  dot.setAttribute("cx", x);
  dot.setAttribute("cy", y);
}

// A chart names the value nearest to the pointer; the arrow keys step through its values.
function readable(plot) {
  const points = JSON.parse(plot.dataset.points), svg = plot.querySelector("svg");
  let mark = null, current = -1;
  const show = index => {
    current = index;
    mark ??= circle(svg, "mark", 7);
    move(mark, points[index]);
    const place = new DOMPoint(points[index][0], points[index][1]).matrixTransform(svg.getScreenCTM());
    say(points[index][2], place.x, place.y);
  };
  const leave = () => { mark?.remove(); mark = null; current = -1; tip.hidden = true; };
  plot.addEventListener("pointermove", event => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const distance = ([x, y]) => (x - at.x) ** 2 + (y - at.y) ** 2;
    let nearest = 0;
    points.forEach((point, i) => { if (distance(point) < distance(points[nearest])) nearest = i; });
    show(nearest);
  });
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (event.key === "Escape") leave();
    if (!step) return;
    event.preventDefault();
    show((current + step + points.length) % points.length);
  });
}

// The first click on a heading sorts upwards, the second downwards, the third restores the order.
function sortable(table) {
  const body = table.tBodies[0], original = [...body.rows], headings = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column], number = cell.dataset.number;
    return number === undefined ? cell.textContent : Number(number);
  };
  const compare = (a, b) => {
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return typeof a === "number" ? a - b : a.localeCompare(b, "en", {numeric: true});
  };
  headings.forEach((heading, column) => heading.querySelector(".sort").addEventListener("click", () => {
    const next = {ascending: "descending", descending: undefined}, was = heading.getAttribute("aria-sort");
    const order = was ? next[was] : "ascending", sign = order === "descending" ? -1 : 1;
    headings.forEach(other => other.removeAttribute("aria-sort"));
    if (order) heading.setAttribute("aria-sort", order);
    const rows = [...original];
    if (order) rows.sort((a, b) => {
      const x = value(a, column), y = value(b, column);
      return x === "" || y === "" ? (x === "") - (y === "") : sign * compare(x, y);
    });
    body.append(...rows);
  }));
}

// Moves the points of every panel to the same angle φ = atan(σ/α), from noise to data.
function playable(player) {
  const plots = [...player.parentElement.querySelectorAll("[data-motion]")];
  const motions = plots.map(plot => JSON.parse(plot.dataset.motion));
  const dots = plots.map((plot, i) => motions[i].at[0].map(() => null));
  const [button, slider] = [player.querySelector("button"), player.querySelector("input")];
  const farthest = Math.max(...motions.map(motion => motion.angles[0]));
  let frame = 0, previous = 0;
  const show = () => {
    const angle = farthest * (1 - slider.value / slider.max);
    motions.forEach(({angles, at}, i) => {
      let k = angles.findIndex(each => each <= angle);
      k = k < 0 ? angles.length - 1 : Math.max(1, k);
      const share = Math.min(1, Math.max(0, (angles[k - 1] - angle) / (angles[k - 1] - angles[k] || 1)));
      at[k].forEach(([x, y], j) => {
        const [x0, y0] = at[k - 1][j];
        dots[i][j] ??= circle(plots[i].querySelector("svg"), "mover", 3);
        move(dots[i][j], [x0 + share * (x - x0), y0 + share * (y - y0)]);
      });
    });
  };
  const stop = () => { cancelAnimationFrame(frame); frame = 0; button.textContent = "Play"; };
  const step = now => {
    slider.value = Number(slider.value) + (now - previous) / 5;
    previous = now;
    show();
    if (Number(slider.value) < Number(slider.max)) frame = requestAnimationFrame(step); else stop();
  };
  button.addEventListener("click", () => {
    if (frame) return stop();
    if (slider.value === slider.max) slider.value = 0;
    button.textContent = "Pause";
    previous = performance.now();
    frame = requestAnimationFrame(step);
  });
  slider.addEventListener("input", () => { stop(); show(); });
  player.hidden = false;
}

const zoom = document.getElementById("zoom"), image = document.getElementById("zoom-image");
let factor = 1;

function resize(change) {
  const view = image.parentElement;
  const fit = Math.min((view.clientWidth - 26) / image.naturalWidth, (view.clientHeight - 26) / image.naturalHeight);
  factor = change === 0 ? (fit > 1 ? Math.floor(fit) : fit) : Math.max(0.25, factor >= 2 ? factor + change : factor * 2 ** change);
  image.style.width = factor * image.naturalWidth + "px";
}

function zoomable(sheet) {
  const source = sheet.querySelector("img");
  sheet.addEventListener("click", () => {
    image.src = source.src;
    image.alt = source.alt.replace(/ Enlarge\.$/, "");
    document.getElementById("zoom-title").textContent = image.alt;
    zoom.showModal();
    image.decode().then(() => resize(0));
  });
}

function start() {
  document.querySelectorAll(".plot[data-points]").forEach(readable);
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll(".player").forEach(playable);
  document.querySelectorAll("button.sheet").forEach(zoomable);
}

const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const next = {undefined: "light", light: "dark"}[document.documentElement.dataset.theme];
  if (next) document.documentElement.dataset.theme = next; else delete document.documentElement.dataset.theme;
  theme.textContent = "Theme: " + (next ?? "automatic");
});
zoom.addEventListener("click", event => {
  const change = event.target.dataset.zoom;
  if (change !== undefined) resize(Number(change));
});
document.getElementById("zoom-close").addEventListener("click", () => zoom.close());
start();

// The page of a run in progress replaces its content when there is news.
const live = Number(document.documentElement.dataset.live || 0);
async function refresh() {
  const state = document.getElementById("connection");
  try {
    const text = await (await fetch(location.pathname, {cache: "no-store"})).text();
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const main = document.querySelector("main"), next = fresh.querySelector("main");
    const idle = !zoom.open && !main.querySelector(":focus, details[open]") && tip.hidden;
    if (idle && next.dataset.version !== main.dataset.version) {
      main.replaceWith(next);
      document.querySelector("nav ol").replaceWith(fresh.querySelector("nav ol"));
      start();
    } else if (state) state.textContent = "connected";
  } catch {
    if (state) state.textContent = "not connected: the command has ended";
  }
  setTimeout(refresh, 1000 * live);
}
if (live) setTimeout(refresh, 1000 * live);
