#!/usr/bin/env bash
# The whole pipeline: measure, plan, preprocess, train, select, evaluate, report. Ends with the Dice table and the path
# of the report.
#   DATA     folder in nnU-Net v2 raw or Medical Segmentation Decathlon layout; without it a synthetic cohort is made
#   MINUTES  training time
#   OUTPUT   where everything is written (default demo/output)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
output=${OUTPUT:-$here/output}

if [ -n "${DATA:-}" ]; then
  data=$DATA
  minutes=${MINUTES:-5}
  if ! [ -f "$data/dataset.json" ]; then
    echo "DATA=$data holds no dataset.json; give a folder in nnU-Net v2 raw or Medical Segmentation Decathlon layout" >&2
    exit 2
  fi
else
  data=$output/SyntheticMNI152
  minutes=${MINUTES:-3}
  echo "No DATA given: making a SYNTHETIC cohort from the MNI152 template (not patient data)."
  python "$here/cohort.py" "$data" >/dev/null
fi

echo "Data: $data. Training takes $minutes minutes; results are written below $output/autoseg_home."
autoseg fit -d "$data" -i "$data" --minutes "$minutes" --root "$output/autoseg_home"
