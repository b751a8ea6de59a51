// The gallery: tables that are searched by their names, arrow keys from page to page, and lines that a link leads to.
(() => {
  "use strict";

  function folded(text) {
    return text.normalize("NFKC").toLowerCase();
  }

  function makeSearchable(tools) {
    const rows = [...document.getElementById(tools.dataset.filter).tBodies[0].rows];
    const texts = rows.map((row) => folded([...row.cells].filter((c) => !c.matches(".count, .pages")).map((c) => c.textContent).join(" ")));
    const input = tools.querySelector("input");
    const count = tools.querySelector("[role=status]");
    const narrow = () => {
      const words = folded(input.value).split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, place) => {
        row.hidden = !words.every((word) => texts[place].includes(word));
        shown += !row.hidden;
      });
      count.textContent = `${shown.toLocaleString("en-US")} of ${rows.length.toLocaleString("en-US")}`;
    };
    input.addEventListener("input", narrow);
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      const first = rows.find((row) => !row.hidden)?.querySelector("a, summary");
      if (first) first.focus();
    });
    tools.hidden = false;
    narrow();
  }

  function openTarget() {
    let row = null;
    try {
      row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    } catch {}
    for (const details of row ? row.querySelectorAll("details") : []) details.open = true;
  }

  function turnPages(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.defaultPrevented) return;
    if (event.target !== document.body && event.target.id !== "main") return;
    const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
    const link = rel && document.querySelector(`.pager a[rel=${rel}]`);
    if (link) location.href = link.href;
  }

  document.querySelectorAll("[data-filter]").forEach(makeSearchable);
  document.addEventListener("keydown", turnPages);
  addEventListener("hashchange", openTarget);
  openTarget();
})();
