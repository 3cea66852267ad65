"""Sends a run to trackers (TensorBoard, W&B, trackio, MLflow, or a class of the user's).

A tracker is written to by a process of its own, a child of the launcher, which reads what the run writes anyway:
config.yaml, metrics.jsonl and evals.jsonl. So a tracker that hangs or fails cannot hurt training. Nothing here imports
torch or vLLM, so that `ringrl track RUN` works in an environment that has neither.

Invariant: the record in a tracker holds every row of both files once. A record that was not closed in order, or that
holds rows which the run has taken back, is replaced by a new one.
"""
