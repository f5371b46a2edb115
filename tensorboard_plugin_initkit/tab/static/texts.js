// What the page says of its views, of the statistics, and of what a column shows.

export const VIEWS = {
  map: [
    "Map",
    "Each row is a layer, from the input at the bottom to the output at the top; each column is a " +
      "training step, and the colour is the size of the gradient. Gradients come from the output: " +
      "rows that get darker downwards mean that the gradient dies on its way, brighter ones that it " +
      "explodes. The strip on top is coloured while the monitor calls it vanishing or exploding, and " +
      "a triangle marks a finding.",
  ],
  depth: [
    "Depth",
    "Each point is a layer, the input on the left and the output on the right, where the " +
      "gradient comes from. A line that falls to the left vanishes on its way to the input, one " +
      "that rises to the left explodes, a level one is healthy. The slider chooses the step. A " +
      "dashed line is the slope by which the monitor judges, a dotted one what the first weights " +
      "let expect at step 0.",
  ],
  lines: [
    "Lines",
    "Each line is a layer over the training, dark near the input and bright near the output. " +
      "Lines far apart learn at different speeds; one that falls away or ends has stopped learning. " +
      "Below are loss and learning rate at the same steps.",
  ],
  findings: [
    "Findings",
    "What the monitor found wrong while the network trained, the earliest first. Each says what is " +
      "seen, why it stops learning, and what to change. Click a row to see its place on the map.",
  ],
};
export const STATISTICS = {
  signal: "The gradient that reaches the units of a layer: compare layers by this.",
  rms: "A typical element of the layer's gradient, so that large and small layers compare.",
  norm: "The length of the layer's whole gradient.",
  mean_abs: "The mean size of the gradient's elements.",
  max_abs: "The largest element of the gradient.",
  raw_norm: "The length of the gradient before it is clipped.",
  clip_ratio: "What clipping leaves of the gradient: 1 is all of it.",
  local_norm: "The length of one replica's gradient.",
  weight_norm: "The size of the layer's weights.",
  update_ratio: "How far a step moves the weights, relative to their size.",
  zeros: "The part of the gradient that is exactly zero.",
  nonfinite: "How many elements are NaN or infinite.",
  dead_units: "The part of the units that no sample of the batch has activated.",
  cosine: "Whether the gradient keeps its direction: 1 the same, 0 unrelated, -1 turned back.",
  snr: "How much of the gradient is signal: below 1 it is mostly noise.",
};
export const SIGNS = {
  error: ["✕", "does not learn"],
  warning: ["!", "learns, with a fault"],
  open: ["?", "open"],
  healthy: ["✓", "healthy"],
};
export const HOW = {
  max: "keeps a spike of one step, and hides a layer that is dead for a while",
  min: "keeps a layer that is dead for one step, and hides spikes",
  mean: "shows the level, and flattens what lasts for one step",
};
