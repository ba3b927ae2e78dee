// What the page adds to the drawings: values under the pointer or the arrow keys, switches for
// series and scales, sorting and copying of tables. Without it everything is still there to read.
"use strict";
(() => {
  document.documentElement.classList.add("scripted");
  const all = (root, selector) => Array.from(root.querySelectorAll(selector));

  // Four significant digits, as in the tables.
  const show = (value) => {
    if (value === null || !Number.isFinite(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value), sign = value < 0 ? "−" : "";
    if (Number.isInteger(value) && size < 1e6) return sign + size;
    if (size >= 1e-3 && size < 1e5) return sign + Number(size.toPrecision(4));
    const [digits, power] = size.toExponential(3).split("e");
    const raised = String(Number(power)).replace(/./g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]));
    return sign + Number(digits) + "×10" + raised;
  };
  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  for (const figure of all(document, ".figure:not(.still)")) {
    const data = JSON.parse(figure.querySelector(".figure-data").textContent);
    const plots = figure.querySelector(".plots"), tip = figure.querySelector(".tip"), said = figure.querySelector(".said");
    const off = new Set();
    let shown = null;

    const scale = (axis) => figure.querySelector(`.scales [data-axis="${axis}"]`).dataset.scale;
    const variant = () => all(figure, ".variant").find((v) => !v.hidden);
    // Where the points of each series are drawn, in units of the view box.
    const points = () => {
      const key = variant().dataset.scales, [logX, logY] = key.split(" ").map((name) => name === "log");
      const { plot: [left, top, right, bottom], range: [x0, x1, y0, y1] } = data.frames[key];
      const at = (value, log, from, to) => ((log ? Math.log10(value) : value) - from) / (to - from);
      return data.series.map((s) => s.x.map((x, i) => [
        left + at(x, logX, x0, x1) * (right - left) + s.shift,
        bottom - at(s.y[i], logY, y0, y1) * (bottom - top),
      ]));
    };

    const clear = () => {
      all(figure, ".cursor").forEach((cursor) => cursor.remove());
      tip.hidden = true;
      shown = null;
    };
    // The abscissae of the series that are on, each with the points drawn there. Error bars of one
    // abscissa stand a little beside each other, so a place lies at the mean of its points.
    const places = () => {
      const found = new Map();
      points().forEach((list, series) => {
        if (off.has(series)) return;
        list.forEach((at, i) => {
          const x = data.series[series].x[i];
          if (!found.has(x)) found.set(x, []);
          if (found.get(x).every((mark) => mark.series !== series)) found.get(x).push({ series, i, at });
        });
      });
      const list = Array.from(found, ([x, marks]) => ({ x, marks, left: marks.reduce((sum, m) => sum + m.at[0], 0) / marks.length }));
      return list.sort((a, b) => a.left - b.left);
    };
    const mark = (x, found) => {
      const svg = variant().querySelector("svg");
      const make = (name) => document.createElementNS(svg.namespaceURI, name);
      const cursor = make("g");
      cursor.setAttribute("class", "cursor");
      const line = make("line");
      const { plot } = data.frames[variant().dataset.scales];
      for (const [name, value] of [["x1", x], ["x2", x], ["y1", plot[1]], ["y2", plot[3]]]) line.setAttribute(name, value);
      cursor.append(line);
      for (const { at } of found) {
        const circle = make("circle");
        circle.setAttribute("cx", at[0]);
        circle.setAttribute("cy", at[1]);
        circle.setAttribute("r", 52);
        cursor.append(circle);
      }
      svg.append(cursor);
    };
    const reveal = ({ x, marks: found, left: middle }, speak) => {
      if (shown === x && !speak) return;
      clear();
      shown = x;
      mark(middle, found);
      const head = `${data.x}: ${show(x)}`;
      const table = element("table"), lines = [head];
      found.sort((a, b) => a.at[1] - b.at[1]);
      for (const { series, i } of found) {
        const s = data.series[series];
        const value = show(s.y[i]);
        const range = s.low && s.high ? `${show(s.low[i])} to ${show(s.high[i])}` : "";
        const row = element("tr");
        row.append(element("td", s.label || data.y), element("td", value), element("td", range, "range"));
        table.append(row);
        lines.push(`${s.label || data.y}: ${value}${range ? ", " + range : ""}`);
      }
      tip.replaceChildren(element("div", head, "x"), table);
      tip.hidden = false;
      const svg = variant().querySelector("svg"), box = svg.getBoundingClientRect(), frame = svg.viewBox.baseVal;
      const left = (middle / frame.width) * box.width;
      const wide = tip.offsetWidth, right = left + 14, hang = left - 14 - wide;
      // Beside the line where there is room, else below the plot: it must not hide what it speaks of.
      const beside = right + wide <= box.width ? right : hang >= 0 ? hang : null;
      tip.style.left = `${beside ?? Math.max(0, Math.min(left - wide / 2, box.width - wide))}px`;
      tip.style.top = `${beside === null ? box.height + 2 : Math.max(0, Math.min(0.06 * box.height, box.height - tip.offsetHeight))}px`;
      if (speak) said.textContent = lines.join("; ");
    };

    const nearest = (left) => places().reduce((best, place) => (best === null || Math.abs(place.left - left) < Math.abs(best.left - left) ? place : best), null);

    const point = (event) => {
      const svg = variant().querySelector("svg"), box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      const place = nearest(x);
      if (place !== null) reveal(place, false);
    };
    plots.addEventListener("pointermove", point);
    plots.addEventListener("pointerdown", point);
    plots.addEventListener("pointerleave", clear);
    plots.addEventListener("blur", clear);
    plots.addEventListener("keydown", (event) => {
      const list = places();
      if (!list.length) return;
      const at = list.findIndex((place) => place.x === shown);
      const next = { ArrowRight: Math.min(at + 1, list.length - 1), ArrowLeft: at < 0 ? list.length - 1 : Math.max(at - 1, 0), Home: 0, End: list.length - 1 }[event.key];
      if (event.key === "Escape") clear();
      if (next === undefined) return;
      event.preventDefault();
      reveal(list[next], true);
    });

    for (const button of all(figure, ".switch")) {
      button.addEventListener("click", () => {
        const series = Number(button.dataset.series);
        if (!off.delete(series)) off.add(series);
        button.setAttribute("aria-pressed", String(!off.has(series)));
        all(figure, `.variant [data-series="${series}"]`).forEach((g) => g.classList.toggle("off", off.has(series)));
        clear();
      });
    }
    for (const button of all(figure, ".scale")) {
      button.addEventListener("click", () => {
        [button.dataset.scale, button.dataset.other] = [button.dataset.other, button.dataset.scale];
        button.querySelector("span").textContent = button.dataset.scale;
        clear();
        const wanted = `${scale("x")} ${scale("y")}`;
        all(figure, ".variant").forEach((v) => { v.hidden = v.dataset.scales !== wanted; });
      });
    }
  }

  window.addEventListener("beforeprint", () => all(document, ".config").forEach((details) => { details.open = true; }));

  for (const section of all(document, ".tables")) {
    const tables = all(section, ".wide"), select = section.querySelector("select");
    const choose = () => tables.forEach((table, i) => { table.hidden = i !== select.selectedIndex; });
    select.addEventListener("change", choose);
    choose();

    for (const button of all(section, ".sort")) {
      button.addEventListener("click", () => {
        const heading = button.closest("th"), table = button.closest("table"), body = table.tBodies[0];
        const column = heading.cellIndex;
        const down = heading.getAttribute("aria-sort") === "ascending";
        all(table, "th").forEach((th) => th.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const numeric = heading.classList.contains("num");
        const value = (row) => row.cells[column].dataset.value;
        const order = (a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === "" || y === "") return (x === "") - (y === ""); // what is missing comes last
          const sign = numeric ? Number(x) - Number(y) : x.localeCompare(y);
          return down ? -sign : sign;
        };
        const rows = Array.from(body.rows);
        rows.forEach((row) => row.classList.remove("starts"));
        body.append(...rows.sort(order));
      });
    }

    const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    section.querySelector(".copy").addEventListener("click", async () => {
      const table = tables[select.selectedIndex].querySelector("table");
      const names = all(table, "thead th").map((th) => th.textContent.trim().replaceAll(" ", "_"));
      const rows = Array.from(table.tBodies[0].rows, (row) => Array.from(row.cells, (cell) => cell.dataset.value));
      const text = [names, ...rows].map((row) => row.map(quote).join(",")).join("\n") + "\n";
      const status = section.querySelector(".copied");
      try {
        await navigator.clipboard.writeText(text);
        status.textContent = "copied";
      } catch {
        // Pages opened from a file may lack the clipboard: the text is left selected instead.
        const area = element("textarea");
        area.value = text;
        area.rows = 8;
        area.style.width = "100%";
        section.querySelector(".tools").after(area);
        area.select();
        status.textContent = document.execCommand("copy") ? "copied" : "select and copy the text below";
        if (status.textContent === "copied") area.remove();
      }
      setTimeout(() => { status.textContent = ""; }, 4000);
    });
  }
})();
