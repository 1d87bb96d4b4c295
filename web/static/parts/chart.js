// Lines over time on a canvas. Everything that knows Chart.js is in this file.
import { Chart, Filler, LineController, LineElement, LinearScale, PointElement } from "/vendor/chart.js";

Chart.register(Filler, LineController, LineElement, LinearScale, PointElement);

// cursor draws the line under the pointer.
const cursor = {
  id: "cursor",
  afterDatasetsDraw(chart) {
    if (chart.$at === null || chart.$at === undefined) return;
    const x = chart.scales.x.getPixelForValue(chart.$at), { top, bottom, left, right } = chart.chartArea, pen = chart.ctx;
    if (x < left || x > right) return;
    pen.save();
    pen.strokeStyle = chart.options.color;
    pen.beginPath(); pen.moveTo(x, top); pen.lineTo(x, bottom); pen.stroke();
    pen.restore();
  },
};

const noPoints = { pointRadius: 0, pointHitRadius: 0, borderJoinStyle: "round" };

export class Lines {
  // series: [{label, fill: "origin" | "-1" | false, dash, thin, right, color}], color a function that answers
  // a CSS colour, so that it follows the theme. y and right write the ticks of their axis.
  constructor(canvas, { series, y, right, time, ink, binary }) {
    this.series = series;
    this.ink = ink;
    const axis = (format, position) => ({ position, type: "linear", min: 0, max: 1, display: true, border: { display: false }, afterFit: (scale) => { scale.width = 64; },
      grid: { drawOnChartArea: position === "left", drawTicks: false }, ticks: { padding: 6, callback: format, maxRotation: 0, autoSkip: false },
      afterBuildTicks: (scale) => { scale.ticks = steps(scale.max, binary && position === "left").map((value) => ({ value })); } });
    const scales = { x: { type: "linear", min: 0, max: 1, border: { display: false }, grid: { display: false },
      ticks: { maxRotation: 0, autoSkip: false, callback: time }, afterBuildTicks: (scale) => { scale.ticks = marks(scale.min, scale.max).map((value) => ({ value })); } }, y: axis(y, "left") };
    if (right) scales.right = axis(right, "right");
    this.chart = new Chart(canvas, {
      type: "line", plugins: [cursor],
      options: { animation: false, parsing: false, normalized: true, responsive: true, maintainAspectRatio: false, events: [], scales, layout: { padding: { top: 6, right: right ? 0 : 8 } } },
      data: { datasets: series.map((s) => ({ ...noPoints, label: s.label, fill: s.fill ?? false, borderDash: s.dash ?? [], borderWidth: s.thin ? 1 : 1.75, yAxisID: s.right ? "right" : "y", data: [] })) },
    });
  }

  // theme takes the colours anew; the canvas must be in the page.
  theme() {
    const text = this.ink("--muted"), line = this.ink("--line");
    this.series.forEach((s, i) => {
      const color = s.color();
      Object.assign(this.chart.data.datasets[i], { borderColor: color, backgroundColor: color + (s.solid ? "99" : "26") });
    });
    this.chart.options.color = text;
    for (const scale of Object.values(this.chart.options.scales)) { scale.ticks.color = text; scale.grid.color = line; scale.ticks.font = { size: 11 }; }
  }

  // draw shows values[i] of every series at the times t, seconds since 1970, from..to wide and top high. null is a
  // gap; one of gap seconds or less is a late sample, and bridged.
  draw({ t, values, from, to, top, rightTop, gap }) {
    const { scales } = this.chart.options;
    Object.assign(scales.x, { min: from, max: to });
    scales.y.max = top;
    if (scales.right) scales.right.max = rightTop;
    values.forEach((of, i) => {
      const points = [];
      of.forEach((y, k) => { if (y !== null) points.push({ x: t[k], y }); });
      Object.assign(this.chart.data.datasets[i], { data: points, spanGaps: gap });
    });
    this.chart.update("none");
  }

  // point moves the cursor to a time, or away with null.
  point(at) {
    this.chart.$at = at;
    this.chart.draw();
  }

  // timeAt is the time at a place on the page, or null beside the chart.
  timeAt(clientX) {
    const { left, right } = this.chart.chartArea, x = clientX - this.chart.canvas.getBoundingClientRect().left;
    return x < left || x > right ? null : this.chart.scales.x.getValueForPixel(x);
  }

  close() { this.chart.destroy(); }
}

// steps are two to five round values from 0 to top; of bytes, powers of two.
function steps(top, binary) {
  const rough = top / 5, power = binary ? 2 ** Math.ceil(Math.log2(rough)) : 10 ** Math.floor(Math.log10(rough));
  const step = binary ? power : power * [1, 2, 5, 10].find((n) => n * power >= rough);
  return Array.from({ length: Math.floor(top / step + 1e-9) + 1 }, (_, i) => i * step);
}

// marks are the round times between two, three to six of them.
function marks(from, to) {
  const step = [30, 60, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 86400].find((s) => (to - from) / s <= 6) ?? 86400;
  const shift = -new Date(from * 1000).getTimezoneOffset() * 60, list = []; // round in the reader's own time
  for (let at = Math.ceil((from + shift) / step) * step - shift; at <= to; at += step) list.push(at);
  return list;
}
