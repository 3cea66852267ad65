r"""Golds of every form, each with wrong neighbours and with other spellings of the same.

A form makes (gold, wrong, right) from a random generator: `wrong` differs from the gold in a digit, a sign, a unit, an
order that matters, a bound, an element, an exponent or a factor of ten; `right` says the same in other ways.
"""

# One case a line is easier to read than wrapped ones.
# fmt: off
# ruff: noqa: E501

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction

Case = tuple[str, list[str], list[str]]
Form = Callable[[random.Random], Case]

MATH: list[Form] = []
SCIENCE: list[Form] = []


def in_math(form: Form) -> Form:
    MATH.append(form)
    return form


def in_science(form: Form) -> Form:
    SCIENCE.append(form)
    return form


def in_both(form: Form) -> Form:
    return in_math(in_science(form))


def frac(a: int, b: int) -> str:
    return rf"\frac{{{a}}}{{{b}}}"


def signed(n: int, of: str = "") -> str:
    return f"{'+' if n >= 0 else '-'} {'' if of and abs(n) == 1 else abs(n)}{of}"


# ---- numbers -----------------------------------------------------------------------------------------------------


@in_both
def integer(r: random.Random) -> Case:
    n = r.randrange(12, 10**7)
    return (
        str(n),
        [str(n + 1), str(-n), f"{n}0", str(n)[:-1], rf"{n}\%\%", f"{n}, {n}", f"{n}x", rf"\sqrt{{{n}}}"],
        [f"{n:,}", f"+{n}", rf"\mathbf{{{n}}}", f"x = {n}", f"{n}.0", rf"\frac{{{2 * n}}}{{2}}", f"${n}$"],
    )


@in_both
def negative_integer(r: random.Random) -> Case:
    n = r.randrange(2, 10**5)
    return (
        f"-{n}",
        [str(n), f"-{n + 1}", f"-{n}0", rf"\frac{{-1}}{{{n}}}", rf"\pm {n}", f"|-{n}|"],
        [f"−{n}", f"- {n}", f"(-{n})", rf"-\frac{{{n}}}{{1}}", rf"\text{{negative }} {n}", f"x=-{n}", f"0-{n}"],
    )


@in_both
def grouped(r: random.Random) -> Case:
    n = r.randrange(1000, 10**9)
    comma = f"{n:,}"
    return (
        comma,
        [f"{n + 1:,}", comma.replace(",", ".", 1), comma.split(",")[0], f"{10 * n:,}", f"({comma})" + "0"],
        [str(n), comma.replace(",", "{,}"), comma.replace(",", r",\!"), comma.replace(",", r"\,"),
         comma.replace(",", " "), rf"\text{{{comma}}}", rf"\${comma}"],
    )


@in_math
def decimal(r: random.Random) -> Case:
    n = r.randrange(101, 10**5)
    n += n % 10 == 0
    text = f"{n // 100}.{n % 100:02}"
    return (
        text,
        [f"{(n + 1) // 100}.{(n + 1) % 100:02}", f"-{text}", text.replace(".", ""), text.replace(".", ", "),
         f"{n // 10}.{n % 10}", f"{text[:-1]}{(n + 5) % 10}"],
        [f"{text}0", frac(n, 100), rf"{n}\times 10^{{-2}}", f"0{text}", rf"{n // 100}\frac{{{n % 100}}}{{100}}"
         if n % 100 else f"{text}", f"x = {text}", f"{n}/100", rf"\mathrm{{{text}}}"],
    )


@in_both
def fraction(r: random.Random) -> Case:
    a, b = r.randrange(1, 90), r.choice([7, 11, 13, 17])
    a += a % b == 0
    return (
        frac(a, b),
        [frac(a + 1, b), f"-{frac(a, b)}", f"{a / b:.4f}", frac(b, a), frac(a, b + 1), frac(10 * a, b), f"{a}, {b}"],
        [f"{a}/{b}", rf"\dfrac{{{2 * a}}}{{{2 * b}}}", rf"{a}\div {b}", rf"\frac{{-{a}}}{{-{b}}}",
         rf"{a} \cdot {b}^{{-1}}", rf"\tfrac{{{a}}}{{{b}}}", rf"\left(\frac{{{a}}}{{{b}}}\right)", rf"{a}\over {b}"],
    )


@in_math
def negative_fraction(r: random.Random) -> Case:
    a, b = r.randrange(2, 60), r.choice([7, 9, 11, 13, 25])
    a += math.gcd(a, b) > 1
    g = Fraction(a, b)
    a, b = g.numerator, g.denominator
    return (
        f"-{a}/{b}",
        [f"{a}/{b}", f"-{a}/{b + 1}", f"-{b}/{a}", f"-{a + 1}/{b}"],
        [rf"-\frac{{{a}}}{{{b}}}", rf"\frac{{-{a}}}{{{b}}}", rf"\frac{{{a}}}{{-{b}}}", f"−{a}/{b}", f"-{2 * a}/{2 * b}",
         rf"-\dfrac {{{a}}} {{{b}}}", f"(-{a})/{b}"],
    )


@in_both
def mixed(r: random.Random) -> Case:
    n, b = r.randrange(1, 20), r.choice([3, 4, 5, 7, 8])
    a = r.choice([k for k in range(1, b) if math.gcd(k, b) == 1])
    return (
        rf"{n}\frac{{{a}}}{{{b}}}",
        [rf"{n + 1}\frac{{{a}}}{{{b}}}", rf"{n}\frac{{{a}}}{{{b + 1}}}", rf"-{n}\frac{{{a}}}{{{b}}}", frac(n * a, b)],
        [frac(n * b + a, b), f"{n} {a}/{b}", rf"{n} \tfrac{{{a}}}{{{b}}}", f"{n} + {a}/{b}", rf"{n}\frac{{{2 * a}}}"
         rf"{{{2 * b}}}", f"{n * b + a}/{b}"],
    )


@in_math
def repeating(r: random.Random) -> Case:
    whole, digits = r.randrange(0, 30), r.choice(["3", "12", "142857", "09", "27", "081"])
    value = whole + Fraction(int(digits), 10 ** len(digits) - 1)
    return (
        rf"{whole}.\overline{{{digits}}}",
        [f"{whole}.{digits}", f"{whole}.{digits}{digits}{digits}", rf"{whole}.{digits}\overline{{{(int(digits) + 1) % 9}}}",
         rf"{whole + 1}.\overline{{{digits}}}"],
        [frac(value.numerator, value.denominator), rf"{whole}.\bar{{{digits}}}", f"{whole}.({digits})",
         rf"{whole}.{digits}\overline{{{digits}}}", f"{value.numerator}/{value.denominator}"],
    )


@in_both
def percent(r: random.Random) -> Case:
    n = r.randrange(2, 99)
    n += n == 10
    return (
        rf"{n}\%",
        [rf"{n + 1}\%", rf"-{n}\%", rf"{n}0\%", f"{n / 1000}", f"{n}0", f"0.{n:02}1", rf"{n / 10}\%"],
        [f"{n}%", str(n), f"0.{n:02}", frac(n, 100), f"{n} percent", rf"{n}\text{{ percent}}", rf"{n}.0\,\%"],
    )


@in_math
def decimal_percent(r: random.Random) -> Case:
    n = r.randrange(11, 999)
    n += n % 10 == 0
    return (
        rf"{n / 10}\%",
        [rf"{(n + 1) / 10}\%", rf"{n}\%", str(n), rf"{n / 100}\%"],
        [f"{n / 10}%", rf"{n / 10}0\%", rf"\frac{{{n}}}{{10}}\%", f"{Fraction(n, 1000)}", rf"{n / 10}\text{{ percent}}"],
    )


@in_both
def power(r: random.Random) -> Case:
    n = r.randrange(60, 400)
    return (
        f"2^{{{n}}}",
        [f"2^{{{n + 1}}}", f"2^{{-{n}}}", f"2^{{{n}}}+1", f"3^{{{n}}}", f"2{n}", f"{n}^2", f"-2^{{{n}}}"],
        [rf"2\cdot 2^{{{n - 1}}}", str(2**n), rf"\frac{{2^{{{n + 2}}}}}{{4}}", rf"2^{{{n - 1} + 1}}", f"(2^{{{n}}})",
         f"2**{n}", rf"\left(2\right)^{{{n}}}", rf"4^{{{n}/2}}"],
    )


@in_math
def small_power(r: random.Random) -> Case:
    a, b = r.randrange(2, 12), r.randrange(2, 9)
    return (
        f"{a}^{b}",
        [f"{a}^{b + 1}", f"{a + 1}^{b}", f"-{a}^{b}", str(a**b + 1), f"{a}{b}", f"{a}^{{-{b}}}"],
        [str(a**b), f"{a}^{{{b}}}", f"{a**b:,}", rf"{a}\cdot {a}^{{{b - 1}}}", f"{a} ^ {b}", f"({a})^{{{b}}}"],
    )


@in_math
def tiny(r: random.Random) -> Case:
    a, n = r.choice([2, 3, 5]), r.randrange(40, 200)
    return (
        rf"\frac{{1}}{{{a}^{{{n}}}}}",
        [rf"\frac{{1}}{{{a}^{{{n + 1}}}}}", f"{a}^{{{n}}}", "0", rf"-\frac{{1}}{{{a}^{{{n}}}}}", rf"\frac{{2}}{{{a}^{{{n}}}}}"],
        [f"{a}^{{-{n}}}", rf"\dfrac{{{a}}}{{{a}^{{{n + 1}}}}}", f"1/{a}^{{{n}}}", rf"\left(\frac1{{{a}}}\right)^{{{n}}}",
         f"{frac(1, a)}\\cdot {a}^{{-{n - 1}}}", f"(1/{a})^{{{n}}}"],
    )


