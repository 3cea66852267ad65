"""The method. Read `loop` first."""
