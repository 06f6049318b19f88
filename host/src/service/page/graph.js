// The pipeline as a graph, with what its nodes do now, and the same as a table.

import { Sideways } from "./parts.js";
import { bytes, count, duration, moment, percent, rate, time } from "./format.js";

const html = htm.bind(preact.h);
const { useEffect, useMemo, useRef, useState } = preactHooks;

const HEIGHT = 92;

/** Where the nodes and edges are: from left to right, unless only from top to bottom is there room. */
function layout(graph, room) {
  const laid = ["LR", "TB"].map((direction) => laidOut(graph, direction, room < 600 ? 150 : 190));
  return laid.find((it) => it.graph().width <= room) ?? laid[0];
}

function laidOut(graph, rankdir, width) {
  const laid = new dagre.graphlib.Graph({ multigraph: true });
  laid.setGraph({ rankdir, nodesep: width > 150 ? 24 : 12, ranksep: rankdir === "TB" ? 40 : 60, marginx: 8, marginy: 8 });
  laid.setDefaultEdgeLabel(() => ({}));
  for (const node of graph.nodes) laid.setNode(node.name, { width, height: HEIGHT });
  for (const node of graph.nodes) {
    node.inputs.forEach((input, index) => {
      const label = [input.output, input.port && `→ ${input.port}`].filter(Boolean).join(" ");
      laid.setEdge(input.from, node.name, { label, width: label.length * 6, height: label ? 14 : 0, labelpos: "c" }, `${index}`);
    });
  }
  dagre.layout(laid);
  return laid;
}

const isOperator = (node) => node.role === "operator";
const wrong = (status) => status.failed + status.rejected;

export function Graph({ pipeline, graph, series, path }) {
  const [chosen, setChosen] = useState();
  const [room, setRoom] = useState(1200);
  const place = useRef();
  useEffect(() => {
    // Its panel has some.
    const resized = new ResizeObserver(() => setRoom(place.current.clientWidth - 28));
    resized.observe(place.current);
    return () => resized.disconnect();
  }, []);
  const laid = useMemo(() => graph && layout(graph, room), [graph, room]);
  const revision = pipeline.revision;
  const status = new Map(revision?.nodes.map((node) => [node.name, node]));
  const roles = new Map(graph?.nodes.map((node) => [node.name, node.role]));
  const tasks = new Map(graph?.nodes.map((node) => [node.name, node.tasks]));
  const node = status.get(chosen);
  return html`<div ref=${place}>
    ${!revision && html`<p>It has not run since the host was started.</p>`}
    ${revision && laid && html`<${Sideways}><${Drawing} laid=${laid} status=${status} series=${series} at=${pipeline.at} chosen=${chosen} choose=${setChosen} /></${Sideways}>`}
    ${node && html`<${Details} node=${node} role=${roles.get(chosen)} tasks=${tasks.get(chosen)} series=${series} at=${pipeline.at} path=${path} />`}
    ${revision && html`<h2>Nodes</h2>
    <${Sideways}>
      <table class="nodes">
        <thead><tr><th>Node</th><th class="number">Behind</th><th>Watermark</th><th class="number">In</th><th class="number">Out</th><th class="number">Busy</th><th class="number">Blocked</th><th class="number">Idle</th><th class="number">Late</th><th class="number">Rejected</th><th class="number">Failed</th><th>Kind</th></tr></thead>
        <tbody>
          ${revision.nodes.map((node) => html`
            <tr key=${node.name}>
              <td><button onClick=${() => setChosen(node.name)} aria-pressed=${chosen === node.name}>${node.name}</button></td>
              <td class="number">${behind(node, pipeline.at)}</td>
              <td>${moment(node.watermark_ms)}</td>
              <td class="number">${rate(series.rate(node.name, "rows_in"))}</td>
              <td class="number">${node.role === "sink" ? "" : rate(series.rate(node.name, "rows_out"))}</td>
              <td class="number">${isOperator(node) && percent(node.load?.busy)}</td>
              <td class="number">${node.role !== "sink" && percent(node.load?.blocked)}</td>
              <td class="number">${isOperator(node) && percent(node.load?.idle)}</td>
              <td class="number">${count(node.late)}</td>
              <td class=${node.rejected ? "number bad" : "number"}>${count(node.rejected)}</td>
              <td class=${node.failed ? "number bad" : "number"}>${count(node.failed)}</td>
              <td>${roles.get(node.name) ?? node.role}</td>
            </tr>`)}
        </tbody>
      </table>
    </${Sideways}>`}
    ${revision?.state && html`<p class="faint">States take ${bytes(revision.state.memory_bytes)} of ${bytes(revision.state.memory_bytes_max)} in memory.</p>`}
  </div>`;
}

/** How far the watermark is behind the clock. */
function behind(node, at) {
  return node.watermark_ms === null || node.watermark_ms === undefined ? "–" : duration(at - node.watermark_ms);
}

function told(node, at, share) {
  const lag = behind(node, at);
  return [lag !== "–" && `${lag} behind`, share !== undefined && `${percent(share)} busy`].filter(Boolean).join(", ");
}

