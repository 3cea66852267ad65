"""The method as pure functions: no files, no configuration objects, no processes, so each can be called from a
notebook in one line. Equation numbers are those of the Ring-lite paper (arXiv 2506.14731)."""
