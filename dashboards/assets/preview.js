// Draws the charts of the preview from the data in the page, and writes numbers with their units. Nothing is fetched.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim() || name;
  const palette = ["#2f81f7", "#e0712b", "#2da44e", "#bf3989", "#8250df", "#9a6700", "#0aa2a2", "#cf222e", "#6e7781", "#4d7c0f"];

  const scaled = (value, base, names, decimals) => {
    let step = 0;
    while (Math.abs(value) >= base && step < names.length - 1) {
      value /= base;
      step += 1;
    }
    return `${plain(value, decimals)}${names[step]}`;
  };
  const plain = (value, decimals) => {
    if (decimals !== undefined) return value.toFixed(decimals);
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 100 || Number.isInteger(value) ? value.toFixed(0) : String(Number(value.toPrecision(3)));
  };
  const seconds = (value, decimals) => {
    const size = Math.abs(value);
    if (size >= 172800) return `${plain(value / 86400, decimals)} days`;
    if (size >= 7200) return `${plain(value / 3600, decimals)} h`;
    if (size >= 120) return `${plain(value / 60, decimals)} min`;
    return size !== 0 && size < 1 ? `${plain(value * 1000, decimals)} ms` : `${plain(value, decimals)} s`;
  };
  const written = (value, unit, decimals) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "";
    switch (unit) {
      case "percentunit": return `${plain(value * 100, decimals)} %`;
      case "bytes": return scaled(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB"], decimals);
      case "s":
      case "dtdurations": return seconds(value, decimals);
      case "ops":
      case "cps":
      case "reqps": return `${plain(value, decimals)}/s`;
      default: return Math.abs(value) >= 10000 ? scaled(value, 1000, ["", " k", " M", " G"], decimals) : plain(value, decimals);
    }
  };

  for (const place of document.querySelectorAll("[data-value]")) {
    const decimals = place.dataset.decimals === undefined ? undefined : Number(place.dataset.decimals);
    place.textContent = written(Number(place.dataset.value), place.dataset.unit, decimals);
  }

  // Thresholds and marks, over the lines.
  const over = (chart) => (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const limit of chart.limits) {
      const y = plot.valToPos(limit.value, "y", true);
      if (y < bbox.top || y > bbox.top + bbox.height) continue;
      ctx.strokeStyle = colour(limit.colour);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    ctx.setLineDash([]);
    ctx.globalAlpha = 0.45;
    for (const mark of data.marks) {
      const x = plot.valToPos(mark.at, "x", true);
      ctx.strokeStyle = colour(mark.colour);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  };

  const range = (chart) => (plot, low, high) => {
    // The first threshold is in view when the lines come near it: half of it at least.
    const near = chart.limits.map((limit) => limit.value).filter((value) => high !== null && value <= high * 2);
    const top = Math.max(high ?? 1, chart.top, ...near, 0);
    return [Math.min(low ?? 0, 0), top === 0 ? 1 : top * 1.08];
  };

  for (const [id, chart] of Object.entries(data.charts)) {
    const place = document.querySelector(`#${CSS.escape(id)} .chart`);
    if (!place) continue;
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 0.5 }, ticks: { stroke: colour("line"), width: 0.5 } };
    const plot = new uPlot({
      width: place.clientWidth,
      height: 200,
      scales: { y: { range: range(chart) } },
      axes: [axis, { ...axis, size: 70, values: (_, ticks) => ticks.map((tick) => written(tick, chart.unit)) }],
      series: [{}, ...chart.lines.map((line, index) => ({
        label: `${line.name || "value"}: ${written(line.values.findLast((value) => value !== null), chart.unit)}`,
        stroke: palette[index % palette.length],
        width: 1.5,
        spanGaps: false,
        points: { show: line.values.filter((value) => value !== null).length < 3 },
      }))],
      legend: { live: false },
      hooks: { draw: [over(chart)] },
    }, [data.times, ...chart.lines.map((line) => line.values)], place);
    addEventListener("resize", () => plot.setSize({ width: place.clientWidth, height: 200 }));
  }
  document.documentElement.dataset.drawn = String(document.querySelectorAll(".chart canvas").length);
})();
