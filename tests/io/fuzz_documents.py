"""Fuzzes a parser with inputs that reach new lines: any bytes become a value or a refusal, nothing else.

    PYTHONPATH=.:tests python tests/io/fuzz_documents.py specification|dataset|plan RUNS SEED FOLDER

A process of its own, because libFuzzer ends the process that it runs in. Ends with 0 when nothing was found. Runs are
counted, not seconds, so that a slow machine tries as many.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[1] / "tasks" / "segmentation" / "golden" / "hippocampus_nnunet_format_1.json"
DATASET = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2],
           "numTraining": 2, "file_ending": ".nii.gz"}


def main() -> None:
    import atheris
    from standstill import SECONDS_PER_INPUT, Standstill

    with atheris.instrument_imports(include=["autoseg.io", "autoseg.core", "yaml", "json"]):
        from autoseg.core.errors import AutosegError
        from autoseg.io.foreign import read_dataset_json
        from autoseg.io.plans import read_plan
        from autoseg.io.specs import known_specs, read_spec, write_spec
        from autoseg.io.values import to_plain

    kind, runs, seed, folder = sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])
    corpus = folder / "corpus"
    corpus.mkdir()
    name, read, seeds = {
        "specification": ("a.yaml", read_spec, [path.read_bytes() for path in known_specs().values()]),
        "dataset": ("dataset.json", lambda path: read_dataset_json(path.parent), [json.dumps(DATASET).encode()]),
        "plan": ("plan.json", read_plan, [GOLDEN.read_bytes()]),
    }[kind]
    for number, content in enumerate(seeds):
        (corpus / str(number)).write_bytes(content)

    clock = Standstill()

    def one(content: bytes) -> None:
        clock.start()
        (folder / name).write_bytes(content)
        try:
            value = read(folder / name)
        except AutosegError as error:
            str(error).encode("utf-8")
            return
        if kind == "plan":
            to_plain(value)
        else:
            write_spec(folder / "back.yaml", value)
            if read_spec(folder / "back.yaml") != value:
                raise AssertionError("a specification that was written is read as another")

    atheris.Setup([sys.argv[0], str(corpus), f"-runs={runs}", f"-seed={seed}", f"-timeout={SECONDS_PER_INPUT}",
                   "-max_len=6000", f"-artifact_prefix={folder}/"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
