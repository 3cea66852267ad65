"""What surrounds a problem in public sets is gone, and what is a part of it stays."""

from __future__ import annotations

import time

import pytest

from ringrl.curate.dress import bare, plain

STORY = "Ann has 3 pears and buys 4. How many has she?"
DRESSED = [
    "12. {}", "(3) {}", "7) {}", "2.14. {}", "Example 7 {}", "Problem 4: {}", "Q12. {}", "№ 8. {}", "Exercise 3.2 - {}",
    "(10 points) {}", "[5 marks] {}", "{} (4 pts)", "{} (2019 Problem 5)", "(2016 AMC 8) {}", "{} [Putnam 1998, A1]",
    "AIME 2024 Problem 3. {}", "Question: {}\nAnswer:", "### Instruction:\n{}\n\n### Response:\n", "User: {}",
    "{} Please reason step by step, and put your final answer within \\boxed{{}}.", "Let's think step by step. {}",
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $Answer where $Answer is the answer to the problem.\n\n{}", "{}\n\nShow all your work.",
    "You are a helpful assistant. {}",
    "12. (10 points) {} (2019 Problem 5)", "★ {}",
]  # fmt: skip
CHINESE = "小明有三个苹果,又买了4个,他一共有几个苹果?"
DRESSED_CHINESE = ["例3 {}", "12.{}", "3、{}", "(本题满分10分){}", "【题目】{}", "第7题:{}",
                   "(2018·北京){}",
                   "请一步一步推理,把答案写在方框里。{}", "问题:{}\n答案:", "(2020年高考真题){}"]  # fmt: skip
AS_IT_IS = [
    "3 pears cost 6 dollars. What does one cost?", "2.5 kg of flour make 4 loaves. How many make 10?",
    "Exercise 3 minutes a day. How many minutes a week?",
    "Question 5 has 4 parts. How many parts have all 3 questions?",
    "Find $A$.", "Is 2019 prime?", "In 2019 Ann was 12. How old is she in 2030?", "Find (a) and (b).",
    "Ann shows her work to 3 people step by 2 steps. How many steps?", "1 + 1 = ?", "42", "What is \\boxed{3} + 4?",
]  # fmt: skip


@pytest.mark.parametrize("form", DRESSED)
def test_headings_and_instructions_are_gone(form: str):
    assert bare(form.format(STORY)) == STORY


@pytest.mark.parametrize("form", DRESSED_CHINESE)
def test_chinese_ones_too(form: str):
    assert bare(form.format(CHINESE)) == CHINESE


@pytest.mark.parametrize("text", AS_IT_IS)
def test_what_belongs_to_the_problem_stays(text: str):
    assert bare(text) == text


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Ann&#39;s &amp; Bob&rsquo;s", "Ann's & Bob’s"),
        ("Find &frac12; of 8&nbsp;m.", "Find ½ of 8\xa0m."),
        ("<p>Ann has 3.</p><p>How many?</p>", "Ann has 3.\nHow many?"),
        ("x<sup>2</sup> + a<sub>10</sub>", "x^{2} + a_{10}"),
        ("What?<ol type='A'><li>5</li><li>6</li></ol>", "What?\nA) 5\nB) 6\n"),
        ("two<br>lines", "two\nlines"),
        ("sin\u2061(2\u2062x)", "sin(2x)"),
        ("we\u200bigh", "weigh"),
        ("John dеcidеs to gеt а nеw аpаrtmеnt", "John decides to get a new apartment"),
        ("$a<b>c$ & d; AT&T; &unknown;", "$a<b>c$ & d; AT&T; &unknown;"),
        ("У Маши 3 яблока и x груш", "У Маши 3 яблока и x груш"),
        ("Find α + β where Ω is 3", "Find α + β where Ω is 3"),
        ("The energy is hν, and kτ < 1.", "The energy is hν, and kτ < 1."),
    ],
)
def test_markup_and_look_alike_letters(text: str, want: str):
    assert plain(text) == want


@pytest.mark.parametrize("text", ["(" * 30_000, "[" * 30_000, "1." * 20_000, "<ol>" * 10_000, "<p>" * 10_000,
                                  "&" * 40_000,
                                  "# a\n" * 10_000, "Question" * 5_000, "a. " * 20_000, "аa" * 20_000])  # fmt: skip
def test_no_text_takes_long(text: str):
    began = time.process_time()
    bare(plain(text))
    assert time.process_time() - began < 5  # a quadratic one takes minutes
