// The pipeline as a graph, with what its nodes do now, and the same as a table.

import { bytes, count, duration, moment, percent, rate } from "./format.js";

const html = htm.bind(preact.h);
const { useMemo, useState } = preactHooks;

const WIDTH = 190, HEIGHT = 92;

/** Where the nodes and edges are. */
function layout(graph, isNarrow) {
  const laid = new dagre.graphlib.Graph({ multigraph: true });
  laid.setGraph({ rankdir: isNarrow ? "TB" : "LR", nodesep: 24, ranksep: isNarrow ? 40 : 60, marginx: 8, marginy: 8 });
  laid.setDefaultEdgeLabel(() => ({}));
  for (const node of graph.nodes) laid.setNode(node.name, { width: WIDTH, height: HEIGHT });
  for (const node of graph.nodes) {
    node.inputs.forEach((input, index) => {
      const label = [input.output, input.port && `→ ${input.port}`].filter(Boolean).join(" ");
      laid.setEdge(input.from, node.name, { label, width: label.length * 6, height: label ? 14 : 0, labelpos: "c" }, `${index}`);
    });
  }
  dagre.layout(laid);
  return laid;
}

/** The share of their time in which the tasks of a node work. */
export function busy(series, node, tasks) {
  const ms = series.rate(node.name, "busy_ms");
  return node.role === "operator" && ms !== undefined ? Math.min(1, ms / 1000 / (tasks || 1)) : undefined;
}

/** The share of their time in which the tasks of a node wait for those behind them. */
function blocked(series, node, tasks) {
  const ms = series.rate(node.name, "blocked_ms");
  return node.role !== "sink" && ms !== undefined ? Math.min(1, ms / 1000 / (tasks || 1)) : undefined;
}

const wrong = (status) => status.failed + status.rejected;

export function Graph({ pipeline, graph, series, path }) {
  const [chosen, setChosen] = useState();
  const isNarrow = matchMedia("(max-width: 640px)").matches;
  const laid = useMemo(() => graph && layout(graph, isNarrow), [graph, isNarrow]);
  const revision = pipeline.revision;
  if (!revision) return html`<p>It has not run since the host was started.</p>`;
  const status = new Map(revision.nodes.map((node) => [node.name, node]));
  const tasks = new Map(graph?.nodes.map((node) => [node.name, node.tasks]));
  const roles = new Map(graph?.nodes.map((node) => [node.name, node.role]));
  const node = status.get(chosen);
  return html`
    ${laid && html`<div class="graph scroll panel"><${Drawing} laid=${laid} status=${status} tasks=${tasks} series=${series} at=${pipeline.at} chosen=${chosen} choose=${setChosen} /></div>`}
    ${node && html`<${Details} node=${node} role=${roles.get(chosen)} tasks=${tasks.get(chosen)} series=${series} at=${pipeline.at} path=${path} />`}
    <h2>Nodes</h2>
    <div class="scroll panel">
      <table>
        <thead><tr><th>Node</th><th>Kind</th><th class="number">In</th><th class="number">Out</th><th class="number">Busy</th><th class="number">Blocked</th><th class="number">Behind</th><th>Watermark</th><th class="number">Late</th><th class="number">Rejected</th><th class="number">Failed</th></tr></thead>
        <tbody>
          ${revision.nodes.map((node) => html`
            <tr key=${node.name}>
              <td><button onClick=${() => setChosen(node.name)} aria-pressed=${chosen === node.name}>${node.name}</button></td>
              <td>${roles.get(node.name) ?? node.role}</td>
              <td class="number">${rate(series.rate(node.name, "rows_in"))}</td>
              <td class="number">${node.role === "sink" ? "" : rate(series.rate(node.name, "rows_out"))}</td>
              <td class="number">${node.role === "operator" ? percent(busy(series, node, tasks.get(node.name))) : ""}</td>
              <td class="number">${node.role !== "sink" ? percent(blocked(series, node, tasks.get(node.name))) : ""}</td>
              <td class="number">${behind(node, pipeline.at)}</td>
              <td>${moment(node.watermark_ms)}</td>
              <td class="number">${count(node.late)}</td>
              <td class=${node.rejected ? "number bad" : "number"}>${count(node.rejected)}</td>
              <td class=${node.failed ? "number bad" : "number"}>${count(node.failed)}</td>
            </tr>`)}
        </tbody>
      </table>
    </div>
    ${revision.state && html`<p class="faint">States take ${bytes(revision.state.memory_bytes)} of ${bytes(revision.state.memory_bytes_max)} in memory.</p>`}`;
}

