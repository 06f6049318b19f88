// The checkpoints that a pipeline can go back to, and those since it was started.

import { LONG, Refused, ask, follow } from "./host.js";
import { Confirm, Table } from "./parts.js";
import { bytes, count, dated, duration } from "./format.js";

const html = htm.bind(preact.h);
const { useEffect, useState } = preactHooks;

/** The host looks into the folder of the state for an answer. */
const EVERY = 3000;

export function Checkpoints({ path, pipeline }) {
  const [kept, setKept] = useState();
  const [name, setName] = useState("");
  const [told, setTold] = useState();
  const [waits, setWaits] = useState(false);
  useEffect(() => follow(`${path}/checkpoints`, ({ answer, error }) => {
    if (answer) setKept({ list: answer });
    else if (error instanceof Refused) setKept({ why: error.message });
  }, EVERY), [path]);
  const request = async (method, what, body, good) => {
    setWaits(true);
    setTold(undefined);
    try {
      const answer = await ask(`${path}/${what}`, { method, body: body && JSON.stringify(body) }, LONG);
      setTold({ text: good(answer), good: true });
    } catch (error) { setTold({ text: error.message }); }
    setWaits(false);
  };
  const save = (event) => {
    event.preventDefault();
    request("POST", "savepoints", { name }, ({ id }) => `Checkpoint ${id} is kept as ${name}.`);
  };
  const restart = ({ id }) => request("POST", "start", { from: String(id) }, () => `It goes back to checkpoint ${id}.`);
  const remove = ({ id, name }) => request("DELETE", `savepoints/${id}`, undefined, () => {
    setKept((kept) => ({ ...kept, list: kept.list?.filter((made) => made.id !== id) }));
    return `${name} is deleted.`;
  });
  const revision = pipeline.revision;
  const reports = new Map(revision?.checkpoints.map((made) => [made.id, made]));
  const columns = [
    ["Number", (made) => made.id, "number"],
    ["Name", (made) => made.name ? html`<strong>${made.name}</strong>` : html`<span class="faint">${reports.get(made.id)?.purpose}</span>`],
    ["Made", (made) => dated(made.created_ms), "when"],
    ["Size", (made) => bytes(made.bytes), "number"],
    ["Took", (made) => duration(reports.get(made.id)?.milliseconds), "number"],
    ["", (made) => html`${made.damage
      ? html`<span class="bad">not usable: ${made.damage}</span>`
      : html`<${Confirm} label="Restart from this" disabled=${waits || pipeline.phase === "probation"} act=${() => restart(made)} sure=${`Go back to checkpoint ${made.id}`}
          question=${`The pipeline goes back to what it was at ${dated(made.created_ms)}. Its files are cut to what they were then, so that it cannot go back to later checkpoints any more. Rows since then are read again; topics get them again.${["refused", "taken_back"].includes(pipeline.changes.at(-1)?.outcome) ? " The file that was refused or taken back is tried again." : ""}`} />`}
        ${made.name && html` <${Confirm} label="Delete" disabled=${waits} act=${() => remove(made)} sure=${`Delete ${made.name}`}
          question="Nobody can go back to it then." />`}`, "wide"],
  ];
  const made = [
    ["Number", (made) => made.id, "number"],
    ["Why", (made) => made.purpose],
    ["Name", (made) => made.name],
    ["Made", (made) => dated(made.completed_ms), "when"],
    ["Size", (made) => bytes(made.bytes), "number"],
    ["Took", (made) => duration(made.milliseconds), "number"],
  ];
  return html`
    ${revision?.state && html`
      <form class="row" onSubmit=${save}>
        <label>Name of a savepoint
          <input value=${name} required pattern="[A-Za-z0-9._\\-]+" autocomplete="off" onInput=${(event) => setName(event.target.value)} /></label>
        <button disabled=${waits}>${waits ? "Waiting …" : "Make a savepoint"}</button>
      </form>`}
    ${told && html`<p class=${told.good ? "note good" : "note bad"} role="status">${told.text}</p>`}
    ${kept?.why && html`<p class="note">${kept.why}</p>`}
    ${kept?.list && html`
      <p class="faint">It can go back to these: ${kept.list.length === 0 ? "none yet." : "the last ones, and those with a name, which are kept."}</p>
      <div class="panel"><${Table} name="kept" columns=${columns} rows=${[...kept.list].reverse()} keyOf=${({ id }) => id} /></div>`}
    ${reports.size > 0 && html`
      <details><summary>The last ${count(reports.size)} that were made since it was started</summary>
        <div class="scroll panel"><${Table} columns=${made} rows=${[...revision.checkpoints].reverse()} keyOf=${({ id }) => id} /></div>
      </details>`}`;
}
