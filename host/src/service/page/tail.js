// Rows as they leave a node.

import { count, moment, wantedNode } from "./format.js";

const html = htm.bind(preact.h);
const { useEffect, useState } = preactHooks;

const ROWS_MAX = 200;

/** The outputs of the pipeline, as the host names them. */
function outputs(graph) {
  const names = new Set(graph.nodes.filter((node) => node.role !== "sink").map((node) => node.name));
  for (const node of graph.nodes) {
    for (const input of node.inputs) if (input.output) names.add(`${input.from}.${input.output}`);
  }
  return [...names];
}

export function Tail({ path, graph }) {
  const [from, setFrom] = useState(wantedNode());
  const [rate, setRate] = useState(10);
  const [listens, setListens] = useState(true);
  const [rows, setRows] = useState([]);
  const [leftOut, setLeftOut] = useState(0);
  const [told, setTold] = useState();
  const names = graph ? outputs(graph) : [];
  const chosen = from ?? names[0];
  useEffect(() => { setRows([]); setLeftOut(0); }, [path, chosen]);
  useEffect(() => {
    if (!listens || !chosen) return undefined;
    setTold("Waiting for rows …");
    const events = new EventSource(`/api/v1/${path}/tail?from=${encodeURIComponent(chosen)}&rate=${rate}`);
    let number = 0;
    events.addEventListener("row", (event) => {
      setTold(undefined);
      const row = { ...JSON.parse(event.data), number: `${Date.now()} ${number++}` };
      setRows((rows) => [row, ...rows].slice(0, ROWS_MAX));
    });
    events.addEventListener("left_out", (event) => {
      const more = JSON.parse(event.data).rows;
      setLeftOut((rows) => rows + more);
    });
    events.addEventListener("end", (event) => {
      setTold(`It has ended: ${JSON.parse(event.data).why}.`);
      events.close();
    });
    events.onerror = () => setTold(events.readyState === EventSource.CLOSED
      ? "The host refuses to show these rows." : "The host does not answer; the page tries again.");
    return () => events.close();
  }, [path, chosen, rate, listens]);
  if (!graph) return html`<p>It has not run since the host was started.</p>`;
  return html`
    <div class="row">
      <label>Rows that leave
        <select value=${chosen} onChange=${(event) => setFrom(event.target.value)}>
          ${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
        </select></label>
      <label>At most, a second
        <select value=${rate} onChange=${(event) => setRate(Number(event.target.value))}>
          ${[1, 10, 50, 200].map((rate) => html`<option key=${rate} value=${rate}>${rate}</option>`)}
        </select></label>
      <button onClick=${() => setListens(!listens)}>${listens ? "Hold" : "Go on"}</button>
      <span class="faint" role="status">${listens ? told : "Held."} ${leftOut > 0 && `${count(leftOut)} rows left out.`}</span>
    </div>
    <div class="rows panel" tabindex="0" aria-label="Rows, newest first">
      <ol>${rows.map((row) => html`<li key=${row.number}><time>${moment(row.time_ms)}</time><pre>${row.taken_back ? "taken back: " : ""}${JSON.stringify(row.row)}</pre></li>`)}</ol>
    </div>`;
}
