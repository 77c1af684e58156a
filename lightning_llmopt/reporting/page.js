const tip = document.getElementById("tip");
for (const figure of document.querySelectorAll("figure")) {
  const svg = figure.querySelector("svg"), data = JSON.parse(figure.querySelector("script").textContent), frame = data.frame;
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), part = (event.clientX - box.left) / box.width;
    if (part < frame.left || part > frame.right) { tip.hidden = true; return; }
    const step = frame.begin + (part - frame.left) / (frame.right - frame.left) * (frame.end - frame.begin);
    const near = points => points.reduce((best, point) => Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best);
    const found = data.lines.slice(0, 12).map(line => [line.name, ...near(line.points)]);
    const lines = found.map(([name, at, value]) => `${name}: ${value}  at ${at.toLocaleString("en")}`);
    tip.textContent = lines.join("\n");
    tip.hidden = false;
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)) + "px";
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
}
