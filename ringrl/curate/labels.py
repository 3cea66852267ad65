"""What the words of a math problem say about it: label -> value -> regular expression, the first wins.

From the narrowest subject to the widest, and from the most advanced level down; case does not count.
"""

from __future__ import annotations

MATH: dict[str, dict[str, str]] = {
    "topic": {
        "calculus": (
            r"\bderivative|\bintegra(?:l|te)\b|\\i{1,3}nt\b|\\lim\b|\bdifferenti(?:al|able)|\btangent line"
            r"|\bTaylor\b|\bconverges?\b|\\partial\b|\\nabla\b"
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
            r"\bdivisib|\bdivisors?\b|\bdivides\b|\bprimes?\b(?! time)|\bremainder\b|\bmodulo\b|\\p?mod\b"
            r"|\\bmod\b|\bgcd\b|\\gcd\b|\blcm\b|\bgreatest common|\bleast common|\bmultiples? of \d"
            r"|\bperfect (?:square|cube)s?\b|\bbase[- ](?:\d+|two|ten)\b|\bcoprime\b|\bdigits?\b|\btotient\b"
        ),
        "combinatorics": (
            r"\bhow many (?:different |distinct |possible )?(?:ways|combinations|paths)"
            r"|\bpermutations?\b|\barrangements?\b|\bin how many\b|\\binom\b|\bcommittees?\b|\bcolou?rings?\b"
            r"|\bsubsets?\b|\bpigeonhole"
        ),
        "geometry": (
            r"\btriang|\bcircle|\brectang|\bpolygon|\bperimeter\b|\bdiagonal|\bradius\b|\bdiameter\b"
            r"|\bangles?\b|\\angle\b|\\triangle\b|\bparallelogram|\btrapezoid|\bhexagon|\bpentagon"
            r"|\bsquare (?:with|of) side|\bsphere|\bcylinder|\bcube\b(?! root)|\bcone\b|\bpyramid\b"
            r"|\bvolume of\b|\barea of\b|\bhypotenuse\b|\btetrahedr|\bquadrilateral|\bellipse\b|\bparabola\b"
        ),
        "trigonometry": r"\\(?:sin|cos|tan|cot|sec|csc)\b|\b(?:sin|cos|tan)\b ?\(?[a-zA-Z\d]",
        "algebra": (
            r"\bpolynomial|\bequations?\b|\bfunctions?\b|\binequalit|\broots?\b|\blog(?:arithm)?s?\b|\\log\b"
            r"|\\sqrt\b|\bsequences?\b|\bseries\b|\bprogression\b|\bcomplex number|\bsimplify\b"
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
            r"\bderivative|\bintegral\b|\\i{1,3}nt\b|\\lim\b|\bdifferential\b|\bdifferentiable\b"
            r"|\bmatri(?:x|ces)\b|\beigenv|\bvector space|\babelian\b|\bhomomorph|\bisomorph|\bmanifold"
            r"|\btopolog|\bhomolog|\bmeasurable\b|\\partial\b|\bHilbert\b|\bBanach\b|\bfinite field|\bring \$"
            r"|\bgroup of order\b"
        ),
        "high school": (
            r"\\(?:sin|cos|tan|log|ln|sqrt|binom|angle|triangle|pmod|sum|prod|frac|overline|dots|cdots|ldots|leq?|geq?)\b"
            r"|\bpolynomial|\bfunction\b|\bcomplex number|\binteger|\breal numbers?\b|\bprobability\b"
            r"|\bmodulo\b|\btriangle\b|\blogarithm|\bpermutation|\bquadratic\b|\^ ?\{?[\da-z]|\b[a-z] ?= ?"
            r"|[=+] ?\d*[a-z]\b"
        ),
        "primary school": r"\A[^\\^=$]*\Z",
    },
}
