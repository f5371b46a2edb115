"""The rules: each is a function from `Facts` to findings.

To add one, write such a function in the file of its like, give its numbers and their reasons in
`thresholds.py` and its kind in `kinds.py`, and add it to its tier: contracts, causes in data and
structure at the end of their files, faults and symptoms in `judge.py`.

A rule looks, at every recorded step, only at that step and at those before it, and speaks at the
first one at which it holds: a finding in a history stays when the training goes on. What the rules
have in common:

- **Persistence.** Apart from NaN and infinity, nothing is judged by one step: a
  condition must hold at all records of a window. Zero-initialised heads and residual branches give
  everything below them a gradient of exactly zero, for one update.
- **Scale.** Losses have units, and adaptive optimizers divide the scale of a gradient out: no
  magnitude is judged by itself. Gradients are compared between the layers of one model, or with
  those of the past.
- **Depth.** Layers are compared by their signal, see `record/signal.py`.
- **A good loss speaks for the training.** Where the loss is falling or has halved, mere signs of
  trouble are not reported.
"""
