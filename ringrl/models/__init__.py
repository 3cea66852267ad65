"""What transformers lacks: attention over packed rows on the CPU, and (to come) the Ling model family."""
