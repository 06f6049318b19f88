// All pipelines of the host.

import { Refused, follow } from "./host.js";
import { Phase, Table } from "./parts.js";
import { Plugins } from "./plugins.js";
import { count, duration, rate, time } from "./format.js";

const html = htm.bind(preact.h);
const { useEffect, useState } = preactHooks;

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
  const columns = [
    ["Name", (line) => html`<a href=${`#/${encodeURIComponent(line.name)}`}>${line.name}</a><${Note} line=${line} />`, "wide"],
    ["Phase", (line) => html`<${Phase} phase=${line.phase} />`],
    ["Bad rows", (line) => html`<span class=${line.bad_rows ? "bad" : ""}>${count(line.bad_rows)}</span>`, "number"],
    ["Waiting", (line) => count(line.backlog), "number"],
    ["Behind", (line) => duration(line.behind_ms), "number"],
    ["Rate", (line) => rate(read(line)), "number"],
    ["Rows read", (line) => count(line.rows_read), "number"],
    ["Checkpoint", (line) => time(line.checkpoint_ms)],
    ["Restarts", (line) => count(line.restarts), "number"],
    ["Since", (line) => time(line.since_ms)],
  ];
  return html`
    <h1>Pipelines</h1>
    <div class="scroll panel"><${Table} name="pipelines" columns=${columns} rows=${seen.pipelines} keyOf=${(line) => line.name} /></div>
    <${Plugins} />`;
}

/** What is wrong with a pipeline, or else what it waits for. */
function Note({ line }) {
  const wrong = line.restarting?.message ?? line.failure ?? line.refusal;
  const slow = line.bottleneck;
  return html`
    ${wrong && html`<div class="faint">${firstLine(wrong)}</div>`}
    ${slow && html`<div class=${slow.lasts === "chronic" ? "slow" : "faint"}>${slow.sentence}</div>`}`;
}

function firstLine(text) {
  return text.split("\n").find((line) => line.trim()) ?? text;
}
