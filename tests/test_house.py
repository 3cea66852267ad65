"""Who may import whom, read off the source, and what `ringrl --help` loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "ringrl"
HEAVY = ("torch", "transformers", "vllm", "deepspeed", "matplotlib", "datasets")

# left may import right, never back; parts of one layer may import each other as long as there is no circle
LAYERS = [
    {"__main__"},
    {"cli"},
    {"commands"},
    {"rl"},
    {"launch", "plan", "report"},
    {"policy", "rollout", "rewards", "sandbox", "data", "curate", "evals", "models"},
    {"algo"},
    {"types"},
    {"errors"},
]
LEAVES = {
    "config",
    "domains",
    "http",
    "run",
    "processes",
}  # usable from everywhere but the last three layers; they import leaves and errors


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("ringrl", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(p for p in parts if p != "__init__")] = ast.parse(path.read_text())
    return found


MODULES = modules()


def imports(name: str) -> set[str]:
    """Full names of all that a module imports, wherever in its text; of ours, the module and not the name in it."""
    out = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            out |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            full = {f"{node.module}.{a.name}" for a in node.names}
            out |= {f if f in MODULES else str(node.module) for f in full}
    return out


def ours(name: str) -> set[str]:
    return {i for i in imports(name) if i.split(".")[0] == "ringrl"}


def part(module: str) -> str:
    """ringrl.algo.pack -> algo; the package itself (its version) is no part."""
    return module.split(".")[1] if "." in module else ""


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def users_of(library: str) -> list[str]:
    return [m for m in MODULES if any(i.split(".")[0] == library for i in imports(m))]


def test_every_module_has_its_place():
    placed = set().union(*LAYERS) | LEAVES | {""}
    assert {part(m) for m in MODULES} <= placed
    assert len(MODULES) > 40


def test_vllm_is_imported_in_one_file():
    assert users_of("vllm") == ["ringrl.rollout.vllm_worker"]


def test_deepspeed_is_imported_in_at_most_two_files():
    users = users_of("deepspeed")
    assert 1 <= len(users) <= 2, users
    assert {part(u) for u in users} == {"policy"}


@pytest.mark.parametrize(
    ("who", "allowed"), [("errors", set()), ("types", {"errors"}), ("algo", {"types", "errors", "algo"})]
)
def test_the_method_sees_no_configuration_file_or_process(who: str, allowed: set[str]):
    found = {(m, i) for m in MODULES if part(m) == who for i in ours(m) if part(i) not in allowed}
    assert not found


def test_rewards_see_no_configuration():
    assert not [m for m in MODULES if part(m) == "rewards" and "config" in {part(i) for i in ours(m)}]


def violations() -> set[tuple[str, str]]:
    found = set()
    for module in MODULES:
        me = part(module)
        for target in ours(module):
            you = part(target)
            if not me or not you or me == you:
                continue
            if me in LEAVES:
                legal = you in LEAVES | {"types", "errors"}
            elif you in LEAVES:
                legal = layer(me) < layer("algo")
            else:
                legal = layer(me) <= layer(you)
            if not legal:
                found.add((module, target))
    return found


def test_imports_go_one_way():
    assert violations() == set()


def test_no_module_imports_itself_over_others():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for target in sorted(ours(module) & MODULES.keys()):
                visit(target, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def loaded_by(*args: str) -> set[str]:
    """The heavy libraries in memory after the command line has run."""
    program = (
        "import sys\n"
        "from ringrl.cli import main\n"
        f"sys.argv = ['ringrl', *{list(args)!r}]\n"
        "try:\n    main()\n"
        "finally:\n    print('loaded', *sorted(m for m in sys.modules if '.' not in m))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "click" in done.stdout.splitlines()[-1].split()
    return set(done.stdout.splitlines()[-1].split()) & set(HEAVY)


@pytest.mark.parametrize("args", [["--help"], ["rl", "--help"]], ids=" ".join)
def test_help_loads_nothing_heavy(args: list[str]):
    assert not loaded_by(*args)


def test_a_dry_run_loads_nothing_heavy():
    assert not loaded_by("rl", str(ROOT.parent / "configs" / "tiny" / "rl_gsm8k.yaml"), "--dry-run")
