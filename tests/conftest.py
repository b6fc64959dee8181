"""Set before anything imports torch or transformers: one thread, no network, shapes checked at every annotated border."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

from jaxtyping import install_import_hook

install_import_hook("limner", "beartype.beartype")

import torch

torch.set_num_threads(1)
