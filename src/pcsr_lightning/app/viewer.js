// The viewer: two pictures cut at a line that can be moved, the class map over one of them.
// Everything here happens in the browser; the server only names the files.
const find = (name) => element.querySelector(name);
const figure = find(".pv"), stage = find(".pv-stage"), canvas = find(".pv-canvas");
const images = { after: find(".pv-after"), before: find(".pv-before"), map: find(".pv-map") };
const cut = find(".pv-cut"), opacity = find(".pv-opacity"), choice = find(".pv-choice");
let view = null, zoom = "fit", turn = 0;

function place() {
  figure.style.setProperty("--cut", `${cut.value}%`);
  figure.style.setProperty("--opacity", opacity.value / 100);
  cut.setAttribute("aria-valuetext", `${Math.round(cut.value)} % before`);
  opacity.setAttribute("aria-valuetext", `${opacity.value} %`);
}

function fit() {
  if (!view) return;
  const [width, height] = view.size;
  const room = Math.min(stage.clientWidth / width, (window.innerHeight * 0.55) / height);
  // The pixels of the screen, not CSS pixels, are what 1:1 means.
  const factor = zoom === "fit" ? Math.min(room, Math.max(4, 160 / Math.max(width, height))) : zoom / window.devicePixelRatio;
  canvas.style.width = `${Math.round(width * factor)}px`;
  canvas.style.height = `${Math.round(height * factor)}px`;
  stage.classList.toggle("pv-zoomed", zoom !== "fit");
  canvas.classList.toggle("pv-pixels", zoom !== "fit" && zoom > 1);
  for (const button of element.querySelectorAll("[data-zoom]"))
    button.setAttribute("aria-pressed", String(button.dataset.zoom === zoom));
}

async function fetched(url) {
  if (!url) return;
  const ready = new Image();
  ready.src = url;
  await ready.decode();
}

function put(image, url) {
  image.hidden = !url;
  if (!url) image.removeAttribute("src");
  else if (image.getAttribute("src") !== url) image.src = url;
}

function offer() {
  const before = view ? view.before : {};
  const names = Object.keys(before).filter((name) => before[name]);
  const chosen = choice.value || "bicubic";
  const there = [...choice.options].map((option) => option.value);
  if (String(names) !== String(there)) {
    choice.replaceChildren(...names.map((name) => new Option(name, name)));
    choice.value = names.includes(chosen) ? chosen : names[0] || "";
  }
}

// The old view stays, size and words and all, until everything of the new one is there: no flicker
// while a slider moves, and no picture in the shape of another.
async function show() {
  const next = props.value && props.value.after ? props.value : null;
  const now = ++turn;
  if (next) {
    const before = next.before[choice.value] || next.before.bicubic;
    try { await Promise.all([next.after, next.map, before].map(fetched)); } catch { return; }
    if (now !== turn) return;
  }
  view = next;
  figure.dataset.empty = String(!view);
  offer();
  fit();
  put(images.after, view && view.after);
  put(images.map, view && view.map);
  put(images.before, view && view.before[choice.value]);
  find(".pv-left").textContent = view ? choice.value : "";
  find(".pv-right").textContent = view ? view.label : "";
  figure.dataset.shown = view ? view.key : "";
}

function drag(event) {
  const box = canvas.getBoundingClientRect();
  const at = (100 * (event.clientX - box.left)) / box.width;
  cut.value = Math.max(0, Math.min(100, at));
  place();
}

stage.addEventListener("pointerdown", (event) => {
  // Zoomed in, dragging moves the picture, and only the line's handle moves the line.
  if (!view || (zoom !== "fit" && !event.target.closest(".pv-line"))) return;
  event.preventDefault();
  stage.setPointerCapture(event.pointerId);
  drag(event);
  stage.addEventListener("pointermove", drag);
});
for (const end of ["pointerup", "pointercancel"])
  stage.addEventListener(end, () => stage.removeEventListener("pointermove", drag));
stage.addEventListener("keydown", (event) => {
  // Zoomed in, arrow keys move the picture.
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!view || zoom !== "fit" || !step) return;
  event.preventDefault();
  cut.value = Number(cut.value) + step;
  place();
});
cut.addEventListener("input", place);
opacity.addEventListener("input", place);
choice.addEventListener("change", show);
find(".pv-zoom").addEventListener("click", (event) => {
  const button = event.target.closest("[data-zoom]");
  if (!button) return;
  const x = (stage.scrollLeft + stage.clientWidth / 2) / canvas.clientWidth;
  const y = (stage.scrollTop + stage.clientHeight / 2) / canvas.clientHeight;
  zoom = button.dataset.zoom;
  fit();
  stage.scrollTo(x * canvas.clientWidth - stage.clientWidth / 2, y * canvas.clientHeight - stage.clientHeight / 2);
});
new ResizeObserver(fit).observe(stage);
watch("value", show);
place();
show();
