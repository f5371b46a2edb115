// What the page says of its views, of the statistics, and of what a column shows.

export const VIEWS = {
  map: [
    "Map",
    "Each row is a layer, from the input at the bottom to the output at the top; each column is a " +
      "training step, and the colour is the size of the gradient. Gradients start at the output: " +
      "if rows get darker towards the bottom, the gradient vanishes on its way to the input; if " +
      "they get brighter, it explodes. The strip along the top is coloured where the monitor calls " +
      "the gradient vanishing or exploding, and each triangle marks a finding.",
  ],
  depth: [
    "Depth",
    "Each point is a layer, with the input on the left and the output, where gradients start, " +
      "on the right. A line that falls towards the left is a vanishing gradient, one that rises " +
      "towards the left an exploding one; a level line is healthy. The slider chooses the step. " +
      "The dashed line is the slope that the monitor judges by; the dotted line is what the " +
      "initial weights predict for step 0.",
  ],
  lines: [
    "Lines",
    "Each line is a layer during training, dark near the input and bright near the output. " +
      "Layers whose lines are far apart learn at different speeds; one whose line drops or ends " +
      "has stopped learning. Below are the loss and the learning rate at the same steps.",
  ],
  findings: [
    "Findings",
    "What the monitor found wrong during training, the earliest first. Each finding says what was " +
      "seen, why that hinders learning, and what to change. Click a row to see its place on the map.",
  ],
};
export const STATISTICS = {
  signal: "The gradient that reaches a layer's units. Use this to compare layers.",
  rms: "The size of a typical element of the layer's gradient, whether the layer is large or small.",
  norm: "The length of the layer's whole gradient.",
  mean_abs: "The mean size of the gradient's elements.",
  max_abs: "The largest element of the gradient.",
  raw_norm: "The length of the gradient before clipping.",
  clip_ratio: "The share of the gradient's length that clipping leaves: 1 is all of it.",
  local_norm: "The length of one replica's gradient.",
  weight_norm: "The size of the layer's weights.",
  update_ratio: "How far a step moves the weights, relative to their size.",
  zeros: "The share of the gradient's elements that are exactly zero.",
  nonfinite: "How many elements are NaN or infinite.",
  dead_units: "The share of the units that no sample of the batch activates.",
  cosine: "Whether the gradient keeps its direction: 1 is the same, 0 unrelated, -1 reversed.",
  snr: "How much of the gradient is signal: below 1 it is mostly noise.",
};
export const SIGNS = {
  error: ["✕", "does not learn"],
  warning: ["!", "learns, with a fault"],
  open: ["?", "undecided"],
  healthy: ["✓", "healthy"],
};
export const HOW = {
  max: "keeps a spike of one step, and hides a layer that is dead for a while",
  min: "keeps a layer that is dead for one step, and hides spikes",
  mean: "shows the typical level, and flattens what lasts for only one step",
};
