// What is said of a whole training, above its charts.

import { element, named, short } from "./elements.js";

/** Elements with the verdict on each chosen run, and what to change. */
export function verdicts(state) {
  const runs = state.chosen.filter((run) => state.info(run).verdict);
  return runs.map((run) => {
    const { level, text, fix } = state.info(run).verdict;
    const name = runs.length > 1 ? [named("b", run.title), ": "] : [];
    const line = element("p", { dir: "auto" }, ...name, short(text, 600));
    return element("div", { className: `verdict ${level}` }, line, ...(fix ? [cure(fix)] : []));
  });
}

/** What to change, to be copied. */
function cure(fix) {
  const button = element("button", { type: "button", textContent: "Copy" });
  const code = element("code", { textContent: short(fix, 2000), dir: "auto" });
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(fix);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // not every browser lets a frame copy
      button.textContent = "Press Ctrl+C";
    }
  };
  return element("p", { className: "cure" }, "What to change: ", code, " ", button);
}
