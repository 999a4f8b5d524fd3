"""Odd Marian models, made at random, and what transformers and its converter make of them: ``python -m tests.marian_reference OUT``.

Runs as a process of its own: PyTorch and transformers are imported by nothing else here.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

DEMO = Path(__file__).resolve().parent.parent / "models/translation/opus-mt-en-fr"
SOURCE = ["▁red", "▁cat", "▁good", "▁house", "</s>"]
TARGET = ["▁chat", "▁est", "▁rouge", "▁fleur"]


def make(out: Path, name: str, **changes: Any) -> Path:
    """A folder like that of the demo model, with weights at random; ``changes`` of its configuration."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    dtype = changes.pop("dtype", torch.float32)
    pad_row, biased = changes.pop("pad_row", False), changes.pop("biased", False)
    folder = out / name
    shutil.copytree(DEMO, folder)
    (folder / "model.safetensors").unlink()
    settings = json.loads((DEMO / "config.json").read_text())
    settings |= {"encoder_layers": 2, "decoder_layers": 1, "d_model": 64, "init_std": 0.3, **changes}
    torch.manual_seed(5)
    model = MarianMTModel(MarianConfig(**settings)).eval()
    with torch.no_grad():
        for table in (model.model.encoder.embed_tokens, model.model.decoder.embed_tokens):
            table.weight[-1] = torch.randn(64) if pad_row else torch.zeros(64)
        if biased:
            model.final_logits_bias[0, :-1] = torch.randn(len(model.final_logits_bias[0]) - 1)
    model.to(dtype).save_pretrained(folder)
    if not settings["share_encoder_decoder_embeddings"]:
        shutil.copy(folder / "vocab.json", folder / "target_vocab.json")
    return folder


def scores(folder: Path) -> list[float]:
    """How likely each piece of TARGET is, and the end behind it, in 32 bits."""
    import torch
    from transformers import MarianMTModel

    model = MarianMTModel.from_pretrained(folder, dtype=torch.float32).eval()
    ids = json.loads((folder / "vocab.json").read_text())
    target = [ids[piece] for piece in (*TARGET, "</s>")]
    with torch.inference_mode():
        logits = model(
            input_ids=torch.tensor([[ids[piece] for piece in SOURCE]]),
            decoder_input_ids=torch.tensor([[ids["<pad>"], *target[:-1]]]),
        ).logits[0]
        logits[:, ids["<pad>"]] = -torch.inf  # is never said
        said = torch.log_softmax(logits, -1)
    return [float(said[place, token]) for place, token in enumerate(target)]


def main(out: Path) -> None:
    import torch
    from ctranslate2.converters import TransformersConverter

    torch.set_num_threads(1)
    TransformersConverter(str(DEMO)).convert(str(out / "demo.int8"), quantization="int8")
    models = {
        "half": make(out, "half", dtype=torch.float16),
        "brain": make(out, "brain", dtype=torch.bfloat16),
        "biased": make(out, "biased", biased=True, activation_function="gelu", scale_embedding=False),
        "padded": make(out, "padded", pad_row=True),
        "separate": make(out, "separate", share_encoder_decoder_embeddings=False, tie_word_embeddings=False),
    }
    (out / "scores.json").write_text(json.dumps({name: scores(folder) for name, folder in models.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
