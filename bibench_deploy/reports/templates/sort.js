// Sorts a table by the column whose header is pressed; pressed again, the other way round.
"use strict";
const UNITS = { kB: 1e3, MB: 1e6, GB: 1e9 };

function sortKey(row, column) {
  const text = row.cells[column].textContent.trim();
  const match = /^-?\d+(\.\d+)?(e[-+]?\d+)?/.exec(text);
  if (!match) return text;
  return Number(match[0]) * (UNITS[text.split(" ")[1]] ?? 1);
}

function compare(a, b) {
  // What is not known is no number: it stands behind all numbers, whichever way they go.
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1;
}

for (const table of document.querySelectorAll("table")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const isUp = header.getAttribute("aria-sort") !== "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [sortKey(row, column), row]);
      rows.sort(([a], [b]) => (isUp || typeof a !== typeof b ? compare(a, b) : compare(b, a)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
