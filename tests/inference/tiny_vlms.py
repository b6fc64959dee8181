"""Vision-language models of transformers: random, of 20k to 130k parameters, saved as the published ones are saved.

Each entry of `FAMILIES` makes (model, processor class, settings of the processor, image processor, special tokens).
Processors are not built here: some need torchvision for that.  Their parts are written to the folder by hand.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "a", "dog", "cat", "runs", "on", "grass", "the", "red", "blue", "man", "ball"]
WORDS += ["park", "two", "birds", "fly", "water", "in", ".", ",", "with", "and"]
PAD, UNK, BOS, EOS = range(4)
TEMPLATE = """{%- for message in messages -%}
<|im_start|> {{ message['role'] }} {% if message['content'] is string %}{{ message['content'] }}{% else -%}
{%- for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %} {{ part['text'] }} {% endif %}
{%- endfor %}{% endif %} <|im_end|> {% endfor %}
{%- if add_generation_prompt %}<|im_start|> assistant {% endif %}"""
CHAT = ("<|im_start|>", "<|im_end|>")
SMOL = ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
SMOL += tuple(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7))
QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

TEXT: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT |= {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 1024, "initializer_range": 0.5}
TEXT |= {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
VISION: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 16, "patch_size": 4, "initializer_range": 0.5}
SIDE = {"height": 16, "width": 16}


class Parts(NamedTuple):
    """What a folder of a model holds."""

    model: Callable[[dict[str, int], int], torch.nn.Module]  # ids of the special tokens, size of the vocabulary
    processor: str  # the class
    images: Any  # an image processor
    special: tuple[str, ...]
    settings: dict[str, Any] = {}  # noqa: RUF012  (of the processor)
    image: str = ""  # the chat template's word for an image; "": there is no template
    names: dict[str, str] = {}  # noqa: RUF012  (special tokens that the tokenizer has as attributes)


def idefics(kind: str) -> Parts:
    def model(ids: dict[str, int], size: int) -> torch.nn.Module:
        text = {"model_type": "llama", "vocab_size": size, **TEXT}
        config = getattr(transformers, f"{kind}Config")(
            text_config=text, vision_config=VISION, scale_factor=2, image_token_id=ids["<image>"], pad_token_id=PAD
        )
        return getattr(transformers, f"{kind}ForConditionalGeneration")(config)

    images = getattr(transformers, f"{kind}ImageProcessorPil")(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 16}
    )
    return Parts(model, f"{kind}Processor", images, (*CHAT, *SMOL), {"image_seq_len": 4}, "<image>")


def qwen25(ids: dict[str, int], size: int) -> torch.nn.Module:
    text = {**TEXT, "vocab_size": size, "rope_scaling": {"type": "default", "mrope_section": [1, 1, 2]}}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4}
    vision |= {"out_hidden_size": 16, "window_size": 16, "fullatt_block_indexes": [0], "initializer_range": 0.5}
    return transformers.Qwen2_5_VLForConditionalGeneration(
        transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **qwen_ids(ids))
    )


def qwen3(ids: dict[str, int], size: int) -> torch.nn.Module:
    text = {**TEXT, "vocab_size": size}
    text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4}
    vision |= {"out_hidden_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    return transformers.Qwen3VLForConditionalGeneration(
        transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **qwen_ids(ids))
    )


def qwen_ids(ids: dict[str, int]) -> dict[str, int]:
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def qwen(model: Any, name: str) -> Parts:
    images = transformers.Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    return Parts(model, name, images, (*CHAT, *QWEN), {}, image)


def paligemma(ids: dict[str, int], size: int) -> torch.nn.Module:
    text = {**TEXT, "model_type": "gemma", "vocab_size": size}
    vision = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False, "projection_dim": 16}
    config = transformers.PaliGemmaConfig(
        text_config=text, vision_config=vision, image_token_index=ids["<image>"], projection_dim=16, vocab_size=size
    )
    return transformers.PaliGemmaForConditionalGeneration(config)


def gemma3(ids: dict[str, int], size: int) -> torch.nn.Module:
    text = {**TEXT, "vocab_size": size, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    text |= {"query_pre_attn_scalar": 8}
    vision = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
    )
    return transformers.Gemma3ForConditionalGeneration(config)


def llava_onevision(ids: dict[str, int], size: int) -> torch.nn.Module:
    text = {**TEXT, "model_type": "qwen2", "vocab_size": size}
    vision = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
    config = transformers.LlavaOnevisionConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        image_grid_pinpoints=[[16, 32], [32, 16], [32, 32]],
    )
    return transformers.LlavaOnevisionForConditionalGeneration(config)


def internvl(ids: dict[str, int], size: int) -> torch.nn.Module:
    text = {**TEXT, "model_type": "qwen2", "vocab_size": size}
    vision = {**VISION, "image_size": [16, 16], "patch_size": [4, 4]}
    config = transformers.InternVLConfig(
        text_config=text, vision_config=vision, image_token_id=ids["<IMG_CONTEXT>"], image_seq_length=4
    )
    return transformers.InternVLForConditionalGeneration(config)


def blip2_parts(ids: dict[str, int], size: int) -> dict[str, Any]:
    text = {"model_type": "opt", "vocab_size": size, "hidden_size": 16, "num_hidden_layers": 2, "ffn_dim": 32}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 128, "word_embed_proj_dim": 16, "init_std": 0.5}
    text |= {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    qformer = {"vocab_size": size, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    qformer |= {"intermediate_size": 16, "encoder_hidden_size": 16, "initializer_range": 0.5}
    parts = {"text_config": text, "vision_config": VISION, "qformer_config": qformer, "num_query_tokens": 4}
    return parts | {"image_token_index": ids["<image>"], "initializer_range": 0.5}


def blip2(ids: dict[str, int], size: int) -> torch.nn.Module:
    return transformers.Blip2ForConditionalGeneration(transformers.Blip2Config(**blip2_parts(ids, size)))


def instructblip(ids: dict[str, int], size: int) -> torch.nn.Module:
    return transformers.InstructBlipForConditionalGeneration(transformers.InstructBlipConfig(**blip2_parts(ids, size)))


def florence2(ids: dict[str, int], size: int) -> torch.nn.Module:
    text = {"model_type": "bart", "vocab_size": size, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    text |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    text |= {"max_position_embeddings": 128, "init_std": 0.5, "decoder_start_token_id": EOS, "forced_eos_token_id": EOS}
    text |= {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "is_encoder_decoder": True}
    vision = {"depths": [1, 1], "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1]}
    vision |= {"patch_prenorm": [False, True], "embed_dim": [8, 16], "num_heads": [2, 2], "num_groups": [2, 2]}
    vision |= {"window_size": 4, "projection_dim": 16, "drop_path_rate": 0.0, "max_position_embeddings": 8}
    config = transformers.Florence2Config(
        text_config=text, vision_config={**vision, "initializer_range": 0.5}, image_token_id=ids["<image>"]
    )
    return transformers.Florence2ForConditionalGeneration(config)


def clip_images(**more: Any) -> Any:
    return transformers.CLIPImageProcessorPil(size=SIDE, do_center_crop=False, **more)


def siglip_images(**more: Any) -> Any:
    images = transformers.SiglipImageProcessorPil(size=SIDE)
    for name, value in more.items():
        setattr(images, name, value)
    return images


FAMILIES: dict[str, Callable[[], Parts]] = {
    "florence2": lambda: Parts(
        florence2,
        "Florence2Processor",
        clip_images(image_seq_length=5),
        ("<image>",),
        {},
        "",
        {"image_token": "<image>"},
    ),
    "idefics3": lambda: idefics("Idefics3"),
    "smolvlm": lambda: idefics("SmolVLM"),
    "qwen2_5_vl": lambda: qwen(qwen25, "Qwen2_5_VLProcessor"),
    "qwen3_vl": lambda: qwen(qwen3, "Qwen3VLProcessor"),
    "paligemma": lambda: Parts(paligemma, "PaliGemmaProcessor", siglip_images(image_seq_length=16), ("<image>",)),
    "gemma3": lambda: Parts(
        gemma3,
        "Gemma3Processor",
        transformers.Gemma3ImageProcessorPil(size=SIDE),
        (*CHAT, "<start_of_image>", "<end_of_image>", "<image_soft_token>"),
        {"image_seq_length": 4},
        "<start_of_image>",
        {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"},
    ),
    "llava_onevision": lambda: Parts(
        llava_onevision,
        "LlavaOnevisionProcessor",
        transformers.LlavaOnevisionImageProcessorPil(size=SIDE, image_grid_pinpoints=[[16, 32], [32, 16], [32, 32]]),
        (*CHAT, "<image>", "<video>"),
        {"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
        "<image>",
    ),
    "internvl": lambda: Parts(
        internvl,
        "InternVLProcessor",
        transformers.GotOcr2ImageProcessorPil(size=SIDE, max_patches=2),
        (*CHAT, "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
        {"image_seq_length": 4},
        "<IMG_CONTEXT>",
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
    "blip-2": lambda: Parts(
        blip2, "Blip2Processor", transformers.BlipImageProcessorPil(size=SIDE), ("<image>",), {"num_query_tokens": 4}
    ),
    "instructblip": lambda: Parts(
        instructblip,
        "InstructBlipProcessor",
        transformers.BlipImageProcessorPil(size=SIDE),
        ("<image>",),
        {"num_query_tokens": 4},
    ),
}


def save(name: str, folder: Path, seed: int = 1) -> Path:
    """Write the tiny model of a family to a folder -> the folder."""
    parts = FAMILIES[name]()
    folder.mkdir(parents=True)
    words = {word: number for number, word in enumerate(WORDS)}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=parts.names or None,
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in parts.special])
    if parts.image:
        tokenizer.chat_template = TEMPLATE.replace("IMAGE", parts.image)
    tokenizer.save_pretrained(folder)
    if name == "instructblip":
        tokenizer.save_pretrained(folder / "qformer_tokenizer")
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in parts.special}
    parts.images.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": parts.processor, **parts.settings}))
    torch.manual_seed(seed)
    extra = 1200 if name == "paligemma" else 0  # its processor adds 1024 + 128 tokens of places
    model = parts.model(ids, len(tokenizer) + extra)
    with torch.no_grad():
        head = model.get_output_embeddings()
        if head is not None:  # words only, so that a caption is text
            head.weight[len(WORDS) :] = 0.0
        if name == "gemma3":  # made as zeros: the image could not be seen
            torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
            head.weight[EOS] *= 0.2  # or every caption ended at once
    model.save_pretrained(folder)
    return folder
