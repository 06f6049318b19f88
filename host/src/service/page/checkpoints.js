// The checkpoints since the pipeline was started, newest first.

import { ask } from "./host.js";
import { bytes, count, duration, time } from "./format.js";

const html = htm.bind(preact.h);
const { useState } = preactHooks;

export function Checkpoints({ path, pipeline }) {
  const [name, setName] = useState("");
  const [told, setTold] = useState();
  const [waits, setWaits] = useState(false);
  const save = async (event) => {
    event.preventDefault();
    setWaits(true);
    setTold(undefined);
    try {
      const { id } = await ask(`${path}/savepoints`, { method: "POST", body: JSON.stringify({ name }) });
      setTold({ text: `Checkpoint ${id} is kept as ${name}.`, good: true });
    } catch (error) { setTold({ text: error.message }); }
    setWaits(false);
  };
  const revision = pipeline.revision;
  if (!revision?.state) return html`<p>It makes no checkpoints: a table <code>[checkpoints]</code> in its file turns them on.</p>`;
  return html`
    <form class="row" onSubmit=${save}>
      <label>Name of a savepoint
        <input value=${name} required pattern="[A-Za-z0-9_\\-]+" autocomplete="off" onInput=${(event) => setName(event.target.value)} /></label>
      <button disabled=${waits}>${waits ? "Waiting …" : "Make a savepoint"}</button>
    </form>
    ${told && html`<p class=${told.good ? "note good" : "note bad"} role="status">${told.text}</p>`}
    <div class="scroll panel">
      <table>
        <thead><tr><th class="number">Number</th><th>Why</th><th>Name</th><th>At</th><th class="number">Size</th><th class="number">Took</th></tr></thead>
        <tbody>${[...revision.checkpoints].reverse().map((made) => html`
          <tr key=${made.id}><td class="number">${count(made.id)}</td><td>${made.purpose}</td><td>${made.name}</td><td>${time(made.completed_ms)}</td><td class="number">${bytes(made.bytes)}</td><td class="number">${duration(made.milliseconds)}</td></tr>`)}</tbody>
      </table>
      ${revision.checkpoints.length === 0 && html`<p>None since it was started.</p>`}
    </div>`;
}
