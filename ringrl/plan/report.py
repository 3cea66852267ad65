"""`ringrl plan`: memory, FLOPs and time of a configuration on a GPU under a few assumptions, one function per command.

A plan is a list of sections of items. Every item names the source of its number: "config", "formula", "datasheet" or
"assumed". Values are in base units: bytes, seconds, FLOPs, tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ringrl.config.commands import EvalConfig, RLConfig, SelectConfig, SFTConfig, Stage
from ringrl.config.data import DataConfig, Sampled, Teacher
from ringrl.config.sections import Rollout, Source, Trainer
from ringrl.curate.chain import phases, sampled
from ringrl.data.source import rows_named
from ringrl.errors import ConfigError
from ringrl.evals.benchmarks import samples_of, source_of
from ringrl.plan import advice, timing
from ringrl.plan.hardware import NETWORK, NODE
from ringrl.plan.memory import GIB, SPARE, WORKSPACE, checkpoint_bytes, rank_memory, worker_memory
from ringrl.plan.shape import Shape, read_shape
from ringrl.plan.timing import Assumed
from ringrl.run import find_checkpoints

HOURS = "GPU hours"  # name of the items that are added up


@dataclass(frozen=True)
class Item:
    name: str
    value: float | str
    unit: str  # "B", "s", "FLOP", "tokens", "" ...
    source: str  # "config", "formula", "datasheet", "assumed"
    note: str = ""


@dataclass(frozen=True)
class Section:
    title: str
    items: tuple[Item, ...]
    advice: tuple[str, ...] = ()


def whole(parts: Iterable[Section], assumed: Assumed) -> list[Section]:
    """A plan: the assumptions, the sections of a command, and the sum.

    Raises:
        ConfigError: there is nothing to plan; or, from `parts`, the model's config.json is missing or of an unknown
            family.
    """
    parts = list(parts)
    if not parts:
        raise ConfigError("steps: none of them samples from a model, so there is nothing to plan")
    hours = [i.value for s in parts for i in s.items if i.name == HOURS and isinstance(i.value, float)]
    total = Item(HOURS, sum(hours), "", "formula", "of the sections above; no held-out evaluation, checkpoint or "
                 "start-up, no group that is dropped, no fault")  # fmt: skip
    return [_assumptions(assumed), *parts, Section("in all", (total,))]


def as_json(sections: list[Section]) -> list[dict[str, Any]]:
    return [asdict(s) for s in sections]


def as_text(sections: list[Section]) -> str:
    lines = []
    for s in sections:
        lines += ["", s.title]
        lines += [f"  {i.name:<30}{show(i):>19}  {i.source:<10}{i.note}".rstrip() for i in s.items]
        lines += [f"  ! {text}" for text in s.advice]
    return "\n".join(lines[1:])


def show(item: Item) -> str:
    """The value with a scaled unit: 12.3 GiB, 4.5 h, 1.2 PFLOP, 1,234."""
    v, scales = item.value, {
        "B": ((1 << 40, "TiB"), (GIB, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")),
        "s": ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")),
        "FLOP": ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")),
        "": ((1e9, "B"), (1e6, "M")),
    }  # fmt: skip
    if isinstance(v, str):
        return v
    for scale, name in scales.get(item.unit, ()):
        if v >= 2 * scale or (v >= scale and name not in ("min", "h", "d")):
            return f"{v / scale:.2f} {name}"
    return f"{v:,.0f} {item.unit}".rstrip() if v >= 100 or v == int(v) else f"{v:.3g} {item.unit}".rstrip()


def _assumptions(assumed: Assumed) -> Section:
    g, (source, _, where) = assumed.gpu, assumed.source.partition(" in ")
    where = f"; {where}" if where else ""
    return Section("assumptions", (
        Item("GPU", g.name, "", g.source, f"{g.tflops:g} TFLOP/s dense bfloat16, {g.bandwidth:g} GB/s, "
             f"{g.memory:g} GB, {g.link:g} GB/s to the next"),
        Item("share of the FLOP/s", assumed.mfu, "", source, f"--mfu, of all FLOPs that are computed{where}"),
        Item("share of the bandwidth", assumed.bandwidth, "", source, f"--bandwidth, in decoding{where}"),
        Item("prompt", assumed.prompt, "tokens", "assumed", "--prompt, mean"),
        Item("response", assumed.response or "half the room", "tokens" if assumed.response else "", source,
             f"--response, mean{where}"),
        Item("network", NETWORK, "GB/s", "assumed", f"per GPU, between nodes of {NODE}"),
        Item("kept free", SPARE, "B", "assumed", "CUDA context, NCCL, fragmentation; vLLM as much besides"),
    ))  # fmt: skip


def about(shape: Shape) -> Section:
    """The section that describes the model."""
    cache = shape.attention.cached * shape.layers * 2
    cost = shape.cost
    return Section(f"model ({shape.model_type})", (
        Item("parameters", shape.total, "", "formula", f"{shape.total:,}"),
        Item("active", shape.active, "", "formula", f"{shape.active:,}, both embeddings counted"),
        Item("in routed experts", shape.routed, "", "formula", f"{shape.moe_layers} layers of {shape.experts}, "
             f"{shape.top_k} taken"),
        Item("forward pass per token", 2 * (cost.layers + cost.head), "FLOP", "formula",
             f"and {cost.pair / 1e3:g} kFLOP for every token before it"),
        Item("keys and values per token", cache, "B", "formula", "in bfloat16"),
    ))  # fmt: skip


def sft(cfg: SFTConfig, assumed: Assumed, gpus: int) -> Iterator[Section]:
    shape = read_shape(cfg.model)
    trainer = timing.retrained(cfg.trainer, gpus) if gpus else cfg.trainer
    cfg = cfg.model_copy(update={"trainer": trainer})
    yield about(shape)
    yield _rank(shape, trainer, cfg.max_tokens, False, assumed)
    t, rows = timing.sft_training(shape, cfg, assumed), count_rows(cfg.data, assumed.rows)
    seconds = t.flops / timing.rank_speed(trainer.ranks, assumed)
    steps = round(cfg.epochs * rows / cfg.batch_examples)
    yield Section("a step", (
        Item("examples", cfg.batch_examples, "", "config"),
        Item("tokens", t.tokens_read, "tokens", "formula", f"{t.tokens:,.0f} of them trained on"),
        Item("FLOPs", t.flops, "FLOP", "formula", "forward, backward" + ", recompute" * trainer.recompute),
        Item("time", seconds, "s", "formula", f"{t.tokens_read / seconds / trainer.ranks:,.0f} tokens/s on each GPU"),
    ))  # fmt: skip
    yield Section("the run", (*_run(steps, "steps", seconds, trainer.ranks, rows), *_checkpoint(shape, trainer.dtype)))


def rl(cfg: RLConfig, assumed: Assumed, gpus: int) -> Iterator[Section]:
    shape = read_shape(cfg.model)
    cfg = timing.laid_out(shape, cfg, gpus, assumed) if gpus else cfg
    longest, reference = cfg.max_total_tokens, cfg.loss.kl > 0
    rank, memory = _rank(shape, cfg.trainer, longest, reference, assumed), assumed.gpu.memory * 1e9
    shared = advice.for_shared(shape, cfg.trainer, cfg.rollout, longest, reference, memory)
    yield about(shape)
    yield replace(rank, advice=(*rank.advice, *shared))
    yield _worker(shape, cfg.rollout, longest, assumed)
    for stage in cfg.stages:
        yield _rl_stage(shape, cfg, stage, assumed)
    yield Section("the run", tuple(_checkpoint(shape, cfg.trainer.dtype)))


def _rl_stage(shape: Shape, cfg: RLConfig, stage: Stage, assumed: Assumed) -> Section:
    step = timing.rl_step(shape, cfg, stage, assumed)
    d, t, speed = step.decoding, step.training, timing.rank_speed(cfg.trainer.ranks, assumed)
    response, batches = assumed.response_of(stage.max_total_tokens), stage.steps // cfg.updates
    sampled = stage.prompts * stage.samples * response
    share = f"{100 * t.tokens / sampled:.1f} % of what is sampled"
    kept = f"the newest {cfg.record.keep} stay" if cfg.record.keep else "all stay: record.keep"
    where = "mapped on the GPU" if cfg.rollout.colocated else "broadcast from rank 0"
    together = "sampling runs beside training" if cfg.max_staleness else "one after the other"
    return Section(f"stage {stage.name}: a rollout batch of {cfg.updates} update{'s' * (cfg.updates > 1)}", (
        Item("responses", stage.prompts * stage.samples, "", "config", f"{stage.prompts} prompts x {stage.samples}"),
        Item("tokens sampled", sampled, "tokens", "formula", f"{response:,.0f} each"),
        Item("tokens trained", t.tokens, "tokens", "formula", f"{'Φ, ' * cfg.budgeted}{share}"),
        Item("its record", 9 * sampled * (cfg.record.every > 0), "B", "formula", f"rollouts/*.npz, 9 a token; {kept}"),
        *_decoding(d),
        Item("rollout", d.seconds, "s", "formula", f"{_flops(d.flops)}, {sampled / d.seconds:,.0f} tokens/s"),
        Item("old log-probs", t.old / speed, "s", "formula", _flops(t.old)),
        Item("reference pass", t.reference / speed, "s", "formula", _flops(t.reference)),
        Item("updates", t.update / speed, "s", "formula", _flops(t.update)),
        Item("weight sync", step.sync_s, "s", "formula", f"{step.sync_bytes / GIB:.1f} GiB, {where}, in "
             f"{shape.tensors:,} tensors that a worker takes in {shape.tensors * timing.LOAD_S:.2f} s"),
        Item("rollout batch", step.seconds, "s", "formula", together),
        Item("balance", timing.balanced(shape, cfg, stage, assumed), "", "formula",
             f"sampling GPUs for every training GPU take equally long; here {_split(cfg)}"),
        *_run(batches, "rollout batches", step.seconds, step.gpus, 1),
    ))  # fmt: skip


def _decoding(d: timing.Decoding) -> list[Item]:
    return [
        Item("decoded together by a worker", d.sequences, "", "formula", f"{d.cached:,} tokens fit into its cache"),
        Item("a decoding step", d.step_s, "s", "formula", f"{d.step_bytes / GIB:.1f} GiB read, {_flops(d.step_flops)}: "
             f"bound by {d.bound}"),
        Item("the longest response alone", d.tail_s, "s", "formula", "no rollout is faster"),
    ]  # fmt: skip


def select_ckpt(cfg: SelectConfig, assumed: Assumed, gpus: int) -> Iterator[Section]:
    model = cfg.model
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():  # a run, or a folder of model folders
        model = str(find_checkpoints(model)[0])
    jobs = [("a checkpoint", count_rows(cfg.probe, assumed.rows), cfg.samples)]
    yield from _sampled(read_shape(model), cfg.rollout, cfg.max_total_tokens, jobs, True, assumed, gpus)


def evaluation(cfg: EvalConfig, assumed: Assumed, gpus: int) -> Iterator[Section]:
    jobs = [(b.name, count_rows(source_of(b, cfg), assumed.rows), samples_of(b, cfg)) for b in cfg.benchmarks]
    yield from _sampled(read_shape(cfg.model), cfg.rollout, cfg.max_total_tokens, jobs, False, assumed, gpus)


def data(cfg: DataConfig, assumed: Assumed, gpus: int) -> Iterator[Section]:
    """Sampling, as if no row were dropped earlier; of models behind servers, whose costs are not ours, how much."""
    rows = sum(count_rows(s, assumed.rows) for s in cfg.sources)
    for phase in phases(cfg):
        if teacher := phase.engine:
            step = sampled(cfg, phase.step)
            jobs = [("its responses", rows, step.samples)]
            model = read_shape(teacher.model)
            sections = _sampled(model, teacher.rollout, step.max_total_tokens, jobs, False, assumed, gpus)
            yield from (replace(s, title=f"{phase.step} by {teacher.name}: {s.title}") for s in sections)
        elif teacher := phase.teacher:
            yield _served(phase.step, teacher, rows, sampled(cfg, phase.step), assumed)


def _served(name: str, teacher: Teacher, rows: int, step: Sampled, assumed: Assumed) -> Section:
    tokens = rows * step.samples * assumed.response_of(step.max_total_tokens)
    asked = Item("responses", rows * step.samples, "", "config", f"{rows} problems x {step.samples}")
    sampled = Item("tokens sampled", tokens, "tokens", "formula", "on GPUs or at prices that are not counted here")
    return Section(f"{name} by {teacher.name}, which {teacher.server.base_url} serves", (asked, sampled) if rows else
                   (_unknown(),))  # fmt: skip


def _sampled(
    shape: Shape, rollout: Rollout, longest: int, jobs: Iterable[tuple[str, int, int]], measured: bool,
    assumed: Assumed, gpus: int,
) -> Iterator[Section]:  # fmt: skip
    """Jobs are (name, problems, samples per problem); with `measured`, entropy is computed on the samples."""
    workers = max(gpus // rollout.tensor_parallel, 1) if gpus else len(rollout.addresses) or rollout.workers
    yield about(shape)
    yield _worker(shape, rollout, longest, assumed)
    for name, rows, samples in jobs:
        if not rows:
            yield Section(name, (_unknown(),))
            continue
        d = timing.decode(shape, rollout, workers, rows, samples, longest, assumed)
        response = assumed.response_of(longest)
        tokens = rows * samples * response
        length = assumed.prompt_of(longest) + response
        forward = rows * samples * sum(shape.cost.forward([length], response))
        entropy_s = forward / timing.rank_speed(1, assumed) * measured
        yield Section(name, (
            Item("responses", rows * samples, "", "config", f"{rows} problems x {samples}"),
            Item("tokens sampled", tokens, "tokens", "formula"),
            *_decoding(d),
            Item("rollout", d.seconds, "s", "formula", f"{_flops(d.flops)}, {tokens / d.seconds:,.0f} tokens/s"),
            *([Item("entropy", entropy_s, "s", "formula", "one forward pass on one rank")] if entropy_s else []),
            *_run(1, "times", d.seconds + entropy_s, workers * rollout.tensor_parallel, rows),
        ))  # fmt: skip


def _rank(shape: Shape, trainer: Trainer, longest: int, reference: bool, assumed: Assumed) -> Section:
    m, p, memory = rank_memory(shape, trainer, longest, reference), trainer.parallel, assumed.gpu.memory * 1e9
    tokens = max(trainer.microbatch_tokens, longest)
    advised = advice.for_rank(shape, trainer, longest, reference, memory)
    verdict = "does not fit" if advised else "fits"
    model, state = checkpoint_bytes(shape, trainer.dtype)
    return Section(f"memory of a rank ({trainer.ranks} in all, ZeRO-{p.zero}, expert {p.expert}, {trainer.dtype})", (
        Item("weights", m.weights, "B", "formula"),
        Item("gradients", m.gradients, "B", "formula"),
        Item("optimizer", m.optimizer, "B", "formula", "AdamW's moments and fp32 master weights"),
        Item("reference model", m.reference, "B", "formula"),
        Item("activations", m.activations, "B", "formula", f"{tokens:,} tokens; " + ("layer inputs" if trainer.recompute
             else "trainer.recompute=true would keep layer inputs only")),
        Item("logits", m.logits, "B", "formula", "a chunk in fp32, and its gradients"),
        *([Item("a layer computed again", m.again, "B", "formula", "after the logits")] if m.again else []),
        Item("buffers", m.buffers, "B", "formula", "DeepSpeed's defaults"),
        Item("the step", m.step, "B", "formula", "flat gradients in fp32; activations, logits, buffers are gone"),
        Item("peak", m.peak, "B", "formula", f"{verdict} in {memory / GIB:.1f} GiB, {SPARE / GIB:g} of them kept free"),
        *([Item("host memory", m.host, "B", "formula", "offloaded")] if m.host else []),
        Item("host memory to save", state / trainer.ranks, "B", "formula", f"a copy of the states until they are "
             f"written; rank 0 {model / GIB:.1f} GiB more, the model's"),
    ), tuple(advised))  # fmt: skip


def _worker(shape: Shape, rollout: Rollout, longest: int, assumed: Assumed) -> Section:
    memory = assumed.gpu.memory * 1e9
    m = worker_memory(shape, rollout, memory)
    length = assumed.prompt_of(longest) + assumed.response_of(longest)
    advised = advice.for_worker(shape, rollout, longest, memory) or advice.for_cache(rollout, m.tokens, length)
    return Section(f"memory of a worker's GPU (tensor_parallel {rollout.tensor_parallel}, {rollout.dtype})", (
        Item("weights", m.weights, "B", "formula"),
        Item("cache", max(m.cache, 0.0), "B", "formula", f"{m.tokens:,} tokens, of which a worker needs up to "
             f"{rollout.concurrent * longest:,}; {WORKSPACE / GIB:g} GiB are vLLM's"),
    ), tuple(advised))  # fmt: skip


def _run(steps: int, unit: str, seconds: float, gpus: int, rows: int) -> list[Item]:
    if not rows:
        return [_unknown()]
    return [
        Item(unit, steps, "", "config"),
        Item("GPUs", gpus, "", "config"),
        Item("duration", steps * seconds, "s", "formula"),
        Item(HOURS, steps * seconds * gpus / 3600, "", "formula"),
    ]


def _checkpoint(shape: Shape, dtype: str) -> list[Item]:
    model, trainer = checkpoint_bytes(shape, dtype)
    return [
        Item("a checkpoint", model, "B", "formula", "the model's files"),
        Item("its trainer state", trainer, "B", "formula", "kept in the newest alone"),
    ]


def _unknown() -> Item:
    return Item("rows", "unknown", "", "config", "the data is not here: say how many with --rows")


def _split(cfg: RLConfig) -> str:
    workers = len(cfg.rollout.addresses) or cfg.rollout.workers
    shared = " on the same GPUs" if cfg.rollout.colocated else ""
    return f"{workers * cfg.rollout.tensor_parallel} : {cfg.trainer.ranks}{shared}"


def _flops(flops: float) -> str:
    return show(Item("", flops, "FLOP", ""))


def count_rows(source: Source, elsewhere: int) -> int:
    """Rows of the source, with `elsewhere` for each file that is not on this machine."""
    total = 0
    for file in source.files:
        if not Path(file).is_file():
            total += elsewhere
        elif file.endswith(".jsonl"):
            total += sum(1 for line in Path(file).open("rb") if line.strip())
        else:
            total += sum(1 for _ in rows_named(file, source.split))
    return min(total, source.limit) if source.limit else total