@in_math
def complement(r: random.Random) -> Case:
    a, b, n = r.randrange(2, 9), r.randrange(10, 20), r.randrange(2, 40)
    return (
        rf"1-\left(\frac{{{a}}}{{{b}}}\right)^{{{n}}}",
        [rf"\left(\frac{{{a}}}{{{b}}}\right)^{{{n}}}", rf"1-\left(\frac{{{a}}}{{{b}}}\right)^{{{n + 1}}}",
         rf"1-\left(\frac{{{a + 1}}}{{{b}}}\right)^{{{n}}}"],
        [rf"1 - ({a}/{b})^{{{n}}}", rf"1-\frac{{{a}^{{{n}}}}}{{{b}^{{{n}}}}}", rf"-\left(\tfrac{{{a}}}{{{b}}}\right)^{{{n}}}+1",
         rf"\frac{{{b}^{{{n}}}-{a}^{{{n}}}}}{{{b}^{{{n}}}}}", rf"P = 1-\left(\dfrac{{{a}}}{{{b}}}\right)^{{{n}}}"],
    )


@in_math
def counted(r: random.Random) -> Case:
    n, k = r.randrange(8, 40), r.randrange(2, 6)
    return (
        rf"\binom{{{n}}}{{{k}}}",
        [rf"\binom{{{n + 1}}}{{{k}}}", rf"\binom{{{k}}}{{{n}}}", rf"\frac{{{n}}}{{{k}}}", str(math.comb(n, k) + 1),
         rf"\binom{{{n}}}{{{k}}}!"],
        [str(math.comb(n, k)), rf"\frac{{{n}!}}{{{k}!{n - k}!}}", rf"\dbinom{{{n}}}{{{k}}}", rf"\binom{{{n}}}{{{n - k}}}",
         rf"{{{n} \choose {k}}}", rf"\tbinom {{{n}}} {{{k}}}", f"{math.comb(n, k):,}"],
    )


@in_math
def factorial(r: random.Random) -> Case:
    n, k = r.randrange(6, 60), r.randrange(2, 30)
    return (
        rf"{n}!-{k}",
        [f"{n}!+{k}", f"{n + 1}!-{k}", f"{n}-{k}", f"{n}!-{k + 1}", f"({n}-{k})!" if n - k > 3 else "0"],
        [f"{n}! - {k}", f"-{k}+{n}!", rf"{n}\cdot {n - 1}!-{k}", f"({n})!-{k}", rf"N={n}!-{k}", str(math.factorial(n) - k)],
    )


@in_math
def root(r: random.Random) -> Case:
    a, b = r.randrange(2, 40), r.choice([2, 3, 5, 6, 7])
    return (
        rf"{a}\sqrt{{{b}}}",
        [rf"{a + 1}\sqrt{{{b}}}", rf"{a}\sqrt{{{b + 1}}}", rf"-{a}\sqrt{{{b}}}", f"{a * b**0.5:.3f}", rf"\sqrt{{{a * b}}}",
         rf"{a}\sqrt[3]{{{b}}}", rf"{a}+\sqrt{{{b}}}", str(a * b)],
        [rf"\sqrt{{{a * a * b}}}", rf"\sqrt{b}\cdot {a}", f"{a}√{b}", rf"\frac{{{a * b}}}{{\sqrt{{{b}}}}}",
         rf"{a}\cdot {b}^{{1/2}}", rf"{a} \sqrt {b}", f"{a}sqrt({b})", rf"{a}*\sqrt{{{b}}}", rf"{a}\,\sqrt{{\,{b}\,}}"],
    )


@in_math
def surd(r: random.Random) -> Case:
    a, b, c = r.randrange(2, 30), r.randrange(2, 20), r.choice([2, 3, 5, 7, 11])
    d = r.choice([2, 3, 7])
    return (
        rf"\frac{{{a}+{b}\sqrt{{{c}}}}}{{{d}}}",
        [rf"\frac{{{a}-{b}\sqrt{{{c}}}}}{{{d}}}", rf"\frac{{{a}+{b + 1}\sqrt{{{c}}}}}{{{d}}}",
         rf"{a}+\frac{{{b}\sqrt{{{c}}}}}{{{d}}}", rf"\frac{{{a}\pm{b}\sqrt{{{c}}}}}{{{d}}}"],
        [rf"\frac{{{b}\sqrt{{{c}}}+{a}}}{{{d}}}", rf"({a}+{b}\sqrt {c})/{d}", rf"\dfrac{{{a}}}{{{d}}}+\dfrac{{{b}}}{{{d}}}\sqrt{{{c}}}",
         rf"\frac{{{a}+\sqrt{{{b * b * c}}}}}{{{d}}}", rf"\frac{1}{{{d}}}\left({a}+{b}\sqrt{{{c}}}\right)",
         rf"\frac{{{a} + {b}√{c}}}{{{d}}}"],
    )


@in_math
def cube_root(r: random.Random) -> Case:
    a, n = r.randrange(2, 50), r.choice([3, 4, 5])
    return (
        rf"\sqrt[{n}]{{{a}}}",
        [rf"\sqrt[{n}]{{{a + 1}}}", rf"\sqrt[{n + 1}]{{{a}}}", rf"{n}\sqrt{{{a}}}", rf"-\sqrt[{n}]{{{a}}}"],
        [rf"{a}^{{1/{n}}}", rf"{a}^{{\frac{{1}}{{{n}}}}}", rf"\sqrt[{2 * n}]{{{a * a}}}", rf"\sqrt [{n}] {{{a}}}",
         rf"\left({a}\right)^{{\frac1{n}}}", rf"\frac{{{a}}}{{{a}^{{{n - 1}/{n}}}}}"],
    )


@in_math
def angle(r: random.Random) -> Case:
    a, b = r.choice([1, 2, 3, 5, 7]), r.choice([4, 6, 8, 9, 11])
    return (
        rf"\frac{{{a}\pi}}{{{b}}}",
        [rf"\frac{{{a + 1}\pi}}{{{b}}}", rf"-\frac{{{a}\pi}}{{{b}}}", frac(a, b), rf"\frac{{{a}}}{{{b}\pi}}",
         rf"\frac{{{a}\pi}}{{{b + 1}}}", f"{a * math.pi / b:.3f}", rf"\frac{{{a}p}}{{{b}}}"],
        [rf"\frac{{{a}}}{{{b}}}\pi", rf"{a}\pi/{b}", rf"\frac{{{2 * a}\pi}}{{{2 * b}}}", rf"\frac{{{a}π}}{{{b}}}",
         rf"{a} \cdot \frac{{\pi}}{{{b}}}", rf"\dfrac{{{a} \pi}}{{{b}}}", rf"\frac{{\pi\cdot{a}}}{{{b}}}", f"{a}pi/{b}"],
    )


@in_both
def area(r: random.Random) -> Case:
    a, b = r.randrange(2, 90), r.randrange(2, 90)
    return (
        rf"{a}\pi+{b}",
        [rf"{a}\pi-{b}", rf"{b}\pi+{a + 1}", rf"{a + 1}\pi+{b}", rf"{a + b}\pi", rf"({a}+{b})\pi"],
        [rf"{b}+{a}\pi", f"{a}π + {b}", rf"{a} \pi + {b}", rf"{a}\cdot\pi+{b}", rf"\pi\cdot {a}+{b}", rf"A={a}\pi+{b}",
         rf"{a}\pi+{b}\text{{ square units}}"],
    )


@in_math
def exponential(r: random.Random) -> Case:
    a, b = r.randrange(2, 30), r.randrange(2, 9)
    return (
        f"{a}e^{{{b}}}",
        [f"{a}e^{{{b + 1}}}", f"{a + 1}e^{{{b}}}", f"{a}e^{{-{b}}}", f"-{a}e^{{{b}}}", f"{a}e{b}", f"{a}x^{{{b}}}"],
        [f"{a}e^{b}", rf"{a}\cdot e^{{{b}}}", rf"e^{{{b}}}\cdot {a}", rf"{a}\exp({b})", rf"\frac{{{a}}}{{e^{{-{b}}}}}",
         rf"{a}\mathrm{{e}}^{{{b}}}", rf"{a} \, e^{{{b}}}"],
    )


@in_math
def logarithm(r: random.Random) -> Case:
    a, b = r.choice([2, 3, 5, 7, 10]), r.choice([11, 13, 17, 19, 23, 6, 12])
    return (
        rf"\log_{{{a}}} {b}",
        [rf"\log_{{{b}}} {a}", rf"\log_{{{a}}} {b + 1}", rf"\log_{{{a + 1}}} {b}", rf"-\log_{{{a}}} {b}", rf"\ln {b}",
         rf"\log {a}\cdot {b}"],
        [rf"\frac{{\ln {b}}}{{\ln {a}}}", rf"\log_{a}{{{b}}}" if a < 10 else rf"\lg {b}", rf"\log_{{{a}}}({b})",
         rf"\frac{{\log {b}}}{{\log {a}}}", rf"\frac{{1}}{{\log_{{{b}}}{a}}}", rf"\frac{{1}}{{2}}\log_{{{a}}} {b * b}",
         rf"\log_{{{a}}}\left({b}\right)"],
    )


@in_math
def natural_logarithm(r: random.Random) -> Case:
    a, b = r.randrange(3, 9), r.choice([2, 3, 5, 7])
    return (
        rf"{a}\ln {b}+1",
        [rf"{a}\ln {b}-1", rf"{a + 1}\ln {b}+1", rf"{a}\ln {b + 1}+1", rf"{a}\ln({b}+1)", rf"\ln {a * b}+1"],
        [rf"\ln {b**a}+1", rf"1+{a}\ln{{{b}}}", rf"{a}\ln({b})+1", rf"\ln({b**a}e)", rf"{a} \log_e {b} + 1",
         rf"1 + \ln {b}^{{{a}}}", rf"{a} ln({b}) + 1"],
    )


