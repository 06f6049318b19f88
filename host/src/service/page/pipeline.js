// One pipeline: its views, and what can be done with it.

import { Changes } from "./changes.js";
import { Charts } from "./charts.js";
import { Checkpoints } from "./checkpoints.js";
import { File } from "./file.js";
import { Graph } from "./graph.js";
import { Refused, Series, ask, follow } from "./host.js";
import { Letters } from "./letters.js";
import { Phase } from "./parts.js";
import { State } from "./state.js";
import { Tail } from "./tail.js";
import { count, time } from "./format.js";

const html = htm.bind(preact.h);
const { useEffect, useRef, useState } = preactHooks;

const VIEWS = [
  ["graph", "Graph", Graph],
  ["charts", "Charts", Charts],
  ["rows", "Rows", Tail],
  ["state", "State", State],
  ["letters", "Dead letters", Letters],
  ["checkpoints", "Checkpoints", Checkpoints],
  ["changes", "Changes", Changes],
  ["file", "File", File],
];

export function Pipeline({ name, view, heard }) {
  const [pipeline, setPipeline] = useState();
  const [graph, setGraph] = useState();
  const [refused, setRefused] = useState();
  const series = useRef(new Series()).current;
  const path = `pipelines/${encodeURIComponent(name)}`;
  useEffect(() => follow(path, ({ answer, at, error }) => {
    heard(error instanceof Refused ? undefined : error);
    if (answer) series.add(at, answer.revision);
    if (answer) setPipeline({ ...answer, at });
    if (answer || error instanceof Refused) setRefused(error?.message);
  }), [path]);
  const run = pipeline?.revision && `${pipeline.revision.digest} ${pipeline.revision.started_ms}`;
  useEffect(() => {
    if (run) ask(`${path}/graph`).then(setGraph, () => {});
  }, [path, run]);
  // On a narrow screen, there are more views than room for their names.
  const isThere = pipeline !== undefined;
  useEffect(() => { document.querySelector("nav.tabs a[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }); }, [view, isThere]);
  if (!pipeline) return refused ? html`<p class="note bad">${refused}</p>` : html`<p>Loading …</p>`;
  const slow = ["running", "probation"].includes(pipeline.phase) && pipeline.revision?.bottleneck;
  const [, , View] = VIEWS.find(([id]) => id === view) ?? VIEWS[0];
  return html`
    <div class="title">
      <h1>${name}</h1>
      <${Phase} phase=${pipeline.phase} />
      <span class="faint">since ${time(pipeline.since_ms)}</span>
      ${pipeline.restarts > 0 && html`<span class="faint">${count(pipeline.restarts)} ${pipeline.restarts === 1 ? "restart" : "restarts"}</span>`}
      <${Actions} path=${path} phase=${pipeline.phase} />
    </div>
    ${refused && html`<p class="note bad">${refused}</p>`}
    ${pipeline.restarting && html`<p class="note bad">It has failed (${pipeline.restarting.failures} of ${pipeline.restarting.failures_max} times), and restarts at ${time(pipeline.restarting.at_ms)}: ${pipeline.restarting.message}</p>`}
    ${pipeline.failure && html`<p class="note bad">${pipeline.failure.message}${"\n"}${pipeline.failure.advice}</p>`}
    ${pipeline.refusal && html`<p class="note">${pipeline.refusal}</p>`}
    ${slow && html`<p class=${slow.lasts === "chronic" ? "note" : "faint"}>${slow.sentence}</p>`}
    ${pipeline.revision?.warnings && html`<details><summary>Warnings of the planner</summary><pre class="note">${pipeline.revision.warnings}</pre></details>`}
    <nav class="tabs" aria-label="Views">
      ${VIEWS.map(([id, title]) => html`<a key=${id} href=${`#/${encodeURIComponent(name)}/${id}`} aria-current=${id === view ? "page" : undefined}>${title}</a>`)}
    </nav>
    <${View} path=${path} pipeline=${pipeline} graph=${graph} series=${series} />`;
}

function Actions({ path, phase }) {
  const [told, setTold] = useState();
  const send = async (what) => {
    setTold(undefined);
    try { await ask(`${path}/${what}`, { method: "POST" }); }
    catch (error) { setTold(error.message); }
  };
  const waits = phase === "restarting";
  const runs = ["running", "probation", "starting"].includes(phase);
  return html`
    ${(runs || waits) && html`<button onClick=${() => send("pause")}>Pause</button>`}
    ${!runs && html`<button onClick=${() => send("start")}>${waits ? "Start now" : "Start"}</button>`}
    ${told && html`<span class="note bad" role="alert">${told}</span>`}`;
}
