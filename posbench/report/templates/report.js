"use strict";
// A heading sorts the lines of its section, numbers as numbers; a second press turns the order round.
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

// What is folded, on screens, opens where it holds what is looked for, and for paper.
const folded = [...document.querySelectorAll("details")];
let before = null;
const unfold = (chosen) => {
  before ??= folded.map((one) => one.open);
  for (const one of folded) if (chosen(one)) one.open = true;
};
const refold = () => {
  folded.forEach((one, i) => { if (before) one.open = before[i]; });
  before = null;
};

// Lines are shown that hold every word that is looked for, or whose title or headings hold it.
const words = (text) => text.toLowerCase().match(/[\p{L}\p{N}_](?:[\p{L}\p{N}_.+-]*[\p{L}\p{N}_])?/gu) ?? [];
const said = (element) => {
  const texts = document.createTreeWalker(element, NodeFilter.SHOW_TEXT), found = [];
  while (texts.nextNode()) found.push(texts.currentNode.data);
  return words(found.join(" "));
};
const filter = document.getElementById("filter");
const show = () => {
  const asked = words(filter.value);
  const blocks = [...document.querySelectorAll(".block")];
  for (const block of blocks) {
    const above = new Set([...block.querySelectorAll("summary, thead, figcaption")].flatMap(said));
    const lines = [...block.querySelectorAll("tbody tr")];
    const left = asked.filter((word) => !above.has(word));
    for (const line of lines) {
      const own = left.length ? new Set(said(line)) : null;
      line.hidden = !left.every((word) => own.has(word));
    }
    block.hidden = lines.length ? lines.every((line) => line.hidden) : left.length > 0;
  }
  for (const section of document.querySelectorAll("main section"))
    section.hidden = [...section.querySelectorAll(".block")].every((block) => block.hidden);
  document.getElementById("nothing").textContent =
    asked.length && blocks.every((block) => block.hidden) ? "Nothing matches: whole words are compared." : "";
  refold();
  if (asked.length) unfold((one) => one.matches(".block:not([hidden])"));
};
if (document.querySelector(".block")) document.getElementById("filtering").hidden = false;
filter.addEventListener("input", show);
addEventListener("beforeprint", () => unfold(() => true));
addEventListener("afterprint", () => { refold(); show(); });
