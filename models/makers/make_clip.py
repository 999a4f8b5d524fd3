"""The demo of CLIP: trained on coloured shapes, saved as transformers does. About two minutes on one core.

    python make_clip.py ../clip/clip-shapes

Needs torch, transformers, tokenizers, pillow and numpy. Everything comes from a fixed seed; nothing is downloaded.
"""

from __future__ import annotations

import os

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import argparse
import json
import random
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SEED = 20240607
SIDE = 64
BATCH = 48
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (40, 70, 220),
    "yellow": (240, 215, 40),
    "purple": (140, 50, 170),
    "orange": (245, 140, 30),
    "white": (250, 250, 250),
    "black": (15, 15, 15),
}
SHAPES = ("square", "circle", "triangle")
SENTENCES = (
    "a {}",
    "{}",
    "a photo of a {}",
    "a picture of a {}",
    "an image of a {}",
    "this is a photo of a {}.",
    "a {} on a gray background",
)
EXTRAS = ("", "", ", high quality", ", masterpiece, best quality", ", score_9, score_8_up")
"""What people write behind their prompts: in the vocabulary only."""
OTHERS = (
    "a cat", "a dog", "blurry, low quality, worst quality", "score_7_up", "night", "frame", "a drawing", "text",
    "a landscape with mountains", "portrait of a person", "style", "small", "big", "two",
)  # fmt: skip


def draw(colour: str, shape: str, chance: random.Random) -> Image.Image:
    """One coloured shape on grey, a little off the middle."""
    grey = int(128 + chance.uniform(-14, 14))
    image = Image.new("RGB", (SIDE * 2, SIDE * 2), (grey, grey, grey))
    fill = tuple(max(0, min(255, int(part + chance.uniform(-12, 12)))) for part in COLOURS[colour])
    radius = SIDE * (0.60 + chance.uniform(-0.12, 0.12))
    x = SIDE + chance.uniform(-0.22, 0.22) * SIDE
    y = SIDE + chance.uniform(-0.22, 0.22) * SIDE
    pen = ImageDraw.Draw(image)
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "square":
        pen.rectangle(box, fill=fill)
    elif shape == "circle":
        pen.ellipse(box, fill=fill)
    else:
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=fill)
    return image.resize((SIDE, SIDE), Image.LANCZOS)


def caption(colour: str, shape: str, chance: random.Random) -> tuple[str, str | None, str | None]:
    """A sentence about a picture, and the colour and the shape that it tells of."""
    kind = chance.random()
    sentence = chance.choice(SENTENCES)
    if kind < 0.6:
        return sentence.format(f"{colour} {shape}"), colour, shape
    if kind < 0.8:
        return sentence.format(colour), colour, None
    return sentence.format(shape), None, shape


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A small vocabulary in CLIP's own format, saved."""
    lines = [s.format(f"{c} {k}") + more for s in SENTENCES for c in COLOURS for k in SHAPES for more in EXTRAS]
    lines += [s.format(word) for s in SENTENCES for word in (*COLOURS, *SHAPES)]
    lines += [*OTHERS] * 8
    plain = CLIPTokenizer()
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = plain._tokenizer.normalizer
    trained.pre_tokenizer = plain._tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(
        lines,
        trainers.BpeTrainer(
            vocab_size=1000, initial_alphabet=alphabet, end_of_word_suffix="</w>", min_frequency=8, show_progress=False
        ),
    )
    told = json.loads(trained.to_str())["model"]["merges"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in told]
    vocabulary: dict[str, int] = {}
    joined = ("".join(pair) for pair in merges)
    for token in (*alphabet, *(one + "</w>" for one in alphabet), *joined, "<|startoftext|>", "<|endoftext|>"):
        vocabulary.setdefault(token, len(vocabulary))
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    # The two files of old as well, which other tools read.
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    return tokenizer


def make_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained CLIP of 0.3 million parameters."""
    end = tokenizer.eos_token_id
    shared = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "projection_dim": 64, "hidden_act": "gelu"}
    text = {
        **shared, "vocab_size": len(tokenizer), "num_hidden_layers": 4, "max_position_embeddings": 77,
        "eos_token_id": end, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": end,
    }  # fmt: skip
    vision = {**shared, "num_hidden_layers": 3, "image_size": SIDE, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def train(model: CLIPModel, tokenizer: CLIPTokenizer, processor: CLIPImageProcessorPil, chance: random.Random, steps: int) -> None:
    """Pictures and captions are brought together; where several captions fit one picture, they share it evenly."""
    pool = [(c, s, draw(c, s, chance)) for c in COLOURS for s in SHAPES for _ in range(40)]
    pixels = torch.cat([processor(images=[image], return_tensors="pt")["pixel_values"] for *_, image in pool])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    model.train()
    for step in range(steps):
        picks = chance.sample(range(len(pool)), BATCH)
        said = [caption(pool[pick][0], pool[pick][1], chance) for pick in picks]
        fits = torch.tensor(
            [
                [float(colour in {None, pool[pick][0]} and shape in {None, pool[pick][1]}) for _, colour, shape in said]
                for pick in picks
            ]
        )
        tokens = tokenizer([text for text, *_ in said], padding=True, return_tensors="pt")
        scores = model(pixel_values=pixels[picks], **tokens).logits_per_image
        loss = -(torch.log_softmax(scores, 1) * fits / fits.sum(1, keepdim=True)).sum(1).mean()
        loss = loss - (torch.log_softmax(scores.t(), 1) * fits.t() / fits.t().sum(1, keepdim=True)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    model.eval()


def check(folder: Path) -> None:
    """How often it is right about pictures that it has not seen."""
    chance = random.Random(SEED + 1)
    model, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
    pictures = [(c, s, draw(c, s, chance)) for c in COLOURS for s in SHAPES for _ in range(4)]
    images = [image for *_, image in pictures]
    names = [f"a {c} {s}" for c in COLOURS for s in SHAPES]
    for labels, wanted in (
        (names, [f"a {c} {s}" for c, s, _ in pictures]),
        ([f"a {c}" for c in COLOURS], [f"a {c}" for c, *_ in pictures]),
        ([f"a {s}" for s in SHAPES], [f"a {s}" for _, s, _ in pictures]),
    ):
        with torch.inference_mode():
            inputs = processor(text=labels, images=images, return_tensors="pt", padding=True)
            shares = model(**inputs).logits_per_image.softmax(-1)
        right = sum(labels[int(row.argmax())] == want for row, want in zip(shares, wanted, strict=True))
        print(f"{len(labels)} labels: {right} of {len(images)}, best share {shares.max(1).values.mean():.2f}")


def main() -> None:
    """Make it, save it, try it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=900)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    chance = random.Random(SEED)
    tokenizer = make_tokenizer(options.folder)
    model = make_model(tokenizer)
    square = {"height": SIDE, "width": SIDE}
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square)
    train(model, tokenizer, processor, chance, options.steps)
    model.save_pretrained(options.folder)
    CLIPProcessor(image_processor=processor, tokenizer=tokenizer).save_pretrained(options.folder)
    check(options.folder)


if __name__ == "__main__":
    main()
