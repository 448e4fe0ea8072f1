#!/usr/bin/env bash
# Run the tests on the oldest versions that setup.py allows, in a fresh environment. Run it before each release.
#
#     tests/oldest.sh                                  all tests
#     tests/oldest.sh tests/pipeline tests/generation  some; all arguments are passed to pytest
set -euo pipefail
cd "$(dirname "$0")/.."

# Outside the tree, because ruff, pytest and setuptools would pick up an environment inside it.
environment=$(mktemp -d "${TMPDIR:-/tmp}/landscape-video-oldest.XXXXXX")
trap 'rm -rf "$environment"' EXIT
python3 -m venv "$environment"
# shellcheck disable=SC1091
source "$environment/bin/activate"

# pip cannot prefer old versions. lowest-direct takes our floors, and recent versions of what they require.
pip install --quiet uv
uv pip install --quiet --resolution lowest-direct ".[test]"
uv pip list
python -m pytest "$@"
