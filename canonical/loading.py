"""Whether a model does as it is loaded for what a request wants of its load, and what to load where it does not."""

from __future__ import annotations

from msgspec import structs

from canonical.requests import AS_CONFIGURED, LoadOptions

FIELDS = LoadOptions.__struct_fields__


def met(field: str, wanted: int | bool | None, loaded: int | bool | None) -> bool:
    """Whether one option of a load is as ``wanted``: a context that is longer does, and for all layers any number."""
    if wanted is None or wanted == loaded:
        return True
    if field == "gpu_layers":
        return wanted < 0
    return field == "context" and loaded is not None and loaded >= wanted


def suffices(wanted: LoadOptions, *loaded: LoadOptions) -> bool:
    """Whether each option is as ``wanted`` in one of ``loaded``: what the model has, what it was asked to have."""
    if wanted == AS_CONFIGURED:
        return True
    return all(
        any(met(field, getattr(wanted, field), getattr(one, field)) for one in loaded)
        for field in FIELDS
        if getattr(wanted, field) is not None
    )


def merged(base: LoadOptions, wanted: LoadOptions) -> LoadOptions:
    """What does for both, as far as that can be; where it cannot, it does for ``wanted``.

    Otherwise two clients, each with an option that the other does not give, would load the model in turn for ever.
    """
    changed = {
        field: value
        for field in FIELDS
        if (value := getattr(wanted, field)) is not None and not met(field, value, getattr(base, field))
    }
    if base.gpu_layers is None and wanted.gpu_layers is not None:
        changed["gpu_layers"] = wanted.gpu_layers
    return structs.replace(base, **changed) if changed else base
