// What is said of a whole training, above its charts.

import { element, folded, named, prose, short } from "./elements.js";

/** Elements with the verdict on each chosen run, and what to change. */
export function verdicts(state) {
  const runs = state.chosen.filter((run) => state.info(run).verdict);
  return runs.map((run) => {
    const { level, text, fix, cause, explanation } = state.info(run).verdict;
    const name = runs.length > 1 ? [named("b", run.title), ": "] : [];
    const paragraph = (...inside) => element("p", { dir: "auto" }, ...inside);
    const line = paragraph(...name, ...prose(text, 600));
    const reasons = [cause, ...explanation].filter(Boolean);
    const why = reasons.length && folded("Why", reasons.map((p) => paragraph(...prose(p, 2000))));
    const parts = [line, fix && cure(fix), why].filter(Boolean);
    return element("div", { className: `verdict ${level}` }, ...parts);
  });
}

/** What to change, to be copied. */
function cure(fix) {
  const button = element("button", { type: "button", textContent: "Copy" });
  const lines = fix.split("\n").map((line) => short(line, 2000));
  const code = lines.length > 1
    ? element("pre", { textContent: lines.join("\n") })
    : element("span", { dir: "auto" }, ...prose(fix, 2000));
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(fix);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // not every browser lets a frame copy
      button.textContent = "Press Ctrl+C";
    }
  };
  return element("div", { className: "cure" }, "What to change: ", code, " ", button);
}
