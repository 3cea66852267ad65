"""What `make setup` installs: every pin has hashes, and each list of pins is the one that its hashes are of."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize("name", [*LISTS, "torch"])
def test_every_requirement_has_a_hash(name: str) -> None:
    lines = [line for line in (FOLDER / f"{name}.txt").read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    assert text
    for line in text.splitlines():
        assert re.search(r" --hash=sha256:[0-9a-f]{64}( |$)", line), line


@pytest.mark.parametrize("name", LISTS)
def test_the_hashes_are_of_the_pins(name: str) -> None:
    assert pins((FOLDER / f"{name}.in").read_text()) == pins((FOLDER / f"{name}.txt").read_text())


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
