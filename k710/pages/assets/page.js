// Every page: the theme button, and tables that are searched, sorted and paged. All values are put in as text.
(() => {
  "use strict";
  const root = document.documentElement;

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function themeButton() {
    const button = document.getElementById("theme");
    const told = () => {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", `Show in ${isDark() ? "light" : "dark"} colours`);
      document.dispatchEvent(new CustomEvent("themechange", { detail: { dark: isDark() } }));
    };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem("k710-theme", root.dataset.theme);
      } catch {}
      told();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", told);
    // Paper is white: what was drawn in light colours on dark would vanish.
    let before;
    addEventListener("beforeprint", () => {
      before = root.dataset.theme;
      root.dataset.theme = "light";
      told();
    });
    addEventListener("afterprint", () => {
      if (before === undefined) delete root.dataset.theme;
      else root.dataset.theme = before;
      told();
    });
    button.hidden = false;
    told();
  }

  function shown(value, kind) {
    if (value === null) return "-";
    if (typeof value === "string") return value;
    return kind === "share" ? `${(100 * value).toFixed(1)} %` : value.toLocaleString("en-US");
  }

  function rowElement(row, kinds) {
    const element = document.createElement("tr");
    row.forEach((value, place) => {
      const cell = document.createElement(place === 0 ? "th" : "td");
      if (place === 0) cell.scope = "row";
      cell.className = kinds[place];
      cell.textContent = shown(value, kinds[place]);
      element.append(cell);
    });
    return element;
  }

  const collator = new Intl.Collator("en");

  function compare(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "string" ? collator.compare(a, b) : a - b;
  }

  class DataTable {
    constructor(block) {
      const name = block.dataset.table;
      this.rows = JSON.parse(document.getElementById(`${name}-rows`).textContent);
      this.texts = null;
      this.pageRows = Number(block.dataset.pageRows);
      this.limit = this.pageRows;
      this.sorted = { place: -1, down: false };
      this.body = block.querySelector("tbody");
      this.heads = [...block.querySelectorAll("thead th")];
      this.kinds = this.heads.map((head) => head.dataset.kind);
      this.count = block.querySelector(".table-count");
      this.search = block.querySelector("input[type=search]");
      this.more = block.querySelector("button.more");
      this.search.addEventListener("input", () => this.from(this.pageRows));
      this.more.addEventListener("click", () => this.from(this.limit + 4 * this.pageRows));
      this.heads.forEach((head, place) => this.makeSortable(head, place));
      block.querySelector(".table-tools").hidden = false;
      this.draw();
    }

    makeSortable(head, place) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        // Numbers are first wanted from the largest, names from A.
        const down = this.sorted.place === place ? !this.sorted.down : ["count", "share"].includes(this.kinds[place]);
        this.sorted = { place, down };
        this.heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        this.from(this.pageRows);
      });
    }

    from(limit) {
      this.limit = limit;
      this.draw();
    }

    found() {
      const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let places = this.rows.map((_, place) => place);
      if (words.length) {
        this.texts ??= this.rows.map((row) => row.filter((v) => typeof v === "string").join("\n").toLowerCase());
        places = places.filter((place) => words.every((word) => this.texts[place].includes(word)));
      }
      const { place, down } = this.sorted;
      if (place >= 0) places.sort((a, b) => (down ? -1 : 1) * compare(this.rows[a][place], this.rows[b][place]) || a - b);
      return places;
    }

    draw() {
      const places = this.found();
      const shownRows = places.slice(0, this.limit);
      this.body.replaceChildren(...shownRows.map((place) => rowElement(this.rows[place], this.kinds)));
      const of = places.length === this.rows.length ? "" : ` found of ${this.rows.length.toLocaleString("en-US")}`;
      const first = shownRows.length < places.length ? `the first ${shownRows.length.toLocaleString("en-US")} of ` : "";
      this.count.textContent = `${first}${places.length.toLocaleString("en-US")} rows${of}`;
      this.more.hidden = shownRows.length === places.length;
    }
  }

  document.querySelectorAll("[data-table]").forEach((block) => new DataTable(block));
  themeButton();
})();
