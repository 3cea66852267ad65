"""Ranks started by torchrun, `accelerate launch` or Slurm, on one node or several.

Rank 0 opens the run directory and informs the others through torch's rendezvous store; then each runs like any rank.
Whoever started the ranks stops them when one fails.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from ringrl.config.sections import Trainer
from ringrl.errors import UserError
from ringrl.launch.command import Command
from ringrl.launch.machine import LOST_CODE, engine_name, prepare_rank, read_key, started_by_others
from ringrl.launch.opening import Resume, opened
from ringrl.launch.origin import origin_of
from ringrl.launch.rank import Context
from ringrl.launch.rank import run as run_rank
from ringrl.launch.start import checked, finish, is_finished, verifiers_of
from ringrl.run import Run


def start(command: Command[Any], cfg: Any, resume: Resume | None) -> int:
    """Run this process as one rank of a command. Returns its exit code.

    Raises:
        UserError: as in `ringrl.launch.start.start`, on every rank.
    """
    rank, ranks = started_by_others() or (0, 1)
    need = checked(command, cfg)
    trainer, (sampler,) = need.trainer or Trainer(), need.launches
    engine = engine_name(sampler.rollout) if sampler else ""
    addresses = sampler.rollout.addresses if sampler else ()
    if ranks != trainer.ranks:
        raise UserError(f"trainer.ranks: got {trainer.ranks}, expected {ranks}, the processes that were started")
    if engine == "vllm" and not addresses:
        raise UserError("rollout.addresses: got none, expected those of `ringrl worker`s when ranks are started from "
                        "outside")  # fmt: skip
    prepare_rank(trainer.threads)
    from torch.distributed import rendezvous  # only after the environment is set

    store, _, _ = next(rendezvous("env://"))
    with ExitStack() as stack:
        if rank == 0:
            try:
                stack.enter_context(opened(cfg, origin_of(cfg, need, verifiers_of(cfg)), resume))
                store.set("ringrl/opened", "")
            except UserError as e:
                store.set("ringrl/opened", str(e))
                raise
        if error := store.get("ringrl/opened").decode():
            raise UserError(error)
        run = Run(cfg.run)
        if is_finished(run):
            return 0
        began = time.time()
        key = read_key(sampler.rollout.key_file) if sampler and addresses else ""
        spec = {"main": command.main, "engine": engine, "addresses": list(addresses), "restarts": False, "authkey": key,
                "meeting": ""}  # fmt: skip
        code = run_rank(Context.of_rank(run, spec, talks=rank == 0))
        if code == 0 and rank == 0:
            finish(run, began)
    return 1 if code == LOST_CODE else code
