#!/usr/bin/env bash
# Run diffusers' own AnimateDiff tests on its class and on ours, without a network.
#
#   tests/upstream.sh PATH-OF-A-DIFFUSERS-CHECKOUT [RESULTS.md]
#
# The tests of the checkout run against the installed diffusers. They take four minutes of processor time, and are not
# part of CI. `upstream_results.md` has the last result. They need two more packages:
# pip install parameterized requests-mock
set -euo pipefail

checkout=$(realpath "${1:?usage: tests/upstream.sh PATH-OF-A-DIFFUSERS-CHECKOUT [RESULTS.md]}")
results=$(realpath "${2:-$(dirname "$0")/upstream_results.md}")
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Only the tests: their conftest puts the checkout's `src` in front of the installed package if it is there.
cp -r "$checkout/tests" "$work/tests"
export HF_HOME="$work/hub" HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 HF_MODULES_CACHE="$work/modules"
export PYTHONPATH="$here/upstream:$here/helpers${PYTHONPATH:+:$PYTHONPATH}" TOKENIZERS_PARALLELISM=false
python -c "import parameterized, requests_mock"
python "$here/upstream/prepare_hub.py" "$HF_HOME"

pipeline=tests/pipelines/animatediff/test_animatediff.py::AnimateDiffPipelineFastTests
unet=tests/models/unets/test_models_unet_motion.py
loading=tests/pipelines/test_pipelines.py::CustomPipelineTests

cd "$work"
for variant in stock full previous; do
    # A failing test is a result, not an error of this script.
    LANDSCAPE_VARIANT=$variant python -m pytest -q -p on_our_class -p no:cacheprovider --junitxml="$work/$variant.xml" \
        "$pipeline" "$unet" "$loading" -k "not CustomPipelineTests or local_custom or custom_model" || true
done
python "$here/upstream/summarize.py" "$work" "$results" "$(git -C "$checkout" rev-parse HEAD 2>/dev/null || echo unknown)"
