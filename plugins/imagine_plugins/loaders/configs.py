"""Reads an architecture from diffusers' configuration files, in a folder or inside a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from imagine_plugins.loaders.architectures import Architecture, Config, TextPart
from imagine_plugins.loaders.problems import ProblemError

EMBEDDED = "imagine.config"  # our configuration files as one JSON text in a file's metadata
PIPELINES = {  # supported classes, each with its number of text encoders
    "StableDiffusionPipeline": 1,
    "StableDiffusionImg2ImgPipeline": 1,
    "StableDiffusionInpaintPipeline": 1,
    "StableDiffusionXLPipeline": 2,
    "StableDiffusionXLImg2ImgPipeline": 2,
    "StableDiffusionXLInpaintPipeline": 2,
}
REFINERS = ("StableDiffusionXLImg2ImgPipeline",)  # without a first text encoder
WHOLE_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")  # its names before and now
TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", *WHOLE_TOKENIZERS)
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer": TOKENIZERS,
    "tokenizer_2": TOKENIZERS,
}
MIDDLE = "UNetMidBlock2DCrossAttn"
UNET_DEFAULTS = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "mid_block_type": MIDDLE,
    "cross_attention_dim": 1280,
}
# Entries of UNets that need inputs beyond Stable Diffusion's.
UNET_INPUTS = ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "time_cond_proj_dim")
VAE_DEFAULTS = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
    "force_upcast": False,  # diffusers' own default is True, which no SD1 folder means
}
TINY_DEFAULTS = {
    **VAE_DEFAULTS,
    "scaling_factor": 1.0,
    "encoder_block_out_channels": [64] * 4,
    "decoder_block_out_channels": [64] * 4,
    "num_encoder_blocks": [1, 3, 3, 3],
    "num_decoder_blocks": [3, 3, 3, 1],
}
SCHEDULER_DEFAULTS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}
TEXT_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
}
SHORTEST_CHUNK = 4  # start, end, and two words
FAMILIES = {(320, 768): "sd1", (320, 1024): "sd2"}  # by width and text width; others are "sd"
OTHER_PROCESSES = (  # beginnings of names of schedulers of other noise than betas describe
    *("CMStochastic", "CogVideoX", "CosineDPM", "DDPMWuerstchen", "EDM", "FlowM", "Helios"),
    *("IPNDM", "KarrasVe", "LTX", "MiniMax", "Piflow", "SCM", "ScoreSde", "UnCLIP"),
)
BETA_SCHEDULES = ("scaled_linear", "linear")
SPACINGS = ("leading", "linspace", "trailing")
PREDICTIONS = ("epsilon", "v_prediction", "sample")

Read = Callable[[str], Any]
"""Gives the parsed content of a file of the folder by its name, or None where there is none."""


class ConfigError(ProblemError):
    """The configuration describes no model that can be built; the text says why."""


def embedded(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    """The configuration files inside a file, by name; most have none."""
    try:
        files = json.loads(metadata.get(EMBEDDED, "{}"))
    except (ValueError, RecursionError) as error:
        raise ConfigError("the configuration inside the file is damaged") from error
    if not isinstance(files, dict):
        raise ConfigError("the configuration inside the file is no JSON object")
    return files


def architecture(read: Read) -> Architecture:
    """The architecture that the configuration files of a folder describe."""
    index = _object(read, "model_index.json")
    count = _pipeline(index)
    unet = _unet(_object(read, "unet/config.json"))
    vae = autoencoder(_object(read, "vae/config.json"), index["vae"][1])
    texts = tuple(_text(read, number) for number in range(count))
    plan = Architecture(
        family="sdxl" if count > 1 else _family(unet),
        unet=unet,
        vae=vae,
        texts=texts,
        scheduler=_scheduler(_object(read, "scheduler/scheduler_config.json")),
        size=_size(unet, vae),
        zero_empty_prompt=bool(index.get("force_zeros_for_empty_prompt")) and count > 1,
    )
    _require_fit(plan)
    return plan


def _size(unet: Config, vae: Config) -> tuple[int, int]:
    """The size of the training's pictures, which the UNet's configuration counts in cells."""
    cells = unet.get("sample_size")
    side = cells * 2 ** (len(_widths(vae)) - 1) if _is_count(cells) else 512
    return side, side


def _require_fit(plan: Architecture) -> None:
    """Refuse components that contradict each other, before the first picture fails."""
    if plan.vae.get("shift_factor"):
        raise ConfigError("its autoencoder shifts latents, which no Stable Diffusion model does")
    latent, read = plan.vae["latent_channels"], plan.unet["in_channels"]
    width = sum(text.config["hidden_size"] for text in plan.texts)
    wants = plan.unet["cross_attention_dim"]
    if read not in {latent, 2 * latent + 1} or plan.unet["out_channels"] != latent:
        raise ConfigError(
            f"its UNet reads {read} channels and makes {plan.unet['out_channels']}, "
            f"its autoencoder has {latent}: not a model for text to image"
        )
    if not isinstance(wants, list) and wants != width:
        raise ConfigError(
            f"its UNet reads texts {wants!s:.80} wide, its text encoders make {width}"
        )
    added = plan.unet.get("addition_embed_type")
    if (added == "text_time") != (len(plan.texts) > 1):
        raise ConfigError("its UNet and its number of text encoders do not belong together")
    if added == "text_time":
        _require_added_fit(plan)


def _require_added_fit(plan: Architecture) -> None:
    """Require inputs of six sizes and the pooled text; the refiner has five other ones."""
    pooled, each = plan.texts[-1].config["projection_dim"], plan.unet["addition_time_embed_dim"]
    wants = plan.unet["projection_class_embeddings_input_dim"]
    if wants != pooled + 6 * each:
        raise ConfigError(
            "its UNet wants other inputs than SDXL's base model, as the refiner does, "
            "which is not supported; take an SDXL base model"
        )


def component_name(kind: str, number: int) -> str:
    """Diffusers' name of the first, second, ... component of a kind."""
    return kind if number == 0 else f"{kind}_{number + 1}"


