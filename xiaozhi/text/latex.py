r"""LaTeX as one line of text that a small screen can show: `\frac{-b}{2a}` is `(−b)⁄(2a)`. Pure.

Three of the signs are for the ear: U+2044 is a fraction bar, U+2212 a minus and U+2217 means times wherever they stand,
while `/`, `-` and `*` may belong to a path, a date, a word or to Markdown. `on_screen` writes them plainly.
"""

import re
from typing import Final

_SYMBOLS: Final = dict(
    pair.split()
    for pair in (
        "times ×|cdot ·|div ÷|pm ±|mp ∓|ast ∗|star ∗|leq ≤|le ≤|leqslant ≤|geq ≥|ge ≥|geqslant ≥|neq ≠|ne ≠|lt <|gt >|"
        "ll ≪|gg ≫|approx ≈|equiv ≡|sim ∼|cong ≅|propto ∝|infty ∞|sum ∑|prod ∏|int ∫|iint ∬|oint ∮|partial ∂|nabla ∇|"
        "in ∈|notin ∉|ni ∋|subset ⊂|subseteq ⊆|supset ⊃|supseteq ⊇|cup ∪|cap ∩|setminus ∖|emptyset ∅|varnothing ∅|"
        "forall ∀|exists ∃|neg ¬|lnot ¬|land ∧|wedge ∧|lor ∨|vee ∨|oplus ⊕|otimes ⊗|to →|rightarrow →|longrightarrow →|"
        "mapsto →|gets ←|leftarrow ←|uparrow ↑|downarrow ↓|leftrightarrow ↔|Rightarrow ⇒|implies ⇒|Leftarrow ⇐|iff ⇔|"
        "Leftrightarrow ⇔|ldots …|cdots …|dots …|vdots …|ddots …|therefore ∴|because ∵|angle ∠|triangle △|perp ⊥|"
        "parallel ∥|degree °|circ °|prime ′|mid ∣|vert ∣|lvert ∣|rvert ∣|Vert ‖|langle ⟨|rangle ⟩|lfloor ⌊|rfloor ⌋|"
        "lceil ⌈|rceil ⌉|ell ℓ|hbar ħ|bullet •|checkmark ✓|"
        "alpha α|beta β|gamma γ|delta δ|epsilon ε|varepsilon ε|zeta ζ|eta η|theta θ|vartheta θ|iota ι|kappa κ|lambda λ|"
        "mu μ|nu ν|xi ξ|pi π|varpi π|rho ρ|varrho ρ|sigma σ|varsigma ς|tau τ|upsilon υ|phi φ|varphi φ|chi χ|psi ψ|"
        "omega ω|Gamma Γ|Delta Δ|Theta Θ|Lambda Λ|Xi Ξ|Pi Π|Sigma Σ|Upsilon Υ|Phi Φ|Psi Ψ|Omega Ω"
    ).split("|")
)
_FUNCTIONS: Final = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp lim max min sup inf det gcd arg deg dim "
    "ker mod bmod".split()
)
# Their argument is all that is seen of them.
_WRAPPERS: Final = frozenset(
    "text textbf textit textrm textsf texttt mathrm mathbf mathbb mathcal mathfrak mathit mathsf mathscr operatorname "
    "boldsymbol bm boxed fbox mbox hbox overline underline bar hat vec tilde dot ddot widehat widetilde overrightarrow "
    "ce emph underbrace overbrace cancel pmod".split()
)
_BLANKS: Final = frozenset("quad qquad enspace thinspace newline hline".split())
_UNSEEN: Final = frozenset(
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr displaystyle textstyle scriptstyle limits "
    "nolimits nonumber notag hspace vspace".split()
)
_ARGUMENTS: Final = (
    dict.fromkeys("frac dfrac tfrac cfrac binom dbinom textcolor".split(), 2)
    | dict.fromkeys(["sqrt", "begin", "end", "color", "label", "tag", *_WRAPPERS], 1)
    | dict.fromkeys([*_SYMBOLS, *_FUNCTIONS, *_BLANKS, *_UNSEEN], 0)
)

_TOKEN: Final = re.compile(
    r"\\(?P<command>[A-Za-z]+)\*?|\\(?P<escaped>.)|(?P<plain>[^\\{}^_&~$\-'\s]+)|'+|\s+|.", re.DOTALL
)
_DEGREE: Final = re.compile(r"\s*\[([^\[\]{}]{1,8})\]")
_ONE: Final = re.compile(r"[−]?(?:[0-9A-Za-z]+(?:\.[0-9]+)?|\w)")
_SCRIPT: Final = re.compile(r"[−+]?(?:[0-9A-Za-z]+|\w)|[*′∞]")
_RAISED: Final = str.maketrans("0123456789n", "⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ")
_ON_SCREEN: Final = str.maketrans("⁄−∗", "/-*")
_MAX_DEPTH: Final = 16


