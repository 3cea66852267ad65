"""Writes data/problems.jsonl, each problem with two responses of a teacher who is careless every other time, and
data/heldout.jsonl, problems alone."""

import json
import random
from pathlib import Path


def problem(rng: random.Random) -> dict:
    numbers, order = rng.sample(range(10), 5), rng.choice(("rising", "falling"))
    text = f"Sort {', '.join(map(str, numbers))} in {order} order."
    return {"domain": "sorting", "problem": text, "numbers": numbers, "order": order}


def response(row: dict, rng: random.Random) -> str:
    said = sorted(row["numbers"], reverse=row["order"] == "falling")
    if rng.random() < 0.5:
        i, j = rng.sample(range(len(said)), 2)
        said[i], said[j] = said[j], said[i]
    return f"Sorted: {' '.join(map(str, said))}"


def main() -> None:
    rng, folder = random.Random(0), Path("data")
    folder.mkdir(exist_ok=True)
    rows = list({row["problem"]: row for row in (problem(rng) for _ in range(1100))}.values())
    for name, part in (("heldout", rows[:50]), ("problems", rows[50:])):
        with (folder / f"{name}.jsonl").open("w") as file:
            for row in part:
                more = {"responses": [response(row, rng) for _ in range(2)]} if name == "problems" else {}
                file.write(json.dumps({**row, **more}) + "\n")


if __name__ == "__main__":
    main()