@in_math
def sine(r: random.Random) -> Case:
    n = r.choice([5, 10, 20, 25, 35, 40, 50, 55, 65, 70, 80])
    return (
        rf"\sin {n}^\circ",
        [rf"\cos {n}^\circ", rf"\sin {n + 1}^\circ", rf"-\sin {n}^\circ", rf"\sin {n}", rf"\sin^2 {n}^\circ"],
        [rf"\sin({n}^\circ)", rf"\cos {90 - n}^{{\circ}}", rf"\sin\frac{{{n}\pi}}{{180}}", f"sin {n}°", rf"\sin {180 - n}^\circ",
         rf"\sin\left({n}^\circ\right)", rf"2\sin\frac{{{n}^\circ}}{{2}}\cos\frac{{{n}^\circ}}{{2}}"],
    )


@in_math
def complex_number(r: random.Random) -> Case:
    a, b = r.choice([-7, -3, -1, 2, 5, 11]), r.choice([-9, -4, -2, 3, 6, 8])
    return (
        f"{a}{'+' if b > 0 else '-'}{abs(b)}i",
        [f"{a} {signed(-b)}i", f"{-a} {signed(b)}i", f"{b} {signed(a)}i", f"{a} {signed(b)}", f"{a} {signed(b)}j^2",
         f"({a}, {b})", f"{a + 1} {signed(b)}i"],
        [f"{a} {signed(b)} i", f"{b}i {signed(a)}", f"z = {a}{signed(b)}i", rf"{a}{signed(b)}\cdot i", f"({a}{signed(b)}i)",
         rf"\frac{{{2 * a} {signed(2 * b)}i}}{{2}}", rf"{a}{signed(b)}\mathrm{{i}}"],
    )


@in_math
def constants(r: random.Random) -> Case:
    n = r.randrange(2, 30)
    return (
        rf"\frac{{{n}-\pi}}{{4}}",
        [rf"\frac{{{n}+\pi}}{{4}}", rf"\frac{{\pi-{n}}}{{4}}", rf"\frac{{{n + 1}-\pi}}{{4}}", rf"{n}-\frac{{\pi}}{{4}}"],
        [rf"\frac{{{n}}}{{4}}-\frac{{\pi}}{{4}}", rf"({n}-\pi)/4", rf"\frac14({n}-\pi)", rf"\frac{{\pi-{n}}}{{-4}}",
         rf"-\frac{{\pi-{n}}}{{4}}", rf"\dfrac{{{n} - π}}{{4}}", rf"0.25({n}-\pi)"],
    )


@in_both
def scientific(r: random.Random) -> Case:
    a, n = r.randrange(11, 99), r.choice([-34, -19, -9, -3, 4, 6, 8, 23])
    a += a % 10 == 0
    text = f"{a / 10}"
    return (
        rf"{text} \times 10^{{{n}}}",
        [rf"{text} \times 10^{{{n + 1}}}", rf"{text} \times 10^{{{-n}}}", rf"-{text} \times 10^{{{n}}}",
         rf"{a} \times 10^{{{n}}}", f"{text}", rf"{(a + 1) / 10} \times 10^{{{n}}}"],
        [f"{text}e{n}", rf"{text}\cdot 10^{{{n}}}", rf"{a}\times10^{{{n - 1}}}", f"{text}E{n}", f"{text} × 10^{{{n}}}",
         f"{text} x 10^{n}", rf"{text}0 \times {{10}}^{{{n}}}", f"{text}*10^{n}"],
    )


@in_both
def ratio(r: random.Random) -> Case:
    a, b = r.randrange(2, 20), r.choice([1, 23, 29, 31])
    return (
        f"{a}:{b}",
        [f"{b}:{a}", f"{a + 1}:{b}", f"{a}:{b + 1}", f"{a}, {b}", f"({a}, {b})", f"-{a}:{b}"],
        [f"{2 * a}:{2 * b}", f"{a} : {b}", frac(a, b), rf"{a}\text{{ to }}{b}", f"{a}/{b}", f"{a}∶{b}", rf"{a}\colon {b}"],
    )


# ---- algebra -----------------------------------------------------------------------------------------------------


@in_math
def polynomial(r: random.Random) -> Case:
    a, b = r.randrange(2, 20), r.randrange(2, 20)
    return (
        f"{a}x^2+{b}x",
        [f"{a}x^2-{b}x", f"{a + 1}x^2+{b}x", f"{a}x^3+{b}x", f"{a}y^2+{b}y", f"{a}x^2+{b}", f"{a + b}x^3", f"{a}x_2+{b}x"],
        [f"{b}x + {a}x^2", f"x({a}x+{b})", rf"{a}x\cdot x+{b}x", f"y={a}x^2+{b}x", f"{a}{{x}}^{{2}}+{b}x", f"{a}x²+{b}x",
         f"{a}*x^2 + {b}*x", f"{a}x**2+{b}x"],
    )


@in_math
def factored(r: random.Random) -> Case:
    a, b = r.sample(range(2, 15), 2)
    return (
        f"(x-{a})(x+{b})",
        [f"(x+{a})(x-{b})", f"(x-{a + 1})(x+{b})", f"(x-{a})(x-{b})", f"x-{a}, x+{b}", f"(x-{a})+(x+{b})", f"(x-{a})(x+{b})^2"],
        [f"(x+{b})(x-{a})", f"x^2{signed(b - a, 'x')}-{a * b}", rf"\left(x-{a}\right)\left(x+{b}\right)",
         rf"(x-{a})\cdot(x+{b})", rf"({a}-x)(-{b}-x)", rf"(x - {a}) \times (x + {b})"],
    )


@in_math
def rational(r: random.Random) -> Case:
    a, b, c = r.randrange(2, 15), r.randrange(2, 15), r.randrange(2, 15)
    return (
        rf"\frac{{{a}x+{b}}}{{x-{c}}}",
        [rf"\frac{{{a}x-{b}}}{{x-{c}}}", rf"\frac{{{a}x+{b}}}{{x+{c}}}", rf"\frac{{x-{c}}}{{{a}x+{b}}}", rf"\frac{{{a}t+{b}}}{{t-{c}}}",
         rf"{a}x+\frac{{{b}}}{{x-{c}}}", rf"{a}x+{b}/x-{c}"],
        [rf"({a}x+{b})/(x-{c})", rf"\dfrac{{{b}+{a}x}}{{x-{c}}}", rf"{a}+\frac{{{b + a * c}}}{{x-{c}}}",
         rf"\frac{{-{a}x-{b}}}{{{c}-x}}", rf"-\frac{{{a}x+{b}}}{{{c}-x}}", rf"f(x)=\frac{{{a}x+{b}}}{{x-{c}}}"],
    )


@in_math
def in_n(r: random.Random) -> Case:
    a, b = r.randrange(2, 10), r.randrange(1, 9)
    return (
        rf"{a}^n-{b}n",
        [rf"{a}^n+{b}n", rf"{a}^{{n-{b}n}}", rf"{a}^{{n+1}}-{b}n", rf"{a}n-{b}n", rf"{a + 1}^n-{b}n", rf"{a}^m-{b}n"],
        [rf"{a}^{{n}} - {b}n", rf"-{b}n+{a}^n", rf"{a}\cdot {a}^{{n-1}}-{b}n", rf"a_n={a}^n-{b}n", rf"{a}^n-{b}\cdot n",
         rf"{a}^n-n\cdot{b}", rf"\left({a}\right)^{{n}}-{b}n"],
    )


@in_math
def sequence(r: random.Random) -> Case:
    a, b = r.randrange(2, 10), r.randrange(1, 9)
    return (
        f"a_n={a}n+{b}",
        [f"a_n={a}n-{b}", f"a_n={a + 1}n+{b}", f"a_n={a}n^2+{b}", f"a_{{n+1}}={a}n+{b}", f"a_n={a}+{b}", f"b_n={a}n+{b}"],
        [f"a_{{n}} = {b}+{a}n", f"{a}n+{b}", f"a_k={a}k+{b}", f"a_n = {a} n + {b}", rf"a_n=\frac{{{2 * a}n+{2 * b}}}{{2}}",
         rf"a_n={a}n+{b}\ (n\in\mathbb{{N}}^*)"],
    )


@in_math
def definition(r: random.Random) -> Case:
    a, b = r.randrange(2, 10), r.randrange(1, 9)
    return (
        f"f(x)={a}x+{b}",
        [f"f(x)={a}x-{b}", f"f(x)={b}x+{a + b}", f"f(x)={a}x^2+{b}", f"f(x)={a}y+{b}", f"f(x)={a + 1}x+{b}", f"f(x)={a}x"],
        [f"f(t)={a}t+{b}", f"{a}x+{b}", rf"f(x)={a}x+{b}\text{{ for all real }}x", f"f(x) = {b} + {a}x", rf"f(x)={a}\cdot x+{b}",
         rf"f(x)={a}x+{b}, \forall x\in\mathbb{{R}}", rf"f \left( x \right) = {a} x + {b}"],
    )


@in_math
def definitions(r: random.Random) -> Case:
    a = r.randrange(2, 20)
    return (
        f"f(x)=0, f(x)={a}x",
        ["f(x)=0", f"f(x)={a}x", f"f(x)=0, f(x)={a + 1}x", f"f(x)=1, f(x)={a}x", f"f(x)=0, f(x)={a}x, f(x)=x"],
        [f"f(x)={a}x, f(x)=0", rf"f(x)=0 \text{{ or }} f(x)={a}x", f"$f(x)=0$, $f(x)={a}x$", rf"f(x) = 0 \text{{ and }} f(x) = {a} x",
         rf"f(x)=0 \quad\text{{or}}\quad f(x)={a}x"],
    )


