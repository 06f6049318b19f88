// Dead letters: what was wrong with rows, and their replay.

import { ask } from "./host.js";
import { Confirm, Table } from "./parts.js";
import { count, time } from "./format.js";

const html = htm.bind(preact.h);
const { useEffect, useState } = preactHooks;

const STATUSES = ["open", "replaying", "replayed", "dropped", "all"];

export function Letters({ path }) {
  const [status, setStatus] = useState("open");
  const [node, setNode] = useState("");
  const [kind, setKind] = useState("");
  const [seen, setSeen] = useState();
  const [told, setTold] = useState();
  const [replay, setReplay] = useState();
  const [chosen, setChosen] = useState(new Set());
  const [edited, setEdited] = useState();
  // What is to be replayed when the part before is done.
  const [rest, setRest] = useState();
  const tell = async (work) => {
    setTold(undefined);
    try { return await work(); } catch (error) { setTold(error.message); }
  };
  const look = (cursor) => tell(async () => {
    const query = new URLSearchParams({ status, limit: 50 });
    if (node) query.set("node", node);
    if (kind) query.set("kind", kind);
    if (cursor) query.set("cursor", cursor);
    const answer = await ask(`${path}/dead-letters?${query}`);
    setSeen((before) => cursor ? { ...answer, letters: [...before.letters, ...answer.letters] } : answer);
    setReplay((await ask(`${path}/replays`)).at(-1));
    if (!cursor) setChosen(new Set());
  });
  useEffect(() => { look(); }, [path, status]);
  const isOpen = replay?.outcome === "open";
  useEffect(() => {
    if (!isOpen) return;
    const timer = setInterval(look, 1000);
    return () => clearInterval(timer);
  }, [isOpen, path, status, node, kind]);
  const post = (what, body) => tell(async () => {
    setRest(undefined);
    const answer = await ask(`${path}/dead-letters/${what}`, { method: "POST", body: body() });
    if (answer.more > 0) setRest({ after: answer.replay, more: answer.more, matching: { ...JSON.parse(body()).matching, until: answer.until } });
    setEdited(undefined);
    await look();
  });
  useEffect(() => {
    if (rest?.after !== replay?.number || isOpen || !rest) return;
    if (replay.outcome === "done") send("replay", { matching: rest.matching }); else setRest(undefined);
  }, [isOpen, rest, replay?.number]);
  const send = (what, body) => post(what, () => JSON.stringify(body));
  const choose = (id, is) => {
    const next = new Set(chosen);
    if (is) next.add(id); else next.delete(id);
    setChosen(next);
  };
  const ids = [...chosen];
  const matching = { ...(node && { node }), ...(kind && { kind }) };
  const columns = [
    ["", (letter) => html`<input type="checkbox" aria-label=${`Choose letter ${letter.id}`} disabled=${letter.status !== "open"} checked=${chosen.has(letter.id)} onChange=${(event) => choose(letter.id, event.target.checked)} />`],
    ["Node", (letter) => html`${letter.node}<div class="faint">${letter.event_time}</div>`],
    ["What was wrong", (letter) => html`<strong>${letter.kind}</strong> ${letter.error}
      ${letter.stays && html`<div class="faint">Cannot be replayed as it is: ${letter.stays}</div>`}`, "wide"],
    ["Row", (letter) => edited?.id === letter.id
      ? html`<form class="row" onSubmit=${(event) => { event.preventDefault(); post("replay", () => ofEdited(edited)); }}>
          <label>The row as JSON<textarea rows="4" cols="40" value=${edited.text} onInput=${(event) => setEdited({ ...edited, text: event.target.value })}></textarea></label>
          <button class="first">Replay this</button>
          <button type="button" onClick=${() => setEdited(undefined)}>Cancel</button></form>`
      : html`<pre>${letter.row ?? letter.payload ?? letter.payload_base64}</pre>`, "wide"],
    ["Status", (letter) => letter.status],
    ["", (letter) => letter.status === "open" && edited?.id !== letter.id && html`<button onClick=${() => setEdited({ id: letter.id, text: letter.row ?? letter.payload ?? "" })}>Edit</button>`],
  ];
  return html`
    <form class="row" onSubmit=${(event) => { event.preventDefault(); look(); }}>
      <label>Status
        <select value=${status} onChange=${(event) => setStatus(event.target.value)}>
          ${STATUSES.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
        </select></label>
      <label>Node
        <input value=${node} placeholder="all" autocomplete="off" onInput=${(event) => setNode(event.target.value)} /></label>
      <label>Kind
        <input value=${kind} placeholder="all, such as reject" autocomplete="off" onInput=${(event) => setKind(event.target.value)} /></label>
      <button class="first">Look</button>
      <button type="button" disabled=${ids.length === 0} onClick=${() => send("replay", { letters: ids.map((id) => ({ id })) })}>Replay chosen</button>
      <button type="button" disabled=${!seen?.count || status !== "open"} onClick=${() => send("replay", { matching })}>Replay all open</button>
      <${Confirm} label="Drop chosen" disabled=${ids.length === 0} act=${() => send("drop", { letters: ids })} sure="Drop them"
        question=${`${count(ids.length)} ${ids.length === 1 ? "letter needs" : "letters need"} nothing more: they stay in the file, and cannot be replayed any more.`} />
    </form>
    ${told && html`<p class="note bad" role="alert">${told}</p>`}
    ${replay && html`<p class=${replay.outcome === "failed" ? "note bad" : "note"} role="status">${said(replay)}${rest ? `; ${count(rest.more)} more match, and follow` : ""}</p>`}
    ${seen && html`
      <p class="faint">${count(seen.count)} ${seen.count === 1 ? "letter" : "letters"}</p>
      <div class="panel">
        <${Table} name="letters" columns=${columns} rows=${seen.letters} keyOf=${({ id }) => id} />
        ${seen.letters.length === 0 && html`<p>None.</p>`}
      </div>
      ${seen.next && html`<p><button onClick=${() => look(seen.next)}>More</button></p>`}`}`;
}

/** The row goes as it was written: numbers may have more digits than JavaScript keeps. */
function ofEdited({ id, text }) {
  JSON.parse(text);
  return `{"letters":[{"id":${JSON.stringify(id)},"row":${text}}]}`;
}

function said({ number, letters, outcome, why, at_ms }) {
  const what = `Replay ${number} of ${time(at_ms)}, ${count(letters)} ${letters === 1 ? "letter" : "letters"}`;
  if (outcome === "open") return `${what}: under way`;
  return outcome === "done" ? `${what}: done` : `${what}: not done, since ${why}`;
}
