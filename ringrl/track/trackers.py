"""The trackers, a class each: opened for one record, told numbers by step, closed.

    __init__(run, name, record, config)   run: the run directory; name: what people see; record: the identifier of this
                                          record, the same when it is continued; config: the configuration, flat
    log(step, numbers)                    numbers: {"train/loss": 0.5, ...}
    close()                               everything has arrived when this returns
    replace(run, name, record)            optional, static: a record that will be written again under another
                                          identifier, to remove

A class of the user's has the same methods. A library is imported when its tracker is opened.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ringrl.errors import UserError
from ringrl.users.objects import NAMED, Unusable, class_of

Numbers = Mapping[str, float]
PROJECT = "ringrl"  # of records in trackers that sort them


class Tracker(Protocol):
    def log(self, step: int, numbers: Numbers) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def __init__(self, run: Path, name: str, record: str, config: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.event, self.summary = Event, Summary
        self.writer = EventFileWriter(str(run / "tensorboard"))

    def log(self, step: int, numbers: Numbers) -> None:
        values = [self.summary.Value(tag=key, simple_value=value) for key, value in numbers.items()]
        self.writer.add_event(self.event(step=step, summary=self.summary(value=values)))
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()

    @staticmethod
    def replace(run: Path, name: str, record: str) -> None:
        shutil.rmtree(run / "tensorboard", ignore_errors=True)


class WandB:
    """Online or offline as W&B's own settings say (WANDB_MODE); offline in RUN/wandb. W&B cannot take rows back: a
    record that is replaced stays there."""

    def __init__(self, run: Path, name: str, record: str, config: Mapping[str, Any]) -> None:
        import wandb

        self.run = wandb.init(project=PROJECT, name=name, id=record, dir=run, config=dict(config), resume="allow")
        self.run.define_metric("*", step_metric="step")  # its own step may not go back, as that of evaluations does

    def log(self, step: int, numbers: Numbers) -> None:
        self.run.log({**numbers, "step": step})

    def close(self) -> None:
        self.run.finish()


class Trackio:
    """In trackio's own place (TRACKIO_DIR)."""

    def __init__(self, run: Path, name: str, record: str, config: Mapping[str, Any]) -> None:
        import trackio

        self.run = trackio.init(project=PROJECT, name=record, config=dict(config), resume="allow", embed=False)

    def log(self, step: int, numbers: Numbers) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        self.run.finish()

    @staticmethod
    def replace(run: Path, name: str, record: str) -> None:
        from trackio.sqlite_storage import SQLiteStorage

        SQLiteStorage.delete_run(PROJECT, record)


class MLflow:
    """Where MLflow's own settings say (MLFLOW_TRACKING_URI)."""

    def __init__(self, run: Path, name: str, record: str, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param, RunTag
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient()
        found = _mlflow_runs(self.client, record)
        if found:
            self.id = found[0]
            return
        experiment = self.client.get_experiment_by_name(PROJECT)
        where = experiment.experiment_id if experiment else self.client.create_experiment(PROJECT)
        self.id = self.client.create_run(where, run_name=name, tags={PROJECT: record}).info.run_id
        params = [Param(key.replace("[", ".").replace("]", ""), str(value)[:500]) for key, value in config.items()]
        for i in range(0, len(params), 100):  # the most that it takes at once
            self.client.log_batch(self.id, params=params[i : i + 100])
        self.client.log_batch(self.id, tags=[RunTag("folder", str(run))])

    def log(self, step: int, numbers: Numbers) -> None:
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, [Metric(key, value, now, step) for key, value in numbers.items()])

    def close(self) -> None:
        self.client.set_terminated(self.id)

    @staticmethod
    def replace(run: Path, name: str, record: str) -> None:
        from mlflow.tracking import MlflowClient

        client = MlflowClient()
        for run_id in _mlflow_runs(client, record):
            client.delete_run(run_id)


def _mlflow_runs(client: Any, record: str) -> list[str]:
    """Identifiers of MLflow's own."""
    experiment = client.get_experiment_by_name(PROJECT)
    if not experiment:
        return []
    found = client.search_runs([experiment.experiment_id], f"tags.{PROJECT} = '{record}'")
    return [run.info.run_id for run in found]


BUILT_IN: dict[str, tuple[str, type]] = {  # name: the module that has to be there, and the class
    "tensorboard": ("tensorboard", TensorBoard),
    "wandb": ("wandb", WandB),
    "trackio": ("trackio", Trackio),
    "mlflow": ("mlflow", MLflow),
}


def check_name(name: str) -> str:
    """Raises ValueError for what names no tracker."""
    if name not in BUILT_IN and not NAMED.fullmatch(name):
        raise ValueError(f"got {name!r}, expected one of {', '.join(BUILT_IN)}, path/file.py:Class or module:Class")
    return name


def tracker_class(name: str) -> Any:
    """The class of this name.

    Raises:
        UserError: it is not installed, or there is no such class.
    """
    if name in BUILT_IN:
        module, found = BUILT_IN[name]
        if importlib.util.find_spec(module) is None:
            raise UserError(f"track: got {name}, which is not installed, expected pip install {name} first, here or in "
                            f"an environment of its own for `ringrl track RUN`: docs/trackers.md")  # fmt: skip
        return found
    try:
        return class_of(name)
    except Unusable as error:
        raise UserError(f"track: got {name}: {error}, expected a class with log and close") from None
