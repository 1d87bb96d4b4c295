// What the dashboard needs of Chart.js, and no more: lines, areas and linear axes.
export { Chart, LineController, LineElement, PointElement, LinearScale, Filler } from "chart.js";