@in_math
def line(r: random.Random) -> Case:
    a, b = r.randrange(2, 15), r.choice([-9, -7, -4, -3, 2, 5, 8])
    return (
        f"y={a}x{signed(b)}",
        [f"y={a + 1}x{signed(b)}", f"y=-{a}x{signed(b)}", f"y={a}x{signed(-b)}", f"x={a}y{signed(b)}", f"y={a}x{signed(b + 1)}",
         f"y={a}x^2{signed(b)}", f"{a}x{signed(b)}=0"],
        [f"{a}x-y{signed(b)}=0", f"y{signed(-b)}={a}x", f"{a}x{signed(b)}", f"y = {b}+{a}x", f"2y={2 * a}x{signed(2 * b)}",
         rf"\frac{{y{signed(-b)}}}{{{a}}}=x", f"-y+{a}x={-b}", rf"y={a}\left(x{signed(b)}/{a}\right)"],
    )


@in_math
def circle(r: random.Random) -> Case:
    a, b, c = r.randrange(1, 9), r.randrange(1, 9), r.randrange(2, 9)
    return (
        f"(x-{a})^2+(y+{b})^2={c * c}",
        [f"(x+{a})^2+(y-{b})^2={c * c}", f"(x-{a})^2+(y+{b})^2={c}", f"(x-{a})^2-(y+{b})^2={c * c}",
         f"(x-{a})^2+(y+{b + 1})^2={c * c}", f"(x-{a})^2+(y+{b})^2", f"(x-{a})+(y+{b})={c}"],
        [f"(y+{b})^2+(x-{a})^2={c * c}", f"x^2-{2 * a}x+{a * a}+y^2+{2 * b}y+{b * b}={c * c}", f"(x-{a})^2+(y+{b})^2={c}^2",
         f"(x-{a})^2+(y+{b})^2-{c * c}=0", rf"\left(x-{a}\right)^{{2}}+\left(y+{b}\right)^{{2}}={c * c}", f"{c * c}=(x-{a})²+(y+{b})²"],
    )


@in_math
def ellipse(r: random.Random) -> Case:
    a, b = r.sample(range(2, 12), 2)
    return (
        rf"\frac{{x^2}}{{{a * a}}}+\frac{{y^2}}{{{b * b}}}=1",
        [rf"\frac{{x^2}}{{{b * b}}}+\frac{{y^2}}{{{a * a}}}=1", rf"\frac{{x^2}}{{{a * a}}}-\frac{{y^2}}{{{b * b}}}=1",
         rf"\frac{{x^2}}{{{a * a}}}+\frac{{y^2}}{{{b * b}}}=0", rf"\frac{{x^2}}{{{a}}}+\frac{{y^2}}{{{b}}}=1"],
        [rf"\frac{{y^2}}{{{b * b}}}+\frac{{x^2}}{{{a * a}}}=1", rf"{b * b}x^2+{a * a}y^2={a * a * b * b}",
         rf"x^2/{a * a}+y^2/{b * b}=1", rf"\dfrac{{x^{{2}}}}{{{a * a}}} + \dfrac{{y^{{2}}}}{{{b * b}}} = 1",
         rf"\frac{{x^2}}{{{a}^2}}+\frac{{y^2}}{{{b}^2}}=1", rf"E: \frac{{x^2}}{{{a * a}}}+\frac{{y^2}}{{{b * b}}}=1"],
    )


@in_math
def trigonometric(r: random.Random) -> Case:
    a, b = r.randrange(2, 9), r.randrange(2, 9)
    return (
        rf"{a}\sin {b}x",
        [rf"{a}\cos {b}x", rf"{a}\sin {b + 1}x", rf"{b * 2}\sin {b}x" if a != 2 * b else r"\sin x", rf"-{a}\sin {b}x", rf"{a}\sin x\cdot{b}",
         rf"{a}\sin {b}y", rf"{a}\sin^2 {b}x"],
        [rf"{a}\sin({b}x)", rf"{a} \sin \left({b} x\right)", f"{a} sin({b}x)", rf"\sin({b}x)\cdot {a}", rf"{a}\cos\left(\frac{{\pi}}{{2}}-{b}x\right)",
         rf"y={a}\sin {b}x", rf"-{a}\sin(-{b}x)"],
    )


@in_math
def quantum(r: random.Random) -> Case:
    n = r.randrange(2, 9)
    return (
        rf"\frac{{{n}\hbar\omega_0}}{{k_{{\mathrm{{B}}}}T}}",
        [rf"\frac{{{n + 1}\hbar\omega_0}}{{k_{{\mathrm{{B}}}}T}}", rf"\frac{{{n}\hbar\omega_1}}{{k_{{\mathrm{{B}}}}T}}",
         rf"\frac{{{n}h\omega_0}}{{k_{{\mathrm{{B}}}}T}}", rf"\frac{{{n}\hbar\omega_0}}{{k_{{\mathrm{{B}}}}T^2}}",
         rf"\frac{{k_BT}}{{{n}\hbar\omega_0}}"],
        [rf"\frac{{{n}\hbar\omega_{{0}}}}{{k_BT}}", rf"{n}\hbar\omega_0/(k_BT)", rf"\frac{{{n} \hbar \omega_0}}{{k_{{\text{{B}}}} T}}",
         rf"{n}\frac{{\omega_0\hbar}}{{T k_{{B}}}}", rf"\dfrac{{{n}ħω_0}}{{k_B T}}"],
    )


@in_math
def parameter(r: random.Random) -> Case:
    a, b = r.choice([3, 4, 5, 6, 8]), r.choice(["", "2"])
    return (
        rf"\frac{{\pi}}{{{a}}}+{b}k\pi",
        [rf"-\frac{{\pi}}{{{a}}}+{b}k\pi", rf"\frac{{\pi}}{{{a + 1}}}+{b}k\pi", rf"\frac{{\pi}}{{{a}}}+3k\pi", rf"\frac{{\pi}}{{{a}}}",
         rf"\frac{{\pi}}{{{a}}}k+{b}\pi"],
        [rf"{b}n\pi+\frac{{\pi}}{{{a}}}", rf"\frac{{\pi}}{{{a}}}+{b}k\pi, k\in\mathbb{{Z}}", rf"x=\frac{{\pi}}{{{a}}}+{b}k\pi",
         rf"{b}k\pi + \pi/{a}", rf"\frac{{\pi}}{{{a}}} + {b}\pi k \ (k \in \mathbb{{Z}})", rf"\frac{{π}}{{{a}}}+{b}kπ"],
    )


@in_math
def growth(r: random.Random) -> Case:
    a, p = 1000 * r.randrange(2, 90), r.randrange(2, 9)
    return (
        rf"{a}(1.0{p})^t",
        [rf"{a}(1.0{p + 1})^t", rf"{a + 1}(1.0{p})^t", rf"{a}(0.9{p})^t", rf"{a}(1.0{p})t", rf"{a}(1.{p})^t", rf"{a}(1.0{p})^{{2t}}"],
        [rf"{a:,}(1.0{p})^t", rf"{a}\cdot 1.0{p}^t", rf"{a:,}".replace(",", "{,}") + rf"\left(1.0{p}\right)^{{t}}", rf"{a}(1+0.0{p})^t",
         rf"P={a}(1.0{p})^t", rf"{a}\times(1.0{p})^{{t}}", rf"{a}\left(1+\frac{{{p}}}{{100}}\right)^t"],
    )


# ---- several values ----------------------------------------------------------------------------------------------


@in_both
def point(r: random.Random) -> Case:
    a, b = r.randrange(-50, 50), r.randrange(51, 99)
    return (
        f"({a},{b})",
        [f"({b},{a})", f"({a},{b + 1})", rf"\{{{a},{b}\}}", f"[{a},{b}]", f"({-a - 1},{b})", f"({a},-{b})", f"({a},{b},0)", str(a)],
        [f"({a}, {b})", rf"\left({a},{b}\right)", f"(x,y)=({a},{b})", f"x={a}, y={b}", rf"\langle {a}, {b} \rangle",
         f"( {a} ; {b} )", rf"({a},\;{b})", rf"P({a},{b})"],
    )


@in_math
def surd_point(r: random.Random) -> Case:
    a, b, c = r.randrange(2, 20), r.randrange(2, 20), r.choice([2, 3, 5, 7])
    return (
        rf"\left({a}\sqrt{{{c}}}, -\frac{{{b}}}{{{b + 1}}}\right)",
        [rf"\left(-\frac{{{b}}}{{{b + 1}}}, {a}\sqrt{{{c}}}\right)", rf"\left({a}\sqrt{{{c}}}, \frac{{{b}}}{{{b + 1}}}\right)",
         rf"\left({a + 1}\sqrt{{{c}}}, -\frac{{{b}}}{{{b + 1}}}\right)"],
        [rf"(\sqrt{{{a * a * c}}}, -{b}/{b + 1})", rf"({a}√{c}, -\dfrac{{{b}}}{{{b + 1}}})", rf"\big({a}\sqrt{c},\tfrac{{-{b}}}{{{b + 1}}}\big)",
         rf"x={a}\sqrt{{{c}}}, y=-\frac{{{b}}}{{{b + 1}}}", rf"( {a}\sqrt{{{c}}} , \frac{{{b}}}{{-{b + 1}}} )"],
    )


