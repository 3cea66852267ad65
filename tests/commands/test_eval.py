"""`ringrl eval` on a scripted server that answers from a key with a known error rate: numbers, resuming, faults."""

from __future__ import annotations

import json
import math
import signal
import statistics
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ringrl.commands.eval import Collector, main
from ringrl.commands.eval_tools import check_contamination, rejudge
from ringrl.config.commands import EvalConfig
from ringrl.domains import Domains
from ringrl.errors import RingError, UserError
from ringrl.evals.codeforces import rating_of
from ringrl.evals.results import tasks_of
from ringrl.launch.opening import Origin, Resume, open_run
from ringrl.launch.rank import Context
from ringrl.rewards import Verdict
from ringrl.rollout.respond import Ask
from tests.conftest import lines, ringrl, ringrl_until, write_yaml

SHARED = Path(__file__).parents[3] / "shared" / "data" / "math"
RIGHT = 7  # of ten seeds


class Script:
    """An OpenAI-compatible server on this machine. A response is right when its seed says so, and no other thing."""

    def __init__(self, key: dict[str, str]) -> None:
        self.key = key  # problem text -> answer
        self.asked: Counter[int] = Counter()  # seeds
        self.seen: list[dict[str, Any]] = []
        self.faults: dict[int, list[tuple[int, dict[str, str]]]] = {}  # nth request -> status and headers
        self.cuts = True  # whether some answers are cut off
        self.stop_after = math.inf  # requests, after which it refuses
        self.headers: list[str] = []
        self.lock = threading.Lock()
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                script.headers.append(self.headers.get("Authorization", ""))
                status, headers, answer = script.answer(self.path, body)
                said = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(said))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        with self.lock:
            self.seen.append(body)
            n, seed = len(self.seen), body["seed"]
            if path != "/v1/chat/completions" or n > self.stop_after:
                return 404, {}, {"error": "no such model"}
            if self.faults.get(n):
                return *self.faults[n].pop(), {"error": "busy"}
            self.asked[seed] += 1
        said = self.says(body["messages"][-1]["content"].rpartition("\n")[0], seed)
        return 200, {}, completion(said, seed if self.cuts else 1)

    def says(self, problem: str, seed: int) -> str:
        answer = self.key[problem]
        return answer if right(seed) else str(int(answer) + 1 + seed % 3)


def right(seed: int) -> bool:
    return seed % 10 < RIGHT


def completion(answer: str, seed: int) -> dict[str, Any]:
    cut = seed % 11 == 0
    message = {"content": "" if cut else f"It is \\boxed{{{answer}}}.", "reasoning_content": "hm"}
    usage = {"completion_tokens": 10 + seed % 5}
    return {"choices": [{"message": message, "finish_reason": "length" if cut else "stop"}], "usage": usage}


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """A server and a benchmark in `tmp_path`: twelve problems it knows, one of whose verifier can know nothing."""
    key = {f"What is {i} + {i}?": str(2 * i) for i in range(12)}
    rows = [{"id": f"p{i}", "problem": q, "answer": a} for i, (q, a) in enumerate(key.items())]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "broken.jsonl").write_text(json.dumps({"id": "broken", "domain": "vague", "problem": "Do it."}) + "\n")
    (tmp_path / "vague.py").write_text("def judge(response, row):\n    raise ValueError('nobody knows')\n")
    served = Script(key | {"Do it.": "0"})
    yield served
    served.server.shutdown()
    served.server.server_close()


def config(script: Script, folder: Path, name: str, k: int = 8, *benches: str, **more: Any) -> EvalConfig:
    server = {"base_url": script.url, "concurrent": 4, "retries": 2, "deadline_s": 60}
    given = [{"name": b, "data": str(folder / f"{b}.jsonl")} for b in benches or ("sums", "broken")]
    raw = {"run": str(folder / name), "model": "scripted", "benchmarks": given, "samples": k, "server": server}
    raw["domains"] = {"vague": {"verifier": f"{folder / 'vague.py'}:judge", "suffix": "Go."}}
    return EvalConfig.model_validate(raw | {"verify": {"workers": 1, "max_error_share": 1.0}} | more)


def evaluate(cfg: EvalConfig, resume: bool = False) -> dict[str, Any]:
    run = open_run(cfg, Origin(cfg.model), Resume() if resume else None)
    assert main(Context.of_rank(run, {}, talks=False)) == 0
    return json.loads((run.path / "results.json").read_text())