def _pipeline(index: Mapping[str, Any]) -> int:
    """The number of text encoders of the pipeline."""
    name = index.get("_class_name")
    if not isinstance(name, str):
        raise ConfigError("model_index.json does not say of what pipeline it is (_class_name)")
    if name not in PIPELINES:
        raise ConfigError(
            f"a folder for {name:.80}, which is not supported; Stable Diffusion 1, 2 and XL are"
        )
    count = PIPELINES[name]
    for component, classes in CLASSES.items():
        entry = index.get(component)
        if component.endswith("_2") and count == 1:
            continue
        if not isinstance(entry, list) or len(entry) != 2 or entry[1] is None:
            hint = "; the SDXL refiner is not supported" if name in REFINERS else ""
            raise ConfigError(f"model_index.json names no {component}{hint}")
        if entry[1] not in classes:
            wanted = " or ".join(classes)
            raise ConfigError(f"its {component} is a {entry[1]!s:.80}, only {wanted} is supported")
    return count


def _family(unet: Config) -> str:
    widths, context = unet["block_out_channels"], unet["cross_attention_dim"]
    if not isinstance(widths, list) or not widths or not isinstance(context, int):
        return "sd"
    return FAMILIES.get((widths[0], context), "sd")


def _unet(config: Config) -> Config:
    config = {**UNET_DEFAULTS, **config}
    _require_counts("unet", config, ("in_channels", "out_channels"))
    _require_widths("unet", config["block_out_channels"])
    for name in UNET_INPUTS:
        if config.get(name) is not None:
            raise ConfigError(f"its UNet wants inputs that nothing here makes ({name})")
    if config.get("addition_embed_type") == "text_time":
        names = ("addition_time_embed_dim", "projection_class_embeddings_input_dim")
        _require_counts("unet", config, names)
    elif config.get("addition_embed_type") is not None:
        raise ConfigError(
            f"its UNet wants inputs that nothing here makes ({config['addition_embed_type']!s:.80})"
        )
    return config


