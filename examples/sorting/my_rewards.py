"""The reward of the domain `sorting`: the share of places that hold the right number."""


def sorting(response: str, row: dict) -> float:
    said = response.partition("Sorted:")[2].split()
    wanted = [str(n) for n in sorted(row["numbers"], reverse=row["order"] == "falling")]
    if sorted(said) != sorted(wanted):  # not the same numbers: no part of an answer
        return 0.0
    return sum(a == b for a, b in zip(said, wanted, strict=True)) / len(wanted)
