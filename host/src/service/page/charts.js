// What the nodes have done in the last minutes.

import { KEPT } from "./host.js";
import { bytes, duration, percent, rate, time } from "./format.js";

const html = htm.bind(preact.h);
const { useEffect, useRef } = preactHooks;

/** Told apart by people who do not see all colours. */
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b5a900", "#7a7a7a"];
const LINES_MAX = COLOURS.length;

export function Charts({ pipeline, series }) {
  const revision = pipeline.revision;
  if (!revision) return html`<p>It has not run since the host was started.</p>`;
  const of = (role) => revision.nodes.filter((node) => node.role === role);
  const samples = series.samples;
  const rates = (nodes, field) => nodes.map((node) => [node.name, samples.map((_, at) => series.rate(node.name, field, at))]);
  const shares = of("operator").map((node) => [node.name, samples.map((sample) => sample.nodes.get(node.name)?.load?.busy)]);
  const behind = revision.nodes.filter((node) => node.role !== "sink").map((node) => [node.name, samples.map((sample) => {
    const watermark = sample.nodes.get(node.name)?.watermark_ms;
    return watermark === null || watermark === undefined ? undefined : sample.at - watermark;
  })]);
  const errors = revision.nodes.map((node) => [node.name, samples.map((_, at) => {
    const [failed, rejected] = ["failed", "rejected"].map((field) => series.rate(node.name, field, at));
    return failed === undefined ? undefined : failed + rejected;
  })]).filter(([, values]) => values.some((value) => value > 0));
  const chart = (title, lines, write) => html`<${Chart} key=${title} title=${title} times=${series.times()} lines=${lines} write=${write} />`;
  return html`
    <p class="faint">The last ${KEPT / 60000} minutes, since this page was opened.</p>
    <div class="charts">
      ${chart("Rows that sources read", rates(of("source"), "rows_in"), rate)}
      ${chart("Rows that sinks get", rates(of("sink"), "rows_in"), rate)}
      ${chart("Rows that operators take", rates(of("operator"), "rows_in"), rate)}
      ${chart("Share of time busy", shares, percent)}
      ${chart("Watermark behind the clock", behind, duration)}
      ${chart("Rows rejected or failed", errors, rate)}
      ${chart("Memory of states", [["states", samples.map((sample) => sample.memory)]], bytes)}
    </div>`;
}

function Chart({ title, times, lines, write }) {
  const place = useRef();
  const plot = useRef();
  const shown = lines.slice(0, LINES_MAX);
  const names = shown.map(([name]) => name).join("\n");
  useEffect(() => {
    if (shown.length === 0) return undefined;
    const style = getComputedStyle(document.documentElement);
    const axis = { stroke: style.getPropertyValue("--faint"), grid: { stroke: style.getPropertyValue("--line"), width: 1 }, ticks: { show: false } };
    plot.current = new uPlot({
      width: place.current.clientWidth, height: 180, legend: { show: false }, cursor: { y: false },
      series: [{}, ...shown.map(([name], at) => ({ label: name, stroke: COLOURS[at], width: 2, points: { show: false } }))],
      axes: [{ ...axis, size: 28, values: (_, ticks) => ticks.map((tick) => time(tick * 1000)) }, { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => write(tick)) }],
      scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.05 : 1] } },
    }, [times, ...shown.map(([, values]) => values)], place.current);
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: place.current.clientWidth, height: 180 }));
    resized.observe(place.current);
    return () => { resized.disconnect(); plot.current.destroy(); plot.current = undefined; };
  }, [names]);
  useEffect(() => { plot.current?.setData([times, ...shown.map(([, values]) => values)]); });
  const last = (values) => values[values.length - 1];
  return html`
    <section class="chart panel" aria-label=${title}>
      <h3>${title}</h3>
      ${shown.length === 0 ? html`<p class="faint">None.</p>` : html`<div ref=${place}></div>`}
      <ul class="legend">
        ${shown.map(([name, values], at) => html`<li key=${name}><svg viewBox="0 0 8 8" aria-hidden="true"><rect width="8" height="8" fill=${COLOURS[at]} /></svg>${name} ${write(last(values))}</li>`)}
        ${lines.length > shown.length && html`<li class="faint">and ${lines.length - shown.length} more, in the table of nodes</li>`}
      </ul>
    </section>`;
}
