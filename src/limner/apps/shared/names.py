"""The names that options offer as choices, without importing what has them: `--help` must not wait for PyTorch."""

import sys

# a dictionary, as MODULE.NAME -> its keys, as long as no plug-in adds others; tests/apps/test_start.py compares them
BUILT_IN = {
    "limner.data.augmentations.AUGMENTATIONS": (
        *("full", "flip", "crop-tl", "crop-tr", "crop-bl", "crop-br", "crop-centre"),
        *("flip-crop-tl", "flip-crop-tr", "flip-crop-bl", "flip-crop-br", "flip-crop-centre"),
    ),
    "limner.data.datasets.DATASETS": (
        *("captions", "coco", "flickr8k", "flickr30k", "csv", "jsonl", "msrvtt", "msvd"),
        *("nocaps", "textcaps", "vizwiz", "vatex", "sftcap", "frames"),
        *("webdataset", "parquet", "huggingface", "cocotalk", "show_attend_tell", "folder", "shapes"),
    ),
    "limner.decode.clip_options.CLIP_METHODS": ("consensus", "mosaic", "middle"),
    "limner.explanations.maps.METHODS": ("attention", "gradcam", "gradcam++", "saliency"),
    "limner.metrics.report.METRICS": (
        *("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "CIDEr-D"),
    ),
    "limner.text.language.FUNCTION_WORDS": (
        *("en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "pl", "cs", "fi", "tr", "ro", "id"),
    ),
    "limner.training.tracking.TRACKERS": ("wandb", "mlflow", "trackio", "tensorboard"),
    "limner.text.tokens.TOKENIZERS": ("ptb", "ptb-isolated", "simple", "split", "characters", "script-runs"),
}


def names_of(dictionary: str) -> list[str]:
    """The keys of a dictionary of limner: those of the module if it is loaded, as plug-ins do, or the built-in ones.

    >>> names_of("limner.explanations.maps.METHODS")
    ['attention', 'gradcam', 'gradcam++', 'saliency']
    """
    module, _, name = dictionary.rpartition(".")
    return list(getattr(sys.modules[module], name) if module in sys.modules else BUILT_IN[dictionary])
