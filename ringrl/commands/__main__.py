"""A rank process: `python -m ringrl.commands NAME`, started by ringrl.launch. Turns errors into exit codes."""

from __future__ import annotations

import importlib
import sys
import traceback

from ringrl.commands.context import Context
from ringrl.errors import RingError


def main() -> int:
    context = Context.from_launcher()
    try:
        import transformers

        transformers.utils.logging.disable_progress_bar()
        return importlib.import_module(f"ringrl.commands.{sys.argv[1]}").main(context)
    except RingError as e:
        traceback.print_exc()
        context.progress.ended(str(e), e.exit_code)
        return e.exit_code
    except Exception:  # a bug: the traceback goes to the log and to the terminal
        traceback.print_exc()
        context.progress.ended(f"{traceback.format_exc()}see {context.run.path}/logs/", 1)
        return 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
