"""Files: images, specifications, dataset folders, the store of preprocessed cases, atomic writing."""
