// The plugins that were uploaded, and what needs them.

import { follow } from "./host.js";
import { Table } from "./parts.js";
import { bytes, time } from "./format.js";

const html = htm.bind(preact.h);
const { useEffect, useState } = preactHooks;

/** They change rarely, and the host looks at all checkpoints for an answer. */
const EVERY = 10_000;

const COLUMNS = [
  ["Name", (plugin) => plugin.name],
  ["Version", (plugin) => plugin.version],
  ["Digest", (plugin) => html`<code>${plugin.digest.slice(0, 19)}</code>`],
  ["Size", (plugin) => bytes(plugin.bytes), "number"],
  ["Uploaded", (plugin) => html`${time(plugin.uploaded_ms)} <span class="faint">by ${plugin.uploaded_by}</span>`],
  ["Needed by", (plugin) => plugin.needed_by.map(({ pipeline, uses, checkpoints }) => html`
    <div key=${pipeline}>${pipeline} <span class="faint">${why(uses, checkpoints)}</span></div>`), "wide"],
];

export function Plugins() {
  const [plugins, setPlugins] = useState([]);
  useEffect(() => follow("plugins", ({ answer }) => { if (answer) setPlugins(answer); }, EVERY), []);
  if (plugins.length === 0) return null;
  return html`
    <h2>Plugins</h2>
    <div class="scroll panel"><${Table} name="plugins" columns=${COLUMNS} rows=${plugins} keyOf=${(plugin) => plugin.digest} /></div>`;
}

function why(uses, checkpoints) {
  const words = { wanted: "in its file", running: "running", held: "to go back to" };
  return [...uses.map((use) => words[use]), ...checkpoints.map((id) => `checkpoint ${id}`)].join(", ");
}
