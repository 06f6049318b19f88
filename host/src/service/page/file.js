// The pipeline's file: edited, planned, then put.

import { LONG, ask } from "./host.js";
import { Plan } from "./changes.js";

const html = htm.bind(preact.h);
const { useEffect, useState } = preactHooks;

const isLost = ({ state }) => state === "incompatible" || state === "gone";

export function File({ path }) {
  const [read, setRead] = useState();
  const [text, setText] = useState("");
  // What the text would do, and which nodes' state may go with it.
  const [plan, setPlan] = useState();
  const [drop, setDrop] = useState([]);
  const [told, setTold] = useState();
  const [waits, setWaits] = useState(false);
  const run = async (work) => {
    setWaits(true);
    setTold(undefined);
    try { await work(); } catch (error) { setTold({ text: error.message }); }
    setWaits(false);
  };
  const load = () => run(async () => {
    const found = await ask(`${path}/file`);
    setRead(found);
    setText(found);
    setPlan(undefined);
    setDrop([]);
  });
  useEffect(() => { load(); }, [path]);
  const send = (what, method) => ask(`${path}${what}?${new URLSearchParams({ drop: drop.join(",") })}`, { method, body: text }, LONG);
  const propose = (event) => {
    event.preventDefault();
    run(async () => { setPlan(undefined); setPlan(await send("/plan", "POST")); });
  };
  const put = () => run(async () => {
    if (await ask(`${path}/file`) !== read) throw new Error("Somebody else has changed the file since it was read here: copy what you have written, and read it again.");
    await send("", "PUT");
    setRead(text);
    setPlan(undefined);
    setDrop([]);
    setTold({ text: "It is written, and takes effect now: the view Changes tells what becomes of it.", good: true });
  });
  const edit = (text) => { setText(text); setPlan(undefined); setDrop([]); setTold(undefined); };
  const lost = plan?.nodes.filter((node) => isLost(node) || drop.includes(node.name)) ?? [];
  const agree = (name, does) => setDrop(does ? [...drop, name] : drop.filter((other) => other !== name));
  const isOpen = lost.some(({ name }) => !drop.includes(name));
  if (read === undefined) return told ? html`<p class="note bad" role="alert">${told.text}</p>` : html`<p>Loading …</p>`;
  return html`
    <form onSubmit=${propose}>
      <textarea class="file" rows="24" spellcheck=${false} aria-label="The pipeline's file" value=${text} onInput=${(event) => edit(event.target.value)}></textarea>
      <p class="row">
        <button class=${plan ? "" : "first"} disabled=${waits || text === read}>${waits ? "Waiting …" : "Plan this"}</button>
        ${plan && html`<button type="button" class="first" disabled=${waits || isOpen} onClick=${put}>Put it</button>`}
        <button type="button" disabled=${waits} onClick=${load}>Read it again</button>
      </p>
    </form>
    ${told && html`<p class=${told.good ? "note good" : "note bad"} role=${told.good ? "status" : "alert"}>${told.text}</p>`}
    ${plan && html`
      <section class="panel plan" aria-label="Plan">
        <p>${plan.in_place ? "It takes over in place, at a checkpoint's barrier, without a restart." : "It takes over at a checkpoint, by a restart."} Nothing has changed yet.</p>
        <${Plan} nodes=${plan.nodes} />
        ${lost.map(({ name }) => html`
          <label class="agree" key=${name}><input type="checkbox" checked=${drop.includes(name)} onChange=${(event) => agree(name, event.target.checked)} /> What is kept of ${name} may go</label>`)}
      </section>`}`;
}
