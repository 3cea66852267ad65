"""The loops, one file a command: `rl.py` is the method, read it first. `context.py` is what they all stand on."""
