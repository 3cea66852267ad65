"""Files as other programs write them: read where it is clear, else one line that names file and line."""

from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from ringrl.config.sections import Source
from ringrl.data import files
from ringrl.data.source import raw_rows, read_conversations, read_problems, read_texts
from ringrl.domains import Domains
from ringrl.errors import DataError
from tests.conftest import ringrl

CASES = Path(__file__).parents[3] / "shared" / "cases" / "data"
BOM = b"\xef\xbb\xbf"
ONE, TWO = '{"problem": "1+1?", "answer": "2"}', '{"problem": "Olé: 1+2?", "answer": "3"}'
LONG = "x" * 200_000


def answers(file: Path) -> list[str]:
    return [row["answer"] for row in read_problems(Source(files=(str(file),)), Domains())]


def refusal(file: Path) -> str:
    with pytest.raises(DataError) as error:
        read_problems(Source(files=(str(file),)), Domains())
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", f"{ONE}\n{TWO}\n".encode()),
        ("bom.jsonl", BOM + f"{ONE}\n{TWO}\n".encode()),
        ("bom_alone.jsonl", BOM + f"\n{ONE}\r\n\n  {TWO}".encode()),
        ("array.json", f"[{ONE}, {TWO}]".encode()),
        ("pretty.json", json.dumps([json.loads(ONE), json.loads(TWO)], indent=2).encode()),
        ("array.jsonl", BOM + f"\n [ {ONE},\n{TWO} ]\n".encode()),
        ("lines.json", f"{ONE}\n{TWO}".encode()),
        ("a.csv", "problem,answer\n1+1?,2\nOlé,3\n".encode()),
        ("bom.csv", BOM + "problem,answer\r\n1+1?,2\r\n\r\nOlé,3\r\n".encode()),
        ("quoted.csv", b'"problem","answer"\n"a ""b"", c\nd?","2"\ne,3'),
        ("semicolons.csv", b"problem;answer\n1,5 + 0,5?;2\ne;3\n"),
        ("tabs.csv", b"problem\tanswer\na, b\t2\nc\t3\n"),
        ("utf16.csv", "problem,answer\na,2\nOlé,3\n".encode("utf-16")),
        ("utf16.jsonl", f"{ONE}\n{TWO}\n".encode("utf-16-be").join([b"\xfe\xff", b""])),
        ("excel.csv", b"sep=;\r\nproblem;answer\r\n1,5;2\r\n2,5;3\r\n"),
        ("spaces.csv", b"problem, answer \na,2\nb,3\n"),
        ("UPPER.CSV", b"problem,answer\na,2\nb,3\n"),
        ("a.tsv", b"problem\tanswer\n1, 1\t2\n1;2\t3\n"),
        ("long.csv", f"problem,answer,solution\na,2,{LONG}\nb,3,{LONG}\n".encode()),
        ("long.tsv", f"solution\tproblem\tanswer\n{LONG}\ta\t2\nb\t{LONG}\t3\n".encode()),
    ],
)
def test_what_is_clear_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert answers(tmp_path / name) == ["2", "3"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("latin.csv", "problem,answer\na,2\nOlé,3\n".encode("latin-1"), ":3: not UTF-8: byte 0xe9 after 'Ol'"),
        ("latin.tsv", "problem\tanswer\nÄ\t3\n".encode("latin-1"), ":2: not UTF-8: byte 0xc4 after ''"),
        ("header.csv", "problème,answer\na,2\n".encode("latin-1"), ":1: not UTF-8: byte 0xe8 after 'probl'"),
        ("latin.jsonl", f"{ONE}\n{TWO}".encode("latin-1"), ":2: not UTF-8: invalid continuation byte at byte 15"),
        ("latin.json", f"[{ONE},\n{TWO}]".encode("latin-1"), ":2: not UTF-8: invalid continuation byte at byte "),
        ("utf16.jsonl", f"{ONE}\n".encode("utf-16")[:-1], ": not UTF-16: "),
        ("utf16_unmarked.jsonl", f"{ONE}\n".encode("utf-16-be"), ":1: not JSON"),
        ("more.csv", b"problem,answer\na,2\nb,3,4\n", ":3: got 3 fields, expected 2 as in the header"),
        ("fewer.csv", b'problem,answer\n"a\nb",2\nb\n', ":4: got 1 fields, expected 2 as in the header"),
        ("twice.csv", b"problem,answer,answer\na,2,3\n", ":1: got two columns 'answer', expected one"),
        ("open.csv", b'problem,answer\na,2\n"b,3\nc,4\n', ":3: not CSV: unexpected end of data"),
        ("behind.csv", b'problem,answer\n"a"b,2\n', ":2: not CSV: ',' expected after '\"'"),
        ("huge.jsonl", f"{ONE}\n".encode() + b'{"problem": "p", "answer": 1' + b"0" * 5000 + b"}",
         ":2: got an integer of more than 4,300 digits, expected it as a text"),
        ("huge.json", f"[{ONE}, ".encode() + b'{"n": -1' + b"0" * 4300 + b"}]", "[1]: got an integer of more than"),
        ("deep.jsonl", b'{"problem": "p", "answer": ' + b"[" * 90_000 + b"]" * 90_000 + b"}",
         ":1: values are nested too deeply"),
        ("deep.json", b"[" * 90_000, "[0]: values are nested too deeply"),
        ("deep_tests.jsonl", b'{"problem": "p", "domain": "code", "tests": ' + b"[" * 700 + b"1" + b"]" * 700 + b"}",
         ":1: values are nested too deeply"),
        ("cut.json", f"[{ONE},\n{TWO}".encode(), "[2]: not JSON: Expecting ',' or ']' at line 2, column 40"),
        ("comma.json", f"[{ONE},\n]".encode(), None),
        ("missing_comma.json", f"[{ONE}\n{TWO}]".encode(), "[1]: not JSON: Expecting ',' or ']' at line 2, column 1"),
        ("behind.json", f"[{ONE}]\n{TWO}".encode(), "[1]: not JSON: Extra data at line 2, column 1"),
        ("numbers.json", b"[1, 2]", "[0]: got int, expected an object"),
        ("object.json", b'{\n  "problem": "p"\n}', ":1: not JSON: Expecting property name"),
        ("column.csv", b"question,answer\na,2\n", ":2: problem: got None, expected a text"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_one_line(tmp_path: Path, name: str, content: bytes, said: str | None) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    if said is None:  # a comma behind the last object says nothing else
        assert answers(file) == ["2"]
    else:
        assert refusal(file).startswith(f"{file}{said}")


def test_a_row_of_a_table_that_is_broken_does_not_hide_the_others(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"problem,answer\na,1\nb\n\xe9,2\nc,3\n")
    rows = list(raw_rows(Source(files=(str(file),))))
    assert [where for where, _ in rows] == [f"{file}:{line}" for line in (2, 3, 4, 5)]
    assert [row if isinstance(row, str) else row["answer"] for _, row in rows] == [
        "1", "got 1 fields, expected 2 as in the header", "not UTF-8: byte 0xe9 after ''", "3",
    ]  # fmt: skip


PACK: dict[str, Any] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress,
                        "zst": lambda content: pyarrow.compress(content, codec="zstd", asbytes=True)}  # fmt: skip


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.arrow"])
def test_compressed_files_are_read_and_damaged_ones_are_one_line(tmp_path: Path, name: str, packed: str) -> None:
    rows = [{"problem": f"p{i}", "answer": str(i)} for i in range(300)]
    contents = {
        "a.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "a.json": json.dumps(rows).encode(),
        "a.csv": "".join(f"{a},{b}\n" for a, b in (("problem", "answer"), *(r.values() for r in rows))).encode(),
        "a.tsv": "".join(f"{a}\t{b}\n" for a, b in (("problem", "answer"), *(r.values() for r in rows))).encode(),
        "a.parquet": as_table("parquet", rows),
        "a.arrow": as_table("stream", rows),
    }
    content = PACK[packed](contents[name])
    file = tmp_path / f"{name}.{packed}"
    file.write_bytes(content)
    assert answers(file) == [row["answer"] for row in rows]
    (tmp_path / "named_otherwise.jsonl").write_bytes(PACK[packed](contents["a.jsonl"]))
    assert len(answers(tmp_path / "named_otherwise.jsonl")) == 300
    file.write_bytes(content[: len(content) // 2])
    assert refusal(file).startswith(f"{file}: damaged: ")


def as_table(kind: str, rows: list[dict[str, Any]]) -> bytes:
    table, out = pyarrow.Table.from_pylist(rows), io.BytesIO()
    if kind == "parquet":
        pyarrow.parquet.write_table(table, out)
        return out.getvalue()
    with (pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_files_of_arrow(tmp_path: Path, kind: str) -> None:
    """Those of `datasets` are streams."""
    content = as_table(kind, [{"problem": f"p{i}", "answer": i} for i in range(5)])
    (tmp_path / "a.arrow").write_bytes(content)
    assert answers(tmp_path / "a.arrow") == ["0", "1", "2", "3", "4"]
    (tmp_path / "cut.arrow").write_bytes(content[:-300])
    assert refusal(tmp_path / "cut.arrow").startswith(f"{tmp_path}/cut.arrow: not Arrow: ")


def test_a_file_that_uncompresses_to_too_much_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "UNPACKED", 3_000_000)
    for name in ("a.jsonl.gz", "a.json.xz", "a.csv.bz2"):
        (tmp_path / name).write_bytes(PACK[name.rpartition(".")[2]](b" " * 9_000_000))
        assert "uncompressed it has more than 2 MiB and 500 times its size" in refusal(tmp_path / name)
    (tmp_path / "good.jsonl.gz").write_bytes(PACK["gz"](ONE.encode() + b" " * 2_000_000))
    assert answers(tmp_path / "good.jsonl.gz") == ["2"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid", "got a pointer of Git LFS"),
        (
            "a.parquet",
            b"version https://git-lfs.github.com/spec/v1\noid",
            "got a pointer of Git LFS",
        ),
        ("a.csv", b"PK\x03\x04" + b"\0" * 99, "got a ZIP archive or an Excel file, expected one of .jsonl, "),
        ("a.json", b"<!DOCTYPE html>\n<html>", "got a web page, expected one of .jsonl, "),
        ("a.parquet", b"hello", "not parquet: "),
    ],
)
def test_files_of_other_kinds_are_called_by_their_names(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert refusal(tmp_path / name).startswith(f"{tmp_path / name}: {said}")


@pytest.mark.parametrize(
    "name",
    ["x.jsonl.gz", "x.csv.zst", "X.PARQUET", "x.arrow", "x.ndjson.xz", "a/b/c", "./x", "~/no/x", "a/b/x.txt"],
)
def test_a_mistyped_file_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(DataError, match=r": no such data file$"):
        list(raw_rows(Source(files=(name,))))


def test_a_folder_or_a_file_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(DataError, match="not loadable as a hub dataset"):
        answers(tmp_path / "a.jsonl")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    assert refusal(tmp_path / "loop.jsonl").endswith(": no such data file")


# ---- many bad rows


def test_the_first_bad_rows_are_named_and_cut_and_the_others_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    bad = ['{"problem": 1}', "{", json.dumps({"problem": ["x" * 5000]}), '{"problem": ""}', '{"problem": 1}']
    file.write_text("".join(line + "\n" for line in (ONE, *bad, TWO)))
    said = refusal(file)
    first, second, third = said.split("; ")
    assert first == f"{file}:2: problem: got 1, expected a text"
    assert second.startswith(f"{file}:3: not JSON: ")
    assert third.startswith(f"{file}:4: problem: got ['xxx")
    assert third.endswith("xxx... (5 of 7 rows are bad)")
    assert len(said) < 3 * (len(str(file)) + 220) + 40


def test_rows_with_the_same_fault_are_named_once_and_reading_ends_after_many(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"question": "a", "answer": "2"}\n' * 5000)
    with pytest.raises(DataError) as error:
        read_problems(Source(files=(str(file),), columns={"problem": "query"}), Domains())
    assert str(error.value) == (
        f"{file}:1: columns.problem: no key 'query', the row has ['answer', 'question'] "
        f"(100 of the first 100 rows are bad)"
    )


def test_a_long_row_is_not_printed(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": ["x" * 200_000]}]}))
    with pytest.raises(DataError) as error:
        list(read_conversations(Source(files=(str(file),))))
    assert len(str(error.value)) < len(str(file)) + 220


def test_every_reader_takes_every_format(tmp_path: Path) -> None:
    talk = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}
    (tmp_path / "talk.json").write_bytes(BOM + json.dumps([talk, talk]).encode())
    assert [m for _, m in read_conversations(Source(files=(str(tmp_path / "talk.json"),)))] == [talk["messages"]] * 2
    (tmp_path / "texts.tsv").write_bytes(BOM + b"a\tb\n1\t2\n")
    assert list(read_texts(str(tmp_path / "texts.tsv"))) == [(f"{tmp_path}/texts.tsv:2", "1\n2")]


# ---- answers


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"72"', "72"), ("72", "72"), ("0", "0"), ("5.0", "5"), ("-3.0", "-3"), ("0.25", "0.25"), ("1e-7", "1e-07"),
        ("1e22", "1e+22"), ("true", "True"), ("false", "False"), ('["72"]', "72"), ('["2", "3"]', "2, 3"),
        ("[2, 3]", "2, 3"), ('["$1$", 2.0, 0.5]', "$1$, 2, 0.5"), ('["(1,2)", "(3,4)"]', "(1,2), (3,4)"),
        ('["2", null]', "2"), ('"none"', "none"), ('"NaN-1"', "NaN-1"), ('"[\\"2\\", \\"3\\"]"', '["2", "3"]'),
    ],
)  # fmt: skip
def test_an_answer_is_a_text_a_number_or_a_list_of_them(tmp_path: Path, written: str, read: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"problem": "p", "answer": {written}}}')
    assert answers(file) == [read]