/** How far the watermark is behind the clock. */
function behind(node, at) {
  return node.watermark_ms === null || node.watermark_ms === undefined ? "–" : duration(at - node.watermark_ms);
}

function told(node, at, share) {
  const lag = behind(node, at);
  return [lag !== "–" && `${lag} behind`, share !== undefined && `${percent(share)} busy`].filter(Boolean).join(", ");
}

function Drawing({ laid, status, tasks, series, at, chosen, choose }) {
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
        const { x, y } = laid.node(name);
        const share = busy(series, node, tasks.get(name));
        const shown = rate(series.rate(name, node.role === "operator" ? "rows_in" : node.role === "source" ? "rows_out" : "rows_in"));
        const errors = wrong(node);
        const pick = () => choose(name);
        const title = [`${name}, ${node.role}: ${shown}`, told(node, at, share), errors && `${count(errors)} bad rows`].filter(Boolean).join(", ");
        return html`
          <g key=${name} class=${`node ${node.role} ${errors ? "wrong" : ""} ${chosen === name ? "chosen" : ""}`} transform=${`translate(${x - WIDTH / 2},${y - HEIGHT / 2})`}
            tabindex="0" role="button" aria-pressed=${chosen === name} aria-label=${title} onClick=${pick}
            onKeyDown=${(event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); } }}>
            <title>${title}</title>
            <rect class="box" width=${WIDTH} height=${HEIGHT} rx="8" />
            <text class="name" x="10" y="21">${short(name, 22)}</text>
            <text class="faint" x=${WIDTH - 10} y="21" text-anchor="end">${node.role === "operator" ? "" : node.role}</text>
            <text x="10" y="42">${shown}</text>
            ${share !== undefined && html`
              <rect class="busy-back" x="104" y="33" width="76" height="9" rx="4" />
              <rect class=${`busy ${share > 0.9 ? "high" : ""}`} x="104" y="33" width=${76 * share} height="9" rx="4" />`}
            <text class="faint" x="10" y="61">${told(node, at, share)}</text>
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
  const fact = (term, value) => html`<div><dt>${term}</dt><dd>${value}</dd></div>`;
  return html`
    <h2>${node.name}</h2>
    <div class="panel" aria-live="off">
      <dl class="facts">
        ${fact("Kind", role ?? node.role)}
        ${fact("Tasks", count(tasks))}
        ${fact("Rows in", `${count(node.rows_in)} (${rate(series.rate(node.name, "rows_in"))})`)}
        ${node.role !== "sink" && fact("Rows out", `${count(node.rows_out)} (${rate(series.rate(node.name, "rows_out"))})`)}
        ${fact("Late", count(node.late))}
        ${fact("Rejected", count(node.rejected))}
        ${fact("Failed", count(node.failed))}
        ${fact("Watermark", moment(node.watermark_ms))}
        ${fact("Behind", behind(node, at))}
        ${node.role === "operator" && fact("Busy", percent(busy(series, node, tasks)))}
        ${node.read !== null && node.read !== undefined && fact("Read", percent(node.read))}
      </dl>
      <p class="row">
        ${node.role !== "sink" && html`<a href=${`${here}/rows?${name}`}>See its rows</a>`}
        ${["aggregate", "process", "join"].includes(role) && html`<a href=${`${here}/state?${name}`}>Look at its state</a>`}
      </p>
    </div>`;
}
