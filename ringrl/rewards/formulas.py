"""Chemistry: formulas, equations of reactions and electron configurations, in one spelling each."""

from __future__ import annotations

import re

_ELEMENTS = frozenset(
    re.findall(
        r"\w+",
        "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb "
        "Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu "
        "Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db "
        "Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og D T",
    )
)
_FORMULA = re.compile(r"(?:\^\d+)?(?:_\d+)?(?:[A-Z][a-z]?\d*|[()\[\]]\d*|\.\d*(?=[A-Z]))+(?:\^?\d*[+-])?")
_WORDS = {"no", "i", "in", "as", "at", "he", "yes", "us", "on", "so", "if", "is"}  # words before they are formulas


def same_chemistry(answer: str, expected: str) -> bool | None:
    """Whether two formulas, reactions or configurations agree; None where the expected text is none of them."""
    if (said := formula(expected)) and (other := formula(answer)):
        product = len(said) == 2 and sorted(said) == sorted(other)  # such as VI for IV
        return said == other or (None if product else False)
    for reader in (reaction, configuration):
        if known := reader(expected):
            return reader(answer) == known
    return None


def formula(text: str) -> str:
    r"""The one spelling of a chemical formula, `H2SO4` of `\text{H}_2\text{SO}_4`; "" if it is none."""
    plain = re.sub(r"\\(?:text|ce|mathrm)(?![a-zA-Z])|\\[,;: ]|\s|\{\}", "", text)
    plain = re.sub(r"\\(?:cdot|bullet)(?![a-zA-Z])", ".", plain)
    plain = re.sub(r"[{}]", "", plain)
    charge = re.sub(r"_(?=\d+[A-Z)(\[\]]|\d+$|\d+\^|\d+\.)", "", plain)
    charge = charge if plain.startswith("^") else charge.replace("_", "")
    match = _FORMULA.fullmatch(charge)
    symbols = re.findall("[A-Z][a-z]?", charge)
    if not match or not symbols or charge.casefold() in _WORDS or any(symbol not in _ELEMENTS for symbol in symbols):
        return ""
    if charged := re.fullmatch(r"(.*?[^\d^])(\d*)([+-])", charge):  # in NH4+ the digit counts atoms, in Ca2+ charges
        base, digits, sign = charged.groups()
        atoms = digits if len(symbols) > 1 and len(digits) == 1 else digits[:-1]
        return f"{base}{atoms}^{digits[len(atoms) :]}{sign}"
    return charge


def configuration(text: str) -> tuple[str, ...]:
    r"""The shells of an electron configuration, such as `[Ne] 3s^2 3p^4`; none if it is none."""
    plain = re.sub(r"\\(?:text|mathrm|,|;|:)|[{}\s]", "", text)
    core = re.match(r"\[[A-Z][a-z]\]", plain)
    shells = re.findall(r"(\d[spdf])\^?(\d{1,2}?)(?=\d[spdf]|$)", plain)
    whole = re.fullmatch(r"(?:\[[A-Z][a-z]\])?(?:\d[spdf]\^?\d{1,2})+", plain)
    return (core[0] if core else "", *(f"{shell}^{count}" for shell, count in shells)) if whole else ()


def reaction(text: str) -> tuple[frozenset[tuple[str, str]], ...]:
    """The sides of a chemical equation, each a set of (coefficient, formula); none if it is none."""
    sides = re.split(r"\\to(?![a-z])|\\rightleftharpoons", text)
    if len(sides) != 2:
        return ()
    terms = [
        [re.fullmatch(r" ?(\d*) ?(.*?) ?", term) for term in re.split(r"(?<! \^)\+(?= |\d)", side)] for side in sides
    ]
    found = [frozenset((m[1], formula(m[2])) for m in side if m) for side in terms]
    return tuple(found) if all(symbols for side in found for _, symbols in side) else ()
