"""`ringrl eval`: sample k responses per problem, judge them, and report with uncertainty [P §4.1.2]."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from ringrl.config.commands import EvalConfig
from ringrl.config.load import load
from ringrl.config.sections import Prompting, Rollout, Server
from ringrl.data.chat import load_tokenizer, template_hash
from ringrl.domains import Domains
from ringrl.errors import DataError, RingError
from ringrl.evals.metrics import error_trouble
from ringrl.evals.results import (
    Responses,
    Task,
    load_responses,
    remarks,
    table,
    tasks_of,
    verdict_fields,
    verifier_pool,
    write_results,
)
from ringrl.evals.server import ServedModel
from ringrl.http import secret
from ringrl.launch.rank import Context
from ringrl.models.loading import check_tensors, load_config
from ringrl.rewards import Verdict, VerifierPool
from ringrl.rollout.respond import NO_ROOM, Ask, EngineModel, Model


def main(ctx: Context) -> int:
    cfg = load(EvalConfig, ctx.run.path / "config.yaml")
    tasks = tasks_of(cfg)
    responses = {task.name: load_responses(ctx.run, task.name) for task in tasks}
    sampling = (cfg.temperature, cfg.top_p, cfg.max_total_tokens, cfg.seed)
    model, facts = open_model(ctx, cfg.model, cfg.rollout, cfg.server, cfg.prompting, cfg.known_domains, sampling)
    ctx.progress.note(model.name)
    with verifier_pool(cfg, tasks) as verifier:
        Collector(ctx, verifier, cfg.known_domains, tasks, responses).collect(model)
    if ctx.interrupted:
        return 130
    model.close()
    for name, rows in responses.items():
        if trouble := error_trouble([r["error"] for r in rows.values()], cfg.verify.max_error_share):
            raise RingError(f"{name}: {trouble}; --resume judges these again")
    results = write_results(ctx.run, cfg, tasks, responses, facts)
    ctx.progress.table(f"{cfg.model}, temperature {cfg.temperature:g}, top-p {cfg.top_p:g}", table(results))
    for line in remarks(results):
        ctx.progress.note(line)
    return 0


def open_model(
    ctx: Context, model: str, rollout: Rollout, server: Server, prompting: Prompting, domains: Domains,
    sampling: tuple[float, float, int, int],
) -> tuple[Model, dict[str, str]]:  # fmt: skip
    """The model and its entries for results.json; `sampling`: temperature, top-p, max_total_tokens, seed."""
    if server.base_url:
        served = ServedModel(model, server, secret(server.key_variable), prompting, domains, *sampling)
        return served, {"engine": server.base_url, "template_sha256": ""}
    tokenizer = load_tokenizer(model, prompting)
    check_tensors(model, load_config(model))  # else a worker that does not start is all there is to see
    engine = EngineModel(ctx.rollout_engine(model, rollout), tokenizer, prompting, domains, *sampling)
    return engine, {"engine": engine.name, "dtype": rollout.dtype, "template_sha256": template_hash(tokenizer)}


class Collector:
    """Collects missing responses and verdicts, and writes each to disk as soon as it arrives."""

    def __init__(
        self,
        ctx: Context,
        verifier: VerifierPool,
        domains: Domains,
        tasks: Sequence[Task],
        responses: Mapping[str, Responses],
    ) -> None:
        self.ctx, self.verifier, self.domains, self.responses = ctx, verifier, domains, responses
        self.pending: list[tuple[Ask, Future[Verdict]]] = []
        asks = [Ask(task.name, problem, i) for task in tasks for problem in task.problems for i in range(task.samples)]
        self.total = len(asks)
        self.missing = [a for a in asks if self.response(a) is None]
        for ask in asks:
            if (row := self.response(ask)) and row.get("verdict", "error") == "error":
                self.judge(ask, row["text"])

    def response(self, ask: Ask) -> dict | None:
        return self.responses[ask.bench].get((ask.problem["id"], ask.sample))

    def collect(self, model: Model) -> None:
        """Collects until all is there or an interrupt comes; judges and writes what has arrived in either case."""
        began, tokens = time.monotonic(), 0
        try:
            for n, (ask, answer) in enumerate(model.answers(self.missing), 1):
                if answer.finish == NO_ROOM:
                    raise DataError(answer.text)
                self.write(ask, {"text": answer.text, "length": answer.length, "finish": answer.finish})
                self.judge(ask, answer.text)
                self.settle(wait=False)
                tokens += answer.length
                self.show(n, tokens, time.monotonic() - began)
                if self.ctx.interrupted:
                    break
        finally:
            self.settle(wait=True)

    def judge(self, ask: Ask, text: str) -> None:
        reference = self.domains.reference(ask.problem)
        self.pending.append((ask, self.verifier.submit(ask.problem["domain"], text, reference)))

    def settle(self, wait: bool) -> None:
        """Write the verdicts that have arrived; with `wait`, all of them, which the deadlines of the pool bound."""
        pending = []
        for ask, future in self.pending:
            if wait or future.done():
                self.write(ask, verdict_fields(future.result()))
            else:
                pending.append((ask, future))
        self.pending = pending

    def write(self, ask: Ask, fields: dict) -> None:
        row = {"id": ask.problem["id"], "sample": ask.sample, **fields}
        self.ctx.run.append(f"responses/{ask.bench}", row)
        stored = self.responses[ask.bench]
        stored[row["id"], ask.sample] = stored.get((row["id"], ask.sample), {}) | row

    def show(self, n: int, tokens: int, seconds: float) -> None:
        """Progress, and the time left at this rate: a lower bound, since the last responses are the longest."""
        left = (len(self.missing) - n) * seconds / n
        numbers: dict[str, float | str] = {"tokens/s": tokens / seconds, "left": f"{left / 60:.0f} min or more"}
        self.ctx.progress.step(self.total - len(self.missing) + n, self.total, numbers)
