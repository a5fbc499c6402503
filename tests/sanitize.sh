#!/usr/bin/env bash
# Builds the extension under a sanitizer and runs kernels and tests with it:
#
#   tests/sanitize.sh address|thread [build folder [pytest arguments]]
#
# First the driver of tests/cpp, then the Python tests of kernels, operators, inversion, missing
# values and edges, or those given. Two environment variables make it shorter: X86_KERNELS names the
# instruction sets beside the baseline (by default all), CALLERS says how many call the driver's
# kernels at once (4). Needs gcc, CMake and an environment with micfast's test tools. Any report
# ends it.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
kind=${1:?"address or thread"}
build=${2:-build/sanitize-$kind}
tests=("${@:3}")
[ ${#tests[@]} -gt 0 ] ||
  tests=(tests/test_{kernel,operators,inversion,missing,unequal,edges}.py)

case $kind in
  address)
    preload="$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)"
    # Python and torch never free some of what they hold: leaks are looked for in the driver alone.
    export ASAN_OPTIONS=${ASAN_OPTIONS:-strict_string_checks=1} UBSAN_OPTIONS=print_stacktrace=1
    python_options=detect_leaks=0
    ;;
  thread)
    preload=$(gcc -print-file-name=libtsan.so)
    python_options=
    ;;
  *)
    echo "$0: the sanitizer must be address or thread, got '$kind'" >&2
    exit 2
    ;;
esac

version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
cmake -S . -B "$build" -DMICFAST_SANITIZE="$kind" -DMICFAST_CUDA=OFF \
  ${X86_KERNELS:+-DMICFAST_X86_KERNELS="$X86_KERNELS"} \
  -DSKBUILD_PROJECT_VERSION="$version" -Dpybind11_DIR="$(python -m pybind11 --cmakedir)" \
  -DPython_EXECUTABLE="$(command -v python)" >/dev/null
cmake --build "$build" --parallel "$(nproc)" >/dev/null

# Address space randomisation of some kernels is more than gcc 12's ThreadSanitizer knows.
setarch -R "$build/stress_kernels" 1 "${CALLERS:-4}"

# A copy of the package, with this extension in the place of the usual one.
copy=$build/package
rm -rf "$copy"
mkdir -p "$copy"
cp -r micfast "$copy/"
rm -f "$copy"/micfast/_C*.so
cp "$build"/_C*.so "$copy/micfast/"
cp -r tests pyproject.toml README.md "$copy/"
cd "$copy"
# libstdc++ too: loaded later, its exceptions would not be known to the sanitizer. OpenMP's own
# synchronisation is not known either, so torch runs on one thread; the kernels start theirs.
export LD_PRELOAD="$preload:$(gcc -print-file-name=libstdc++.so)" OMP_NUM_THREADS=1
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:$python_options" PYTHONPATH=$PWD
setarch -R python - <<'PY'
import os
from micfast.kernels import backend
assert backend.extension.__file__.startswith(os.getcwd()), backend.extension.__file__
PY
exec setarch -R python -m pytest -q -p no:cacheprovider "${tests[@]}"
