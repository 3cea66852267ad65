"""The report of `ringrl data`: every number of the files, every reason with what it befell, safe in any state."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from ringrl.report import dropped, plots, step_counts
from ringrl.report.runs import write_report
from tests.conftest import ringrl, write_yaml
from tests.report.test_runs import NASTY, Tags, make_pipeline, write

GSM8K = Path(__file__).parents[2] / ".." / "shared" / "data" / "gsm8k"
Row = dict[str, Any]


def row(n: int, **more: Any) -> Row:
    return {
        "id": f"a/{n}",
        "source": "a",
        "domain": "math",
        "problem": f"What is {n} and 1?",
        "answer": f"{n + 1}",
    } | more


def make_step(run: Path, name: str, kept: list[list[Row]], dropped: list[Row], **examples: list[Row]) -> None:
    """As `ringrl.curate.shards` says; all that was dropped is counted to the last shard."""
    folder, reasons = run / "steps" / name, dict[str, Counter[str]]()
    for d in dropped:
        reasons.setdefault(d["reason"], Counter())[d["source"]] += 1
    for n, rows in enumerate(kept):
        write(folder / "kept" / f"{n:06d}.jsonl", rows)
        gone = reasons if n == len(kept) - 1 else {}
        write(folder / "counts" / f"{n:06d}.json", {"kept": Counter(r["source"] for r in rows), "dropped": gone})
    write(folder / "dropped.jsonl", dropped)
    shown = {reason: [d for d in dropped if d["reason"] == reason][:5] for reason in reasons}
    sources = Counter(r["source"] for rows in kept for r in rows)
    write(folder / "summary.json", {"kept": sources, "dropped": reasons, "examples": shown, "seconds": 2.0})


def make_data(run: Path) -> None:
    """60 rows of two sources; 2 malformed, then 3 with an image, 2 alike, 4 of a benchmark, 19 too easy or hard."""
    rows = [row(n) if n < 40 else row(n, id=f"b/{n - 40}", source="b", domain="science") for n in range(58)]
    lost = [
        {"id": f"b/{n}", "source": "b", "where": "b.jsonl:9", "detail": NASTY, "reason": "malformed"} for n in (18, 19)
    ]
    make_step(run, "0_read", [rows[:20], rows[20:40], rows[40:]], lost)
    images = [r | {"reason": "image", "detail": "![](x.png)", "where": f"f:{i}"} for i, r in enumerate(rows[:3])]
    images[0]["problem"] = f"{NASTY} \u202e\ud800 end"
    make_step(run, "1_cleanse", [rows[3:20], rows[20:40], rows[40:]], images)
    alike = {"reason": "near duplicate", "twin": "a/30", "detail": "a/30: What is", "similarity": 0.9123}
    make_step(run, "2_deduplicate", [rows[5:20], rows[20:40], rows[40:]], [r | alike for r in rows[3:5]])
    pairs = [r | {"reason": "n-grams", "twin": f"aime24/{i % 3}", "twin_text": f"What was {NASTY}?", "share": 0.75,
                  "passage": "what is", "detail": "half"} for i, r in enumerate(rows[5:9])]  # fmt: skip
    make_step(run, "3_decontaminate", [rows[9:20], rows[20:40], rows[40:]], pairs)
    sources = [{"name": name, "problems": n, "sha256": {"f": "cd" * 32}} for name, n in (("aime24", 30), (NASTY, 7))]
    problems = [["aime24/0", "What is the sum of 5 and 1?"]]
    write(run / "steps" / "3_decontaminate" / "work" / "known.json", {"sources": sources, "problems": problems})
    grades = {"agreement": {NASTY: 0.5}, "lengths": {NASTY: 100.0}}
    graded = [r | {"pass_rates": {NASTY: i % 5 / 4, "strong": 0.5}, **grades} for i, r in enumerate(rows[9:])]
    good = [r | {"pass_rate": r["pass_rates"][NASTY]} for r in graded if 0 < r["pass_rates"][NASTY] < 1]
    hard = [r | {"reason": "solved never"} for r in graded if r["pass_rates"][NASTY] == 0]
    easy = [r | {"reason": "solved always"} for r in graded if r["pass_rates"][NASTY] == 1]
    make_step(run, "4_grade", [good], hard + easy)
    more = {"responses": [{"text": "x" * 1234, "teacher": "t"}]}
    answered = [r | more | {"level": ("easy", NASTY)[i % 2]} for i, r in enumerate(good)]
    cut = [r | {"reason": "truncated", "response": {"text": f"endless {NASTY}"}} for r in answered[:7]]
    make_step(run, "5_distil", [answered], cut)
    make_outputs(run, answered)


def make_outputs(run: Path, rows: list[Row]) -> None:
    asked = [r for r in rows if r["domain"] == "math"]
    talk = [
        {"messages": [{"role": "user", "content": r["problem"]}, {"role": "assistant", "content": "y" * 50}]}
        for r in rows
    ]
    write(run / "data" / "rl.jsonl", [{k: v for k, v in r.items() if k != "responses"} for r in asked])
    write(run / "data" / "sft.jsonl", talk)
    same = {"sha256": "ab" * 32, "sources": {"a": len(asked)}, "domains": {"math": 3, "science": 1}}
    facts = {"rl": {"lines": len(asked), "problems": len(asked), "wanted": 500, **same},
             "sft": {"lines": len(talk), "problems": len(talk), "wanted": 0, **same}}  # fmt: skip
    write(run / "data" / "outputs.json", facts)
    weights = {"name": "rl", "weights": {"math": 0.5, "science": 0.25}, "caps": {"a": 9}}
    source = {"name": "a", "files": ["a.jsonl"], "labels": {"level": "x"}}
    write_yaml(run / "config.yaml", {"run": "r", "sources": [source], "mix": {"outputs": [weights]}})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    run = tmp_path_factory.mktemp("data")
    make_data(run)
    return run, write_report(run).read_text()


def cells(page: str, first: str) -> list[str]:
    """The texts of the first table row that begins with a cell."""
    [line, *_] = re.findall(rf"<tr><td>{re.escape(str(escape(first)))}</td>.*?</tr>", page)
    return [re.sub("<[^>]*>", "", cell) for cell in re.findall("<td[^>]*>(.*?)</td>", line)]


def test_the_page_is_safe_and_self_contained(made: tuple[Path, str]):
    run, page = made
    assert "ringrl, data; not finished<" in page
    assert not {"script", "link", "img", "iframe", "metadata"} & Tags(page).seen
    assert not re.search(r'(src|href)="(?!#)|url\((?!#)|@import', page)
    assert NASTY not in page
    assert page.count(escape(NASTY)) > 10
    assert "⟨U+202E⟩⟨U+D800⟩ end" in page
    assert write_report(run).read_text() == page


def test_every_step_says_how_many_came_stayed_and_went(made: tuple[Path, str]):
    _, page = made
    assert "rows read<b>60<" in page
    assert "left<b>30 (50.0 %)<" in page
    assert cells(page, "read")[1:5] == ["60", "58", "2", "3.3"]
    assert cells(page, "cleanse")[1:5] == ["58", "55", "3", "5.2"]
    assert cells(page, "deduplicate")[1:5] == ["55", "53", "2", "3.6"]
    assert cells(page, "grade")[1:8] == ["49", "30", "19", "38.8", "", "2.0 s", "24"]
    assert cells(page, "grade")[8] == "solved never 10, solved always 9"
    assert cells(page, "distil")[3] == "0"
    assert "truncated 7 (7 are responses of rows that went on)" in cells(page, "distil")[8]
    assert '<i style="width:91.67%"></i><b style="width:5.00%"></b>' in page
    assert cells(page, "b")[:4] == ["b", "20", "18 −2", "18"]


def test_every_reason_has_its_count_and_examples(made: tuple[Path, str]):
    _, page = made
    assert cells(page, "image") == ["image", "3", "3"]
    assert "image: 3, the first 3" in page
    assert "a/1 · f:1 · ![](x.png)" in page
    assert f"endless {escape(NASTY)}" in page
    assert page.count("steps/1_cleanse/dropped.jsonl") == 1


def test_a_duplicate_stands_beside_the_row_that_was_kept(made: tuple[Path, str]):
    _, page = made
    assert page.count("a/30 · similarity 0.9123") == 2
    assert page.count("What is <mark>30</mark> and 1?") == 2
    assert "What is <mark>3</mark> and 1?" in page


def test_all_pairs_with_benchmarks_are_listed(made: tuple[Path, str]):
    _run, page = made
    assert "Pairs: 4<" in page
    assert cells(page, "aime24") == ["aime24", "30", "3", "10.0", "4", "cdcdcdcdcdcd"]
    assert cells(page, NASTY)[1:] == ["7", "0", "0.0", "0", "cdcdcdcdcdcd"]
    assert len(re.findall(r"<summary>a/\d · n-grams · aime24/\d · half<", page)) == 4
    assert page.count("aime24/0 · share 0.75") == 2
    assert page.count("What is <mark>the</mark> <mark>sum</mark> <mark>of</mark> ") == 2  # all of it
    assert page.count(f"<pre>What was {escape(NASTY)}?") == 2  # as far as the row says


def test_more_pairs_than_are_shown_are_counted(tmp_path: Path):
    n = dropped.PAIRS + 20
    pairs = [row(i, reason="n-grams", twin=f"aime/{i}") for i in range(n)]
    make_step(tmp_path, "0_read", [[row(n + 1)]], [])
    make_step(tmp_path, "1_decontaminate", [[]], pairs)
    page = write_report(tmp_path).read_text()
    assert f"Pairs: {n}<" in page
    assert page.count("· n-grams · aime/") == dropped.PAIRS
    assert "20 more are in 1_decontaminate/dropped.jsonl" in page
    assert cells(page, "aime")[1:5] == ["–", str(n), "–", str(n)]


def test_what_is_left(made: tuple[Path, str]):
    _, page = made
    assert page.count("<figure") == 2 + 2
    assert cells(page, "data/rl.jsonl")[1:4] == ["18", "18 of 500 asked for", "math 75.0 %, science 25.0 %"]
    assert "<td>rl</td><td>math</td>" in page
    assert ">66.7 %</td>" in page
    assert cells(page, "problems, rl")[1:] == ["18", "17", "17", "17"]
    assert cells(page, "responses, sft")[1:] == ["30", "50", "50", "50"]
    assert cells(page, "easy")[1:3] == ["9", "50.0"]
    assert cells(page, "strong")[1:] == ["49", "50.0", "–", "–"]


def test_without_outputs_the_last_step_is_described(tmp_path: Path):
    make_data(tmp_path)
    shutil.rmtree(tmp_path / "data")
    page = write_report(tmp_path).read_text()
    assert cells(page, "responses, math")[1:] == ["18", "1,230", "1,230", "1,230"]
    assert cells(page, "science")[1:3] == ["12", "40.0"]


def test_any_subset_of_the_files_gives_a_page(tmp_path: Path):
    make_data(tmp_path)
    some = [*tmp_path.glob("steps/[0-5]_*/summary.json"), *tmp_path.glob("steps/[0345]_*/**/*.json*")]
    some += [*tmp_path.glob("data/*"), tmp_path / "config.yaml"]
    files = sorted({f for f in some if f.stem not in ("000001", "000002")})
    for missing, cut in zip(files, files[1:] + files[:1], strict=True):
        texts = missing.read_bytes(), cut.read_bytes()
        missing.unlink()
        cut.write_bytes(texts[1][: len(texts[1]) // 2])
        Tags(write_report(tmp_path).read_text())
        missing.write_bytes(texts[0])
        cut.write_bytes(texts[1])
    for folder in sorted((tmp_path / "steps").iterdir()):
        shutil.rmtree(folder / "kept")
        (folder / "summary.json").unlink()
        assert "Not finished, or without a summary: 0_read" in write_report(tmp_path).read_text()


def test_lines_that_are_cut_are_counted(tmp_path: Path):
    make_data(tmp_path)
    file = tmp_path / "data" / "sft.jsonl"
    file.write_text(file.read_text()[:-20])
    page = write_report(tmp_path).read_text()
    assert "1 line(s) could not be read" in page
    assert cells(page, "responses, sft")[1] == "29"


def test_it_is_the_first_part_of_a_pipeline(tmp_path: Path):
    make_pipeline(tmp_path)
    make_data(tmp_path / "data")
    page = write_report(tmp_path).read_text()
    assert re.findall(r'<h2 id="(\w+)">', page) == ["data", "sft", "select", "rl", "eval_final"]
    assert "rows read<b>60<" in page
    Tags(page)


@pytest.mark.parametrize("every", [1, 2, 5])
def test_a_sample_takes_the_lines_that_start_in_every_nth_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
):
    monkeypatch.setattr(step_counts, "BLOCK", 64)
    files = [tmp_path / "a", tmp_path / "b"]
    for n, file in enumerate(files):
        file.write_text("".join(f"{n}/{i:03d} {'x' * (i * 7 % 90)}\n" for i in range(50)))
    want, block = [], 0
    for file in files:
        text, start = file.read_bytes(), 0
        for line in text.splitlines(keepends=True):
            want += [line] if (block + start // 64) % every == 0 else []
            start += len(line)
        block += -(-len(text) // 64)
    assert list(step_counts.lines(files, every)) == want
    assert len(want) == 100 if every == 1 else 0 < len(want) < 100


def test_a_large_set_is_sampled_and_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(step_counts, "BLOCK", 1000)
    many = [row(n, level=("easy", "hard")[n % 2]) for n in range(2000)]
    make_step(tmp_path, "0_read", [many[:1000], many[1000:]], [])
    whole = write_report(tmp_path).read_text()
    assert "From a sample" not in whole
    size = sum(f.stat().st_size for f in step_counts.accounts(tmp_path)[0].files)
    monkeypatch.setattr(step_counts.stride, "__defaults__", (size // 3,))
    page = write_report(tmp_path).read_text()
    assert "From a sample: one mebibyte in 4 " in page
    assert 450 < int(cells(page, "math")[1].replace(",", "")) < 550


def test_lengths_are_counted_to_three_digits():
    assert [step_counts.three_digits(n) for n in (0, 7, 999, 1000, 1239, 123_456)] == [0, 7, 999, 1000, 1230, 123_000]
    counts = {10: 5, 20: 4, 30: 1}
    assert [step_counts.quantile(counts, q) for q in (0.5, 0.51, 0.95, 1.0)] == [10, 20, 30, 30]


def test_labels_of_many_values_stay_few():
    tally = step_counts.Tally()
    for n in range(3000):
        tally.add(json.dumps(row(n, topic=f"t{n}")).encode(), ["topic"])
    assert len(tally.labels["topic"]) == step_counts.MOST_VALUES + 1
    assert tally.labels["topic"][step_counts.OTHERS] == 2000


def test_bars_of_pass_rates_add_up_to_all():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    plots.draw_rates(ax, {0.25: 3, 0.5: 1}, {0.0: 4, 0.25: 2})
    assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(1.0)
    assert [bar.get_x() + bar.get_width() / 2 for bar in ax.patches] == pytest.approx([0, 0.25, 0.5] * 2)


@pytest.mark.skipif(not GSM8K.is_dir(), reason="GSM8K is not here")
def test_a_real_run_ends_with_a_table_its_files_and_the_report(tmp_path: Path):
    files = [str((GSM8K / f"{split}.jsonl").resolve()) for split in ("train", "test")]
    columns = {"problem": "question"}
    sources = [{"name": f"gsm8k-{n}", "files": [f], "columns": columns} for n, f in enumerate(files)]
    run = tmp_path / "run"
    result = ringrl("data", write_yaml(tmp_path / "c.yaml", {"run": str(run), "sources": sources, "steps": []}))
    assert result.code == 0, result.text
    printed = [line.split() for line in result.text.splitlines() if line.strip()]
    assert ["step", "rows", "in", "kept", "dropped", "%", "time", "rows/s"] in printed
    assert ["all", "8,792", "8,792", "0", "0.0"] in [line[:5] for line in printed]
    assert printed[-1] == [f"{run}/report.html"]
    page = (run / "report.html").read_text()
    Tags(page)
    assert cells(page, "gsm8k-0")[1:3] == ["7,473", "7,473"]
    assert cells(page, "gsm8k-1")[1:3] == ["1,319", "1,319"]
    assert 'What was dropped, and why</h3><p class="soft">Nothing.</p>' in page
