"""The arithmetic of `ringrl plan` and `--dry-run`: what a configuration needs and costs. Starts and loads nothing."""
