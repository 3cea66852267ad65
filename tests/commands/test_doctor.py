"""What the doctor says here, and where less isolation is granted."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from ringrl import __version__ as ringrl_version
from ringrl.commands.doctor import examine
from ringrl.launch.machine import gpus
from ringrl.sandbox.box import isolation
from ringrl.sandbox.kernel import NAMESPACED
from tests.conftest import ringrl


def test_doctor():
    done = ringrl("doctor")
    assert done.code == 0
    lines = dict(line.split(None, 1) for line in done.text.splitlines())
    assert {"system", "engine", "python", "cpp", "java", "sandbox"} <= lines.keys()
    versions = dict(item.split() for item in lines["versions"].split(", "))
    assert versions["python"] == platform.python_version()
    for library in ("torch", "transformers", "deepspeed"):
        assert versions[library] == importlib.metadata.version(library)
    assert versions["ringrl"] == ringrl_version
    assert re.match(r"[\d.,]+ GiB, [\d.,]+ GiB available", lines["memory"])
    assert f" GiB free in {os.getcwd()}, " in lines["disk"]
    assert lines["sandbox"] == str(isolation())
    if isolation().level in NAMESPACED:
        assert re.search(
            r"processes 2; internet sockets no; home folders no; writes to /dev/shm /tmp$", done.text, re.MULTILINE
        )


@pytest.mark.parametrize(("driver", "compiler"), [("575.57.08", False), ("580.65.06", True)], ids=["old", "new"])
def test_what_a_gpu_run_needs_besides_packages_is_told(
    driver: str, compiler: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    listed = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0a2b3c4d-0000)"
    (tmp_path / "nvidia-smi").write_text(f'#!/bin/sh\n[ "$1" = -L ] && echo "{listed}" || echo {driver}\n')
    (tmp_path / "nvidia-smi").chmod(0o755)
    found = shutil.which
    monkeypatch.setattr("shutil.which", lambda n: found(n) if compiler or n not in ("cc", "gcc", "clang") else None)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CC", raising=False)
    gpus.cache_clear()
    lines = dict(line.split(None, 1) for line in islice(examine(), 7))
    gpus.cache_clear()
    assert lines["driver"] == (driver if compiler else f"{driver}: CUDA 13 needs 580 or newer")
    assert compiler or lines["compiler"].startswith("none: vLLM's first start needs a C compiler")
    assert "pinned" in lines


def test_no_compiler(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert any(re.match(r"cpp +answers will be errors: cpp needs g\+\+, which this", line) for line in examine())


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="takes rights away, which needs root")
def test_without_rights_it_says_so():
    less = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    done = subprocess.run(
        [*less, sys.executable, "-m", "ringrl", "doctor"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^sandbox +process, ", done.stdout, re.MULTILINE)
    assert "not user-namespaces: [Errno 1] unshare: Operation not permitted" in done.stdout
    assert "WARNING: process is level 4 of 4: no security boundary" in done.stdout
