#!/usr/bin/env bash
# Builds an environment with ANTs (antspyx 0.6.3), apart from autoseg's own environment: it pins numpy < 2.4 and scipy < 1.16.
#   bash benchmarks/peers/ants.sh [FOLDER]      FOLDER: default benchmarks/peers/.envs/ants
# An environment that is complete is left as it is.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/.envs/ants}
if [ -f "$folder/complete" ]; then
  echo "antspyx 0.6.3 is ready in $folder"
  exit 0
fi
mkdir -p "$folder"
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip --disable-pip-version-check install --quiet antspyx==0.6.3
"$folder/bin/python" -c 'import ants; assert ants.registration'
touch "$folder/complete"
echo "antspyx 0.6.3 is ready in $folder"
