"use strict";
// A click on a heading sorts the lines of each section, numbers by value; a second click reverses the order.
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    while (heading.firstChild) button.append(heading.firstChild);
    heading.append(button);
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (line) => {
        const cell = line.children[column];
        const value = cell.dataset.value;
        return value === undefined ? cell.textContent.trim() : value === "" ? null : Number(value);
      };
      for (const body of table.tBodies) {
        const lines = [...body.rows];
        lines.sort((first, second) => {
          const [a, b] = [key(first), key(second)];
          if (a === null || b === null) return (a === null) - (b === null);
          const order = typeof a === "number" ? a - b : a.localeCompare(b);
          return up ? order : -order;
        });
        body.append(...lines);
      }
    });
  });
}

// Folded blocks open where they match the filter, and for printing.
const folded = [...document.querySelectorAll("details")];
let before = null;
const unfold = (chosen) => {
  before ??= folded.map((details) => details.open);
  for (const details of folded) if (chosen(details)) details.open = true;
};
const refold = () => {
  folded.forEach((details, i) => { if (before) details.open = before[i]; });
  before = null;
};

// The filter shows lines that contain every word, in the line itself or in its block's title and headings.
const words = (text) => text.toLowerCase().match(/[\p{L}\p{N}_](?:[\p{L}\p{N}_.+-]*[\p{L}\p{N}_])?/gu) ?? [];
const wordsIn = (element) => {
  const nodes = document.createTreeWalker(element, NodeFilter.SHOW_TEXT), texts = [];
  while (nodes.nextNode()) texts.push(nodes.currentNode.data);
  return words(texts.join(" "));
};
const filter = document.getElementById("filter");
const show = () => {
  const wanted = words(filter.value);
  const blocks = [...document.querySelectorAll(".block")];
  for (const block of blocks) {
    const above = new Set([...block.querySelectorAll("summary, thead, figcaption")].flatMap(wordsIn));
    const lines = [...block.querySelectorAll("tbody tr")];
    const left = wanted.filter((word) => !above.has(word));
    for (const line of lines) {
      const own = left.length ? new Set(wordsIn(line)) : null;
      line.hidden = !left.every((word) => own.has(word));
    }
    block.hidden = lines.length ? lines.every((line) => line.hidden) : left.length > 0;
  }
  for (const section of document.querySelectorAll("main section"))
    section.hidden = [...section.querySelectorAll(".block")].every((block) => block.hidden);
  document.getElementById("nothing").textContent =
    wanted.length && blocks.every((block) => block.hidden) ? "Nothing matches: whole words are compared." : "";
  refold();
  if (wanted.length) unfold((details) => details.matches(".block:not([hidden])"));
};
if (document.querySelector(".block")) document.getElementById("filtering").hidden = false;
filter.addEventListener("input", show);
addEventListener("beforeprint", () => unfold(() => true));
addEventListener("afterprint", () => { refold(); show(); });