@pytest.mark.parametrize("written", ['{"value": 7}', '[["1"], ["2"]]', '[{"value": 7}]', "Infinity", "[-Infinity]"])
def test_any_other_answer_is_refused(tmp_path: Path, written: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f'{ONE}\n{{"problem": "p", "answer": {written}}}')
    assert refusal(file).startswith(f"{file}:2: answer: got ")
    assert refusal(file).endswith("expected a text, a number, or a list of them")


NULLS = ["null", '""', "[]", "[null]", '[""]', "NaN", '"nan"', '"NaN"', '"NULL"', '"<NA>"', '["nan", null]']


@pytest.mark.parametrize("written", NULLS)
def test_no_answer_is_missing(tmp_path: Path, written: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f'{ONE}\n{{"problem": "p", "answer": {written}}}')
    assert refusal(file) == f"{file}:2: answer: missing, expected what a math verifier needs"


@pytest.mark.parametrize(
    ("column", "read"),
    [
        ([5.0, 7.0], ["5", "7"]),  # integers beside a missing one become floats
        ([0.5, 1e6], ["0.5", "1000000"]),
        ([["2", "3"], ["4"]], ["2, 3", "4"]),
        ([[1.0], [2.0, 3.0]], ["1", "2, 3"]),
        ([decimal.Decimal("1.50"), decimal.Decimal("2.00")], ["1.50", "2.00"]),
        ([True, False], ["True", "False"]),
    ],
)
def test_answers_of_a_parquet_column(tmp_path: Path, column: list[Any], read: list[str]) -> None:
    rows = [{"problem": "p", "answer": answer, "when": datetime.datetime(2025, 1, 1)} for answer in column]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert answers(tmp_path / "a.parquet") == read


