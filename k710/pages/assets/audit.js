// The figures of the audit, in the colours of the page, and the ids behind the cells of the leak matrix.
(() => {
  "use strict";
  const parsed = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = parsed("figures");
  const cells = parsed("cells");
  const config = { displayModeBar: false, responsive: true };

  // "--chart-1/0.4" is a colour of the page's style with an opacity; plotly wants the value.
  function coloured(value, style, key) {
    if (Array.isArray(value)) return value.map((item) => coloured(item, style, key));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, coloured(item, style, name)]));
    }
    if (typeof value !== "string" || !/color|colorscale$/.test(key) || !value.startsWith("--")) return value;
    const [name, opacity] = value.split("/");
    const found = style.getPropertyValue(name).trim();
    if (opacity === undefined) return found;
    const part = (place) => Number.parseInt(found.slice(place, place + 2), 16);
    return `rgba(${part(1)}, ${part(3)}, ${part(5)}, ${opacity})`;
  }

  function draw(id, spec) {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const narrow = document.documentElement.clientWidth < 600;
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 13, color: color("--text") },
      hoverlabel: { bgcolor: color("--raised"), bordercolor: color("--muted"), font: { color: color("--text") }, align: "left" },
      dragmode: false,
      ...coloured(spec.layout, style, ""),
    };
    for (const axis of ["xaxis", "yaxis"]) {
      if (layout[axis]) Object.assign(layout[axis], { gridcolor: color("--line"), linecolor: color("--line") });
    }
    if (narrow && layout.xaxis?.ticktext?.length > 3) layout.xaxis.tickangle = -90;
    const data = coloured(spec.data, style, "");
    for (const trace of data) {
      if (trace.type === "sankey") trace.textfont = { color: color("--text"), size: narrow ? 10 : 13, shadow: "none" };
      if (trace.colorbar) trace.showscale = !narrow;
    }
    return Plotly.react(document.getElementById(id), data, layout, config);
  }

  // One figure of several: what is chosen beside it, else the first.
  function chosen(name) {
    const select = document.getElementById(`${name}-view`);
    return figures[name][select ? Number(select.value) : 0][1];
  }

  function drawAll() {
    const drawn = [];
    for (const name of ["flow", "balance"]) {
      if (figures[name].length) drawn.push(draw(`${name}-figure`, chosen(name)));
    }
    if (figures.leaks) drawn.push(draw("leak-figure", figures.leaks));
    return Promise.all(drawn);
  }

  function listIds(cell) {
    const block = document.getElementById("leak-ids");
    block.hidden = cell === undefined;
    if (cell === undefined) return;
    const number = (count) => count.toLocaleString("en-US");
    const some = cell.ids.length < cell.videos ? `first ${number(cell.ids.length)} of ${number(cell.videos)}` : number(cell.videos);
    document.getElementById("leak-ids-title").textContent =
      `${cell.train} and ${cell.held_out}: ${cell.ids.length ? `${some} ${cell.videos === 1 ? "id" : "ids"}` : "ids are in leaks.parquet"}`;
    const list = block.querySelector(".ids");
    list.hidden = !cell.ids.length;
    list.replaceChildren(
      ...cell.ids.map((id) => {
        const item = document.createElement("li");
        item.textContent = id;
        return item;
      }),
    );
    list.scrollTop = 0;
  }

  function leakMatrix() {
    const figure = document.getElementById("leak-figure");
    const select = document.getElementById("leak-cell");
    const spoken = document.getElementById("leak-spoken");
    const [numRows, numColumns] = [figures.leaks.data[0].y.length, figures.leaks.data[0].x.length];
    const at = (row, column) => cells.findIndex((cell) => cell.place && cell.place[0] === row && cell.place[1] === column);
    let here = cells.find((cell) => cell.place)?.place ?? [0, 0];

    function mark() {
      const [row, column] = here;
      const color = getComputedStyle(document.documentElement).getPropertyValue("--text").trim();
      const box = { type: "rect", x0: column - 0.5, x1: column + 0.5, y0: row - 0.5, y1: row + 0.5 };
      Plotly.relayout(figure, { shapes: [{ ...box, line: { color, width: 2.5 } }] });
    }

    function choose(row, column) {
      here = [row, column];
      mark();
      const place = at(row, column);
      select.value = place < 0 ? "" : String(place);
      listIds(cells[place]);
    }

    figure.on("plotly_click", ({ points }) => choose(points[0].y, points[0].x));
    select.addEventListener("change", () => {
      const cell = select.value === "" ? undefined : cells[Number(select.value)];
      if (cell?.place) {
        here = cell.place;
        mark();
      }
      listIds(cell);
    });
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    figure.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") choose(...here);
      else if (event.key in steps) {
        const [down, right] = steps[event.key];
        here = [
          Math.min(Math.max(here[0] + down, 0), numRows - 1),
          Math.min(Math.max(here[1] + right, 0), numColumns - 1),
        ];
        mark();
        const cell = cells[at(...here)];
        const [train, heldOut] = [figures.names.train[here[0]], figures.names.held_out[here[1]]];
        spoken.textContent = `${train} and ${heldOut}: ${(cell?.videos ?? 0).toLocaleString("en-US")} videos`;
      } else return;
      event.preventDefault();
    });
  }

  for (const name of ["flow", "balance"]) {
    document.getElementById(`${name}-view`)?.addEventListener("change", () => draw(`${name}-figure`, chosen(name)));
  }
  drawAll().then(() => {
    if (figures.leaks) leakMatrix();
    document.addEventListener("themechange", drawAll);
    document.documentElement.dataset.drawn = "yes";
  });
})();
