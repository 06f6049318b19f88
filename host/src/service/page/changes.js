// The history of a pipeline's changes, newest first, with what each did to each node, and to
// the file.

import { ask } from "./host.js";
import { Phase, Table } from "./parts.js";
import { duration, time } from "./format.js";

const html = htm.bind(preact.h);
const { useState } = preactHooks;

export function Changes({ path, pipeline }) {
  if (pipeline.changes.length === 0) return html`<p>None yet.</p>`;
  return html`${[...pipeline.changes].reverse().map((change) => html`
    <section class="panel change" key=${`${change.at_ms} ${change.digest}`}>
      <div class="title">
        <${Phase} phase=${change.outcome} />
        <time>${time(change.at_ms)}</time>
        <code>${change.digest.slice(0, 19)}</code>
        ${change.by && html`<span class="faint">by ${change.by}</span>`}
        ${change.in_place && html`<span class="faint">in place</span>`}
        ${change.pause_ms !== undefined && html`<span class="faint">rows waited ${change.pause_ms > 0 ? duration(change.pause_ms) : "less than 1 ms"}</span>`}
      </div>
      ${change.why && html`<p class="note">${change.why}</p>`}
      ${change.plan && html`<${Plan} nodes=${change.plan.nodes} />`}
      <${Diff} path=${`${path}/changes/${change.digest}/diff`} />
    </section>`)}`;
}

/** What a change has changed in the file, once somebody wants to see it. */
function Diff({ path }) {
  const [seen, setSeen] = useState();
  const look = async (event) => {
    if (!event.target.open || seen) return;
    try { setSeen({ lines: (await ask(path)).split("\n") }); } catch (error) { setSeen({ why: error.message }); }
  };
  return html`
    <details onToggle=${look}><summary>What it changed in the file</summary>
      ${seen?.why && html`<p class="note">${seen.why}</p>`}
      ${seen?.lines && (seen.lines.length > 1
        ? html`<pre class="diff">${seen.lines.map((line) => html`<div class=${KINDS[line[0]]}>${line}</div>`)}</pre>`
        : html`<p class="faint">Nothing: the file is the same, and a plugin is another.</p>`)}
    </details>`;
}

const KINDS = { "+": "added", "-": "removed", "@": "faint" };

/** What becomes of what is kept of a node. */
const KEPT = { new: "is new", kept: "is kept", migrated: "is migrated", incompatible: "does not fit", gone: "would be lost", dropped: "goes" };
const OF = { source: "its place", sink: "its output" };

const COLUMNS = [
  ["Node", ({ name, role }) => html`<strong>${name}</strong> <span class="faint">${role}</span>`],
  ["Change", ({ change, state, role }) => [change, KEPT[state] && `${OF[role] ?? "state"} ${KEPT[state]}`].filter(Boolean).join(", ")],
  ["What", ({ fields, why, compared }) => html`
    ${[...(fields ?? []), ...(why ? [why] : [])].map((text) => html`<div>${text}</div>`)}
    ${compared && html`<${Compared} ...${compared} />`}`, "wide"],
];

export function Plan({ nodes }) {
  const changed = nodes.filter((node) => node.change !== "unchanged" || node.why);
  const same = nodes.filter((node) => !changed.includes(node));
  const table = (nodes) => html`<${Table} columns=${COLUMNS} rows=${nodes} keyOf=${({ name }) => name} />`;
  return html`
    ${changed.length > 0 && table(changed)}
    ${same.length > 0 && html`<details><summary>${same.length === 1 ? "1 node is" : `${same.length} nodes are`} unchanged</summary>${table(same)}</details>`}`;
}

// What a new plugin makes of recent rows, beside the one before.
function Compared({ of, tried, differing, first }) {
  const what = of === "rows" ? "recent rows" : "keys, with their recent rows alone";
  if (differing === 0) return html`<div class="faint">the same for ${tried} ${what}</div>`;
  const lines = (when, lines) => html`
    <div><span class="faint">${when}</span> ${lines.length === 0 ? "nothing" : lines.map((line) => html`<code>${line}</code> `)}</div>`;
  return html`<details><summary>something else for ${differing} of ${tried} ${what}</summary>
    ${first.map(({ input, then, now }) => html`<div><code>${input}</code>${lines("then", then)}${lines("now", now)}</div>`)}
  </details>`;
}
