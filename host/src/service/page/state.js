// The state of an operator: of a key, or of all, page by page.

import { ask } from "./host.js";
import { moment, wantedNode } from "./format.js";

const html = htm.bind(preact.h);
const { useEffect, useState } = preactHooks;

const STATEFUL = ["aggregate", "process", "join"];

/** The key as JSON, of what was written into its fields; undefined for all keys. */
function keyOf(fields, written) {
  const given = fields.filter(({ name }) => written[name] !== undefined && written[name] !== "");
  if (given.length === 0) return undefined;
  const value = ({ name, type }) => {
    if (/^(utf8|timestamp|bytes|decimal)/.test(type)) return JSON.stringify(written[name]);
    return written[name].trim();
  };
  return `{${given.map((field) => `${JSON.stringify(field.name)}:${value(field)}`).join(",")}}`;
}

export function State({ path, graph }) {
  const names = graph ? graph.nodes.filter((node) => STATEFUL.includes(node.role)).map((node) => node.name) : [];
  const [operator, setOperator] = useState(wantedNode());
  const [asOf, setAsOf] = useState("live");
  const [written, setWritten] = useState({});
  const [seen, setSeen] = useState();
  const [told, setTold] = useState();
  const chosen = names.includes(operator) ? operator : names[0];
  const fields = (seen?.key ?? []).map((text) => {
    const at = text.indexOf(": ");
    return { name: text.slice(0, at), type: text.slice(at + 2) };
  });
  const look = async (cursor) => {
    setTold(undefined);
    const missing = fields.filter(({ name }) => !written[name]).map(({ name }) => name);
    if (missing.length > 0 && missing.length < fields.length) {
      setTold(`A key has all of its fields: ${missing.join(", ")} is missing. Without any, all keys are shown.`);
      return;
    }
    const query = new URLSearchParams({ as_of: asOf, limit: 50 });
    const key = keyOf(fields, written);
    if (key !== undefined) query.set("key", key);
    if (cursor) query.set("cursor", cursor);
    try {
      const answer = await ask(`${path}/operators/${encodeURIComponent(chosen)}/state?${query}`);
      setSeen((before) => cursor ? { ...answer, entries: [...before.entries, ...answer.entries] } : answer);
    } catch (error) { setTold(error.message); }
  };
  useEffect(() => { setSeen(undefined); setWritten({}); if (chosen) look(); }, [chosen]);
  if (!graph) return html`<p>It has not run since the host was started.</p>`;
  if (names.length === 0) return html`<p>No operator of this pipeline keeps anything: aggregates, processes and joins do.</p>`;
  return html`
    <form class="row" onSubmit=${(event) => { event.preventDefault(); look(); }}>
      <label>Operator
        <select value=${chosen} onChange=${(event) => setOperator(event.target.value)}>
          ${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
        </select></label>
      <label>State
        <select value=${asOf} onChange=${(event) => setAsOf(event.target.value)}>
          <option value="live">now</option><option value="checkpoint">at the last checkpoint</option>
        </select></label>
      ${fields.map(({ name, type }) => html`<label key=${name}>${name} (${type})
        <input value=${written[name] ?? ""} placeholder="all" autocomplete="off" onInput=${(event) => setWritten({ ...written, [name]: event.target.value })} /></label>`)}
      <button class="first">Look</button>
    </form>
    ${told && html`<p class="note bad" role="alert">${told}</p>`}
    ${seen && html`
      <div class="scroll panel">
        <table>
          <thead><tr><th>Key</th><th>What</th><th>When</th><th>State</th></tr></thead>
          <tbody>${seen.entries.map((entry, at) => html`
            <tr key=${at}>
              <td><pre>${JSON.stringify(entry.key)}</pre></td>
              <td>${entry.table}</td>
              <td>${when(entry)}</td>
              <td><pre>${what(entry)}</pre></td>
            </tr>`)}</tbody>
        </table>
        ${seen.entries.length === 0 && html`<p>Nothing is kept for ${keyOf(fields, written) ? "this key" : "any key"}.</p>`}
      </div>
      ${seen.next && html`<p><button onClick=${() => look(seen.next)}>More</button></p>`}`}`;
}

function when({ start_ms, end_ms, newest_ms }) {
  if (end_ms !== undefined) return `${moment(start_ms)} to ${moment(end_ms)}`;
  if (start_ms !== undefined) return `${moment(start_ms)}, newest row ${moment(newest_ms)}`;
  return newest_ms === undefined ? "" : `newest row ${moment(newest_ms)}`;
}

function what(entry) {
  const lines = [];
  if (entry.rows !== undefined) lines.push(`${entry.rows} rows`);
  if (entry.state !== undefined) lines.push(JSON.stringify(entry.state));
  for (const timer of entry.timers ?? []) lines.push(`timer ${timer.name} at ${moment(timer.at_ms)}${timer.in_processing_time ? " by the clock" : ""}`);
  for (const row of entry.kept_rows ?? []) lines.push(`${moment(row.time_ms)} ${row.deletes ? "deleted" : JSON.stringify(row.row)}`);
  if (entry.kept_rows_left_out) lines.push(`and ${entry.kept_rows_left_out} more rows`);
  return lines.join("\n");
}
