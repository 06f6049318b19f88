// All pipelines of the host.

import { Refused, follow } from "./host.js";
import { Plugins } from "./plugins.js";
import { count, rate, time } from "./format.js";

const html = htm.bind(preact.h);
const { useEffect, useState } = preactHooks;

export function Phase({ phase }) {
  return html`<span class=${`phase ${phase}`}>${phase.replace("_", " ")}</span>`;
}

export function Pipelines({ heard }) {
  const [seen, setSeen] = useState();
  useEffect(() => follow("pipelines", ({ answer, at, error }) => {
    heard(error instanceof Refused ? undefined : error);
    if (!answer) return;
    setSeen((before) => ({ at, pipelines: answer, before: before && { at: before.at, pipelines: before.pipelines } }));
  }), []);
  if (!seen) return html`<p>Loading …</p>`;
  if (seen.pipelines.length === 0) {
    return html`<h1>Pipelines</h1><p>There are none yet. A pipeline is a file <code>pipelines/NAME.toml</code> in the folder of the service; it starts when the file is there.</p>`;
  }
  const read = (line) => {
    const before = seen.before?.pipelines.find((other) => other.name === line.name);
    return before && Math.max(0, line.rows_read - before.rows_read) / ((seen.at - seen.before.at) / 1000);
  };
  return html`
    <h1>Pipelines</h1>
    <div class="scroll panel">
      <table>
        <thead><tr><th>Name</th><th>Phase</th><th>Since</th><th class="number">Rows read</th><th class="number">Rate</th><th>Checkpoint</th><th class="number">Restarts</th></tr></thead>
        <tbody>
          ${seen.pipelines.map((line) => html`
            <tr key=${line.name}>
              <td><a href=${`#/${encodeURIComponent(line.name)}`}>${line.name}</a>
                ${wrong(line) && html`<div class="faint">${firstLine(wrong(line))}</div>`}</td>
              <td><${Phase} phase=${line.phase} /></td>
              <td>${time(line.since_ms)}</td>
              <td class="number">${count(line.rows_read)}</td>
              <td class="number">${rate(read(line))}</td>
              <td>${time(line.checkpoint_ms)}</td>
              <td class="number">${count(line.restarts)}</td>
            </tr>`)}
        </tbody>
      </table>
    </div>
    <${Plugins} />`;
}

function wrong(line) {
  return line.restarting?.message ?? line.failure ?? line.refusal;
}

function firstLine(text) {
  return text.split("\n").find((line) => line.trim()) ?? text;
}