@in_math
def points(r: random.Random) -> Case:
    a, b, c, d = r.sample(range(-30, 31), 4)
    return (
        f"({a},{b}),({c},{d})",
        [f"({b},{a}),({c},{d})", f"({a},{b})", f"({a},{b}),({c},{d + 100})", f"({a},{c}),({b},{d})", f"({a},{b}),({c},{d}),(99,99)"],
        [f"({c}, {d}), ({a}, {b})", rf"({a},{b}) \text{{ and }} ({c},{d})", rf"\{{({c},{d}),({a},{b})\}}", f"({a},{b}); ({c},{d})",
         rf"(x,y)=({a},{b}),({c},{d})", rf"({a},{b})\text{{ or }}({c},{d})"],
    )


@in_both
def collection(r: random.Random) -> Case:
    a, b, c = r.sample(range(-50, 50), 3)
    return (
        rf"\{{{a},{b},{c}\}}",
        [f"{a},{b}", rf"\{{{a},{b},{c + 100}\}}", f"({a},{b},{c})", f"{a},{b},{c},{c}", rf"\{{{a},{b},{c},{c + 100}\}}", f"[{a},{b},{c}]"],
        [rf"\{{{c}, {a}, {b}\}}", f"{b},{a},{c}", rf"{a}, {b} \text{{ and }} {c}", f"x={a}, x={b}, x={c}",
         rf"\left\{{{b}; {c}; {a}\right\}}", rf"\lbrace {a}, {c}, {b} \rbrace", f"S={{{a},{b},{c}}}", rf"\{{{a}\}}\cup\{{{b},{c}\}}"],
    )


@in_math
def values(r: random.Random) -> Case:
    a, b, c = r.sample(range(-50, 50), 3)
    return (
        f"{a},{b},{c}",
        [f"{a},{b}", f"{a},{b},{c + 100}", f"{a},{b},{c},{a}", f"{a + b},{c}", f"[{a},{c}]"],
        [f"{c}, {b}, {a}", rf"\{{{a}, {c}, {b}\}}", rf"{a}, {b}, \text{{and }} {c}", f"{a}; {b}; {c}", f"x={a}, {b}, {c}",
         rf"x={a}\text{{ or }}x={c}\text{{ or }}x={b}", rf"{a},\ {b},\ {c}", f"{a} , {b} , {c}"],
    )


@in_math
def roots(r: random.Random) -> Case:
    a, b = r.randrange(2, 20), r.choice([2, 3, 5, 7])
    return (
        rf"{a}\pm\sqrt{{{b}}}",
        [rf"{a}+\sqrt{{{b}}}", rf"{a}-\sqrt{{{b}}}", rf"{a + 1}\pm\sqrt{{{b}}}", rf"-{a}\pm\sqrt{{{b}}}", rf"{a}\pm\sqrt{{{b + 1}}}"],
        [rf"{a}+\sqrt{{{b}}}, {a}-\sqrt{{{b}}}", rf"x={a}\pm\sqrt{b}", rf"{a}-\sqrt{{{b}}}\text{{ and }}{a}+\sqrt{{{b}}}",
         rf"\{{{a}-\sqrt{b}, {a}+\sqrt{b}\}}", rf"{a} \pm √{b}", rf"x_1={a}+\sqrt{b}, x_2={a}-\sqrt{b}"],
    )


@in_math
def named(r: random.Random) -> Case:
    a, b, c = r.sample(range(-30, 30), 3)
    return (
        f"a={a}, b={b}, c={c}",
        [f"a={b}, b={a}, c={c}", f"a={a}, b={b}, c={c + 70}", f"a={a}, b={b}", f"({c},{b},{a})", f"a={a}, b={b}, d={c}"],
        [f"b={b}, a={a}, c={c}", rf"a = {a},\ b = {b},\ c = {c}", f"({a},{b},{c})", f"(a,b,c)=({a},{b},{c})",
         rf"a={a} \text{{ and }} b={b} \text{{ and }} c={c}", rf"\begin{{cases}}a={a}\\b={b}\\c={c}\end{{cases}}", f"a={a}; b={b}; c={c}"],
    )


@in_both
def matrix(r: random.Random) -> Case:
    a, b, c, d = r.sample(range(-30, 30), 4)
    return (
        rf"\begin{{pmatrix}}{a}&{b}\\{c}&{d}\end{{pmatrix}}",
        [rf"\begin{{pmatrix}}{b}&{a}\\{c}&{d}\end{{pmatrix}}", rf"\begin{{pmatrix}}{a}&{c}\\{b}&{d}\end{{pmatrix}}",
         rf"\begin{{pmatrix}}{a}&{b}\\{c}&{d + 70}\end{{pmatrix}}", rf"\begin{{vmatrix}}{a}&{b}\\{c}&{d}\end{{vmatrix}}",
         rf"\begin{{pmatrix}}{a}&{b}&{c}&{d}\end{{pmatrix}}", rf"-\begin{{pmatrix}}{a}&{b}\\{c}&{d}\end{{pmatrix}}"],
        [rf"\begin{{bmatrix}} {a} & {b} \\ {c} & {d} \end{{bmatrix}}", rf"\begin{{pmatrix}}{a}&{b}\\[4pt]{c}&{d}\end{{pmatrix}}",
         rf"\left(\begin{{array}}{{cc}}{a}&{b}\\{c}&{d}\end{{array}}\right)", rf"A=\begin{{pmatrix}}{a}&{b}\\{c}&{d}\\\end{{pmatrix}}",
         rf"\left[\begin{{matrix}}{a}&{b}\\{c}&{d}\end{{matrix}}\right]", rf"\begin{{pmatrix}}{a}&{b}\\ \frac{{{2 * c}}}{{2}}&{d}.0\end{{pmatrix}}"],
    )


@in_math
def vector(r: random.Random) -> Case:
    a, b, c = r.sample(range(2, 30), 3)
    return (
        rf"\begin{{pmatrix}}{a}\\-{b}\\{c}\end{{pmatrix}}",
        [rf"\begin{{pmatrix}}{a}\\{b}\\{c}\end{{pmatrix}}", rf"\begin{{pmatrix}}{c}\\-{b}\\{a}\end{{pmatrix}}", rf"\begin{{pmatrix}}{a}\\-{b}\end{{pmatrix}}",
         rf"\begin{{pmatrix}}{a}\\-{b}\\{c + 1}\end{{pmatrix}}"],
        [rf"\begin{{bmatrix}}{a}\\-{b}\\{c}\end{{bmatrix}}", rf"\begin{{pmatrix}} {a} \\ -{b} \\ {c} \end{{pmatrix}}", rf"\vec{{v}}=\begin{{pmatrix}}{a}\\-{b}\\{c}\end{{pmatrix}}",
         rf"\begin{{pmatrix}}{a}\\[0.5em]-{b}\\[0.5em]{c}\end{{pmatrix}}", rf"\left[\begin{{array}}{{c}}{a}\\-{b}\\{c}\end{{array}}\right]"],
    )


@in_math
def base_vectors(r: random.Random) -> Case:
    a, b = r.sample(range(2, 30), 2)
    return (
        rf"{a}\mathbf{{i}}-{b}\mathbf{{j}}",
        [rf"{a}\mathbf{{i}}+{b}\mathbf{{j}}", rf"{b}\mathbf{{i}}-{a}\mathbf{{j}}", rf"{a}\mathbf{{i}}-{b}\mathbf{{k}}", rf"{a + 1}\mathbf{{i}}-{b}\mathbf{{j}}", str(a - b)],
        [rf"{a}\vec{{i}}-{b}\vec{{j}}", rf"-{b}\mathbf{{j}}+{a}\mathbf{{i}}", rf"{a} \boldsymbol{{i}} - {b} \boldsymbol{{j}}", rf"{a}\hat{{i}}-{b}\hat{{j}}",
         rf"{a}\,\mathbf i-{b}\,\mathbf j"],
    )


@in_math
def system(r: random.Random) -> Case:
    a, b = r.sample(range(-40, 40), 2)
    return (
        rf"\begin{{cases}}x={a}\\y={b}\end{{cases}}",
        [rf"\begin{{cases}}x={b}\\y={a}\end{{cases}}", rf"\begin{{cases}}x={a}\\y={b + 90}\end{{cases}}", rf"\begin{{cases}}x={a}\end{{cases}}", f"({b},{a})"],
        [f"x={a}, y={b}", f"({a},{b})", rf"\begin{{aligned}}x&={a}\\y&={b}\end{{aligned}}", rf"\left\{{\begin{{array}}{{l}}x={a}\\y={b}\end{{array}}\right.",
         rf"\begin{{cases}} y = {b} \\ x = {a} \end{{cases}}", rf"x={a} \text{{ and }} y={b}", rf"x={a}\\y={b}"],
    )


@in_math
def piecewise(r: random.Random) -> Case:
    a, b, c = r.sample(range(2, 30), 3)
    return (
        rf"\begin{{cases}}{a}x & x<{c}\\{b} & x\ge {c}\end{{cases}}",
        [rf"\begin{{cases}}{a + 1}x & x<{c}\\{b} & x\ge {c}\end{{cases}}", rf"\begin{{cases}}{a}x & x\le {c}\\{b} & x> {c}\end{{cases}}",
         rf"\begin{{cases}}{b} & x<{c}\\{a}x & x\ge {c}\end{{cases}}", rf"\begin{{cases}}{a}x & x<{c + 1}\\{b} & x\ge {c + 1}\end{{cases}}"],
        [rf"\begin{{cases}} {a}x, & x < {c} \\ {b}, & x \geq {c} \end{{cases}}", rf"f(x)=\begin{{cases}}{a}x & x<{c}\\{b} & x\ge {c}\end{{cases}}",
         rf"\begin{{cases}}{a}x & \text{{if }} x<{c}\\{b} & \text{{if }} x\geqslant {c}\end{{cases}}", rf"\begin{{cases}}{a}x & x<{c}\\[2mm]{b} & x\ge {c}\\\end{{cases}}",
         rf"\begin{{cases}}{b} & x\ge {c}\\{a}x & x<{c}\end{{cases}}"],
    )


