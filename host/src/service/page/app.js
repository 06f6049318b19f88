// The live page: which pipeline and view is shown, and whether the host answers.

import { Pipelines } from "./list.js";
import { Pipeline } from "./pipeline.js";
import { time } from "./format.js";

const html = htm.bind(preact.h);
const { useEffect, useState } = preactHooks;

/** `#/NAME/VIEW`: which pipeline is shown, and how. */
function place() {
  // `?NODE` behind it is for the view.
  const [name, view] = location.hash.replace(/^#\/?/, "").split("?")[0].split("/").map(decodeURIComponent);
  return { name, view: view || "graph" };
}

function App() {
  const [{ name, view }, setPlace] = useState(place());
  const [lost, setLost] = useState();
  useEffect(() => {
    const moved = () => setPlace(place());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => { document.title = name ? `${name} – Sluicebox` : "Sluicebox"; }, [name]);
  const heard = (error) => setLost((lost) => error && { why: error.message, since: lost?.since ?? Date.now() });
  return html`
    <div class=${lost ? "stale" : ""}>
      <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to content</a>
      <header class="top">
        <a class="brand" href="#/"><img src="/page/icon.svg" alt="" />Sluicebox</a>
        ${name && html`<a href="#/">All pipelines</a>`}
      </header>
      ${lost && html`<p class="alert" role="alert">The host has not answered since ${time(lost.since)} (${lost.why}). What is shown is from before. The page goes on by itself when it answers.</p>`}
      <main id="main" tabindex="-1">
        ${name
          ? html`<${Pipeline} key=${name} name=${name} view=${view} heard=${heard} />`
          : html`<${Pipelines} heard=${heard} />`}
      </main>
    </div>`;
}

preact.render(html`<${App} />`, document.getElementById("app"));
document.querySelector("#app > .loading")?.remove();
