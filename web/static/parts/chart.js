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

// bands shades spans of time, behind the lines.
const bands = {
  id: "bands",
  beforeDatasetsDraw(chart) {
    const { top, bottom, left, right } = chart.chartArea, pen = chart.ctx, x = (at) => Math.min(right, Math.max(left, chart.scales.x.getPixelForValue(at)));
    pen.save();
    pen.fillStyle = chart.options.color + "24";
    for (const { from, to } of chart.$bands ?? []) pen.fillRect(x(from), top, x(to) - x(from), bottom - top);
    pen.restore();
  },
};

// marks draws a shape at a time and a value: up and down are triangles, any other a diamond; hollow what was not done.
const marks = {
  id: "marks",
  afterDatasetsDraw(chart) {
    const { left, right } = chart.chartArea, pen = chart.ctx, r = 5;
    pen.save();
    pen.strokeStyle = chart.$ink;
    pen.lineWidth = 1.5;
    for (const mark of chart.$marks ?? []) {
      const x = chart.scales.x.getPixelForValue(mark.t), y = chart.scales.y.getPixelForValue(Math.min(mark.y, chart.scales.y.max));
      if (x < left || x > right) continue;
      const shape = { up: [[-r, r], [0, -r], [r, r]], down: [[-r, -r], [0, r], [r, -r]] }[mark.shape] ?? [[-r, 0], [0, -r], [r, 0], [0, r]];
      pen.beginPath();
      for (const [dx, dy] of shape) pen.lineTo(x + dx, y + dy);
      pen.closePath();
      pen.fillStyle = mark.hollow ? chart.$ground : chart.$ink;
      pen.fill();
      pen.stroke();
    }
    pen.restore();
  },
};

const noPoints = { pointRadius: 0, pointHitRadius: 0, borderJoinStyle: "round" };

export class Lines {
  // series: [{label, fill: "origin" | "-1" | false, dash, thin, step, right, color}], color a function that answers
  // a CSS colour, so that it follows the theme; step holds a value until the next. y and right write the ticks of their axis.
  constructor(canvas, { series, y, right, time, ink, binary }) {
    this.series = series;
    this.ink = ink;
    const axis = (format, position) => ({ position, type: "linear", min: 0, max: 1, display: true, border: { display: false }, afterFit: (scale) => { scale.width = 64; },
      grid: { drawOnChartArea: position === "left", drawTicks: false }, ticks: { padding: 6, callback: format, maxRotation: 0, autoSkip: false },
      afterBuildTicks: (scale) => { scale.ticks = steps(scale.max, binary && position === "left").map((value) => ({ value })); } });
    const scales = { x: { type: "linear", min: 0, max: 1, border: { display: false }, grid: { display: false },
      ticks: { maxRotation: 0, autoSkip: false, callback: time }, afterBuildTicks: (scale) => { scale.ticks = times(scale.min, scale.max).map((value) => ({ value })); } }, y: axis(y, "left") };
    if (right) scales.right = axis(right, "right");
    this.chart = new Chart(canvas, {
      type: "line", plugins: [bands, cursor, marks],
      options: { animation: false, parsing: false, normalized: true, responsive: true, maintainAspectRatio: false, events: [], scales, layout: { padding: { top: 6, right: right ? 0 : 8 } } },
      data: { datasets: series.map((s) => ({ ...noPoints, label: s.label, fill: s.fill ?? false, borderDash: s.dash ?? [], borderWidth: s.thin ? 1 : 1.75, stepped: Boolean(s.step), yAxisID: s.right ? "right" : "y", data: [] })) },
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
    Object.assign(this.chart, { $ink: this.ink("--text"), $ground: this.ink("--panel") });
    for (const scale of Object.values(this.chart.options.scales)) { scale.ticks.color = text; scale.grid.color = line; scale.ticks.font = { size: 11 }; }
  }

  // draw shows values[i] of every series at the times t, seconds since 1970, from..to wide and top high. null is a
  // gap; one of gap seconds or less is a late sample, and bridged. Bands and marks are optional.
  draw({ t, values, from, to, top, rightTop, gap, bands, marks }) {
    Object.assign(this.chart, { $bands: bands, $marks: marks });
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

// times are the round ones between two, three to six of them.
function times(from, to) {
  const step = [30, 60, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 86400].find((s) => (to - from) / s <= 6) ?? 86400;
  const shift = -new Date(from * 1000).getTimezoneOffset() * 60, list = []; // round in the reader's own time
  for (let at = Math.ceil((from + shift) / step) * step - shift; at <= to; at += step) list.push(at);
  return list;
}
