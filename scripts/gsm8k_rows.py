"""Labelled rows for `ringrl verify`: GSM8K problems with their own solutions, and with ones that end in other numbers.

python scripts/gsm8k_rows.py GSM8K.jsonl > rows.jsonl
ringrl verify rows.jsonl --out judged.jsonl --audit
"""

from __future__ import annotations

import json
import random
import sys

OFF = (-10, -1, 1, 10)


def main(file: str) -> None:
    rng = random.Random(0)
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            solution, _, gold = json.loads(line)["answer"].rpartition("#### ")
            other = str(int(gold.replace(",", "")) + rng.choice(OFF))
            for right, answer in (("pass", gold), ("fail", other)):
                response = f"{solution}The answer is \\boxed{{{answer}}}."
                row = {"domain": "math", "response": response, "reference": {"answer": gold}, "right": right}
                print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1])