def seeds(cfg: EvalConfig, name: str) -> dict[str, list[int]]:
    task = next(t for t in tasks_of(cfg) if t.name == name)
    return {p["id"]: [Ask(name, p, i).seed(cfg.seed) for i in range(task.samples)] for p in task.problems}


def closed_form(groups: list[list[int]]) -> dict[str, float]:
    """From the seeds alone: who is right, who was cut."""
    rights = [sum(right(s) and s % 11 != 0 for s in g) for g in groups]
    k, n = len(groups[0]), len(groups)
    p = [c / k for c in rights]
    return {
        "score": statistics.fmean(p),
        "se": statistics.stdev(p) / math.sqrt(n),
        "se_samples": math.sqrt(sum(x * (1 - x) / (k - 1) for x in p)) / n,
        "pass_k": statistics.fmean(float(c > 0) for c in rights),
        "pass_2": statistics.fmean(1 - math.comb(k - c, 2) / math.comb(k, 2) for c in rights),
        "truncated_frac": statistics.fmean(s % 11 == 0 for g in groups for s in g),
        "length_mean": statistics.fmean(10 + s % 5 for g in groups for s in g),
    }


def test_numbers_equal_the_closed_form_and_are_the_same_after_a_stop_and_a_rescore(script: Script, tmp_path: Path):
    cfg = config(script, tmp_path, "whole")
    whole = evaluate(cfg)
    sums, broken = whole["benchmarks"]["sums"], whole["benchmarks"]["broken"]
    expected = closed_form(list(seeds(cfg, "sums").values()))
    found = {"pass_2": sums["pass"]["2"]} | sums
    assert {k: found[k] for k in expected} == pytest.approx(expected)
    assert (sums["errors"], sums["k"], sums["n"]) == (0, 8, 12)
    chance = RIGHT / 10 * 10 / 11
    assert abs(sums["score"] - chance) < 4 * math.sqrt(chance * (1 - chance) / 96)
    assert (broken["errors"], broken["score"], broken["problems"][0]["total"]) == (8, 0.0, 8)
    assert sum(script.asked.values()) == len(script.asked) == 13 * 8
    asked = {"model": "scripted", "temperature": 1.0, "top_p": 0.95, "max_tokens": 32768}
    assert asked.items() <= script.seen[0].items()

    rows = lines(tmp_path / "whole" / "responses" / "sums.jsonl")
    assert [(r["id"], r["sample"]) for r in rows] == [(f"p{i}", j) for i in range(12) for j in range(8)]
    texts = {r["text"] for r in rows if r["finish"] == "length"}
    assert texts == {"<think>hm"}  # a thought that was cut is open

    script.stop_after = len(script.seen) + 40
    again = config(script, tmp_path, "again")
    with pytest.raises(UserError, match=r"/v1/chat/completions: status 404: .*no such model"):
        evaluate(again)
    kept = {(b, r["id"], r["sample"]) for b in ("sums", "broken") for r in finished(tmp_path / "again", b)}
    assert 36 <= len(kept) <= 40  # of four under way
    script.stop_after = math.inf
    before = Counter(script.asked)
    assert evaluate(again, resume=True) == whole
    anew = script.asked - before
    assert sum(anew.values()) == 13 * 8 - len(kept)
    assert (tmp_path / "again" / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()

    damaged = [{**r, "reward": 0.0, "verdict": "fail"} for r in rows]
    file = tmp_path / "whole" / "responses" / "sums.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in damaged))
    asked = len(script.seen)
    assert rejudge(str(tmp_path / "whole")) == 0
    assert json.loads((tmp_path / "whole" / "results.json").read_text()) == whole
    assert lines(file) == rows
    assert len(script.seen) == asked
    assert (tmp_path / "whole" / "report.html").is_file()


def finished(run: Path, bench: str) -> list[dict[str, Any]]:
    return [r for r in lines(run / "responses" / f"{bench}.jsonl") if "text" in r]


def test_what_passes_is_tried_again_and_what_does_not_is_refused(script: Script, tmp_path: Path, monkeypatch: Any):
    pauses: list[float] = []
    monkeypatch.setattr("ringrl.http.sleep", pauses.append)
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    script.faults = {2: [(429, {"Retry-After": "3"})], 5: [(503, {})]}
    results = evaluate(config(script, tmp_path, "a", 1, "sums"))
    assert results["benchmarks"]["sums"]["n"] == 12
    assert len(pauses) == 2
    assert any(1.5 <= p <= 3 for p in pauses)
    assert set(script.headers) == {"Bearer sesame"}
    script.faults = {n: [(500, {})] for n in range(1, 1000)}
    with pytest.raises(RingError, match=r"3 attempts failed, the last with status 500.*kept for --resume"):
        evaluate(config(script, tmp_path, "b", 1, "sums"))
    nobody = config(script, tmp_path, "c", 1, "sums", server={"base_url": "http://127.0.0.1:9/v1", "retries": 0})
    with pytest.raises(RingError, match="1 attempts failed, the last with ConnectError"):
        evaluate(nobody)


def test_a_server_that_refuses_costs_no_response_that_is_there(script: Script, tmp_path: Path):
    """Through the command line, which removes the runs of user errors that came to nothing."""
    raw = {"run": str(tmp_path / "run"), "model": "m", "server": {"base_url": script.url, "concurrent": 2}}
    bench = {"name": "sums", "data": str(tmp_path / "sums.jsonl"), "samples": 4}
    cfg = write_yaml(tmp_path / "eval.yaml", raw | {"benchmarks": [bench], "verify": {"workers": 1}})
    script.stop_after = 20
    result = ringrl("eval", cfg)
    assert (result.code, "Traceback" in result.text) == (2, False), result.text
    assert f"error {script.url}/chat/completions: status 404: " in result.text
    kept = len(finished(tmp_path / "run", "sums"))
    assert 18 <= kept <= 20
    script.stop_after = math.inf
    asked = len(script.seen)
    result = ringrl("eval", cfg, "--resume")
    assert result.code == 0, result.text
    assert len(script.seen) - asked == 48 - kept


def test_a_k_that_no_estimate_exists_for_is_one_line(script: Script, tmp_path: Path):
    with pytest.raises(UserError, match=r"^pass_k: got 9, expected from 1 to 8, the samples of sums$"):
        evaluate(config(script, tmp_path, "a", pass_k=[9]))


def test_too_many_errors_of_the_verifier_give_no_score_and_are_judged_again(script: Script, tmp_path: Path):
    contest = {"contest": "1", "problems": {"broken": 500}, "standings": [[1500, 500], [1300, 0]]}
    (tmp_path / "contests.jsonl").write_text(json.dumps(contest) + "\n")
    bench = {"name": "broken", "data": str(tmp_path / "broken.jsonl"), "contests": str(tmp_path / "contests.jsonl")}
    cfg = config(script, tmp_path, "a", 8, benchmarks=[bench], verify={"workers": 1})
    with pytest.raises(RingError, match=r"broken: the verifiers failed on 8 of 8 .*nobody knows.*--resume judges"):
        evaluate(cfg)
    assert not (tmp_path / "a" / "results.json").exists()
    mended = {"id": "broken", "domain": "code", "problem": "Do it.", "tests": [{"input": "", "output": "1"}]}
    (tmp_path / "broken.jsonl").write_text(json.dumps(mended) + "\n")
    asked = len(script.seen)
    results = evaluate(cfg, resume=True)["benchmarks"]["broken"]
    assert (results["errors"], results["score"]) == (0, 0.0)
    assert results["codeforces"]["rating"] == pytest.approx(rating_of(0, [(1500, 500), (1300, 0)]))
    assert len(script.seen) == asked


def test_a_verdict_that_arrives_while_they_are_looked_through_is_not_lost(script: Script, tmp_path: Path):
    class Late(Future[Verdict]):
        looked = 0

        def done(self) -> bool:
            self.looked += 1
            return self.looked > 1

    run = open_run(config(script, tmp_path, "a"), Origin(), None)
    (run.path / "responses").mkdir()
    found: dict[str, Any] = {"sums": {}}
    collector = Collector(Context.of_rank(run, {}, talks=False), None, Domains(), [], found)  # type: ignore[arg-type]
    collector.pending = [(Ask("sums", {"id": "one"}, 0), Late())]
    collector.pending[0][1].set_result(Verdict("pass", "exact"))
    for wait in (False, True):
        collector.settle(wait)
    assert found["sums"]["one", 0]["verdict"] == "pass"


FOUR = [("4", True), ("(1+x^2)^3", False), ("2^{2^{2^{3}}}", False), (r"\frac{8}{2}", True)]


def test_an_answer_that_is_wrong_stays_in_the_score(script: Script, tmp_path: Path):
    """References that look like towers of powers are no errors: four problems all answered 4, two of them rightly."""
    rows = [{"id": f"p{i}", "problem": f"Four {i}?", "answer": answer} for i, (answer, _) in enumerate(FOUR)]
    (tmp_path / "four.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script.key |= {row["problem"]: "4" for row in rows}
    script.says = lambda problem, seed: "4"  # type: ignore[method-assign]
    cfg = config(script, tmp_path, "four", 1, "four")
    script.cuts = False
    four = evaluate(cfg)["benchmarks"]["four"]
    assert (four["score"], four["score_without_errors"], four["errors"]) == (0.5, 0.5, 0)
    assert [p["passed"] for p in four["problems"]] == [int(right) for _, right in FOUR]


NONSENSE = "\n```python\ndef solve(x):\n    return 'nonsense'\n```\n"
ASSERTED = {
    "JSON text of asserts": json.dumps(["assert solve(1) == 2", "assert solve(2) == 3"]),
    "pytest functions": "def test_one():\n    assert solve(1) == 2",
    "a unittest case": "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
    "        self.assertEqual(solve(1), 2)",
    "check(candidate)": "def check(candidate):\n    assert candidate(1) == 2",
    "a doctest": ">>> solve(1)\n2",
}
UNASSERTED = {
    "solve(1) == 2": "it compares, and drops the result",
    "assert (solve(1) == 2, 'no')": "a tuple is always true",
    "solve(1)": "nothing in them asserts anything",
}


def test_nonsense_passes_no_tests_in_whatever_form(script: Script, tmp_path: Path):
    rows = [{"id": form, "domain": "code", "problem": form, "tests": tests} for form, tests in ASSERTED.items()]
    (tmp_path / "code.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script.says = lambda problem, seed: NONSENSE  # type: ignore[method-assign]
    code = evaluate(config(script, tmp_path, "code", 2, "code"))["benchmarks"]["code"]
    assert (code["score"], code["errors"]) == (0.0, 0)
    for tests, said in UNASSERTED.items():
        (tmp_path / "code.jsonl").write_text(json.dumps(rows[0] | {"tests": [tests]}) + "\n")
        with pytest.raises(UserError, match=rf"code.jsonl:1: .*{said}"):
            tasks_of(config(script, tmp_path, "none", 2, "code"))


def test_contamination_names_problems_and_where_they_stand(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    words = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}q" for i in range(90)]
    known, fresh, short, near = " ".join(words[:26]), " ".join(words[30:60]), "What is one plus one?", words[60:84]
    problems = [{"problem": p, "answer": "1"} for p in (known, fresh, short, " ".join(near))]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in problems))
    train = [
        {
            "messages": [
                {"role": "user", "content": "no"},
                {"role": "assistant", "content": ", ".join(words[:14]).upper()},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "no"},
                {"role": "assistant", "content": ", ".join(words[:20]).upper()},
            ]
        },
        {"problem": "so: what IS  one plus one", "answer": "2"},
        {"problem": " ".join(words[30:42])},
        {"problem": " ".join(near[::-1])},
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in train))
    bench = {"name": "mine", "data": str(tmp_path / "mine.jsonl")}
    cfg = EvalConfig.model_validate({"run": "r", "model": "", "benchmarks": [bench]})
    assert check_contamination(cfg, str(tmp_path / "train.jsonl")) == 0
    text = capfd.readouterr().err
    assert "mine/mine-0: 77 % of its words, from “waaq wabq" in text
    assert f"wamq”, in {tmp_path}/train.jsonl:2" in text
    assert f"mine/mine-2: 100 % of its words, from “what is one plus one”, in {tmp_path}/train.jsonl:3" in text
    assert "mine-1" not in text


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the project's shared data")
@pytest.mark.slow
def test_killed_and_resumed_on_published_problems(tmp_path: Path):
    """The command line, killed outright: the same results.json, and nothing asked twice but what was under way."""
    problems = [r for name in ("aime24", "amc23") for r in lines(SHARED / f"{name}.jsonl")]
    served = Script({r["problem"]: r["answer"] for r in problems})
    args = ("eval", "--model", "scripted", "--base-url", served.url, "--bench", "aime24,amc23", "--data", SHARED)
    more = ("--samples", "8", "server.concurrent=4", "verify.workers=1")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert ringrl(*args, "--run", whole, *more).code == 0
    served.asked.clear()
    half = killed / "responses" / "amc23.jsonl"
    args = (*args, "--run", killed, *more)
    ringrl_until(lambda: half.is_file() and half.read_text().count("\n") > 100, signal.SIGKILL, *args)
    result = ringrl(*args, "--resume")
    assert result.code == 0, result.text
    assert (killed / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    assert sum(n > 1 for n in served.asked.values()) <= 4
    results = json.loads((whole / "results.json").read_text())["benchmarks"]
    assert (results["aime24"]["n"], results["amc23"]["n"]) == (30, 40)
    assert "avg@k" in result.text
    served.server.shutdown()
