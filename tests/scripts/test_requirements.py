"""What `make setup` installs: every pin has hashes, and each list of pins is the one that its hashes are of."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

FOLDER = Path(__file__).parents[2] / "requirements"
LISTS = ("build", "cpu", "reasoning-gym")


def pins(text: str) -> dict[str, str]:
    """Versions by name; every requirement is pinned."""
    found = {}
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line.partition(" --hash")[0])
            [pin] = requirement.specifier
            assert pin.operator == "=="
            found[requirement.name.lower().replace("_", "-")] = pin.version
    return found


def lines_of(name: str) -> dict[str, str]:
    """Versions by name of a list for several systems, without those for other systems than Linux."""
    found = {}
    for line in (FOLDER / f"{name}.txt").read_text().replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line.partition(" --hash")[0])
            if not requirement.marker or requirement.marker.evaluate({"sys_platform": "linux"}):
                found[requirement.name] = next(iter(requirement.specifier)).version
    return found


@pytest.mark.parametrize("name", [*LISTS, "torch", "gpu"])
def test_every_requirement_has_a_hash(name: str) -> None:
    lines = [line for line in (FOLDER / f"{name}.txt").read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    assert text
    for line in text.splitlines():
        assert re.search(r" --hash=sha256:[0-9a-f]{64}( |$)", line), line


@pytest.mark.parametrize("name", LISTS)
def test_the_hashes_are_of_the_pins(name: str) -> None:
    assert pins((FOLDER / f"{name}.in").read_text()) == pins((FOLDER / f"{name}.txt").read_text())


def test_the_gpu_set_holds_its_constraints_and_what_the_package_asks_for() -> None:
    """The same torch and transformers as here, so that what is tested is what runs there."""
    chosen = lines_of("gpu")
    assert pins((FOLDER / "gpu.in").read_text()).items() <= chosen.items()
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    wanted = map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["vllm"]])
    assert [w.name for w in wanted if chosen[w.name] not in w.specifier] == []
    tested = pins((FOLDER / "cpu.in").read_text()) | pins((FOLDER / "torch.txt").read_text())
    shared = ("transformers", "deepspeed", "accelerate", "datasets")
    assert {name: chosen[name] for name in shared} == {name: tested[name] for name in shared}
    assert Version(chosen["torch"]).public == Version(tested["torch"]).public


def test_build_tools_have_no_known_hole() -> None:
    tools = pins((FOLDER / "build.in").read_text())
    mended = {"pip": "26.0", "setuptools": "78.1.1", "wheel": "0.46.2"}
    assert all(Version(tools[name]) >= Version(version) for name, version in mended.items())


def test_setup_installs_nothing_without_a_hash() -> None:
    script = (FOLDER.parent / "scripts" / "setup.sh").read_text()
    installs = [line for line in script.splitlines() if re.search(r'"\$\{(install|hashed)\[@\]\}"', line)]
    without = [line for line in installs if "hashed[@]" not in line]
    assert [line.split("}", 1)[1] for line in without if not line.startswith("hashed=")] == [
        '" --no-build-isolation --no-index -e .'
    ]
    assert re.search(r"^hashed=.*--no-build-isolation --require-hashes", script, re.MULTILINE)