def arguments_of(command: str) -> int | None:
    """How many arguments in braces a command takes; None where it is none that is known."""
    return _ARGUMENTS.get(command)


def one_line(latex: str) -> str:
    """LaTeX of a formula, without the signs around it, as one line; what is not known loses its backslash alone."""
    return " ".join(_Reader(latex).sequence(0).split())


def on_screen(line: str) -> str:
    """The signs for the ear as they are usually written."""
    return line.translate(_ON_SCREEN)


class _Reader:
    """Reads one formula from left to right."""

    def __init__(self, latex: str) -> None:
        self._latex = latex
        self._at = 0

    def sequence(self, depth: int, closer: str = "") -> str:
        """Up to `closer`, which is read as well, or to the end."""
        parts: list[str] = []
        while self._at < len(self._latex):
            if closer and self._latex[self._at] == closer:
                self._at += 1
                break
            part = self._next(depth)
            if "⁄" in part and part[0].isdigit() and parts and parts[-1][-1:].isdigit():
                part = f" {part}"  # two and a half
            parts.append(part)
        return "".join(parts)

    def _next(self, depth: int) -> str:
        match = _TOKEN.match(self._latex, self._at)
        assert match is not None
        self._at = match.end()
        if match["command"]:
            return self._command(match["command"], depth)
        if match["escaped"]:
            return {"\\": "; ", "|": "‖"}.get(
                match["escaped"], match["escaped"] if match["escaped"] in "{}$%&#_" else " "
            )
        if match["plain"]:
            return match[0]
        match match[0][0]:
            case "{":
                return self.sequence(depth + 1, "}") if depth < _MAX_DEPTH else ""
            case "^" | "_":
                return self._script(match[0], depth)
            case "-":
                return "−"
            case "'":
                return "′" * len(match[0])
            case "}" | "$" | "\\":
                return ""
        return " "

    def _argument(self, depth: int) -> str:
        """What stands in braces, one command, or one character."""
        while self._latex[self._at : self._at + 1].isspace():
            self._at += 1
        following = self._latex[self._at : self._at + 1]
        if following in {"", "}"} or depth >= _MAX_DEPTH:
            return ""
        if following in {"{", "\\", "-"}:
            return self._next(depth + 1)
        self._at += 1
        return following

    def _script(self, sign: str, depth: int) -> str:
        script = self._argument(depth).strip()
        if not script or (sign == "^" and script in {"°", "′"}):
            return script
        return f"{sign}{script}" if _SCRIPT.fullmatch(script) else f"{sign}({script})"

    def _command(self, name: str, depth: int) -> str:
        if name in _SYMBOLS:
            return _SYMBOLS[name]
        if name in _FUNCTIONS:
            ends_itself = self._latex[self._at : self._at + 1] in {"", "(", "{", "^", "_", " "}
            return f" {name.removeprefix('b')}{'' if ends_itself else ' '}"
        if name in _BLANKS:
            return " "
        if name in _UNSEEN:
            if self._latex.startswith(".", self._at):  # \\left. opens nothing
                self._at += 1
            return ""
        match name:
            case "frac" | "dfrac" | "tfrac" | "cfrac":
                return f"{_operand(self._argument(depth))}⁄{_operand(self._argument(depth), below=True)}"
            case "binom" | "dbinom":
                return f"C({self._argument(depth)}, {self._argument(depth)})"
            case "sqrt":
                degree = _DEGREE.match(self._latex, self._at)
                self._at = degree.end() if degree else self._at
                index = degree[1].strip().translate(_RAISED) if degree else ""
                return f"{index.replace('²', '')}√{_operand(self._argument(depth))}"
            case "begin" | "end" | "color" | "label" | "tag":
                self._argument(depth)
                return " "
            case "textcolor":
                self._argument(depth)
            case "pmod":
                return f" (mod {self._argument(depth)})"
        if name.startswith("text"):
            return self._argument(depth).replace("−", "-")  # a hyphen
        return self._argument(depth) if _ARGUMENTS.get(name) else name


def _operand(part: str, *, below: bool = False) -> str:
    """In brackets where it is more than one thing; below a fraction bar `2a` is."""
    part = part.strip()
    one = part.isdigit() or len(part) == 1 if below else _ONE.fullmatch(part)
    return part if one else f"({part})"