function Drawing({ laid, status, series, at, chosen, choose }) {
  const { width, height } = laid.graph();
  const line = (points) => points.map(({ x, y }, index) => `${index ? "L" : "M"}${x},${y}`).join("");
  return html`
    <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="group" aria-label="Graph of the pipeline">
      <defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path class="arrow" d="M0,0L8,4L0,8z" /></marker></defs>
      ${laid.edges().map((edge) => {
        const { points, label, x, y } = laid.edge(edge);
        return html`<g key=${`${edge.v} ${edge.w} ${edge.name}`}>
          <path class="edge" d=${line(points)} marker-end="url(#arrow)" />
          ${label && html`<text class="edge-name" x=${x} y=${y} text-anchor="middle">${label}</text>`}
        </g>`;
      })}
      ${laid.nodes().map((name) => {
        const node = status.get(name);
        if (!node) return undefined;
        const { x, y, width } = laid.node(name);
        const share = isOperator(node) ? node.load?.busy : undefined;
        const bar = Math.min(76, width - 106);
        const shown = rate(series.rate(name, node.role === "operator" ? "rows_in" : node.role === "source" ? "rows_out" : "rows_in"));
        const errors = wrong(node);
        const pick = () => choose(name);
        const title = [`${name}, ${node.role}: ${shown}`, told(node, at, share), errors && `${count(errors)} bad rows`].filter(Boolean).join(", ");
        return html`
          <g key=${name} class=${`node ${node.role} ${errors ? "wrong" : ""} ${chosen === name ? "chosen" : ""}`} transform=${`translate(${x - width / 2},${y - HEIGHT / 2})`}
            tabindex="0" role="button" aria-pressed=${chosen === name} aria-label=${title} onClick=${pick}
            onKeyDown=${(event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); } }}>
            <title>${title}</title>
            <rect class="box" width=${width} height=${HEIGHT} rx="8" />
            <text class="name" x="10" y="21">${short(name, Math.floor((width - (isOperator(node) ? 20 : 60)) / 7.6))}</text>
            <text class="faint" x=${width - 10} y="21" text-anchor="end">${isOperator(node) ? "" : node.role}</text>
            <text x="10" y="42">${shown}</text>
            ${share !== undefined && html`
              <rect class="busy-back" x="96" y="33" width=${bar} height="9" rx="4" />
              <rect class=${`busy ${share > 0.9 ? "high" : ""}`} x="96" y="33" width=${bar * share} height="9" rx="4" />`}
            <text class="faint" x="10" y="61">${told(node, at, width > 150 ? share : undefined)}</text>
            ${errors > 0 && html`<text class="bad" x="10" y="80">${count(errors)} bad rows</text>`}
            ${errors === 0 && node.late > 0 && html`<text class="faint" x="10" y="80">${count(node.late)} late</text>`}
          </g>`;
      })}
    </svg>`;
}

function short(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

function Details({ node, role, tasks, series, at, path }) {
  const name = encodeURIComponent(node.name);
  const here = `#/${path.replace("pipelines/", "")}`;
  const slowest = node.held_back_by;
  const fact = (term, value) => html`<div><dt>${term}</dt><dd>${value}</dd></div>`;
  return html`
    <h2>${node.name}</h2>
    <div class="panel" aria-live="off">
      <dl class="facts">
        ${fact("Kind", role ?? node.role)}
        ${fact("Tasks", count(tasks))}
        ${fact("Rows in", `${count(node.rows_in)} (${rate(series.rate(node.name, "rows_in"))})`)}
        ${node.role !== "sink" && fact("Rows out", `${count(node.rows_out)} (${rate(series.rate(node.name, "rows_out"))})`)}
        ${node.backlog !== undefined && fact("Waiting", `${count(node.backlog)} messages`)}
        ${fact("Late", count(node.late))}
        ${fact("Rejected", count(node.rejected))}
        ${fact("Failed", count(node.failed))}
        ${node.failed_calls > 0 && fact("Failed calls", count(node.failed_calls))}
        ${fact("Watermark", moment(node.watermark_ms))}
        ${fact("Behind", behind(node, at))}
        ${isOperator(node) && fact("Busy", percent(node.load?.busy))}
        ${node.role !== "sink" && fact("Blocked", percent(node.load?.blocked))}
        ${isOperator(node) && fact("Idle", percent(node.load?.idle))}
        ${node.read !== null && node.read !== undefined && fact("Read", percent(node.read))}
      </dl>
      ${slowest && html`<p class="faint">Its watermark is that of partition ${slowest.partition} of ${slowest.source}, whose last row came at ${time(slowest.last_row_ms)}.</p>`}
      <p class="row">
        ${node.role !== "sink" && html`<a href=${`${here}/rows?${name}`}>See its rows</a>`}
        ${["aggregate", "process", "join"].includes(role) && html`<a href=${`${here}/state?${name}`}>Look at its state</a>`}
      </p>
    </div>`;
}
