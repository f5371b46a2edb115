"""Functions for `GradientMonitor(on_record=...)`: records in trackers of experiments.

Each takes the run of the user's tracker, and puts the scalars of each record there, and findings as
an alert or tag. None of the packages is needed here.

Example:
```python
run = wandb.init(project="first")
monitor = GradientMonitor(on_record=trackers.to_wandb(run))
model.fit(x, y, callbacks=[monitor])
```
"""

import re
from typing import Any

from keras_initkit.callbacks.reporter import OnRecord, Record


def to_wandb(run: Any) -> OnRecord:
    """Log to Weights & Biases, over the axis `gradients/step`; findings become alerts.

    Args:
        run: What `wandb.init` returns.
    """
    run.define_metric("gradients/step")
    for pattern in ("gradients/*", "gradient_*"):
        run.define_metric(pattern, step_metric="gradients/step")

    def log(record: Record) -> None:
        if record.scalars:
            run.log({**record.scalars, "gradients/step": record.step, "epoch": record.epoch})
        for finding in record.findings:
            run.alert(title=f"Gradients: {finding.kind}", text=finding.text, level="WARN")

    return log


def to_mlflow(client: Any, run_id: str) -> OnRecord:
    """Log to MLflow; the text of a finding is a tag of the run, `gradients.<kind>`.

    Args:
        client: An `mlflow.MlflowClient`.
        run_id: Of the run, `mlflow.active_run().info.run_id`.
    """

    def log(record: Record) -> None:
        for tag, value in record.scalars.items():
            # Names with other characters are refused.
            name = re.sub(r"[^\w\-. :/]", "_", tag, flags=re.ASCII)
            client.log_metric(run_id, name, value, step=record.step)
        for finding in record.findings:
            client.set_tag(run_id, f"gradients.{finding.kind}", finding.text)

    return log


def to_comet(experiment: Any) -> OnRecord:
    """Log to Comet; the kind of a finding is a tag of the experiment, its text a value.

    Args:
        experiment: What `comet_ml.start` returns.
    """

    def log(record: Record) -> None:
        experiment.log_metrics(record.scalars, step=record.step, epoch=record.epoch)
        for finding in record.findings:
            experiment.add_tag(finding.kind)
            experiment.log_other(f"gradients/{finding.kind}", finding.text)

    return log


def to_aim(run: Any) -> OnRecord:
    """Log to Aim; the kind of a finding is a tag of the run, its text a warning there.

    Args:
        run: An `aim.Run`.
    """

    def log(record: Record) -> None:
        for tag, value in record.scalars.items():
            run.track(value, name=tag, step=record.step, epoch=record.epoch)
        for finding in record.findings:
            run.add_tag(finding.kind)
            run.log_warning(finding.text)

    return log
