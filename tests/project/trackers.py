"""Try the functions of `trackers` with the real packages, offline: `make test-trackers`.

Needs Keras with a backend, and the packages; one that is missing is named, and left out.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import struct
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_initkit.callbacks import GradientMonitor, trackers

os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
STEPS = 20


def train(on_record: Any, log_dir: Path | None = None) -> GradientMonitor:
    """Train weights of zeros: a finding is certain."""
    layers = [keras.layers.Dense(4, "relu", kernel_initializer="zeros") for _ in range(3)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(10 * STEPS, 4))
    monitor = GradientMonitor(log_dir, on_record=on_record, on_finding=lambda finding: None)
    model.fit(x, x, 10, verbose=0, callbacks=[monitor])
    assert monitor.findings
    return monitor


def try_wandb(folder: Path) -> None:
    """Read the offline run back, as `wandb sync` does."""
    wandb = importlib.import_module("wandb")
    with wandb.init(project="test", dir=folder) as run:
        monitor = train(trackers.to_wandb(run))
    wandb.teardown()  # until then the file is not whole
    rows, alerts = read_wandb(folder)
    assert [row["gradients/step"] for row in rows] == list(range(STEPS))
    check([row["gradients/global_norm"] for row in rows], monitor)
    assert len(alerts) == sum(finding.severity != "note" for finding in monitor.findings)


def try_wandb_sync_tensorboard(folder: Path) -> None:
    """Find the scalars of the log in a run that reads TensorBoard's events."""
    wandb = importlib.import_module("wandb")
    with wandb.init(project="test", dir=folder, sync_tensorboard=True):
        monitor = train(None, folder / "log")
    wandb.teardown()
    rows, _ = read_wandb(folder)
    name = "gradients/global_norm"
    check([row[name] for row in rows if name in row], monitor)


def read_wandb(folder: Path) -> tuple[list[dict[str, float]], list[str]]:
    """Read the rows and the titles of the alerts of an offline run, as `wandb sync` does."""
    messages = importlib.import_module("wandb.proto.wandb_internal_pb2")
    (file,) = folder.rglob("*.wandb")
    rows, alerts = [], []
    for data in read_blocks(file.read_bytes()[7:]):
        record = messages.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({i.key or "/".join(i.nested_key): float(i.value_json) for i in items})
        if record.WhichOneof("record_type") == "alert":
            alerts.append(record.alert.title)
    return rows, alerts


def read_blocks(data: bytes) -> Iterator[bytes]:
    """Yield the records of a log of LevelDB, in blocks of 32 KiB (the first one 7 bytes less)."""
    place, whole = 0, b""
    while place + 7 <= len(data):
        room = 32768 - (place + 7) % 32768
        if room < 7:
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def try_mlflow(folder: Path) -> None:
    """Read the run back from a local store."""
    mlflow = importlib.import_module("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("test", artifact_location=str(folder / "files"))
    run_id = client.create_run(experiment).info.run_id
    monitor = train(trackers.to_mlflow(client, run_id))
    points = client.get_metric_history(run_id, "gradients/global_norm")
    check([point.value for point in sorted(points, key=lambda point: point.step)], monitor)
    tags = client.get_run(run_id).data.tags
    assert tags[f"gradients.{monitor.findings[0].kind}"] == monitor.findings[0].text[:8000]


def try_comet_ml(folder: Path) -> None:
    """Find the numbers in the archive of an offline experiment."""
    comet = importlib.import_module("comet_ml")
    experiment = comet.OfflineExperiment(
        project_name="test", workspace="test", offline_directory=str(folder), log_code=False
    )
    monitor = train(trackers.to_comet(experiment))
    experiment.end()
    (archive,) = folder.glob("*.zip")
    with zipfile.ZipFile(archive) as files:
        text = "".join(files.read(name).decode("utf-8", "replace") for name in files.namelist())
    assert text.count('"metricName":"gradients/global_norm"') == STEPS
    assert monitor.findings[0].kind in text


def try_aim(folder: Path) -> None:
    """Read the run back from a local repository."""
    aim = importlib.import_module("aim")
    run = aim.Run(repo=str(folder), system_tracking_interval=None, log_system_params=False)
    monitor = train(trackers.to_aim(run))
    context = importlib.import_module("aim.storage.context").Context({})
    _, values = run.get_metric("gradients/global_norm", context).values.sparse_list()
    check(list(values), monitor)
    assert monitor.findings[0].kind in run.tags
    run.close()


def check(values: list[float], monitor: GradientMonitor) -> None:
    """Compare with the history."""
    np.testing.assert_allclose(values, monitor.history["global_norm"][:, 0])


@contextlib.contextmanager
def inside(folder: str) -> Iterator[None]:
    """Work in a folder, where trackers put their files."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main() -> int:
    """Try all; return 1 if none could be."""
    tried = 0
    for name, attempt in (
        ("wandb", try_wandb),
        ("wandb", try_wandb_sync_tensorboard),
        ("mlflow", try_mlflow),
        ("comet_ml", try_comet_ml),
        ("aim", try_aim),
    ):
        if importlib.util.find_spec(name) is None:
            print(f"{name}: not installed, not tried", flush=True)
            continue
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, inside(scratch):
            attempt(Path(scratch))
        package = importlib.metadata.packages_distributions()[name][0]
        version = importlib.metadata.version(package)
        print(f"{attempt.__name__}, {package} {version}: works", flush=True)
        tried += 1
    return int(not tried)


if __name__ == "__main__":
    sys.exit(main())
