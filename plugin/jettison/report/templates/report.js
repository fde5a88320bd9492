"use strict";
(() => {
  const tip = document.getElementById("tip");

  function say(dot, x, y) {
    const name = document.createElement("b");
    name.textContent = dot.dataset.name;
    tip.replaceChildren(name, dot.dataset.tip);
    tip.hidden = false;
    const left = Math.min(x + 14, innerWidth - tip.offsetWidth - 8);
    const top = y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 14 : y + 18;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = Math.max(8, top) + "px";
  }

  function hush() {
    tip.hidden = true;
  }

  function change(how, before, after) {
    if (how === "none" || before === null || after === null) return "";
    if (how === "difference") {
      const value = after - before;
      return (value < 0 ? "\u2212" : "+") + Number(Math.abs(value).toPrecision(3));
    }
    return before ? (after / before).toFixed(2) + "\u00d7" : "";
  }

  function cell(kind, text) {
    const found = document.createElement(kind);
    found.textContent = text;
    if (kind === "th") found.scope = "row";
    return found;
  }

  function compare(section) {
    const side = section.querySelector("[data-compare]");
    const data = JSON.parse(section.querySelector("[data-figures]").textContent);
    const picks = [...section.querySelectorAll("[data-name]")];
    const figures = new Map(Object.entries(data.figures));
    let chosen = [side.dataset.compare, side.dataset.with].filter((name, at, all) => all.indexOf(name) === at);

    function draw() {
      for (const pick of picks) pick.setAttribute("aria-pressed", chosen.includes(pick.dataset.name));
      const table = side.querySelector("[data-pair]");
      const [a, b] = chosen;
      table.hidden = chosen.length < 2;
      side.querySelector("[data-hint]").textContent =
        chosen.length < 2 ? "Choose one more." : "Choose others in the charts or in the table.";
      if (table.hidden) return;
      table.querySelector("[data-a]").textContent = a;
      table.querySelector("[data-b]").textContent = b;
      table.tBodies[0].replaceChildren(
        ...data.rows.map(([title, how], at) => {
          const [one, other] = [figures.get(a)[at], figures.get(b)[at]];
          const row = document.createElement("tr");
          row.append(cell("th", title), cell("td", one[0]), cell("td", other[0]), cell("td", change(how, one[1], other[1])));
          return row;
        }),
      );
    }

    function pick(name) {
      chosen = chosen.includes(name) ? chosen.filter((other) => other !== name) : [...chosen, name].slice(-2);
      draw();
    }

    for (const one of picks) {
      one.addEventListener("click", () => pick(one.dataset.name));
      if (!one.dataset.tip) continue;
      one.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          pick(one.dataset.name);
        }
        if (event.key === "Escape") hush();
      });
      one.addEventListener("pointermove", (event) => say(one, event.clientX, event.clientY));
      one.addEventListener("pointerleave", hush);
      one.addEventListener("focus", () => {
        const place = one.querySelector(".ring").getBoundingClientRect();
        if (one.matches(":focus-visible")) say(one, place.right, place.bottom);
      });
      one.addEventListener("blur", hush);
    }
    draw();
  }

  function value(row, at) {
    const found = row.cells[at];
    const told = found.dataset.value;
    return told === undefined ? found.textContent.trim() : told === "" ? Infinity : Number(told);
  }

  function sortable(table) {
    const rows = [...table.tBodies[0].rows];
    [...table.tHead.rows[0].cells].forEach((head, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const next = now === "ascending" ? "descending" : now === "descending" ? null : "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        if (next) head.setAttribute("aria-sort", next);
        const sign = next === "descending" ? -1 : 1;
        const keyed = rows.map((row) => [value(row, at), row]);
        if (next) keyed.sort(([a], [b]) => sign * (a < b ? -1 : a > b ? 1 : 0));
        table.tBodies[0].append(...keyed.map(([, row]) => row));
      });
    });
  }

  function theme() {
    const button = document.getElementById("theme");
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
    const label = () => (button.textContent = isDark() ? "Light" : "Dark");
    button.hidden = false;
    button.addEventListener("click", () => {
      document.documentElement.dataset.theme = isDark() ? "light" : "dark";
      label();
    });
    dark.addEventListener("change", label);
    label();
  }

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
  });
  document.querySelectorAll("[data-target]").forEach(compare);
  document.querySelectorAll("[data-sortable]").forEach(sortable);
  theme();
})();