# ---- sets of numbers ---------------------------------------------------------------------------------------------


@in_math
def interval(r: random.Random) -> Case:
    a = r.randrange(-40, 40)
    b = a + r.randrange(1, 40)
    return (
        f"[{a},{b})",
        [f"({a},{b})", f"[{a},{b}]", f"[{a},{b + 1})", f"[{b},{a})", f"{a} < x < {b}", f"({a},{b}]", rf"\{{{a},{b}\}}", f"[{a - 1},{b})"],
        [rf"{a} \le x < {b}", rf"x \in [{a}, {b})", rf"\{{x \mid {a} \leq x < {b}\}}", rf"\left[{a}, {b}\right)", f"[{a},{b}[",
         rf"{b} > x \geq {a}", f"[{a}; {b})", f"{a} ≤ x < {b}", rf"\{{x\in\mathbb{{R}} : {a}\le x<{b}\}}"],
    )


@in_math
def ray(r: random.Random) -> Case:
    a = r.randrange(-40, 40)
    return (
        rf"(-\infty,{a}]",
        [rf"(-\infty,{a})", rf"(-\infty,{a + 1}]", rf"[{a},\infty)", f"x<{a}", rf"(\infty,{a}]", rf"x\ge {a}", str(a)],
        [rf"x\le {a}", rf"\left(-\infty, {a}\right]", rf"x \in (-\infty,{a}]", rf"\{{x : x \leq {a}\}}", f"(-∞, {a}]", rf"{a}\ge x", rf"]-\infty,{a}]",
         rf"x\leqslant {a}"],
    )


@in_math
def union(r: random.Random) -> Case:
    a = r.randrange(-40, 30)
    b = a + r.randrange(2, 20)
    return (
        rf"(-\infty,{a})\cup({b},\infty)",
        [rf"(-\infty,{a}]\cup({b},\infty)", rf"(-\infty,{a})\cup({b + 1},\infty)", f"({a},{b})", rf"(-\infty,{b})\cup({a},\infty)", rf"(-\infty,{a})\cap({b},\infty)",
         f"x<{a}", rf"[-{abs(a) + 50},{a})\cup({b},\infty)"],
        [rf"({b},+\infty)\cup(-\infty,{a})", rf"x<{a} \text{{ or }} x>{b}", rf"x\in(-\infty,{a})\cup({b},\infty)", rf"\left(-\infty, {a}\right) \cup \left({b}, \infty\right)",
         rf"\{{x \mid x<{a}\text{{ or }}x>{b}\}}", rf"(-∞,{a}) ∪ ({b},∞)", rf"\mathbb{{R}}\setminus[{a},{b}]", rf"x>{b} \lor x<{a}"],
    )


@in_math
def bounded_union(r: random.Random) -> Case:
    a, b, c, d = sorted(r.sample(range(-30, 60), 4))
    return (
        rf"[{a},{b}]\cup[{c},{d}]",
        [rf"[{a},{b}]\cup[{c},{d})", rf"[{a},{d}]", rf"[{a},{c}]\cup[{b},{d}]", rf"[{a},{b}]", rf"[{a},{b}]\cap[{c},{d}]", rf"[{a},{b}]\cup[{c},{d + 1}]"],
        [rf"[{c}, {d}] \cup [{a}, {b}]", rf"{a}\le x\le {b}\text{{ or }}{c}\le x\le {d}", rf"x\in[{a},{b}]\cup[{c},{d}]", rf"\left[{a},{b}\right]\bigcup\left[{c},{d}\right]",
         f"[{a},{b}]∪[{c},{d}]"],
    )


@in_math
def without(r: random.Random) -> Case:
    a = r.randrange(-30, 30)
    return (
        rf"(-\infty,{a})\cup({a},\infty)",
        [rf"(-\infty,{a}]\cup({a},\infty)", rf"(-\infty,{a + 1})\cup({a + 1},\infty)", r"\mathbb{R}", str(a), rf"x={a}"],
        [rf"\mathbb{{R}}\setminus\{{{a}\}}", rf"x\ne {a}", rf"\{{x\in\mathbb{{R}} \mid x\neq {a}\}}", rf"x \neq {a}", rf"\mathbb R \backslash \{{{a}\}}", rf"({a},+\infty)\cup(-\infty,{a})"],
    )


@in_math
def inequality(r: random.Random) -> Case:
    a = r.randrange(-30, 30)
    return (
        f"x>{a}",
        [f"x<{a}", rf"x\ge {a}", f"x>{a + 1}", f"y>{a}", str(a), f"x={a}", rf"({a + 1},\infty)", rf"[{a},\infty)"],
        [f"{a}<x", rf"({a},\infty)", rf"x \gt {a}", f"x > {a}.0", rf"\{{x \mid x > {a}\}}", f"2x>{2 * a}", f"-x<{-a}", rf"x\in({a},+\infty)"],
    )


@in_math
def chain(r: random.Random) -> Case:
    a = r.randrange(-30, 30)
    b = a + r.randrange(2, 20)
    return (
        rf"{a}<k\le {b}",
        [rf"{a}\le k\le {b}", rf"{a}<k<{b}", rf"{a}<m\le {b}", rf"{a}<k\le {b + 1}", rf"{a}>k\ge {b}", rf"{a}\le k<{b}"],
        [f"({a},{b}]", rf"{b}\ge k>{a}", rf"k\in({a},{b}]", rf"{a} < k \leqslant {b}", f"{a}<k≤{b}", rf"\{{k\mid {a}<k\le {b}\}}"],
    )


@in_math
def order(r: random.Random) -> Case:
    x, y, z = r.sample("abcdkmnpq", 3)
    return (
        f"{x}<{y}<{z}",
        [f"{x}<{z}<{y}", f"{z}<{y}<{x}", f"{x}>{y}>{z}", rf"{x}\le {y}<{z}", f"{y}<{x}<{z}", f"{x}<{y}"],
        [f"{z}>{y}>{x}", f"{x} < {y} < {z}", rf"{x} \lt {y} \lt {z}", f"${x}<{y}<{z}$", rf"{z} \gt {y} \gt {x}"],
    )


@in_math
def size(r: random.Random) -> Case:
    a = r.randrange(1, 40)
    return (
        rf"|x|\le {a}",
        [f"|x|<{a}", rf"|x|\ge {a}", rf"|x|\le {a + 1}", rf"x\le {a}", f"({-a},{a})", rf"|y|\le {a}", rf"0\le x\le {a}"],
        [f"[{-a},{a}]", rf"-{a}\le x\le {a}", rf"\left|x\right|\leq {a}", rf"\lvert x\rvert\le {a}", rf"x\in[-{a},{a}]", rf"{a}\ge |x|"],
    )


@in_math
def described(r: random.Random) -> Case:
    a = r.randrange(-20, 20)
    b = a + r.randrange(1, 30)
    return (
        rf"\{{x \mid {a} < x \le {b}\}}",
        [rf"\{{x \mid {a} \le x \le {b}\}}", rf"\{{x \mid {a} < x \le {b + 1}\}}", rf"\{{x \mid {a} < x\}}", f"[{a},{b})", rf"\{{{a},{b}\}}"],
        [rf"({a},{b}]", rf"\{{y \mid {a} < y \le {b}\}}", rf"\{{x : {a}<x\leq {b}\}}", rf"\{{ x \in \mathbb{{R}} \mid {b} \ge x > {a} \}}", rf"{a}<x\le {b}", rf"\left\{{x|{a}<x\leqslant {b}\right\}}"],
    )


@in_math
def residues(r: random.Random) -> Case:
    a = r.randrange(2, 9)
    b = r.randrange(1, a)
    return (
        rf"\{{{a}k+{b} \mid k\in\mathbb{{Z}}\}}",
        [rf"\{{{a + 1}k+{b} \mid k\in\mathbb{{Z}}\}}", rf"\{{{a}k-{b} \mid k\in\mathbb{{N}}\}}", rf"\{{{a}k+{b} \mid k\in\mathbb{{N}}\}}", rf"\{{{a},{b}\}}"],
        [rf"\{{{a}n+{b} \mid n\in\mathbb{{Z}}\}}", rf"\{{{b}+{a}k : k\in\mathbb{{Z}}\}}", rf"\left\{{{a}k+{b} \,\middle|\, k \in \mathbb Z\right\}}", rf"\{{ {a} k + {b} | k \in \mathbb{{Z}} \}}",
         rf"\{{x \mid x={a}k+{b}, k\in\mathbb{{Z}}\}}"],
    )


# ---- quantities --------------------------------------------------------------------------------------------------


@in_both
def length(r: random.Random) -> Case:
    n = r.randrange(2, 900)
    return (
        rf"{n}\text{{ cm}}",
        [rf"{n}\text{{ m}}", rf"{n + 1}\text{{ cm}}", rf"{n}\text{{ cm}}^2", rf"-{n}\text{{ cm}}", rf"{n}\text{{ mm}}", rf"{n}\text{{ kg}}", rf"{n}0\text{{ cm}}"],
        [f"{n}", rf"{n}\,\mathrm{{cm}}", rf"{10 * n}\text{{ mm}}", rf"\frac{{{n}}}{{100}}\text{{ m}}", f"{n} centimeters", rf"{n} \mathrm{{~cm}}", f"{n}cm", rf"\text{{{n} cm}}"],
    )


