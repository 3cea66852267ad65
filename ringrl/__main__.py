"""`python -m ringrl` is `ringrl`."""

from ringrl.cli import main

main()
