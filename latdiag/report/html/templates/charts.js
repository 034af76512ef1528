"use strict";
// The static drawings are there already: where scripts run, lines over time become ones that can
// be read at each instant, with the pointer or with the arrow keys.
(() => {
  const held = JSON.parse(document.getElementById("series").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const plots = [];
  const style = (name, other) =>
    getComputedStyle(document.documentElement).getPropertyValue(name).trim() || other;
  const lines = () => [style("--l0", "#0a78b8"), style("--l1", "#d55e00"), style("--l2", "#009e73")];
  const dashes = [undefined, [5, 3], [2, 2]];
  const axis = (label) => ({
    label, stroke: style("--faint", "#555"), labelSize: 16, labelFont: "12px system-ui",
    font: "11px system-ui", grid: { stroke: style("--grid", "#ddd"), width: 1 },
    ticks: { stroke: style("--grid", "#ddd"), width: 1, size: 4 },
  });
  const shade = (bands) => (u) => {
    const c = u.ctx;
    c.save();
    for (const [lo, hi, alpha] of bands) {
      const a = u.valToPos(lo, "x", true), b = u.valToPos(hi, "x", true);
      const left = Math.max(a, u.bbox.left), right = Math.min(Math.max(b, a + 2), u.bbox.left + u.bbox.width);
      if (right <= left) continue;
      c.globalAlpha = alpha;
      c.fillStyle = lines()[1];
      c.fillRect(left, u.bbox.top, right - left, u.bbox.height);
    }
    c.restore();
  };
  const short = (v) => (v == null ? "–" : +v.toPrecision(3) + "");
  function draw(box, one, width) {
    const series = one.lines.map((name, i) => ({
      label: name + ", " + one.unit, stroke: lines()[i], width: 1.5, dash: dashes[i],
      value: (u, v) => short(v), spanGaps: false,
      ...(one.points ? { paths: uPlot.paths.points(), points: { show: true, size: 5, fill: lines()[i], width: 0 } } : { points: { show: true, size: 3, fill: lines()[i], width: 0 } }),
    }));
    return new uPlot({
      width, height: 230, scales: { x: { time: false }, y: { range: (u, lo, hi) => [0, (hi || 1) * 1.05] } },
      axes: [axis("s of the run"), { ...axis(one.unit), size: 56 }],
      series: [{ label: "s of the run", value: (u, v) => short(v) }, ...series],
      cursor: { drag: { x: true, y: false } }, hooks: { drawClear: [shade(one.bands)] },
    }, [one.at, ...one.values], box);
  }
  function keys(box, plot) {
    box.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const last = plot().data[0].length - 1;
      const index = Math.min(last, Math.max(0, (plot().cursor.idx ?? (step > 0 ? -1 : last + 1)) + step));
      plot().setCursor({ left: plot().valToPos(plot().data[0][index], "x"), top: 10 });
    });
  }
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const one = held[figure.dataset.chart];
    if (!one || one.at.length < 2) continue;
    const box = document.createElement("div");
    box.className = "plot";
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", one.title + ", interactive: arrow keys move through time");
    figure.append(box);
    const hold = { plot: draw(box, one, box.clientWidth) };
    figure.querySelector(".static").hidden = true;
    keys(box, () => hold.plot);
    plots.push(() => {
      hold.plot.destroy();
      hold.plot = draw(box, one, box.clientWidth);
    });
  }
  const again = () => plots.forEach((each) => each());
  dark.addEventListener("change", again);
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(again, 120);
  });
})();