@in_both
def square(r: random.Random) -> Case:
    n = r.randrange(2, 900)
    return (
        rf"{n}\text{{ cm}}^2",
        [rf"{n}\text{{ cm}}", rf"{n}\text{{ cm}}^3", rf"{n + 1}\text{{ cm}}^2", rf"{n}\text{{ m}}^2", rf"{n}^2\text{{ cm}}"],
        [f"{n}", rf"{n}\,\mathrm{{cm}}^{{2}}", rf"{n}\text{{ square centimeters}}", rf"{n} \text{{ sq cm}}", f"{n} cm²", rf"{100 * n}\text{{ mm}}^2", rf"{n} \mathrm{{cm}}^2"],
    )


@in_both
def speed(r: random.Random) -> Case:
    n = r.randrange(2, 900)
    return (
        rf"{n}\text{{ m/s}}",
        [rf"{n}\text{{ km/h}}", rf"{n + 1}\text{{ m/s}}", rf"{n}\text{{ m}}", rf"{n}\text{{ s/m}}", rf"{n}\text{{ m/s}}^2", rf"-{n}\text{{ m/s}}", rf"{n}\text{{ cm/s}}"],
        [f"{n} m/s", rf"{n}\,\mathrm{{m\,s^{{-1}}}}", rf"{n}\frac{{\text{{m}}}}{{\text{{s}}}}", f"{n} meters per second", rf"{100 * n}\text{{ cm/s}}", rf"{n}\text{{ m}}\cdot\text{{s}}^{{-1}}",
         rf"\frac{{{18 * n}}}{{5}}\text{{ km/h}}", str(n)],
    )


@in_science
def energy(r: random.Random) -> Case:
    n = r.randrange(11, 99)
    n += n % 10 == 0
    return (
        f"{n / 10} kWh",
        [f"{n / 10} kW", f"{n} kWh", f"{n / 10} MWh", f"{n / 10} J", f"-{n / 10} kWh", f"{n / 10} kW/h"],
        [f"{n * 360000} J", rf"{n / 10}\text{{ kWh}}", rf"{n * 0.36:.3f}\text{{ MJ}}", rf"{n / 10}\ \mathrm{{kW\cdot h}}", f"{n * 100} Wh", f"{n / 10}", f"{n / 10} kilowatt-hours"],
    )


@in_science
def wavelength(r: random.Random) -> Case:
    n = r.randrange(11, 99)
    n += n % 10 == 0
    return (
        f"{n / 10} Å",
        [f"{n / 10} nm", f"{n} Å", f"-{n / 10} Å", f"{n / 10 * 1.03:.3f} Å", f"{n / 10} cm"],
        [f"{n / 100} nm", rf"{n / 10}\ \text{{Å}}", rf"{n / 10} \AA", rf"{n / 10}\times10^{{-10}}\text{{ m}}", f"{n * 10} pm", f"{n / 10} angstroms", rf"{n / 10}\,\mathring{{A}}"],
    )


@in_science
def compound(r: random.Random) -> Case:
    n = r.randrange(11, 99)
    n += n % 10 == 0
    return (
        rf"{n / 10}\ \mathrm{{J\,mol^{{-1}}\,K^{{-1}}}}",
        [rf"{n / 10}\text{{ J/mol}}", rf"{n / 10}\text{{ kJ/(mol K)}}", rf"{n}\text{{ J/(mol K)}}", rf"-{n / 10}\text{{ J/(mol K)}}", rf"{n / 10}\text{{ J mol K}}"],
        [f"{n / 10} J/(mol K)", rf"{n / 10}\ \mathrm{{J/(mol\cdot K)}}", rf"{n / 10} \frac{{\mathrm{{J}}}}{{\mathrm{{mol}}\cdot\mathrm{{K}}}}", f"{n / 10000} kJ/mol/K", f"{n / 10} J mol^-1 K^-1",
         rf"{n / 10}\text{{ J mol}}^{{-1}}\text{{ K}}^{{-1}}", str(n / 10)],
    )


@in_science
def acceleration(r: random.Random) -> Case:
    n = r.randrange(11, 99)
    n += n % 10 == 0
    return (
        f"{n / 10} m/s^2",
        [f"{n / 10} m/s", f"{n} m/s^2", f"-{n / 10} m/s^2", f"{n / 10} m s^2", f"{n / 10} km/s^2", f"{(n + 2) / 10} m/s^2" if n < 60 else f"{n / 5} m/s^2"],
        [rf"{n / 10}\text{{ m/s}}^2", rf"{n / 10}\ \mathrm{{m\,s^{{-2}}}}", f"{n * 10} cm/s^2", rf"{n / 10}\,\frac{{\text{{m}}}}{{\text{{s}}^2}}", f"{n / 10} m/s²", f"{n / 10} N/kg", f"{n / 10 * 1.003:.4f} m/s^2"],
    )


@in_science
def measured(r: random.Random) -> Case:
    n = r.randrange(110, 999)
    n += n % 10 == 0
    return (
        f"{n / 100}",
        [f"{n / 100 * 1.02:.4f}", f"{n / 100 * 0.98:.4f}", f"-{n / 100}", f"{n / 10}", f"{n / 1000}", f"{n / 100}, {n / 100 + 1}"],
        [f"{n / 100 * 1.008:.5f}", f"{n / 100 * 0.992:.5f}", rf"\approx {n / 100}", rf"{n}\times 10^{{-2}}", f"x = {n / 100}", rf"\frac{{{n}}}{{100}}", rf"{n / 100}\text{{ units}}"],
    )


@in_science
def chemical(r: random.Random) -> Case:
    a, b, c = r.choice(["Na", "K", "Li", "Ag"]), r.choice(["SO", "CO", "SeO", "SiO"]), r.choice([3, 4])
    return (
        f"{a}_2{b}_{c}",
        [f"{a}{b}_{c}", f"{a}_2{b}_{c + 1}", f"{a}_3{b}_{c}", f"Rb_2{b}_{c}", f"{a}_2PO_{c}", f"{a}_2{b}"],
        [rf"\text{{{a}}}_2\text{{{b}}}_{c}", f"{a}2{b}{c}", rf"\mathrm{{{a}_2{b}_{c}}}", rf"\ce{{{a}2{b}{c}}}", f"{a}₂{b}{'₃' if c == 3 else '₄'}", rf"\mathrm{{{a}}}_{{2}}\mathrm{{{b}}}_{{{c}}}"],
    )


@in_science
def ion(r: random.Random) -> Case:
    a, n = r.choice(["Fe", "Cu", "Co", "Mn"]), r.choice([2, 3])
    return (
        rf"\text{{{a}}}^{{{n}+}}",
        [rf"\text{{{a}}}^{{{5 - n}+}}", rf"\text{{{a}}}^{{{n}-}}", rf"\text{{{a}}}", rf"\text{{Ni}}^{{{n}+}}"],
        [f"{a}^{{{n}+}}", f"{a}^{n}+", rf"\mathrm{{{a}^{{{n}+}}}}", rf"\ce{{{a}^{n}+}}", f"{a}{'²' if n == 2 else '³'}⁺"],
    )


@in_science
def option(r: random.Random) -> Case:
    letter = r.choice("ABCDE")
    other = r.choice([x for x in "ABCDE" if x != letter])
    return (
        letter,
        [other, f"{letter}, {other}", f"({other})", rf"\text{{{other}}}", f"{letter} or {other}", f"not {letter}", f"{other}. {letter}"],
        [f"({letter})", rf"\text{{{letter}}}", f"{letter}. because it is so", rf"\textbf{{({letter})}}", f"**{letter}**", f"Option {letter}", letter.lower(), rf"\text{{{letter}) 5 m}}",
         rf"\mathbf{{{letter}}}"],
    )


@in_math
def labelled(r: random.Random) -> Case:
    letter, n = r.choice("ABCDE"), r.randrange(2, 99)
    other = r.choice([x for x in "ABCDE" if x != letter])
    return (
        rf"\text{{({letter})}}",
        [rf"\text{{({other})}}", other, f"({other})", rf"\textbf{{({other})}}\ {n}", str(n)],
        [letter, f"({letter})", rf"\textbf{{({letter})}}", rf"\textbf{{({letter})}}\ {n}", rf"\text{{{letter}}}", f"{letter}.", rf"\mathrm{{({letter})}}"],
    )


@in_math  # in science it has a tolerance
def money(r: random.Random) -> Case:
    n = r.randrange(1100, 999999)
    whole, cents = divmod(n, 100)
    return (
        rf"\${whole:,}.{cents:02}",
        [rf"\${whole + 1:,}.{cents:02}", rf"€{whole}.{cents:02}", rf"\${n}", rf"\$-{whole}.{cents:02}", rf"{whole}.{cents:02}\%", rf"{whole}.{cents:02}\text{{ cents}}"],
        [f"{whole}.{cents:02}", f"${whole}.{cents:02}$", rf"\${whole}.{cents:02}", f"{whole:,}.{cents:02} dollars", rf"\text{{\$}}{whole}.{cents:02}", rf"{n}\text{{ cents}}", f"USD {whole}.{cents:02}"],
    )


@in_both
def degrees(r: random.Random) -> Case:
    n = r.randrange(2, 359)
    return (
        rf"{n}^\circ",
        [rf"{n + 1}^\circ", rf"{n}^\circ\text{{C}}", rf"-{n}^\circ", rf"{n}\text{{ rad}}", rf"{n}0^\circ", rf"{n}\pi"],
        [str(n), f"{n}°", rf"{n}^{{\circ}}", rf"{n}\text{{ degrees}}", rf"\frac{{{n}\pi}}{{180}}\text{{ rad}}", rf"\angle ABC={n}^\circ", f"{n} degrees", rf"\theta = {n}^\circ"],
    )