def autoencoder(config: Config, name: str) -> Config:
    """The configuration of an autoencoder of the class `name`; raises `ConfigError`."""
    defaults = TINY_DEFAULTS if name == "AutoencoderTiny" else VAE_DEFAULTS
    config = {**defaults, **config, "_class_name": name}
    _require_counts("vae", config, ("in_channels", "out_channels", "latent_channels"))
    if not isinstance(config["scaling_factor"], (int, float)) or config["scaling_factor"] <= 0:
        raise ConfigError("vae/config.json: scaling_factor is no positive number")
    shift = config.get("shift_factor") or 0.0
    if not isinstance(shift, (int, float)) or not -1000 < shift < 1000:
        raise ConfigError("vae/config.json: shift_factor is no number")
    return config


def _widths(vae: Config) -> list[int]:
    widths = vae.get("encoder_block_out_channels") or vae.get("block_out_channels")
    return _require_widths("vae", widths)


def _text(read: Read, number: int) -> TextPart:
    folder = component_name("text_encoder", number)
    config = {**TEXT_DEFAULTS, **_object(read, f"{folder}/config.json")}
    _require_counts(folder, config, TEXT_DEFAULTS)
    if config["max_position_embeddings"] < SHORTEST_CHUNK:
        raise ConfigError(f"{folder}/config.json: max_position_embeddings leaves no room for words")
    return TextPart(
        config=config,
        pad="!" if number or config.get("hidden_act") == "gelu" else "<|endoftext|>",
        projection=number > 0,
        name=folder,
    )


def _scheduler(config: Config) -> Config:
    kind = config.get("_class_name")
    if isinstance(kind, str) and kind.startswith(OTHER_PROCESSES):
        raise ConfigError(f"it was trained for {kind:.80}, which is not supported")
    config = {**SCHEDULER_DEFAULTS, **config}
    _require_counts("scheduler", config, ("num_train_timesteps",))
    for name in ("beta_start", "beta_end"):
        if not isinstance(config[name], float) or not 0 < config[name] < 1:
            raise ConfigError(f"scheduler/scheduler_config.json: {name} is no number from 0 to 1")
    prediction = config["prediction_type"]
    if prediction not in PREDICTIONS:
        raise ConfigError(f"it predicts {prediction!s:.80}, which is not supported")
    spacing = config.get("timestep_spacing")
    if spacing not in {None, *SPACINGS}:
        raise ConfigError(f"its timestep_spacing {spacing!s:.80} is not supported")
    betas, trained = config["beta_schedule"], config.get("trained_betas")
    if trained is None and betas not in BETA_SCHEDULES:
        raise ConfigError(f"its noise schedule {betas!s:.80} is not supported")
    if trained is not None and not _is_betas(trained, config["num_train_timesteps"]):
        raise ConfigError("scheduler/scheduler_config.json: trained_betas is not one beta a level")
    return config


def _object(read: Read, name: str) -> dict[str, Any]:
    content = read(name)
    if content is None:
        raise ConfigError(f"the file {name} is missing")
    if not isinstance(content, dict):
        raise ConfigError(f"the file {name} is no JSON object")
    return content


def _require_counts(folder: str, config: Config, names: Iterable[str]) -> None:
    for name in names:
        if not _is_count(config.get(name)):
            raise ConfigError(f"{folder}/config.json: {name} is no positive whole number")


def _require_widths(folder: str, widths: object) -> list[int]:
    if not isinstance(widths, list) or not widths or not all(_is_count(w) for w in widths):
        raise ConfigError(f"{folder}/config.json has no usable block_out_channels")
    return widths


def _is_betas(value: object, levels: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == levels
        and all(isinstance(beta, float) and 0 < beta < 1 for beta in value)
    )


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value < 10**6
