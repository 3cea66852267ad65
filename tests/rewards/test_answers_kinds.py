r"""Kinds of answers that graders are known to judge wrongly, each with right and wrong inputs of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringrl.rewards.answers import verify_math, verify_science
from ringrl.rewards.references import check_reference

# kind -> (answer, reference, right)
MATH: dict[str, list[tuple[str, str, bool]]] = {
    "tiny numbers": [
        (r"\frac{1}{3^{70}}", r"\frac{1}{3^{71}}", False),
        ("10^{-30}", "10^{-31}", False),
        (r"\sqrt{4\cdot 10^{30}+1}", r"2\cdot 10^{15}", False),
        (r"\frac{\sqrt3}{10^{18}}", "0", False),
        (r"\frac{103993}{33102}", r"\pi", False),
        (r"e^{-60}", r"e^{-60}+e^{-120}", False),
        (r"\frac{1}{2^{40}}", r"2^{-40}", True),
        (r"\sqrt{12}-2\sqrt3", "0", True),
    ],
    "wrong answers that passed": [
        (r"(\sqrt3,2)", r"\{2,\sqrt3\}", False),
        (r"\sqrt7,\sqrt7", r"\sqrt7", False),
        (r"7\beta", "7", False),
        (r"\text{12 is false}", "12", False),
        (r"12\text{ at least}", "12", False),
        (r"4\text{ cubed}", "4", False),
        (r"\not=9", "9", False),
        (r"9\mathbf{j}", "9", False),
        (r"\begin{vmatrix}3&0\\0&1\end{vmatrix}", "3", False),
        (r"x\neq 2", "x=2", False),
        (r"6\text{ when } n=2", "6", False),
    ],
    "references with powers and factorials": [
        ("(1+y^3)^4", "(y^3+1)^4", True),
        ("(1+y^3)^4", "(y^3-1)^4", False),
        ("(5^2)^3", "15625", True),
        (r"2^{2^{5}}", "4294967296", True),
        ("7", r"3^{3^{1000}}", False),
        ("(m!)^3", r"m!\cdot m!\cdot m!", True),
        (r"\frac{500!}{250!250!}", r"\binom{500}{250}", True),
        (r"1+3^{3^m}", r"3^{3^m}+1", True),
    ],
    "times of the day": [
        (r"9\text{ a.m.}", r"9:00\text{ AM}", True),
        ("21:30", r"9:30\text{ p.m.}", True),
        ("0:30", "12:30", False),
        (r"9\text{ a.m.}", r"9:00\text{ PM}", False),
        ("4:00", "5:00", False),
    ],
    "thousands separators": [
        (r"7,250\pi", r"7250\pi", True),
        ("3{,}500 < x < 4{,}500", "(3500,4500)", True),
        ("2,468 + 2", "2470", True),
        (r"\{2{,}000, 3{,}000\}", "2000, 3000", True),
        ("9,\\! 876", "9876", True),
        ("98,76", "9876", False),
        ("3,141 \\text{ and } 2,718", "3141, 2718", True),
        ("7,250\\pi", r"7251\pi", False),
        ("(9,876)", "9876", False),
    ],
    "fonts, colours, Markdown": [
        (r"\color{blue}{8}", "8", True),
        ("**8**", "8", True),
        (r"\textbf{\frac{3}{7}}", "3/7", True),
        ("`8`", "8", True),
        (r"\huge 8", "8", True),
        (r"\text{approximately } 8.5", "8.5", True),
        (r"\underline{9}", "8", False),
        ("**9**", "8", False),
        (r"\textcolor{red}{8} \tag{2}", "8", True),
    ],
    "subscripts and letters": [
        (r"k_{\text{B}} N", "k_BN", True),
        (r"v_{\mathrm{min}}", r"v_{\min}", True),
        (r"v_{\min}", r"v_{\max}", False),
        (r"3\mathbf{u}+\mathbf{v}", r"\mathbf{v}+3\mathbf{u}", True),
        ("z''", r"z^{\prime\prime}", True),
        ("z''", r"z^{\prime}", False),
        (r"T_1 T_2", r"T_2 T_{1}", True),
        (r"\omega_1", r"\omega_2", False),
    ],
    "typographic digits and roots": [
        ("√17", r"\sqrt{17}", True),
        ("10⁻⁴", "0.0001", True),
        ("x₂ = 5", "5", True),
        ("3／4", "3/4", True),
        (r"0.\dot{2}\dot{7}", "3/11", True),
        ("0.(6)", "2/3", True),
        ("√17", r"\sqrt{1}7", False),
        ("0.(6)", "0.6", False),
    ],
    "units in lists": [
        (r"30^\circ, 150^\circ", "30, 150", True),
        (r"7\text{ men}, 5\text{ women}", "7,5", True),
        (r"(30^\circ, 45^\circ)", "(30,45)", True),
        (r"2\text{ m and }3\text{ m}", "2, 3", True),
        (r"2\text{ m}, 3\text{ m}", r"2\text{ cm}, 3\text{ cm}", False),
        (r"12^\circ 30'", r"12.5^\circ", True),
        (r"\frac{\pi}{4}\text{ rad}", r"45^\circ", True),
        (r"\frac{\pi}{4}\text{ rad}", r"46^\circ", False),
        (r"7\text{ 米}", "7", True),
        ("₹90", "90", True),
    ],
    "sets, intervals, inequalities": [
        (r"\{t \mid t\ge 2\}", r"[2,\infty)", True),
        (r"|m| < 4", "-4<m<4", True),
        (r"|m| < 4", r"-4\le m\le 4", False),
        (r"\mathbb{R}\setminus\{5\}", r"(-\infty,5)\cup(5,\infty)", True),
        ("]3,7[", "(3,7)", True),
        (r"\{x : 1<x\le 9\}", "(1,9]", True),
        (r"\{x : 1<x\le 9\}", "[1,9]", False),
        ("p<q<r", "r>q>p", True),
        ("p<q<r", "p>q>r", False),
        (r"\{1,5\}\cup\{3\}", r"\{1,3,5\}", True),
        ("-2x < -6", "x > 3", True),
        ("-2x < -6", "x < 3", False),
        ("x > 3", "y > 3", False),
        (r"x \ne 4", r"(-\infty,4)\cup(4,\infty)", True),
    ],
    "a value and its rounding": [
        (r"\sqrt{5} \approx 2.236", r"\sqrt5", True),
        (r"x = \frac{7}{6} \approx 1.17", r"\frac76", True),
        (r"4\pi\text{ m}\approx 12.57\text{ m}", r"4\pi", True),
        (r"\sqrt{5} \approx 2.9", r"\sqrt5", False),
        (r"\sqrt{6} \approx 2.449", r"\sqrt5", False),
        (r"e+1\approx 3.718", "e+1", True),
    ],
    "rounded references": [
        ("12.345", "12.3", True),
        (r"\frac{1}{7}", "0.143", True),
        (r"6.626\times10^{-34}", "6.63e-34", True),
        ("12.4", "12.3", False),
        ("13", "12.3", False),
        ("1.51", "1.5", False),
        (r"\frac{1}{7}", "0.142", False),
        ("0.1428", "1/7", False),
    ],
    "systems, cases, matrices": [
        (r"\begin{cases}a=3\\b=4\end{cases}", "a=3,b=4", True),
        (r"\begin{bmatrix}1&0\\[6pt]0&2\end{bmatrix}", r"\begin{pmatrix}1&0\\0&2\end{pmatrix}", True),
        (r"\begin{pmatrix}5&6\\\end{pmatrix}", r"\begin{pmatrix}5&6\end{pmatrix}", True),
        (r"\begin{pmatrix}5&7\end{pmatrix}", r"\begin{pmatrix}5&6\end{pmatrix}", False),
        (r"\begin{aligned}a&=3\\b&=4\end{aligned}", "a=4,b=3", False),
        (r"\begin{cases}2 & x>1\\3 & x\le 1\end{cases}", r"\begin{cases}2 & x>1\\4 & x\le 1\end{cases}", False),
    ],
    "bases": [
        (r"345_{\text{six}}", "345_6", True),
        (r"(345)_6", "345_6", True),
        (r"345_7", "345_6", False),
        (r"\text{3F}_{16}", "3F_{16}", True),
        ("3E_{16}", "3F_{16}", False),
        (r"111\text{ base }3", "111_3", True),
    ],
    "bound letters": [
        ("g(t)=t^2", "g(x)=x^2", True),
        ("g(t)=t^3", "g(x)=x^2", False),
        ("b_m=3m", "b_n=3n", True),
        (r"\frac{\pi}{4}+m\pi", r"\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", True),
        ("f(x)=Cx^2", "f(x)=cx^2", True),
        (r"\frac{\pi}{4}+2m\pi", r"\frac{\pi}{4}+k\pi", False),
        (r"g(x)=5\text{ for all } x", "g(x)=5", True),
    ],
    "functions": [
        (r"\operatorname{arcsin} x", r"\arcsin x", True),
        (r"\sec x", r"\frac{1}{\cos x}", True),
        (r"\lg 1000", "3", True),
        (r"\cosh 2", r"\frac{e^2+e^{-2}}{2}", True),
        (r"\exp(3)", "e^3", True),
        (r"\cos^{-1}(x)", r"\arccos x", True),
        (r"\cos^{-1}(x)", r"\frac{1}{\cos x}", False),
        ("1.5 x 10^4", "15000", True),
    ],
    "names": [
        (r"\text{Bob and Eve}", r"\text{Eve, Bob}", True),
        (r"\text{Bob}", r"\text{Eve and Bob}", False),
        ("②④", "②,④", True),
        ("нет", "Нет", True),
        (r"\textbf{(D)}\ 7", "7", True),
        (r"\textbf{(D)}\ 7", "8", False),
        (r"\textbf{(D)}\ 7", r"\textbf{(E)}\ 7", False),
    ],
    "other equal forms": [
        ("-7,-5", r"-5 \text{ or } -7", True),
        ("-7,5", r"-5 \text{ or } -7", False),
        (r"\pm 3 \pm i", "3+i, 3-i, -3+i, -3-i", True),
        (r"\pm 3 \pm i", "3+i, -3-i", False),
        ("y=(1-x^2)^2", "(x^2-1)^2=y", True),
        ("2:4:6", "1:2:3", True),
        ("2:4:5", "1:2:3", False),
        (r"2\text{ hours }15\text{ minutes}", r"135\text{ minutes}", True),
        (r"2\text{ hours }15\text{ minutes}", r"145\text{ minutes}", False),
        ("4.5 million", "4500000", True),
        ("45 million", "4500000", False),
        (r"{x+1 \over 2}", r"\frac{x+1}{2}", True),
        ("7!!", "105", True),
    ],
    "references of data sets": [
        (r"\frac{5}{4}", "5./4", True),
        (r"\arccos(3/7)", "np.arccos(3/7)", True),
        ("12", "['12']", True),
        ("8", "8 (boxes)", True),
        ("9", "8 (boxes)", False),
        ("6", "6 or 7", False),
        (r"\frac13", '["\\frac{1}{3}"]', True),
    ],
}

RESPONSES: list[tuple[str, str, bool]] = [
    (r"\(\boxed{4}\) and \(\boxed{6}\)", "4,6", True),
    (r"\(\boxed{4}\) or \(\boxed{6}\)", "6", False),
    (r"**\boxed{4}**, **\boxed{6}**", "6", False),
    ("$$\\boxed{4}$$\n\n$$\\boxed{6}$$", "4, 6", True),
    (r"$a = \boxed{4}$ and $b = \boxed{6}$", "(4,6)", True),
    (r"$a = \boxed{6}$ and $b = \boxed{4}$", "(4,6)", False),
    ("$\\boxed{\\frac{3}{4}}$\n\n$\\boxed{0.75}$", "3/4", True),
    (r"\boxed{x=9} \Rightarrow \boxed{9}", "9", True),
    (r"\boxed{9} \boxed{}", "9", True),
    (r"\boxed{} \boxed{9}", "9", True),
    (r"\boxed{9} \boxed{ }", "8", False),
    (r"\boxed{ }", "9", False),
    (r"$\boxed{\frac{1}{2}}$ = $\boxed{0.5}$", "1/2", True),
    (r"$\boxed{\frac{1}{2}}$ = $\boxed{0.6}$", "1/2", False),
    (r"\boxed{\boxed{4}, \boxed{6}}", "4,6", True),
    ("\\boxed{9\\text{ cm}}\n\n\\boxed{9}", "9", True),
    (r"\boxed{8} is not it. \boxed{9}", "8,9", False),
]

SCIENCE: dict[str, list[tuple[str, str, bool]]] = {
    "tolerance": [
        (r"\sqrt{3}", "1.73", True),
        (r"3\pi", "9.42", True),
        (r"3\pi", "9.6", False),
        ("(2.51, 3.49)", "(2.5, 3.5)", True),
        ("(2.6, 3.5)", "(2.5, 3.5)", False),
        (r"\approx 2000", "2.0e3", True),
        ("2.05", "2.0", False),
    ],
    "units and formulas": [
        ("2.0 kWh", "7.2e6 J", True),
        (r"4.9 \frac{\mathrm{m}}{\mathrm{s}^2}", "4.9 m/s^2", True),
        ("3.0 Å", "0.30 nm", True),
        ("3.0 Å", "3.0 nm", False),
        ("K2CrO4", "K_2CrO_4", True),
        ("CaCl_2", r"\text{CaCl}_2", True),
        ("CaCl", "CaCl2", False),
        ("NI", "Ni", False),
        (r"^{235}U", r"{}^{235}U", True),
        (r"^{238}U", r"^{235}U", False),
        ("2.0 mJ", "2.0 MJ", False),
        ("2.0 kg.m.s^{-2}", "2.0 N", True),
    ],
    "letters of options": [
        ("C, because it is heavier", "C", True),
        ("D is correct", "D", True),
        ("D. wrong, so C", "D", False),
        ("A or D", "D", False),
        (r"\text{The answer is C}", "C", True),
        ("Ｃ", "C", True),
        ("γ", "C", False),
        (r"\boldsymbol{D}", "D", True),
    ],
}


@pytest.mark.parametrize("kind", MATH)
def test_kinds_of_math_answers(kind):
    wrong = [case for case in MATH[kind] if math(case[0], case[1]) != ("pass" if case[2] else "fail")]
    assert wrong == []


@pytest.mark.parametrize("kind", SCIENCE)
def test_kinds_of_science_answers(kind):
    verdicts = [(case, verify_science(rf"\boxed{{{case[0]}}}", {"answer": case[1]}).kind) for case in SCIENCE[kind]]
    assert [case for case, verdict in verdicts if verdict != ("pass" if case[2] else "fail")] == []


def test_kinds_of_responses():
    verdicts = [(case, verify_math(case[0], {"answer": case[1]}).kind) for case in RESPONSES]
    assert [case for case, verdict in verdicts if verdict != ("pass" if case[2] else "fail")] == []


def math(answer: str, reference: str) -> str:
    return verify_math(rf"So \boxed{{{answer}}}.", {"answer": reference}).kind


@pytest.mark.parametrize(("domain", "verify"), [("math", verify_math), ("science", verify_science)])
def test_answers_as_data_sets_write_them(domain, verify):
    """Rows of verdict, answer and reference, in the formats of MATH, NuminaMath, OlympiadBench, SciBench and others."""
    rows = [line.split("\t") for line in Path(__file__).with_name(f"answers_{domain}.tsv").read_text().splitlines()]
    assert len(rows) >= 250
    found = [
        (right, answer, reference)
        for right, answer, reference in rows
        if verify(rf"So \boxed{{{answer}}}.", {"answer": reference}).kind != right
    ]
    assert found == []


def test_references_are_checked_alone():
    for answer in ("5", "(1+x^2)^3", "2^{2^{2019}}", r"\{x | x > 2\}", r"\text{Yes}", "12:00"):
        check_reference("math", {"answer": answer})
        check_reference("science", {"answer": answer})
    for reference in ({}, {"answer": None}, {"answer": "$$"}):
        with pytest.raises(ValueError, match="the reference has no 'answer'"):
            check_reference("math", reference)
