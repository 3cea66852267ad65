"""Sampling with verdicts, the metrics over them, and the benchmarks known by name."""