def test_a_parquet_file_that_is_damaged_within_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    rows = [{"problem": f"p{i}" * 50, "answer": str(i)} for i in range(500)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, compression="gzip")
    content = bytearray(file.read_bytes())
    content[40:400] = b"\xff" * 360
    file.write_bytes(content)
    assert refusal(file).startswith(f"{file}: not parquet: ")


# ---- through the command line


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "problem,answer\nOlé,3\n".encode("latin-1"), ":2: not UTF-8"),
        ("a.jsonl", b'{"problem": "p", "answer": 1' + b"0" * 5000 + b"}", ":1: got an integer of more than 4,300"),
        ("a.json", b'[{"problem": "p", "answer"', "[0]: not JSON"),
    ],
)
def test_eval_and_verify_say_it_in_one_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    shown = ringrl("eval", "--show", "gsm8k", "--data", file)
    judged = ringrl("verify", file, "--out", tmp_path / "out.jsonl")
    for result in (shown, judged):
        assert (result.code, "Traceback" in result.text) == (2, False), result.text
        assert result.text.splitlines()[-1].startswith(f"error {file}{said}"), result.text
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the project's shared cases")
@pytest.mark.parametrize(
    ("name", "rows"),
    [("09_array.json", 5), ("12_bom.csv", 3), ("13_bigfield.csv", 3), ("17_tab.tsv", 1), ("19_bom.jsonl", 2),
     ("06_huge_int.jsonl", 0), ("15_ragged.csv", 0), ("29_truncated.parquet", 0)],
)  # fmt: skip
def test_cases_of_files(name: str, rows: int) -> None:
    if rows:
        assert len(answers(CASES / name)) == rows
    else:
        assert refusal(CASES / name).startswith(f"{CASES / name}:")


USERS = CASES.parent / "users"


@pytest.mark.skipif(not USERS.is_dir(), reason="needs the project's shared cases")
@pytest.mark.parametrize(
    ("name", "said"),
    [("bom.csv", ""), ("long_field.csv", ""), ("latin1.csv", ":2: not UTF-8: byte 0x"),
     ("answer_nan.jsonl", ": answer: missing")],
)  # fmt: skip
def test_cases_of_users(name: str, said: str) -> None:
    assert said in refusal(USERS / name) if said else answers(USERS / name)
    assert len(list(read_conversations(Source(files=(str(USERS / "array.json"),))))) >= 1
