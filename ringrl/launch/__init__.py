"""From a checked configuration to running processes: starts, watches and stops vLLM workers and trainer ranks."""
