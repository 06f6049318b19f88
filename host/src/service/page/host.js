// Asks the host, and keeps what it answered in the last minutes.

/** How long answers are kept, in ms. */
export const KEPT = 5 * 60 * 1000;
const EVERY = 1000;
/** The host is unreachable when it has not answered for so long. */
const PATIENCE = 8000;

/** What is compiled, or waits for a checkpoint, may take so long. */
export const LONG = 70000;

/** Asks for something; throws an error with a sentence for people. */
export async function ask(path, options = {}, patience = PATIENCE) {
  const answer = await fetch(`/api/v1/${path}`, { ...options, signal: AbortSignal.timeout(patience) });
  const type = answer.headers.get("content-type") ?? "";
  const body = type.includes("json") ? await answer.json() : await answer.text();
  if (!answer.ok) throw new Refused(body?.detail ?? `${answer.status} ${answer.statusText}`, answer.status);
  return body;
}

/** The host has answered, and not with what was asked for. */
export class Refused extends Error {
  constructor(message, status) { super(message); this.status = status; }
}

/** Asks again and again, and tells each answer, or why there is none. Returns how to stop. */
export function follow(path, tell, every = EVERY) {
  let stopped = false, timer;
  const once = async () => {
    try {
      const answer = await ask(path);
      if (!stopped) tell({ answer, at: Date.now() });
    } catch (error) {
      if (!stopped) tell({ error });
    }
    if (!stopped) timer = setTimeout(once, every);
  };
  once();
  return () => { stopped = true; clearTimeout(timer); };
}

/** What was seen of a pipeline's nodes, for rates. A new run begins anew. */
export class Series {
  constructor() { this.samples = []; this.run = undefined; }

  add(at, revision) {
    const run = revision && `${revision.digest} ${revision.started_ms}`;
    if (run !== this.run) { this.samples = []; this.run = run; }
    if (!revision) return;
    const nodes = new Map(revision.nodes.map((node) => [node.name, node]));
    this.samples.push({ at, nodes, memory: revision.state?.memory_bytes });
    while (this.samples[0].at < at - KEPT) this.samples.shift();
  }

  /** By how much a counter has grown a second, over the last seconds. */
  rate(name, field, end = this.samples.length - 1, span = 3) {
    const now = this.samples[end], then = this.samples[Math.max(0, end - span)];
    const [last, first] = [now?.nodes.get(name), then?.nodes.get(name)];
    if (!last || !first || now.at === then.at) return undefined;
    return (last[field] - first[field]) / ((now.at - then.at) / 1000);
  }

  times() { return this.samples.map((sample) => sample.at / 1000); }
}
