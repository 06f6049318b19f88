// The history of a pipeline's changes, newest first, with what each did to each node.

import { Phase } from "./list.js";
import { duration, time } from "./format.js";

const html = htm.bind(preact.h);

export function Changes({ pipeline }) {
  if (pipeline.changes.length === 0) return html`<p>None yet.</p>`;
  return html`${[...pipeline.changes].reverse().map((change) => html`
    <section class="panel change" key=${`${change.at_ms} ${change.digest}`}>
      <div class="title">
        <${Phase} phase=${change.outcome} />
        <time>${time(change.at_ms)}</time>
        <code>${change.digest.slice(0, 19)}</code>
        ${change.by && html`<span class="faint">by ${change.by}</span>`}
        ${change.pause_ms !== undefined && html`<span class="faint">no row was read for ${duration(change.pause_ms)}</span>`}
      </div>
      ${change.why && html`<p class="note">${change.why}</p>`}
      ${change.plan && html`<${Plan} nodes=${change.plan.nodes} />`}
    </section>`)}`;
}

function Plan({ nodes }) {
  const changed = nodes.filter((node) => node.change !== "unchanged" || node.why);
  const row = (node) => html`
    <tr key=${node.name}>
      <td>${node.name}</td><td>${node.role}</td><td>${node.change}</td><td>state ${node.state}</td>
      <td>${[...(node.fields ?? []), ...(node.why ? [node.why] : [])].map((text) => html`<div>${text}</div>`)}
        ${node.compared && html`<${Compared} ...${node.compared} />`}</td>
    </tr>`;
  const table = (nodes) => html`<div class="scroll"><table><tbody>${nodes.map(row)}</tbody></table></div>`;
  const same = nodes.length - changed.length;
  return html`
    ${changed.length > 0 && table(changed)}
    ${same > 0 && html`<details><summary>${same} nodes are unchanged</summary>${table(nodes.filter((node) => !changed.includes(node)))}</details>`}`;
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
