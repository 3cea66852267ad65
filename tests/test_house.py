"""Who may import whom, read off the source, and what `ringrl --help` loads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
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
ALLOWED_PRIVATE = {"_exit", "_fields"}  # os._exit and a namedtuple's fields are documented
DUNDERS = {"name", "qualname", "module", "file", "version", "mro", "dict", "class", "init", "post_init", "getitem",
           "setattr", "str", "repr", "traceback", "excepthook", "all", "cause", "context"}  # fmt: skip
# usable from everywhere but the last three layers; they import leaves and errors
LEAVES = {"config", "domains", "http", "lines", "run", "safe_text", "processes", "track", "users"}


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


def test_vllm_is_imported_where_sampling_is():
    assert {part(user) for user in users_of("vllm")} == {"rollout"}


def private(name: object) -> bool:
    """Whether a name belongs to whoever defined it: `_x`, or `__x__` that is no word of the language itself."""
    if not isinstance(name, str) or not name.startswith("_") or name in ALLOWED_PRIVATE:
        return False
    return not (name.startswith("__") and name.endswith("__")) or name.strip("_") not in DUNDERS


def private_uses(tree: ast.Module) -> set[str]:
    """Private names that a file reads or sets on others' objects, or imports. Its own are those that it defines."""
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    own |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    used = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                own.add(name)
            case ast.Call(
                func=ast.Attribute(attr="__setattr__"), args=[ast.Name(id="self"), ast.Constant(value=name), _]
            ):
                own.add(str(name))
            case ast.Attribute(value=ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super"))):
                pass
            case ast.Attribute(attr=name) if private(name):
                used.add(name)
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"),
                          args=[_, ast.Constant(value=name), *_]) if private(name):  # fmt: skip
                used.add(name)
            case ast.ImportFrom(module=str(module), names=names) if module != "__future__":
                used |= {a.name for a in names if private(a.name)} | {p for p in module.split(".") if private(p)}
            case ast.Import(names=names):
                used |= {p for a in names for p in a.name.split(".") if private(p)}
    return used - own


def test_private_parts_of_others_are_used_only_where_their_versions_are_checked():
    """And in nothing of ours by another file: each is named `<library>_internals`, and has a test of its own."""
    internals = {m for m in MODULES if m.endswith("_internals")}
    assert {m: names for m, tree in MODULES.items() if m not in internals and (names := private_uses(tree))} == {}
    for module in internals:
        text = (ROOT.parent / f"{module.replace('.', '/')}.py").read_text()
        assert "require(" in text or "version_info" in text, module
        folder, name = module.split(".")[1:]
        assert (ROOT.parent / "tests" / folder / f"test_{name}.py").is_file()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import torch\ntorch._grouped_mm", {"_grouped_mm"}),
        ("engine._config.x = 1", {"_config"}),
        ("import deepspeed.ops\ndeepspeed.ops.__compatible_ops__", {"__compatible_ops__"}),
        ("from torch import _dynamo", {"_dynamo"}),
        ("import torch._dynamo", {"_dynamo"}),
        ("getattr(lm, '_tied')", {"_tied"}),
        ("class A:\n  def _f(self):\n    super()._f()\n    self._x = other._x", set()),
        ("import os\nos._exit(type(x).__name__)", set()),
    ],
)
def test_the_rule_on_private_parts_sees_them(text: str, names: set[str]):
    assert private_uses(ast.parse(text)) == names


def test_deepspeed_is_imported_where_the_policy_is():
    assert {part(user) for user in users_of("deepspeed")} == {"policy"}


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


def functions(module: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {f"{module}:{n.name}:{n.lineno}": n for n in ast.walk(MODULES[module]) if isinstance(n, kinds)}


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def test_at_most_eleven_files_lie_outside_of_folders():
    assert len(list(ROOT.glob("*.py"))) <= 11


def test_a_class_name_means_one_thing():
    classes = Counter(n.name for tree in MODULES.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef))
    assert [name for name, count in classes.items() if count > 1] == []


def test_no_function_is_longer_than_a_screen():
    assert {name: length(f) for m in MODULES for name, f in functions(m).items() if length(f) > 60} == {}


STEP = ("prompts", "responses", "rewards", "advantages", "budget", "rows", "update", "sync.push")  # in this order


def test_a_step_of_the_loop_reads_as_the_method():
    (step,) = (f for name, f in functions("ringrl.rl.loop").items() if ":step:" in name)
    assert length(step) <= 25
    source = (ROOT / "rl" / "loop.py").read_text().splitlines()
    body = "\n".join(source[step.body[1].lineno - 1 : step.end_lineno])  # behind its docstring
    places = [re.search(rf"\b{word}\b", body).start() for word in STEP]
    assert places == sorted(places)


def test_the_method_is_short():
    files = [ROOT / "rl" / "loop.py", *(ROOT / "algo" / f"{m}.py" for m in ("advantage", "budget", "loss", "pack"))]
    assert sum(len(f.read_text().splitlines()) for f in files) < 700


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


def calls(tree: ast.Module, *names: str) -> list[dict[str, ast.expr]]:
    """The keywords of every call of something of these names."""
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    called = [(n, n.func.attr if isinstance(n.func, ast.Attribute) else getattr(n.func, "id", "")) for n in nodes]
    return [{str(k.arg): k.value for k in n.keywords} for n, name in called if name in names]


def test_nothing_that_is_read_can_run_code():
    """No pickle but between our own processes, and no code from a model's folder."""
    loads = [keywords for tree in MODULES.values() for keywords in calls(tree, "from_pretrained", "LLM")]
    assert len(loads) >= 6
    assert all(ast.unparse(k.get("trust_remote_code", ast.Constant(None))) == "False" for k in loads)
    texts = {m: ast.unparse(tree) for m, tree in MODULES.items()}
    assert not [m for m, text in texts.items() if re.search(r"weights_only=False|allow_pickle=True", text)]
    readers = {m for m, text in texts.items() if re.search(r"\b(torch\.load|pickle\.loads?|Unpickler)\(", text)}
    assert readers == {"ringrl.policy.deepspeed_internals"}  # with weights_only
    assert {m for m in MODULES if "multiprocessing.connection" in imports(m)} == {"ringrl.rewards.gym"}
