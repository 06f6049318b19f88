// Parts that several views have.

const html = htm.bind(preact.h);
const { useEffect, useRef, useState } = preactHooks;

export function Phase({ phase }) {
  return html`<span class=${`phase ${phase}`}>${phase.replace("_", " ")}</span>`;
}

/** A button that asks whether it is meant. */
export function Confirm({ label, question, sure, act, disabled }) {
  const [asks, setAsks] = useState(false);
  if (!asks) return html`<button type="button" disabled=${disabled} onClick=${() => setAsks(true)}>${label}</button>`;
  return html`
    <div class="note confirm" role="group" aria-label=${label}>
      <p>${question}</p>
      <button type="button" class="first" onClick=${() => { setAsks(false); act(); }}>${sure}</button>
      <button type="button" onClick=${() => setAsks(false)}>Cancel</button>
    </div>`;
}

/** What may be wider than the screen, and then says so. */
export function Sideways({ children }) {
  const place = useRef();
  const [more, setMore] = useState(false);
  const look = () => {
    const { scrollWidth, clientWidth, scrollLeft } = place.current;
    setMore(scrollWidth - clientWidth - scrollLeft > 8);
  };
  useEffect(look);
  useEffect(() => {
    const resized = new ResizeObserver(look);
    resized.observe(place.current);
    return () => resized.disconnect();
  }, []);
  return html`
    <div class=${`sideways panel ${more ? "more" : ""}`}>
      <div class="scroll" ref=${place} onScroll=${look}>${children}</div>
      ${more && html`<p class="hint faint">It goes on to the right: scroll sideways.</p>`}
    </div>`;
}

/** A table that is a list of cards on a narrow screen. `columns` are `[title, cell, class]`. */
export function Table({ columns, rows, keyOf, name }) {
  return html`
    <table class=${`cards ${name ?? ""}`}>
      <thead><tr>${columns.map(([title, , kind]) => html`<th class=${kind}>${title}</th>`)}</tr></thead>
      <tbody>${rows.map((row) => html`
        <tr key=${keyOf(row)}>${columns.map(([title, cell, kind]) => html`<td class=${kind} data-label=${title || undefined}>${cell(row)}</td>`)}</tr>`)}</tbody>
    </table>`;
}
