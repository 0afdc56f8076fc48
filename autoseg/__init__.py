"""autoseg: give it a folder of medical images and it configures itself.

From Python: `autoseg.pipeline.load_predictor(bundle)` predicts arrays in memory; everything else starts in
`autoseg.pipeline`, one function per verb of the command line.
"""
