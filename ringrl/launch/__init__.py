"""From a checked configuration to running processes: vLLM workers and trainer ranks, started, watched and stopped."""
