"""Faults and honest neighbours, in English and Chinese, that no rule of `ringrl data` was written for; see
bench_data.py heldout.

Written once, before the rules that it measures were changed, and not looked at while they were. 15 of every kind, made
from problems of GSM8K, AIME and AMC, and from Chinese templates below. A fault is to be dropped, or one of it and its
original; an honest row, and the row it was made from, are to stay.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
Rng = random.Random
EACH = 15

# ---- English: what cleanse is to drop ----

SENTINELS = (
    "#REF!",
    "TBA",
    "to be added",
    "(blank)",
    "[no data]",
    "no solution provided",
    "lorem",
    "pending review",
    "same as before",
    "cf. solution manual",
    "left to the reader",
    "omitted",
    "NULL",
    "not yet solved",
    "x.x.x",
)
PICTURED = (
    "The bar chart gives the sales of each day. {}",
    "{} Use the scale drawn on page 12.",
    "(image not available) {}",
    "{} The sketch on the blackboard has all lengths.",
    "[IMAGE_3] {}",
    "Pictured is the garden of this story. {}",
    "{} (Figure not reproduced here.)",
    "Study the photograph carefully. {}",
    "{} All lengths are as labelled in Fig. 4.",
    "The plan overleaf shows the rooms. {}",
    "{} Read the values off the plot.",
    "Screenshot_2021-03-04.heic {}",
    "{} <picture>",
    "Use the pictogram to answer. {}",
    "From the coordinate grid above: {}",
)
OPTIONS = (
    "{} A - {}; B - {}; C - {}; D - {}",
    "{}\n① {}\n② {}\n③ {}\n④ {}",
    "{} Select one: {} | {} | {} | {}",
    "{} [a] {} [b] {} [c] {} [d] {}",
    "{}\n(1) {}\n(2) {}\n(3) {}\n(4) {}\nMark the right one.",
    "{} Possible answers: {}, {}, {}, {}.",
    "{}\n* A {}\n* B {}\n* C {}\n* D {}",
    "{} <A> {} <B> {} <C> {} <D> {}",
    "{} The answer is one of {}, {}, {} and {}; which one?",
    "{}\nA {}\nB {}\nC {}\nD {}",
    "{} Circle your choice: {}   {}   {}   {}",
    "{} a) {}, b) {}, c) {}, d) {}",
    "{}\n(α) {}\n(β) {}\n(γ) {}\n(δ) {}",
    "{}\nAnswer 1: {}\nAnswer 2: {}\nAnswer 3: {}\nAnswer 4: {}",
    "{} A={} B={} C={} D={}",
)
PARTS = (
    "{} And how many would it be if every number above were doubled?",
    "First question: {} Second question: what is half of that?",
    "{} What is the result divided by two? What is the result times three?",
    "{}\nQ1. State the result.\nQ2. State its square.",
    "(1) {} (2) Find the double of it. (3) Find its half.",
    "{}\n1/ Give the total.\n2/ Give the average.",
    "{} Determine also the average.",
    "{}\n• Find the total.\n• Find the largest number.",
    "{} [a] Find it. [b] Find its half.",
    "Answer both: {} How large is the difference?",
    "{}\nStep 1: find the sum. Step 2: find the product. Report both.",
    "{}\n(A) Compute the sum.\n(B) Compute the product.",
    "i. {} ii. What is its square? iii. What is its cube?",
    "{} In addition, compute the product of all numbers. Finally, give their mean.",
    "{} (b) What if there were one more?",
)
PROOFS = (
    "Explain why the sum of {} consecutive integers starting at {} can never be a power of two.",
    "Justify the inequality $x^{}+1 \\ge {}x-{}$ for every real number $x$.",
    "Derive the identity $\\sum k^{} = n^{}$.",
    "Argue that no integers satisfy $x^{} = {}y + {}$.",
    "Give a rigorous argument that $\\sqrt{{{}}}$ is irrational.",
    "Demonstrate: among {} people, {} have the same birthday month.",
    "Why is $n^{}-n$ always a multiple of {}?",
    "Establish the convergence of $\\sum n^{{-{}}}$.",
    "Let $n>{}$. Confirm that $n^{}>n+{}$ always holds.",
    "Convince the reader that {} lines cut the plane into at most {} parts.",
    "Verify the formula $\\cos {}x = {}\\cos x$.",
    "Refute the claim that every multiple of {} is a multiple of {}.",
    "Proposition. Every group of order {} is abelian.",
    "Theorem {}: the medians of a triangle meet in one point. Supply the missing proof.",
    "Write down a full justification of the fact that $e < {}$.",
)
EARLIER = (
    "Using your result from the exercise above, {}", "Under the conditions of Problem 4, {}",
    "As in the last question, {}",
    "{} Use the function of part (c).", "With the same numbers as in Example 2: {}",
    "{} (See question 7 for the prices.)",
    "Now suppose that the situation is that of the preceding problem. {}", "{} Assume the setting of Exercise 1.4.",
    "Back to the farmer of question 3. {}", "{} Compare with your answer to question 5.", "Problem 12, continued: {}",
    "Let $f$ be as in the previous exercise. {}", "{} The rates are those given earlier in this worksheet.",
    "Refer to the passage you read before. {}", "Redo the last problem with these numbers. {}",
)  # fmt: skip

# ---- English: copies ----

HEADINGS = (
    "[AMC 8, 2004, #7] {}", "Q17: {}", "Problem 3 (4 pts). {}", "Question: {}\nAnswer:",
    "### Instruction:\n{}\n\n### Response:",
    "User: {}\nAssistant:", "IMO Longlist 1985/3. {}", "Exercise 2.14. — {}", "{} [5 marks]", "{} Show all your work.",
    "You are a helpful maths tutor. Solve this: {}", "№ 8. {}", "★★☆ {}", "{} Give only the final number.",
    "Task #5 | {}",
)  # fmt: skip
CONTRACTED = (("do not", "don't"), ("does not", "doesn't"), ("cannot", "can't"), ("it is", "it's"), ("she is", "she's"))
UNITS = (("dollars", "USD"), ("hours", "hrs"), ("minutes", "mins"), ("pounds", "lbs"), ("inches", "in."), ("feet",
    "ft"),
         ("percent", "%"), ("miles", "mi"), ("kilometers", "km"), ("grams", "g"), ("ounces", "oz"), (" and ", " & "),
         ("number", "no."), ("per ", "/ "))  # fmt: skip
ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")  # fmt: skip
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(n: int) -> str:
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f"-{ONES[n % 10]}" if n % 10 else "")
    return f"{ONES[n // 100]} hundred" + (f" {in_words(n % 100)}" if n % 100 else "")


def spelled(text: str, rng: Rng) -> str:
    """Numbers of two or three digits in words."""
    return re.sub(r"(?<![\d.,$/:%-])\d{2,3}(?![\d.,/:%-])", lambda m: in_words(int(m[0])), text)


def mistyped(text: str, rng: Rng) -> str:
    """Two long words with two letters swapped or one left out."""
    words = text.split(" ")
    long = [i for i, w in enumerate(words) if w.isalpha() and w.islower() and len(w) > 6]
    for i in rng.sample(long, min(2, len(long))):
        at = rng.randint(2, len(words[i]) - 3)
        w = words[i]
        words[i] = w[:at] + w[at + 1] + w[at] + w[at + 2 :] if rng.random() < 0.5 else w[:at] + w[at + 1 :]
    return " ".join(words)


def abbreviated(text: str, rng: Rng) -> str:
    for long, short in CONTRACTED + UNITS:
        text = text.replace(long, short)
    return text.replace("’", "'")


def typeset(text: str, rng: Rng) -> str:
    """Formulas as a web page without LaTeX shows them, or with entities and macros in capital sizes."""
    if rng.random() < 0.5:
        text = re.sub(r"\\[dt]?frac\{(\w+)\}\{(\w+)\}", r"(\1)/(\2)", text)
        for tex, char in (
            ("\\le", "≤"),
            ("\\ge", "≥"),
            ("\\cdot", "·"),
            ("\\times", "×"),
            ("\\pi", "π"),
            ("\\sqrt", "√"),
        ):
            text = re.sub(re.escape(tex) + r"(?![a-zA-Z])", char, text)
        return re.sub(r"\^\{?2\}?", "²", text.replace("$", ""))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("'", "&rsquo;")
    return "<div>" + re.sub(r"\$([^$]+)\$", r"<span>\\(\1\\)</span>", text) + "</div>"


FRAMES = (
    "Teacher: {} Who can solve it? Student: I can!",
    "My niece got this as homework and I am stuck: {} Any hint welcome.",
    "<|user|>\n{}\n<|assistant|>", "{{\"question\": \"{}\"}}", "> {}\n\nThis was asked in a forum.",
    "Given: {} Required: the value.",
)  # fmt: skip

# ---- English: responses ----

LOOPS = (
    "Let me recount item {}: the total is still the same as before, so I go on. ",
    "Hmm, try number {}. That does not work either. ",
    "Case {}: nothing changes here, we move on to the next one. ",
    "({}) Adding nothing to the sum leaves the sum as it was. ",
    "Double-check {}: yes, it matches what we had. ",
)  # fmt: skip
CHAT = (
    "{} [/INST]", "{}</s>", "<|start_header_id|>assistant<|end_header_id|> {}", "{}<|eot_id|>", "{} <end_of_turn>",
    "<reasoning>short</reasoning>{}", "<scratchpad>{}</scratchpad>{}",
    "{}\n\nHuman: thanks!\n\nAssistant: You are welcome.",
    "<think>\n\n</think>\n\n{}", "{} (This agrees with the ground truth.)", "According to the provided answer key, {}",
    "{}<|fim_pad|>", "<|channel|>final {}", "The expected answer was given to me in advance. {}",
    "{} <｜end▁of▁sentence｜>",
)  # fmt: skip
SHORT = ("\\boxed{{{}}}", "It is \\boxed{{{}}}.", "<think>Easy: just add.</think>\\boxed{{{}}}",
    "Answer: \\boxed{{{}}}",
         "So \\boxed{{{}}}")  # fmt: skip


def tabled(answer: str, rng: Rng) -> str:
    """A long but honest list: every line says something new."""
    start, step = rng.randint(2, 90), rng.randint(3, 9)
    rows = [
        f"Day {i}: we had {start + step * (i - 1)} and add {step}, which makes {start + step * i}."
        for i in range(1, 15)
    ]
    return "<think>" + "\n".join(rows) + f"</think>In the end it is \\boxed{{{answer}}}."


# ---- English: honest neighbours ----

TURNS = (
    ("more", "fewer"),
    ("fewer", "more"),
    ("less", "more"),
    ("twice", "thrice"),
    ("half", "a quarter"),
    ("each", "both"),
    ("before", "after"),
    ("after", "before"),
    ("first", "second"),
    ("remaining", "used"),
    ("left", "gone"),
    ("total", "average"),
    ("longer", "shorter"),
    ("older", "younger"),
    ("sold", "bought"),
    ("bought", "sold"),
)
QUESTIONS = (
    "What is the largest of all the numbers above?",
    "By how much do the first two numbers differ?",
    "What is the product of the first two amounts?",
    "How many different numbers are named in this story?",
    "What percentage of the final result is the first number?",
)
ASKED = (("+n", "-n"), ("m+n", "mn"), ("p+q", "pq"), ("remainder", "quotient"), ("product", "sum"), ("sum", "product"),
         ("smallest", "largest"), ("largest", "smallest"), ("greatest", "least"), ("least", "greatest"), ("minimum",
         "maximum"),
         ("maximum", "minimum"), ("area", "perimeter"), ("length", "square"), ("number of", "parity of"), ("even",
         "odd"),
         ("+", "-"), ("positive", "negative"), ("real", "imaginary"))  # fmt: skip
CENTS = (("dollars", "cents"), ("hours", "minutes"), ("minutes", "seconds"), ("feet", "inches"), ("miles", "yards"),
         ("pounds", "ounces"), ("weeks", "days"), ("years", "months"), ("How many",
         "What fraction of the"))  # fmt: skip
FORMS = (("{}", "{}.0"), ("{}", "${}$"), ("{}", "\\boxed{{{}}}"), ("{}", "\\text{{{}}}"), ("{}", "x = {}"))
LOOK_ALIKES = {
    "answers": ("\\emptyset", "midnight", "no solution", "\\varnothing", "Noon", "\\text{never}", "e", "i",
    "\\text{null set}", "II",
                "(-\\infty, 0)", "Proofville", "TBA Street", "0", "\\text{omitted square}"),
    "pictures": ("Her sister likes to figure things out with charts. {}",
    "A picture on the wall costs nothing extra. {}",
                 "{} Nobody needs an image of it.", "The photographer of the village watches. {}",
                 "He imagines a diagram. {}",
                 "{} The graph theory class is over by then.", "A sketch show is on television. {}",
                 "{} The map shop is closed.",
                 "The story was illustrated by Ann. {}", "{} The plot of the novel is unimportant.",
                 "A bar of chocolate lies there. {}",
                 "{} Her figures are all exact.", "Page 12 of the diary tells it. {}",
                 "The shown prices include tax. {}",
                 "{} There is a scanner in the office."),
    "choices": ("There are three sizes (small, medium, large) in the shop. {}", "Plan A costs more than plan B. {}",
                "{} He had the choice between a bus and a train.", "Class C won the match. {}",
                "{} One of the options was sold out.",
                "The possible colours are red, blue and green. {}", "She may select any one: all cost the same. {}",
                "Vitamin D is good for you. {}", "{} Both answers that her friends gave were wrong.",
                "Gate A. is closed. {}",
                "{} A circle was drawn around the shop on the map.", "Row 1: adults. Row 2: children. {}",
                "The correct choice of words matters. {}", "Which road they take does not matter. {}",
                "{} Mark is the right one to ask."),
    "conditions": ("Note (a) no item is shared, and (b) nothing is lost. {}",
    "Rules: 1. everybody plays fair; 2. nobody leaves. {}",
                   "{} Assume: (i) prices stay; (ii) nobody cheats.", "Step 1 is to read; step 2 is to think. {}",
                   "Two things hold: first, it is a normal year; second, no day is lost. {}"),
    "proofs": ("The baker lets the dough prove overnight. {}", "This will show that maths is fun: {}",
    "Prove yourself and tell us: {}",
               "A waterproof coat hangs there. {}", "He wants to justify the cost. {}",
               "{} Explain in one word who cares.",
               "The lawyer established the facts. {}", "{} His theorem about luck is a joke.",
               "Demonstrators fill the street. {}",
               "She argues a lot. {}"),
    "earlier": ("In the previous week nothing happened. {}", "As in every year, it is warm. {}",
    "{} The last problem is the weather.",
                "The exercise above the river is a walk. {}", "Question by question, the test was easy. {}",
                "{} The example of her mother helps.", "Earlier that day it rained. {}",
                "They continue after lunch. {}",
                "The same number of friends as before came. {}", "{} Part of the work was done by 3 p.m. before."),
}  # fmt: skip

# ---- Chinese ----

ZH = (
    "果园里有苹果树{}棵,梨树比苹果树少{}棵,桃树是梨树的{}倍,三种树一共有多少棵?",
    "一辆汽车每小时行驶{}千米,行驶了{}小时后又用{}小时返回,返回时平均每小时行驶多少千米?",
    "图书馆买来故事书{}本,科技书比故事书多{}本,平均分给{}个班,每个班分到多少本?",
    "工程队修一条长{}米的路,前{}天每天修{}米,余下的还要修多少米?",
    "水池里原有水{}升,每分钟注入{}升同时放出{}升,一小时以后水池里有多少升水?",
    "商店运来大米{}袋,每袋{}千克,卖出{}袋以后还剩多少千克大米?",
    "学校组织{}名学生去春游,每辆车坐{}人,每辆车租金{}元,至少要付多少租金?",
    "已知函数f(x)=x²+{}x+{},求f(x)在区间[0,{}]上的最大值与最小值之和.",
    "等差数列的首项为{},公差为{},求它的前{}项之和.",
    "在三角形中,两边的长分别为{}和{},夹角为{}度,求第三边长度的平方.",
    "袋中有红球{}个、白球{}个、黑球{}个,任取一个球,取到红球的概率是多少?",
    "妈妈今年{}岁,女儿今年{}岁,再过{}年妈妈与女儿的年龄之和是多少?",
    "一个长方体的长、宽、高分别为{}厘米、{}厘米和{}厘米,它的表面积是多少平方厘米?",
    "甲乙两地相距{}千米,客车与货车同时相向而行,客车每小时行{}千米,货车每小时行{}千米,几小时以后相遇?",
    "食堂买来面粉{}千克,第一周用去{}千克,第二周用去{}千克,还剩下几分之几?",
)
ZH_KNOWN = (
    "某班有学生{}人,其中会游泳的有{}人,会滑冰的有{}人,两项都不会的有五人,两项都会的学生有多少人?",
    "把一根长{}厘米的铁丝围成一个长方形,已知长比宽多{}厘米,求这个长方形面积的{}倍.",
    "某数除以{}余{},除以另一个数余{},求满足条件的最小正整数.",
)
ZH_NONE = (
    "略",
    "见解析",
    "答案略",
    "见教材",
    "无答案",
    "暂无",
    "证明略",
    "未知",
    "不详",
    "参考答案见后",
    "同上",
    "待补充",
    "缺",
    "见图",
    "——",
)
ZH_PICTURED = (
    "如图,{}",
    "如图所示,{}",
    "{}(见下图)",
    "根据统计图回答:{}",
    "{}(图略)",
    "观察右图,{}",
    "下面的扇形图给出了数据.{}",
    "{}(第8题图)",
    "看图列式:{}",
    "图1是示意图.{}",
    "由左图可知,{}",
    "{}[图片]",
    "上图中的数据已标出.{}",
    "附图给出了各边.{}",
    "从折线图中读数:{}",
)
ZH_ASKING = (
    "{}\nA.{}\nB.{}\nC.{}\nD.{}",
    "{}( )\nA、{} B、{} C、{} D、{}",
    "{}(A){} (B){} (C){} (D){}",
    "下列选项正确的是:{} ①{} ②{} ③{} ④{}",
    "{}\n(1)写出结果;\n(2)求它的两倍.",
    "(1){}(2)求所得结果的一半.",
    "{}\n①求总数;②求平均数.",
    "{}另外,求最大的数是多少?",
    "一、{}二、求结果的平方.",
    "{}选择:{} / {} / {} / {}",
    "{}\n问题1:总数是多少?\n问题2:平均数是多少?",
    "请选出正确答案.{}甲:{} 乙:{} 丙:{} 丁:{}",
    "{}(Ⅰ)求总数;(Ⅱ)求差.",
    "{}A:{} B:{} C:{} D:{}",
    "1){}2)如果每个数都加倍呢?",
)
ZH_DRESS = (
    "例3 {}",
    "12.{}",
    "(本题满分10分){}",
    "【题目】{}",
    "请逐步推理,并把最终答案放在\\boxed{{}}中.{}",
    "{}(要求写出过程)",
    "第七题:{}",
    "(2018·北京){}",
    "解答题:{}",
    "{}请给出答案.",
    "问题:{}\n答案:",
    "[5分]{}",
    "思考题★{}",
    "你是一位数学老师.{}",
    "练习二 第4题 {}",
)
ZH_QUESTIONS = (
    "其中最大的数是多少?",
    "前两个数的差是多少?",
    "把这些数相乘,积是多少?",
    "最小的一种比最大的一种少多少?",
    "结果的一半是多少?",
)
ZH_STORIES = (
    "小图和小形是好朋友.{}",
    "图书馆今天开门.{}",
    "{}他有一张身份证明.",
    "他正在试图回答.{}",
    "企图迟到的人没有来.{}",
    "版图很大.{}",
    "选择哪条路都可以.{}",
    "{}老师说:不要着急.",
    "A班比B班早到.{}",
    "他先读题,后思考.{}",
    "下列车前请排队.{}",
    "{}(单位已经统一)",
    "地图册卖完了.{}",
    "上一周没有下雨.{}",
    "略加思考:{}",
)


def changed_commas(text: str, rng: Rng) -> str:
    """Full width, or blanks for punctuation, and wide digits."""
    if rng.random() < 0.5:
        return text.replace(",", "，").replace("?", "？").replace(".", "。")
    return re.sub(r"[,.]", " ", text).translate({ord("0") + i: ord("０") + i for i in range(10)})


# ---- the set ----


class Maker:
    """Draws every problem once."""

    def __init__(self, gsm8k: Sequence[Row], contest: Sequence[Row], known: Sequence[Row], seed: int) -> None:
        self.rng = Rng(seed)
        self.rows: list[Row] = []
        self._texts = {"gsm8k": list(gsm8k), "contest": list(contest), "known": list(known)}
        for texts in self._texts.values():
            self.rng.shuffle(texts)
        self._zh = 0

    def english(self, changes: Callable[[str], str], of: str = "gsm8k") -> tuple[Row, str]:
        """A problem that `changes` changes, and what it becomes."""
        texts = self._texts[of]
        for i, row in enumerate(texts):
            text = changes(row["problem"])
            if text != row["problem"]:
                return texts.pop(i), text
        raise ValueError("no problem that is changed")

    def plain(self) -> Row:
        return self._texts["gsm8k"].pop()

    def chinese(self, templates: Sequence[str] = ZH) -> Row:
        self._zh += 1
        numbers = [self.rng.randint(11, 989) for _ in range(3)]
        return {
            "problem": templates[self._zh % len(templates)].format(*numbers),
            "answer": str(self.rng.randint(2, 99)),
        }

    def add(self, label: str, kind: str, row: Row, *others: Row) -> None:
        group = len(self.rows)
        self.rows += [{**row, label: kind, "group": group}, *({**other, "group": group} for other in others)]

    def numbers(self) -> list[str]:
        return [str(n) for n in self.rng.sample(range(2, 90), 4)]


def _changed(pairs: Sequence[tuple[str, str]], i: int) -> Callable[[str], str]:
    """Replaces the first word, from the i-th pair on, that a text has."""

    def change(text: str) -> str:
        for old, new in (*pairs[i % len(pairs) :], *pairs[: i % len(pairs)]):
            if re.search(rf"(?<!\w){re.escape(old)}(?!\w)", text):
                return re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _, new=new: new, text, count=1)
        return text

    return change


def _other_number(text: str, rng: Rng) -> str:
    found = list(re.finditer(r"(?<![\d.,])\d{1,3}(?![\d.,]\d|\d)", text))
    if not found:
        return text
    at = rng.choice(found)
    return text[: at.start()] + str(int(at[0]) + rng.randint(1, 5)) + text[at.end() :]


def _swapped(text: str) -> str:
    found = list(re.finditer(r"(?<![\d.,])\d+(?![\d.,]\d|\d)", text))
    pair = next(((a, b) for a in found for b in found if b.start() > a.start() and b[0] != a[0]), None)
    if pair is None:
        return text
    a, b = pair
    return text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :]


def _asking(text: str, question: str) -> str:
    head, mark, _ = text.rstrip().rpartition(". ")
    return f"{head}. {question}" if mark and len(head) > 60 else text


def faults(make: Maker) -> None:
    rng = make.rng
    for i in range(EACH):
        make.add("fault", "en no answer", {**make.plain(), "answer": SENTINELS[i]})
        for kind, forms in (("image in words", PICTURED), ("parts", PARTS), ("earlier problem", EARLIER)):
            row = make.plain()
            make.add("fault", f"en {kind}", {**row, "problem": forms[i].format(row["problem"])})
        row, values = make.plain(), make.numbers()
        options = OPTIONS[i].format(row["problem"], *values)
        make.add("fault", "en options", {**row, "problem": options, "answer": rng.choice(values) if i % 2 else "B"})
        proof = PROOFS[i].format(*(rng.randint(3, 60) for _ in range(4)))
        make.add("fault", "en proof", {"problem": proof, "answer": ("Q.E.D.", "$n$", "5")[i % 3]})
        row = make.plain()
        make.add("fault", "en copy: heading", {**row, "problem": HEADINGS[i].format(row["problem"])}, row)
        for kind, change in (("number words", spelled), ("mistyped", mistyped), ("abbreviated", abbreviated)):
            row, text = make.english(lambda t, c=change: c(t, rng) if t.count(" ") > 45 else t)
            make.add("fault", f"en copy: {kind}", {**row, "problem": text}, row)
        row = make.plain()
        one, two = (
            ("(1,2)", "(2,1)"),
            ("\\sqrt{5}", "\\sqrt{7}"),
            ("red", "blue"),
            ("3:4", "4:3"),
            ("x^2+1", "x^2-1"),
        )[i % 5]
        make.add("fault", "en contradiction", {**row, "answer": one}, {**row, "answer": two})
        for kind, change in (("typeset", typeset), ("framed", lambda t, _, n=i: FRAMES[n % len(FRAMES)].format(t))):
            row, text = make.english(lambda t, c=change: c(t, rng), "known")
            make.add("fault", f"en leak: {kind}", {**row, "problem": text})
        row = make.plain()
        loop = "".join(LOOPS[i % 5].format(n) for n in range(1, 40))
        make.add("fault", "en response: loop", responding(row, "<think>" + loop + "</think>\\boxed{{{}}}"))
        row = make.plain()
        form = CHAT[i].replace("{}", f"The answer is \\boxed{{{final(row)}}}")
        make.add("fault", "en response: chat", responding(row, form.replace("{", "{{").replace("}", "}}")))
        make.add("fault", "zh no answer", {**make.chinese(), "answer": ZH_NONE[i]})
        row = make.chinese()
        make.add("fault", "zh image in words", {**row, "problem": ZH_PICTURED[i].format(row["problem"])})
        row, values = make.chinese(), make.numbers()
        make.add(
            "fault",
            "zh options, parts",
            {**row, "problem": ZH_ASKING[i].format(row["problem"], *values), "answer": values[1]},
        )
        row = make.chinese()
        make.add("fault", "zh copy", {**row, "problem": ZH_DRESS[i].format(changed_commas(row["problem"], rng))}, row)
        row = make.chinese(ZH_KNOWN)
        story = ZH_STORIES[i].format(ZH_DRESS[-i].format(row["problem"]))
        make.add("fault", "zh leak", {**row, "problem": story})


def final(row: Row) -> str:
    return row["answer"].rpartition("####")[2].strip()


def responding(row: Row, form: str) -> Row:
    return {**row, "responses": [form.format(final(row))]}


def honest(make: Maker) -> None:
    rng = make.rng
    none = {"answer": ""}
    for i in range(EACH):
        pairs: dict[str, tuple[Callable[[str], str], str]] = {
            "number changed": (lambda t: _other_number(t, rng), "gsm8k"),
            "numbers swapped": (_swapped, "gsm8k"),
            "other question": (lambda t, n=i: _asking(t, QUESTIONS[n % 5]), "gsm8k"),
            "word turned": (_changed(TURNS, i), "gsm8k"),
            "other unit": (_changed(CENTS, i), "gsm8k"),
            "contest: other thing asked": (_changed(ASKED, i), "contest"),
        }
        for kind, (change, of) in pairs.items():
            row, text = make.english(change, of)
            make.add("honest", f"en {kind}", {**row, **none, "problem": text}, {**row, **none})
        row = make.plain()
        one, two = (form.format(final(row)) for form in FORMS[i % 5])
        make.add("honest", "en answer written otherwise", {**row, "answer": one}, {**row, "answer": two})
        make.add("honest", "en like: answers", {**make.plain(), "answer": LOOK_ALIKES["answers"][i]})
        for kind, forms in list(LOOK_ALIKES.items())[1:]:
            row = make.plain()
            make.add("honest", f"en like: {kind}", {**row, "problem": forms[i % len(forms)].format(row["problem"])})
        row = make.plain()
        make.add("honest", "en response: short", responding(row, SHORT[i % 5]))
        row = make.plain()
        make.add("honest", "en response: list", {**row, "responses": [tabled(final(row), rng)]})
        row = make.chinese()
        make.add(
            "honest",
            "zh number changed",
            {**row, **none, "problem": _other_number(row["problem"], rng)},
            {**row, **none},
        )
        make.add(
            "honest",
            "zh numbers swapped",
            {**(row := make.chinese()), **none, "problem": _swapped(row["problem"])},
            {**row, **none},
        )
        row = make.chinese()
        head = re.split(r"[,.](?=[^,.]*$|[^,.]*\.$)", row["problem"])[0]
        make.add(
            "honest", "zh other question", {**row, **none, "problem": f"{head},{ZH_QUESTIONS[i % 5]}"}, {**row, **none}
        )
        for kind in ("zh like", "zh like, answered in words"):
            row = make.chinese()
            row["answer"] = row["answer"] if kind == "zh like" else f"{row['answer']}{'元个千米人本'[i % 5]}"
            make.add("honest", kind, {**row, "problem": ZH_STORIES[-i].format(row["problem"])})


def made(gsm8k: Sequence[Row], contest: Sequence[Row], known: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """(rows with `fault` or `honest`, and their originals, by `group`; Chinese problems to keep out).

    Args:
        gsm8k, contest: {"problem", "answer"}; each is used once.
        known: problems of benchmarks that are planted as leaks.
    """
    make = Maker(gsm8k, contest, known, seed)
    faults(make)
    honest(make)
    patterns = [re.compile(re.escape(template).replace(r"\{\}", r"\d+")) for template in ZH_KNOWN]
    leaked = (row["problem"] for row in make.rows if row.get("fault") == "zh leak")
    return make.rows, [{"problem": m[0]} for text in leaked for p in patterns if (m := p.search(text))]


def shuffled(rows: Sequence[Row], seed: int) -> list[Row]:
    return Rng(seed + 1).sample(rows, len(rows))
