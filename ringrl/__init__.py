"""ringrl: from a base Mixture-of-Experts checkpoint to a reasoning model (Ring-lite, arXiv 2506.14731)."""

__version__ = "0.1.0"
