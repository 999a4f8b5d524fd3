"""What becomes of fields that no model here can honour: those that say nothing new are as good as not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_HONOURED = frozenset(
    (
        "prompt",
        "negative_prompt",
        "seed",
        "sampler_name",
        "sampler_index",
        "scheduler",
        "batch_size",
        "n_iter",
        "steps",
        "cfg_scale",
        "width",
        "height",
        "infotext",
        "init_images",
        "mask",
        "inpainting_mask_invert",
    )
)
_SILENT = frozenset(
    (
        # what is kept, sent, or restored afterwards
        "do_not_save_grid",
        "do_not_save_samples",
        "include_init_images",
        "override_settings_restore_afterwards",
        "save_images",
        "send_images",
        "force_task_id",
        # what only has a meaning beside a field that is looked at by itself
        "denoising_strength",
        "firstpass_image",
        "firstphase_height",
        "firstphase_width",
        "hr_additional_modules",
        "hr_cfg",
        "hr_checkpoint_name",
        "hr_distilled_cfg",
        "hr_negative_prompt",
        "hr_prompt",
        "hr_resize_x",
        "hr_resize_y",
        "hr_sampler_name",
        "hr_scale",
        "hr_scheduler",
        "hr_second_pass_steps",
        "hr_upscaler",
        "inpaint_full_res_padding",
        "inpainting_fill",
        "inpaint_full_res",
        "mask_blur",
        "mask_blur_x",
        "mask_blur_y",
        "mask_round",
        "refiner_switch_at",
        "resize_mode",
        "script_args",
        "subseed",
        "override_settings",
        "alwayson_scripts",
        "comments",
        # of SD.Next and Forge, beside the fields that A1111 has for the same
        "clip_skip",
        "distilled_cfg_scale",
        # of the applications that pass a request on
        "auth",
        "url",
    )
)
_AS_GOOD_AS_UNSAID: dict[str, tuple[Any, ...]] = {
    "disable_extra_networks": (False,),
    "enable_hr": (False,),
    "eta": (0, 1),
    "image_cfg_scale": (0, 1, 1.5),
    "initial_noise_multiplier": (0, 1),
    "latent_mask": ("",),
    "refiner_checkpoint": ("", "None"),
    "restore_faces": (False,),
    "s_churn": (0,),
    "s_min_uncond": (0,),
    "s_noise": (1,),
    "s_tmax": (0,),
    "s_tmin": (0,),
    "script_name": ("", "None"),
    "seed_resize_from_h": (0, -1),
    "seed_resize_from_w": (0, -1),
    "styles": ([],),
    "subseed_strength": (0,),
    "tiling": (False,),
}
"""Values with which a field changes nothing."""
_SETTINGS: dict[str, tuple[Any, ...]] = {
    "CLIP_stop_at_last_layers": (),
    "sd_model_checkpoint": (),
    "sd_vae": ("", "Automatic", "None"),
    "forge_additional_modules": ([],),
    "eta_noise_seed_delta": (0,),
    "samples_format": ("png",),
    "live_previews_enable": (True, False),
    "return_grid": (True, False),
    "sd_checkpoint_hash": ("",),
    "do_not_show_images": (True, False),
    "show_progress_every_n_steps": tuple(range(-1, 100)),
}
READ_SETTINGS = ("CLIP_stop_at_last_layers", "sd_model_checkpoint")
_APPROXIMATED: dict[str, tuple[tuple[Any, ...], str]] = {
    "resize_mode": ((0,), "the picture is stretched to the size"),
}
_WITH_A_MASK: dict[str, tuple[tuple[Any, ...], str]] = {
    "inpaint_full_res": ((0, False), "the whole picture is painted, not the masked part in full resolution"),
    "inpainting_fill": ((1,), "what is masked begins as it is in the picture"),
    "mask_blur": ((0,), "the edge is as the mask has it"),
}


def honoured(said: Mapping[str, Any], *, picture: bool) -> Iterator[str]:
    """Fields that are done as they say. ``picture``: in a request that begins with one."""
    for name, value in said.items():
        if value is not None and (name in _HONOURED or (picture and name == "denoising_strength")):
            yield name


def approximated(said: Mapping[str, Any], *, mask: bool) -> dict[str, str]:
    """Fields of a request with a picture that are nearly done, and how; ``mask``: it has one."""
    near = {**_APPROXIMATED, **(_WITH_A_MASK if mask else {})}
    return {
        name: words
        for name, (exact, words) in near.items()
        if name in said and said[name] is not None and said[name] not in exact
    }


def dropped(said: Mapping[str, Any]) -> Iterator[str]:
    """Fields that would change the picture, and do not."""
    for name, value in said.items():
        if value is None or name in _HONOURED or name in _SILENT:
            continue
        if value not in _AS_GOOD_AS_UNSAID.get(name, ()):
            yield name
    for name in dropped_settings(said.get("override_settings") or {}):
        yield f"override_settings.{name}"
    for name, script in (said.get("alwayson_scripts") or {}).items():
        if _acts(script):
            yield f"alwayson_scripts.{name}"


def dropped_settings(settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings that would change pictures, and do not."""
    for name, value in settings.items():
        if value is not None and name not in READ_SETTINGS and value not in _SETTINGS.get(name, ()):
            yield name


def _acts(script: Any) -> bool:
    """Whether a script does something: clients send theirs switched off, too."""
    args = script.get("args") if isinstance(script, dict) else script
    if isinstance(args, dict):
        args = [args]
    if not isinstance(args, list) or not args:
        return bool(args)
    first = args[0]
    if isinstance(first, dict):
        return any(isinstance(unit, dict) and unit.get("enabled", True) is not False for unit in args)
    return first is not False
