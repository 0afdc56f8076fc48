#!/usr/bin/env bash
# Builds an environment with nnU-Net 2.8.1 on a CPU build of torch, apart from autoseg's own environment.
#   bash benchmarks/peers/nnunet.sh [FOLDER]      FOLDER: default benchmarks/peers/.envs/nnunet
#   PYTHON=python3.12 bash benchmarks/peers/nnunet.sh
# An environment that is complete is left as it is.
# torchvision has no build for this torch and would replace it. It comes through timm, so timm and the packages that ask
# for timm or torch go in without their dependencies, after all other dependencies by name. nnU-Net's Primus trainers
# are the only part that imports timm when trainers are searched; they are removed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$here/.envs/nnunet}
torch=torch==2.13.0
if [ -f "$folder/complete" ]; then
  echo "nnU-Net 2.8.1 is ready in $folder"
  exit 0
fi

python=""
for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
  echo "nnU-Net needs Python 3.11 or newer here; name one: PYTHON=/path/to/python3 bash $0" >&2
  exit 1
fi
mkdir -p "$folder"
"$python" -m venv "$folder"
pip() { "$folder/bin/python" -m pip --disable-pip-version-check "$@"; }

pip install --quiet "$torch"
if ! "$folder/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)'; then
  echo "$torch came with CUDA; delete $folder and start again with a CPU build:" \
       "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu bash $0 $folder" >&2
  exit 1
fi
# acvl-utils' and nnunetv2 2.8.1's own lists; $torch stands here again so that nothing changes it.
pip install --quiet "$torch" tqdm scipy "batchgenerators>=0.25.1" "numpy>=1.24" scikit-learn "scikit-image>=0.19.3" \
  "SimpleITK>=2.2.1" pandas graphviz tifffile requests nibabel matplotlib seaborn imagecodecs yacs einops \
  "blosc2>=3.3.2" connected-components-3d
pip install --quiet --no-deps nnunetv2==2.8.1 dynamic-network-architectures==0.4.4 batchgeneratorsv2==0.3.6 \
  acvl-utils "timm<1.0.23"
packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -rf "$packages/nnunetv2/training/nnUNetTrainer/primus"

"$folder/bin/python" - "${torch#torch==}" <<'CHECK'
import importlib.util
import sys

import torch
from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints  # noqa: F401
from nnunetv2.inference import predict_from_raw_data  # noqa: F401
from nnunetv2.run import run_training  # noqa: F401

if torch.__version__.split("+")[0] != sys.argv[1] or torch.version.cuda is not None:
    sys.exit(f"torch was changed to {torch.__version__} (CUDA {torch.version.cuda}); expected a CPU build of {sys.argv[1]}")
if importlib.util.find_spec("torchvision"):
    sys.exit("torchvision was installed; see which package asked for it with: pip show torchvision")
CHECK
touch "$folder/complete"
echo "nnU-Net 2.8.1 is ready in $folder"
