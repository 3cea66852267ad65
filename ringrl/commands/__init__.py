"""The commands, one file each, listed in `table`. The loop of `ringrl rl` is in `ringrl.rl.loop`: read it first."""