@in_math
def arc_minutes(r: random.Random) -> Case:
    n, m = r.randrange(1, 89), r.choice([6, 12, 15, 30, 45])
    n += n == m
    return (
        rf"{n}^\circ {m}'",
        [rf"{n}^\circ {m + 1}'", rf"{n + 1}^\circ {m}'", rf"{n}.{m}1^\circ", rf"{m}^\circ {n}'"],
        [rf"{n}^{{\circ}}{m}'", f"{n}°{m}′", rf"{n + m / 60:g}^\circ", rf"{n}^\circ {m}^\prime", rf"{n}^{{\circ}} {m}^{{\prime}}"],
    )


@in_math
def based(r: random.Random) -> Case:
    base = r.choice([3, 4, 5, 6, 7, 8, 9])
    digits = "".join(r.choice("012345678"[:base]) for _ in range(r.randrange(2, 7)))
    digits = "1" + digits
    other = digits[:-1] + ("1" if digits[-1] == "0" else "0")
    word = dict(zip(range(3, 10), ["three", "four", "five", "six", "seven", "eight", "nine"], strict=True))[base]
    return (
        f"{digits}_{base}",
        [f"{other}_{base}", f"{digits}_{base + 1}", f"{digits}0_{base}", f"-{digits}_{base}", rf"{digits}_{{{base}0}}"],
        [f"{digits}_{{{base}}}", f"({digits})_{base}", digits, rf"{digits}_{{\text{{{word}}}}}", rf"{digits}\text{{ (base {base})}}", rf"\text{{{digits}}}_{{{base}}}", rf"{digits} \text{{ base }} {base}"],
    )


@in_math
def hexadecimal(r: random.Random) -> Case:
    n = 16 * r.randrange(1, 200) + r.randrange(10, 16)
    text = f"{n:X}"
    return (
        f"{text}_{{16}}",
        [f"{n + 16:X}_{{16}}", f"{text}_{{17}}", f"{text}0_{{16}}", f"{16 * n + 1:X}_{{16}}"],
        [rf"\text{{{text}}}_{{16}}", rf"\mathrm{{{text}}}_{{16}}", f"({text})_{{16}}", f"{text} _{{16}}", rf"{text}_{{\text{{sixteen}}}}"],
    )


@in_math
def congruence(r: random.Random) -> Case:
    m = r.randrange(7, 99)
    a = r.randrange(1, m)
    return (
        rf"{a} \pmod{{{m}}}",
        [rf"{(a + 1) % m} \pmod{{{m}}}", rf"{a} \pmod{{{m + 1}}}", rf"-{a} \pmod{{{m}}}"],
        [str(a), rf"x \equiv {a} \pmod{{{m}}}", rf"{a} (\bmod {m})", rf"{a}\ (\text{{mod }}{m})", rf"{a}\mod {m}", f"{a} (mod {m})"],
    )


@in_both
def clock(r: random.Random) -> Case:
    h, m = r.randrange(1, 12), r.randrange(0, 59)
    return (
        rf"{h}:{m:02}\text{{ p.m.}}",
        [rf"{h}:{m:02}\text{{ a.m.}}", rf"{h}:{m + 1:02}\text{{ p.m.}}", rf"{h + 1}:{m:02}\text{{ PM}}", f"{h}, {m}", f"{h + 1}:{m:02}", frac(h, m or 60)],
        [f"{h}:{m:02} PM", f"{h}:{m:02} p.m.", f"{h}:{m:02}", f"{h + 12}:{m:02}", rf"{h}:{m:02} \text{{ PM}}", rf"\text{{{h}:{m:02} pm}}", f"{h}:{m:02}pm"],
    )


@in_math
def hours(r: random.Random) -> Case:
    n = r.randrange(2, 50)
    return (
        rf"{n}\text{{ hours}}",
        [rf"{n}\text{{ minutes}}", rf"{n + 1}\text{{ hours}}", rf"{n}\text{{ days}}", rf"{n}\text{{ km}}", rf"-{n}\text{{ hours}}"],
        [rf"{60 * n}\text{{ minutes}}", f"{n} hours", f"{n} h", str(n), rf"{n}\,\text{{hr}}", rf"{3600 * n}\text{{ s}}", rf"\text{{{n} hours}}"],
    )


@in_math
def things(r: random.Random) -> Case:
    n, what = r.randrange(2, 900), r.choice(["apples", "students", "marbles", "books", "pages"])
    return (
        rf"{n}\text{{ {what}}}",
        [rf"{n + 1}\text{{ {what}}}", rf"{n}\text{{ tickets}}", rf"\text{{{what}}}", rf"{n}0\text{{ {what}}}", rf"-{n}\text{{ {what}}}"],
        [str(n), f"{n} {what}", rf"\text{{{n} {what}}}", rf"{n} \text{{ {what}}}.", rf"{n}\ \mathrm{{{what}}}", rf"{n}\text{{ {what[:-1]}}}", rf"N={n}\text{{ {what}}}"],
    )


@in_math
def word(r: random.Random) -> Case:
    text, other = r.sample(["Monday", "parabola", "Evelyn", "blue", "even", "cone", "Paris", "north"], 2)
    return (
        rf"\text{{{text}}}",
        [rf"\text{{{other}}}", f"not {text}", rf"\text{{{text} or {other}}}", rf"\text{{{text}, {other}}}", text[::-1], rf"\text{{{text[:-1]}}}", "5"],
        [text, text.lower(), text.upper(), rf"\textbf{{{text}}}", rf"\mathrm{{{text}}}", f"**{text}**", rf"\text{{ {text}. }}", rf"\textit{{{text}}}"],
    )


@in_math
def names(r: random.Random) -> Case:
    a, b, c = r.sample(["Ann", "Bob", "Cid", "Dora", "Eve", "Frank"], 3)
    return (
        rf"\text{{{a}, {b}}}",
        [rf"\text{{{a}, {c}}}", rf"\text{{{a}}}", rf"\text{{{a}, {b}, {c}}}", rf"\text{{not {a}, {b}}}"],
        [rf"\text{{{b}, {a}}}", rf"\text{{{a} and {b}}}", f"{a}, {b}", rf"\text{{{b}}} \text{{ and }} \text{{{a}}}", rf"\text{{{a}}},\text{{{b}}}", f"{b} and {a}"],
    )


@in_math
def letters(r: random.Random) -> Case:
    x, y, z = r.sample("ABCDE", 3)
    return (
        f"{x},{y}",
        [x, f"{x},{z}", f"{x},{y},{z}", z],
        [f"{y}, {x}", rf"\text{{{x}, {y}}}", rf"{x} \text{{ and }} {y}", rf"\text{{{y} and {x}}}", f"{x}; {y}", rf"\mathrm{{{x}}}, \mathrm{{{y}}}"],
    )


@in_math
def rounding(r: random.Random) -> Case:
    a, b = r.randrange(2, 40), r.choice([2, 3, 5, 7])
    value = a * b**0.5
    return (
        rf"{a}\sqrt{{{b}}}",
        [rf"{a}\sqrt{{{b}}} \approx {value + 0.3:.2f}", rf"{a + 1}\sqrt{{{b}}} \approx {(a + 1) * b**0.5:.2f}", f"{value:.2f}", rf"{value:.2f} \approx {a}"],
        [rf"{a}\sqrt{{{b}}} \approx {value:.2f}", rf"x={a}\sqrt{{{b}}}\approx {value:.3f}", rf"{a}\sqrt{{{b}}}\text{{ cm}} \approx {value:.1f}\text{{ cm}}", rf"{a}\sqrt{{{b}}}\ (\approx {value:.2f})",
         rf"\sqrt{{{a * a * b}}} = {a}\sqrt{{{b}}} \approx {value:.4f}"],
    )


@in_math
def infinite(r: random.Random) -> Case:
    sign = r.choice(["", "-"])
    return (
        rf"{sign}\infty",
        [r"-\infty" if not sign else r"\infty", "0", str(r.randrange(10**6)), "8", r"\pm\infty"],
        [rf"{sign or '+'}\infty", f"{sign}∞", rf"x={sign}\infty", rf"\left({sign}\infty\right)", rf" {sign} \infty "],
    )


# ---- how any gold may stand in a response ------------------------------------------------------------------------

RESPONSES: list[Callable[[str], str]] = [
    lambda gold: rf"So $\boxed{{{gold}}}$.",
    lambda gold: f"\\[\n\\boxed{{ {gold} }}\n\\]",
    lambda gold: rf"**Answer:** \(\boxed{{{gold}}}\)",
    lambda gold: rf"\boxed{{\displaystyle {gold}}}",
    lambda gold: rf"$$\boxed{{${gold}$}}$$",
    lambda gold: rf"<think>\boxed{{-17}}?</think> It is **$\boxed{{{gold}}}$**",
    lambda gold: rf"\boxed{{{gold}.}}",
    lambda gold: rf"\boxed{{\,{gold}\,}}",
    lambda gold: rf"\boxed{{{gold}}} and again $\boxed{{{gold}}}$",
    lambda gold: rf"\boxed{{17}}. No: \fbox{{{gold}}}",
    lambda gold: rf"\boxed{{\boxed{{{gold}}}}}",
    lambda gold: rf"\boxed{{\({gold}\)}} \boxed{{}}",
    lambda gold: rf"\boxed{{\text{{The answer is }} {gold}}}",
    lambda gold: rf"\boxed{{\mathbf{{{gold}}}}}",
    lambda gold: rf"\boxed{{\color{{blue}}{{{gold}}}}}",
    lambda gold: rf"\boxed{{**{gold}**}}",
]
