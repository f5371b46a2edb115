// The table of what was found wrong.

import { element, folded, named, prose, say, short } from "./elements.js";

/** Elements that show what was found in the chosen runs; a click on one shows its place. */
export function findingsTable(state) {
  const runs = state.chosen;
  const found = runs.flatMap((run) => state.foundIn(run).map((finding) => ({ run, finding })));
  found.sort((a, b) => (a.finding.step ?? -1) - (b.finding.step ?? -1));
  const errors = runs.flatMap((run) => {
    const { error } = state.info(run);
    return error ? [element("p", { className: "error" }, named("b", run.title), ` ${error}`)] : [];
  });
  if (!found.length) {
    const known = runs.length > 0 && runs.every((run) => state.info(run).findings);
    return known ? [say("Nothing wrong was found.")] : errors;
  }
  const several = runs.length > 1;
  const titles = ["Step", "Kind", ...(several ? ["Run"] : []), "Layer", "Finding", "Evidence"];
  const heads = titles.map((title) => element("th", { scope: "col", textContent: title }));
  const body = found.map(({ run, finding }) =>
    findingRow(run, finding, several, () => state.goTo(run, finding)),
  );
  const head = element("thead", {}, element("tr", {}, ...heads));
  return [...errors, element("table", {}, head, element("tbody", {}, ...body))];
}

function findingRow(run, finding, several, goThere) {
  const cell = (...children) => element("td", {}, ...children);
  const text = (content, most = 600) => element("div", { dir: "auto" }, ...prose(content, most));
  const { kind, severity, layer, step, message, cause, fix, consequences, explanation } = finding;
  const evidence = Object.entries(finding.evidence).map(([name, value]) => `${name} = ${value}`);
  const row = element(
    "tr",
    { tabIndex: 0, title: "Show its place on the map" },
    cell(String(step ?? "")),
    cell(short(kind.replaceAll("_", " ")), element("div", { className: "hint" }, severity)),
    ...(several ? [cell(named("span", run.title, 40))] : []),
    cell(layer ? named("span", layer, 40) : "all"),
    cell(
      text(message),
      ...(cause ? [text(cause)] : []),
      ...(fix ? [text(`What to change: ${fix}`)] : []),
      ...(consequences.length ? [folded("What follows from this", consequences.map((one) => text(one)))] : []),
      ...(explanation.length ? [folded("Explanation", explanation.map((part) => text(part, 2000)))] : []),
    ),
    cell(...evidence.map((one) => text(one))),
  );
  row.onclick = () => getSelection().isCollapsed && goThere();
  row.onkeydown = (event) => event.key === "Enter" && goThere();
  return row;
}
