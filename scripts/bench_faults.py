"""Kills, stops, fills, damages: does every run end as it would have undisturbed, or say in one line why not?

    python scripts/bench_faults.py OUT --kills 100         the whole set; hours, continues where it was stopped
    python scripts/bench_faults.py OUT --sample            a fixed one of every kind that needs no vLLM; a minute

Each case is a run of a tiny model that is disturbed and then resumed to its end; its metrics (without times), weights,
data or responses are compared with those of a run that nobody disturbed. OUT/cases.jsonl has a line a case, OUT/work
what was left of those that went wrong. Outcomes:

    survived   ended well, every byte that is promised the same
    stopped    refused in one line that names the cause, with nothing lost; then resumed as above
    lost       could not be resumed, or ended with a traceback
    silent     ended well, and other bytes
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from ringrl.data.tasks import problems, teach
from ringrl.data.tiny import build_model
from ringrl.processes import descendants

COMMANDS = ("sft", "rl", "data", "eval")
DEADLINE_S = 900.0  # of one call
KILLS = 5  # a chain of kills and resumptions is one case
VERIFIER = """
def uneven(text, reference):  # what an untrained model could never earn: rewards
    return float(len(text) % 2)
"""
PROCESSES = {"rank": "ringrl.launch.rank", "worker": "ringrl.rollout.vllm_worker", "verifier": "ringrl.rewards.worker"}
VERIFY = {"workers": 1, "max_error_share": 0.0}  # an error, which a killed verifier owes, is judged again by --resume
DISK_MIB = 48
STEPS = ("cleanse", "deduplicate", "decontaminate", "distil", "annotate", "mix")  # of `data`
Case = dict[str, Any]


class Wrong(Exception):
    """A case that went wrong: its outcome, and what was seen."""

    def __init__(self, outcome: str, text: str) -> None:
        super().__init__(text)
        self.outcome = outcome


# ---------------------------------------------------------------- inputs


def build_inputs(folder: Path) -> None:
    """A tiny model, data for every command, and the verifier."""
    if (folder / "done").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = random.Random(0)
    rows = problems("math", 240, 0)
    turns = [[{"role": "user", "content": r["problem"]}, {"role": "assistant", "content": teach(r, rng)}] for r in rows]
    pile = [{**row, "responses": [teach(row, rng)]} for row in rows]
    pile += [{**pile[0], "problem": pile[0]["problem"].replace(" ", "  ")}, {**pile[1], "answer": ""}]
    files = {"sft": [{"messages": t} for t in turns[:96]], "val": [{"messages": t} for t in turns[96:104]],
             "rl": [{**r, "domain": "uneven"} for r in rows[:48]], "bench": rows[48:64], "pile": pile}  # fmt: skip
    for name, some in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    (folder / "verifier.py").write_text(VERIFIER)
    build_model(folder / "model", (m["content"] for turn in turns for m in turn), 0, layers=2, hidden=64,
                moe_intermediate=64)  # fmt: skip
    (folder / "done").touch()


def config(command: str, inputs: Path, run: Path, vllm: bool) -> dict[str, Any]:
    trainer = {"dtype": "float32", "attention": "packed", "microbatch_tokens": 512, "threads": 1}
    rollout = {"engine": "vllm" if vllm else "transformers", "dtype": "float32", "concurrent": 8, "kv_cache_mib": 32,
               "parity_limit": 1e-3}  # fmt: skip
    base: dict[str, Any] = {"run": str(run), "model": str(inputs / "model")}

    def source(name: str) -> dict[str, Any]:
        return {"files": [str(inputs / f"{name}.jsonl")]}

    if command == "sft":
        return {**base, "data": source("sft"), "validation": source("val"), "trainer": trainer, "epochs": 2,
                "optimizer": {"lr": 1e-3, "schedule": "cosine"}, "batch_examples": 12, "save_every": 2}  # fmt: skip
    if command == "rl":
        stage = {"name": "math", "data": [source("rl")], "steps": 8, "prompts": 4, "samples": 4, "max_total_tokens": 64,
                 "budget": {"phi": 200, "flat_groups": "keep"}}  # fmt: skip
        verifier = {"verifier": f"{inputs}/verifier.py:uneven", "keys": ["answer"]}
        many = {"workers": 2} if vllm else {}
        return {**base, "stages": [stage], "domains": {"uneven": verifier}, "prompting": {"suffix": {}},
                "trainer": {**trainer, "ranks": 2, "parallel": {"expert": 2}}, "rollout": {**rollout, **many},
                "save_every": 2, "optimizer": {"lr": 1e-3}, "verify": VERIFY}  # fmt: skip
    if command == "data":
        return {"run": str(run), "sources": [{"name": "pile", **source("pile")}], "shard_rows": 8, "workers": 2,
                "steps": list(STEPS), "decontaminate": {"benchmarks": [], "files": [str(inputs / "bench.jsonl")]},
                "mix": {"outputs": [{"name": "sft", "form": "conversations", "rows": 80}, {"name": "rl"}]}}  # fmt: skip
    bench = {"name": "mine", "data": str(inputs / "bench.jsonl"), "samples": 2}
    return {**base, "benchmarks": [bench], "max_total_tokens": 96, "rollout": {**rollout, "engine": "transformers"},
            "verify": VERIFY}  # fmt: skip


# ---------------------------------------------------------------- runs


class Bench:
    def __init__(self, out: Path, vllm: bool) -> None:
        self.out, self.vllm, self.inputs = out, vllm, out / "inputs"
        build_inputs(self.inputs)
        self.expected: dict[str, dict[str, str]] = {}  # command -> file -> hash
        self.seconds: dict[str, float] = {}  # command -> of an undisturbed run

    def undisturbed(self, command: str) -> None:
        """Runs a command once, for all cases of it."""
        if command in self.expected:
            return
        run = self.out / "undisturbed" / command
        began = time.monotonic()
        if not (run / "finished.json").is_file():
            shutil.rmtree(run, ignore_errors=True)
            code, text = self.finish(self.start(command, run))
            assert code == 0, text
            (run / "seconds").write_text(str(time.monotonic() - began))
        self.expected[command], self.seconds[command] = content(run), float((run / "seconds").read_text())

    def start(self, command: str, run: Path, *more: str, **settings: Any) -> subprocess.Popen[str]:
        file = run.with_name(f"{run.name}.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump({**config(command, self.inputs, run, self.vllm), **settings}))
        log = run.with_name(f"{run.name}.log").open("w")
        with log:
            return subprocess.Popen([sys.executable, "-m", "ringrl", command, str(file), *more], stdout=log,
                                    stderr=subprocess.STDOUT, text=True, start_new_session=True)  # fmt: skip

    def finish(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """(exit code, what was shown)."""
        try:
            code = process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            kill([process.pid, *descendants(process.pid)])
            raise Wrong("lost", f"no end after {DEADLINE_S:g} s") from None
        args = process.args
        assert isinstance(args, list)
        return code, Path(str(args[4])).with_suffix(".log").read_text()

    def resumes(self, command: str, run: Path, *more: str) -> None:
        """Resumes a run to its end, and compares."""
        code, text = self.finish(self.start(command, run, "--resume", *more))
        if code:
            raise Wrong("lost", f"code {code}: {text[-1000:]}")
        got, expected = content(run), self.expected[command]
        differ = [name for name in sorted(got.keys() | expected.keys()) if got.get(name) != expected.get(name)]
        if differ:
            raise Wrong("silent", f"differ: {', '.join(differ)}")

    def refused(self, command: str, run: Path, named: str, *more: str, **settings: Any) -> str:
        """Resumes a run that must be refused in one line with `named` in it, and returns it."""
        code, text = self.finish(self.start(command, run, "--resume", *more, **settings))
        said = [line for line in text.splitlines() if line.startswith("error")]
        if code == 0:
            raise Wrong("silent", f"not refused, expected one line with {named}")
        if "Traceback" in text or len(said) != 1 or named not in said[0]:
            raise Wrong("lost", f"code {code}, expected one line with {named}: {text[-1000:]}")
        return said[0]

    def until_checkpoint(self, command: str, run: Path, count: int) -> None:
        """A run that was killed when it had this many checkpoints."""
        process = self.start(command, run)
        wait(process, lambda: len(list((run / "checkpoints").glob("step_*"))) >= count)
        kill([process.pid, *descendants(process.pid)])
        process.wait()


def content(run: Path) -> dict[str, str]:
    """Hashes of what a run promises to make the same again, whatever happened on the way."""
    found = {}
    weights = sorted((run / "checkpoints").glob("step_*/model.safetensors"))
    for file in [*weights, *run.glob("data/*.jsonl"), *run.glob("steps/*/dropped.jsonl"), *run.glob("responses/*")]:
        found[str(file.relative_to(run))] = hashlib.sha256(file.read_bytes()).hexdigest()
    for file in run.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        timeless = [{k: v for k, v in row.items() if "time_" not in k and k != "tokens_per_s"} for row in rows]
        found[file.name] = hashlib.sha256(json.dumps(timeless).encode()).hexdigest()
    return found


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise Wrong("lost", f"ended with {process.poll()} before it could be disturbed")
        time.sleep(0.01)


def find(process: subprocess.Popen[str], kind: str) -> list[int]:
    """Process ids of a run, by what they do."""
    found = []
    for pid in descendants(process.pid):
        with suppress(OSError):
            if PROCESSES[kind] in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
                found.append(pid)
    return sorted(found)


def steps(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


# ---------------------------------------------------------------- faults


def random_kills(bench: Bench, command: str, run: Path, rng: random.Random, kills: int) -> Case:
    """Kills at random moments; a worker that is killed comes back by itself, all else ends the run, to be resumed."""
    done: list[str] = []
    kinds = {"rl": ("group", "launcher", "rank", "worker" if bench.vllm else "rank", "verifier"),
             "eval": ("group", "launcher", "rank", "verifier")}.get(command, ("group", "launcher", "rank"))  # fmt: skip
    while len(done) < kills and not (run / "finished.json").is_file():
        process = bench.start(command, run, "--resume")
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 0.8 * bench.seconds[command]))
        kind = rng.choice(kinds)
        pids = {"group": [process.pid, *descendants(process.pid)], "launcher": [process.pid]}.get(kind)
        pids = pids if pids is not None else rng.sample(found := find(process, kind), min(1, len(found)))
        if process.poll() is None and pids:
            kill(pids)
            done.append(kind)
        code, text = bench.finish(process)
        if has_traceback(text):
            raise Wrong("lost", f"killed {kind}: {text[-1000:]}")
        if code == 1 and kind == "rank" and "ended with -9" not in text:
            raise Wrong("lost", f"killed {kind}, and it is not said: {text[-1000:]}")
    bench.resumes(command, run)
    return {"kills": done}


def has_traceback(text: str) -> bool:
    """Whether one is shown but in the end of a log."""
    return "Traceback" in text.partition("last lines of")[0]


def stop(bench: Bench, command: str, run: Path, rng: random.Random, kind: str, index: int) -> Case:
    """SIGSTOP: within its deadline the run goes on without that process, or ends and says who did not answer."""
    limits = {"deadline_s": 15, "update_deadline_s": 15, "start_deadline_s": 120 if bench.vllm else 5}
    base = config(command, bench.inputs, run, bench.vllm)
    settings = {"rollout": {**base["rollout"], **limits}, "verify": {**base["verify"], "deadline_s": 5}}
    process = bench.start(command, run, **settings)
    wait(process, lambda: steps(run) >= 2)
    [pid] = find(process, kind)[index : index + 1]
    os.kill(pid, signal.SIGSTOP)
    code, text = bench.finish(process)
    if has_traceback(text):
        raise Wrong("lost", text[-1000:])
    if code and kind == "rank" and f"process {pid} (stopped), has not answered for" not in text:
        raise Wrong("lost", f"it is not said who did not answer: {text[-1000:]}")
    bench.resumes(command, run)
    return {"outcome": "stopped" if code else "survived", "text": text.strip().splitlines()[-1]}


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(bench: Bench, command: str, run: Path, rng: random.Random) -> Case:
    """The disk fills at a random moment, is emptied, and the run goes on."""
    with disk(run.with_name(f"{run.name}.disk")) as folder:
        inner = folder / "run"
        process = bench.start(command, inner)
        wait(process, lambda: (inner / "logs").is_dir())
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, bench.seconds[command]))
        with suppress(OSError), (folder / "filler").open("wb") as filler:
            while True:
                filler.write(bytes(1 << 12))
        code, text = bench.finish(process)
        if has_traceback(text) or (code and "No space left on device" not in text):
            raise Wrong("lost", f"code {code}: {text[-1000:]}")
        (folder / "filler").unlink()
        bench.resumes(command, inner)
        return {"outcome": "stopped" if code else "survived", "text": text.strip().splitlines()[-1]}


def read_only(bench: Bench, command: str, run: Path, rng: random.Random) -> Case:
    with disk(run.with_name(f"{run.name}.disk")) as folder:
        inner = folder / "run"
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        file = run.with_name("read_only.yaml")
        file.write_text(yaml.safe_dump(config(command, bench.inputs, inner, bench.vllm)))
        args = [sys.executable, "-m", "ringrl", command, str(file)]
        done = subprocess.run(args, capture_output=True, text=True, check=False)
        said = done.stderr.strip().splitlines()
        if done.returncode != 2 or len(said) != 1 or "Read-only file system" not in said[0]:
            raise Wrong("lost", f"code {done.returncode}: {done.stderr[-1000:]}")
        return {"outcome": "stopped", "text": said[0]}


def damage(bench: Bench, command: str, run: Path, rng: random.Random, pattern: str) -> Case:
    """64 bytes of a file of the newest checkpoint change: refused by its name; the one before takes over."""
    bench.until_checkpoint(command, run, 2)
    newest, before = [p for p in sorted((run / "checkpoints").glob("step_*")) if (p / "trainer").is_dir()][:-3:-1]
    file = rng.choice(sorted(newest.glob(pattern)))
    whole = bytearray(file.read_bytes())
    at = rng.randrange(max(len(whole) - 64, 1))
    whole[at : at + 64] = bytes(b ^ 0x40 for b in whole[at : at + 64])
    file.write_bytes(whole)
    text = bench.refused(command, run, str(newest if file.name == "files.json" else file))
    bench.resumes(command, run, "--from-checkpoint", before.name.removeprefix("step_"))
    return {"outcome": "stopped", "text": text}


def broken_lines(bench: Bench, command: str, run: Path, rng: random.Random, how: str) -> Case:
    """Lines of metrics.jsonl that a checkpoint counts on."""
    bench.until_checkpoint(command, run, 2)
    file = run / "metrics.jsonl"
    before = file.read_bytes()
    rows = before.splitlines(keepends=True)
    if how == "cut":
        rows[1] = rows[1][:30] + b"\n"
    else:
        del rows[1]
    file.write_bytes(b"".join(rows))
    text = bench.refused(command, run, str(file))
    file.write_bytes(before)
    bench.resumes(command, run)
    return {"outcome": "stopped", "text": text}


def changed_in_place(bench: Bench, command: str, run: Path, rng: random.Random, name: str) -> Case:
    """Data or a model under the same name, with other contents."""
    own, inputs = run.with_name(f"{run.name}.inputs"), bench.inputs
    shutil.copytree(inputs, own)
    bench.inputs = own
    try:
        bench.until_checkpoint(command, run, 1)
        file = own / name
        before = file.read_bytes()
        changed = before.replace(b"7", b"8") if name.endswith(".jsonl") else before[:-1] + bytes([before[-1] ^ 1])
        file.write_bytes(changed)
        text = bench.refused(command, run, str(file))
        file.write_bytes(before)
        bench.resumes(command, run)
    finally:
        bench.inputs = inputs
    return {"outcome": "stopped", "text": text}


def two_at_once(bench: Bench, command: str, run: Path, rng: random.Random) -> Case:
    first = bench.start(command, run)
    wait(first, lambda: (run / "lineage.json").is_file())
    os.kill(first.pid, signal.SIGSTOP)  # so that it does not end before the second has begun
    second = run.with_name(f"{run.name}.yaml")
    args = [sys.executable, "-m", "ringrl", command, str(second), "--resume"]
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    os.kill(first.pid, signal.SIGCONT)
    said = done.stderr.strip().splitlines()
    if done.returncode != 2 or len(said) != 1 or f"process {first.pid} on " not in said[0]:
        raise Wrong("lost", f"the second: code {done.returncode}: {done.stderr[-1000:]}")
    code, text = bench.finish(first)
    if code:
        raise Wrong("lost", f"the first: code {code}: {text[-1000:]}")
    bench.resumes(command, run)
    return {"outcome": "stopped", "text": said[0]}


def leftovers(bench: Bench, command: str, run: Path, rng: random.Random) -> Case:
    """What a killed run leaves in /dev/shm and /tmp is gone when the next one has begun."""

    def left() -> set[Path]:
        return {p for place in ("/dev/shm", "/tmp") for p in Path(place).glob("ringrl.*")}

    before = left()
    process = bench.start(command, run)
    wait(process, lambda: find(process, "verifier") and len(left() - before) >= 2)
    kill([process.pid, *descendants(process.pid)])
    process.wait()
    ours = left() - before
    bench.resumes(command, run)
    if still := ours & left():
        raise Wrong("lost", f"left: {', '.join(map(str, still))}")
    return {"text": f"{len(ours)} folders"}


def killed_in(bench: Bench, command: str, run: Path, rng: random.Random, steps: tuple[str, ...]) -> Case:
    """`data` is killed at a random moment of one step after another, and resumed each time."""
    whole = bench.out / "undisturbed" / command
    done = []
    for step in steps:
        [summary] = whole.glob(f"steps/*_{step}/summary.json")
        process = bench.start(command, run, "--resume")
        folder = run / "steps" / summary.parent.name
        wait(process, folder.exists)
        time.sleep(rng.uniform(0, json.loads(summary.read_text())["seconds"]))
        if process.poll() is None:
            kill([process.pid, *descendants(process.pid)])
            done.append(f"{step}, {'after' if (folder / 'summary.json').is_file() else 'in'} it")
        process.wait()
    bench.resumes(command, run)
    return {"kills": done}


def changed_input(bench: Bench, command: str, run: Path, rng: random.Random, how: str) -> Case:
    """The data or what is read of it changes between a kill in a random step and --resume."""
    step = rng.choice(("read", *STEPS))
    file = bench.inputs / "pile.jsonl"  # changed where it is, since dropped rows say where they stood
    before = file.read_bytes()
    try:
        process = bench.start(command, run)
        wait(process, lambda: any(run.glob(f"steps/*_{step}")))
        kill([process.pid, *descendants(process.pid)])
        process.wait()
        lines = before.splitlines(keepends=True)
        settings: dict[str, Any] = {}
        if how == "a line inserted":
            lines.insert(rng.randrange(len(lines)), lines[7])
        elif how == "file replaced":
            lines = [(bench.inputs / "bench.jsonl").read_bytes()]
        else:
            source = {"name": "pile", "files": [str(file)], "columns": {"problem": "answer", "answer": "problem"}}
            settings = {"sources": [source]}
        file.write_bytes(b"".join(lines))
        text = bench.refused(command, run, "sources" if settings else str(file), **settings)
        file.write_bytes(before)
        bench.resumes(command, run)
    finally:
        file.write_bytes(before)
    return {"outcome": "stopped", "text": text}


# ---------------------------------------------------------------- cases

DAMAGED = ("trainer/engine/*optim_states.pt", "trainer/engine/*model_states.pt", "model.safetensors",
           "trainer/state.json", "trainer/rng_0.safetensors", "config.json", "trainer/files.json")  # fmt: skip


def cases(kills: int, vllm: bool) -> Iterator[tuple[str, str, Callable[..., Case], tuple[Any, ...]]]:
    """(name, command, what happens, its arguments) of each case, the quick ones first."""
    for command in ("data", "sft", "eval", "rl"):
        for i in range(kills):  # of which those are run that are needed for so many kills
            yield f"{command}: SIGKILL {i}", command, random_kills, (KILLS,)
    for pattern in DAMAGED:
        yield f"sft: damaged {pattern}", "sft", damage, (pattern,)
    yield "rl: damaged trainer/unfinished.safetensors", "rl", damage, ("trainer/unfinished.safetensors",)
    yield "rl: damaged trainer/engine/*", "rl", damage, ("trainer/engine/*states.pt",)
    for how in ("cut", "gone"):
        yield f"sft: a line of metrics.jsonl {how}", "sft", broken_lines, (how,)
    yield "sft: data changed in place", "sft", changed_in_place, ("sft.jsonl",)
    yield "rl: verifier changed in place", "rl", changed_in_place, ("verifier.py",)
    yield "sft: model changed in place", "sft", changed_in_place, ("model/model.safetensors",)
    for command in COMMANDS:
        yield f"{command}: two at once", command, two_at_once, ()
        yield f"{command}: full disk", command, full_disk, ()
    for command in ("sft", "data"):
        yield f"{command}: read-only disk", command, read_only, ()
    for n in range(5):
        yield f"data: killed in every step {n}", "data", killed_in, (("read", *STEPS),)
    for how in ("a line inserted", "file replaced", "columns changed"):
        for n in range(3):
            yield f"data: {how} {n}", "data", changed_input, (how,)
    yield "rl: leftovers", "rl", leftovers, ()
    for kind, index in (("rank", 0), ("rank", 1), ("verifier", 0), *((("worker", 0),) if vllm else ())):
        yield f"rl: SIGSTOP {kind} {index}", "rl", stop, (kind, index)


SAMPLE = ("data: SIGKILL 0", "sft: damaged trainer/engine/*optim_states.pt", "sft: two at once")


def perform(bench: Bench, name: str, command: str, fault: Callable[..., Case], args: tuple[Any, ...]) -> Case:
    bench.undisturbed(command)
    began = time.monotonic()
    run = bench.out / "work" / name.replace(" ", "_").replace("/", "_").replace(":", "").replace("*", "")
    shutil.rmtree(run.parent, ignore_errors=True)
    try:
        case = {"outcome": "survived", **fault(bench, command, run, random.Random(name), *args)}
        shutil.rmtree(run.parent, ignore_errors=True)
    except Wrong as e:
        case = {"outcome": e.outcome, "text": str(e)}
        with suppress(FileNotFoundError):
            shutil.move(run.parent, bench.out / "wrong" / run.name)
    return {"name": name, "command": command, "fault": name.partition(": ")[2].rstrip("0123456789 "), **case,
            "seconds": round(time.monotonic() - began, 1)}  # fmt: skip


def kills_of(command: str, done: list[Case]) -> int:
    return sum(len(c.get("kills", [])) for c in done if c["command"] == command)


def table(done: list[Case]) -> str:
    outcomes = ("survived", "stopped", "lost", "silent")
    lines = [
        "| command | fault | tried | survived | stopped in one line | lost | silent |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for key in dict.fromkeys((c["command"], c["fault"]) for c in done):
        some = [c for c in done if (c["command"], c["fault"]) == key]
        weights = [len(c["kills"]) if "kills" in c else 1 for c in some]  # nobody may have been killed
        count: Counter[str] = Counter()
        for c, n in zip(some, weights, strict=True):
            count[c["outcome"]] += n
        lines.append(f"| {key[0]} | {key[1]} | {sum(weights)} | " + " | ".join(str(count[o]) for o in outcomes) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="vllm", help="of rl")
    parser.add_argument("--sample", action="store_true", help="a few cases, with the engine transformers")
    parser.add_argument("--only", default="", help="cases whose names begin so")
    options = parser.parse_args()
    vllm = options.engine == "vllm" and not options.sample
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    bench = Bench(options.out.absolute(), vllm)
    file = bench.out / "cases.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for name, command, fault, args in cases(options.kills, vllm):
        wanted = name in SAMPLE if options.sample else name.startswith(options.only)
        if not wanted or name in {c["name"] for c in done}:
            continue
        if fault is random_kills and kills_of(command, done) >= options.kills / len(COMMANDS):
            continue
        done.append(perform(bench, name, command, fault, args))
        with file.open("a") as lines:
            lines.write(json.dumps(done[-1]) + "\n")
        print(json.dumps(done[-1]), flush=True)
    print(table(done))
    return int(any(c["outcome"] in ("lost", "silent") for c in done))


if __name__ == "__main__":
    sys.exit(main())
