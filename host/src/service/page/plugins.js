// The plugins that were uploaded, and what needs them.

import { follow } from "./host.js";
import { bytes, time } from "./format.js";

const html = htm.bind(preact.h);
const { useEffect, useState } = preactHooks;

/** They change rarely, and the host looks at all checkpoints for an answer. */
const EVERY = 10_000;

export function Plugins() {
  const [plugins, setPlugins] = useState([]);
  useEffect(() => follow("plugins", ({ answer }) => { if (answer) setPlugins(answer); }, EVERY), []);
  if (plugins.length === 0) return null;
  return html`
    <h2>Plugins</h2>
    <div class="scroll panel">
      <table class="plugins">
        <thead><tr><th>Name</th><th>Version</th><th>Digest</th><th class="number">Size</th><th>Uploaded</th><th>Needed by</th></tr></thead>
        <tbody>
          ${plugins.map((plugin) => html`
            <tr key=${plugin.digest}>
              <td>${plugin.name}</td>
              <td>${plugin.version}</td>
              <td><code>${plugin.digest.slice(0, 19)}</code></td>
              <td class="number">${bytes(plugin.bytes)}</td>
              <td>${time(plugin.uploaded_ms)} <span class="faint">by ${plugin.uploaded_by}</span></td>
              <td>${plugin.needed_by.map(({ pipeline, uses, checkpoints }) => html`
                <div key=${pipeline}>${pipeline} <span class="faint">${why(uses, checkpoints)}</span></div>`)}</td>
            </tr>`)}
        </tbody>
      </table>
    </div>`;
}

function why(uses, checkpoints) {
  const words = { wanted: "in its file", running: "running", held: "to go back to" };
  return [...uses.map((use) => words[use]), ...checkpoints.map((id) => `checkpoint ${id}`)].join(", ");
}
