"""Rules for math problems: label -> value -> regular expression; the first that matches wins.

Ordered from the narrowest subject to the widest and from the most advanced level down; case is ignored.
"""

from __future__ import annotations

MATH: dict[str, dict[str, str]] = {
    "topic": {
        "calculus": (
            r"\bderivative|\bintegra(?:l|te)\b|\\i{1,3}nt(?![a-z])|\\lim(?![a-z])|\bdifferenti(?:al|able)"
            r"|\btangent line|\bTaylor\b|\bconverges?\b|\\partial(?![a-z])|\\nabla(?![a-z])"
        ),
        "linear algebra": (
            r"\bmatri(?:x|ces)\b|\beigenv|\bdeterminant\b|\bvector space"
            r"|\blinear(?:ly)? (?:map|transf|indep|dep)|\\begin\{[pbv]?matrix\}"
        ),
        "probability": (
            r"\bprobabilit|\brandom(?:ly)?\b|\bexpected (?:value|number)|\bdice\b|\bcoin (?:is |flip|toss)"
            r"|\bstandard deviation\b|\bvariance\b"
        ),
        "number theory": (
            r"\bdivisib|\bdivisors?\b|\bdivides\b|\bprimes?\b(?! time)|\bremainder\b|\bmodulo\b|\\p?mod(?![a-z])"
            r"|\\bmod(?![a-z])|\bgcd\b|\\gcd(?![a-z])|\blcm\b|\bgreatest common|\bleast common|\bmultiples? of \d"
            r"|\bperfect (?:square|cube)s?\b|\bbase[- ](?:\d+|two|ten)\b|\bcoprime\b|\bdigits?\b|\btotient\b"
        ),
        "combinatorics": (
            r"\bhow many (?:different |distinct |possible )?(?:ways|combinations|paths)"
            r"|\bpermutations?\b|\barrangements?\b|\bin how many\b|\\binom(?![a-z])|\bcommittees?\b|\bcolou?rings?\b"
            r"|\bsubsets?\b|\bpigeonhole"
        ),
        "geometry": (
            r"\btriang|\bcircle|\brectang|\bpolygon|\bperimeter\b|\bdiagonal|\bradius\b|\bdiameter\b"
            r"|\bangles?\b|\\angle(?![a-z])|\\triangle(?![a-z])|\bparallelogram|\btrapezoid|\bhexagon|\bpentagon"
            r"|\bsquare (?:with|of) side|\bsphere|\bcylinder|\bcube\b(?! root)|\bcone\b|\bpyramid\b"
            r"|\bvolume of\b|\barea of\b|\bhypotenuse\b|\btetrahedr|\bquadrilateral|\bellipse\b|\bparabola\b"
        ),
        "trigonometry": r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])|\b(?:sin|cos|tan)\b ?\(?[a-zA-Z\d]",
        "algebra": (
            r"\bpolynomial|\bequations?\b|\bfunctions?\b|\binequalit|\broots?\b|\blog(?:arithm)?s?\b|\\log(?![a-z])"
            r"|\\sqrt(?![a-z])|\bsequences?\b|\bseries\b|\bprogression\b|\bcomplex number|\bsimplify\b"
            r"|\bfactor(?:ed|ize)?\b|\bsolve for\b|\bf\(x\)|\b[a-z] ?\^ ?\{?\d|\b\d*[a-z] ?[+*/=-] ?\d"
            r"|\breal numbers?\b"
        ),
        "arithmetic": (
            r"\bhow (?:much|many|long|far|old|fast|big|tall|heavy)\b|\bpercent|%|\baverage\b|\btotal\b"
            r"|\bcosts?\b|\bcompute\b|\bcalculate\b|\bevaluate\b|\bfractions?\b|\bdecimal\b|\bratio\b"
            r"|\A[\s\W\d]*\Z|\bwhat is -?[\d(]"
        ),
    },
    "level": {
        "university": (
            r"\bderivative|\bintegral\b|\\i{1,3}nt(?![a-z])|\\lim(?![a-z])|\bdifferential\b|\bdifferentiable\b"
            r"|\bmatri(?:x|ces)\b|\beigenv|\bvector space|\babelian\b|\bhomomorph|\bisomorph|\bmanifold"
            r"|\btopolog|\bhomolog|\bmeasurable\b|\\partial(?![a-z])|\bHilbert\b|\bBanach\b|\bfinite field|\bring \$"
            r"|\bgroup of order\b"
        ),
        "high school": (
            r"\\(?:sin|cos|tan|log|ln|sqrt|binom|angle|triangle|pmod|sum|prod|frac|overline|dots|cdots|ldots|leq?|geq?)(?![a-z])"
            r"|\bpolynomial|\bfunction\b|\bcomplex number|\binteger|\breal numbers?\b|\bprobability\b"
            r"|\bmodulo\b|\btriangle\b|\blogarithm|\bpermutation|\bquadratic\b|\^ ?\{?[\da-z]|\b[a-z] ?= ?"
            r"|[=+] ?\d*[a-z]\b|\b\d*[nxyz]\b"
        ),
        "primary school": r"\A[^\\^=$]*\Z",
    },
}

BY_DOMAIN = {"math": MATH}
