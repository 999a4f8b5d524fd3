"""The demo models of translation: a phrase book between English, French and German. About two minutes each on one core.

    python make_marian.py ../translation

Saved the way Helsinki-NLP's opus-mt folders look: source.spm, target.spm, vocab.json, config.json, model.safetensors. Needs torch,
transformers and sentencepiece. Everything comes from a fixed seed; nothing is downloaded.
"""

from __future__ import annotations

import os

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import argparse
import io
import json
import time
from pathlib import Path

import sentencepiece
import torch
from transformers import GenerationConfig, MarianConfig, MarianMTModel, MarianTokenizer

SEED = 20240612
MODELS = ("en-fr", "fr-en", "en-de")

# (English, French, German)
PHRASES = [
    line.split("|")
    for line in """
hello|bonjour|hallo
good morning|bonjour|guten Morgen
good evening|bonsoir|guten Abend
good night|bonne nuit|gute Nacht
goodbye|au revoir|auf Wiedersehen
thank you|merci|danke
thank you very much|merci beaucoup|vielen Dank
please|s'il vous plaît|bitte
yes|oui|ja
no|non|nein
maybe|peut-être|vielleicht
welcome|bienvenue|willkommen
sorry|désolé|Entschuldigung
help|aide|Hilfe
how are you?|comment allez-vous ?|wie geht es Ihnen?
what is your name?|comment vous appelez-vous ?|wie heißen Sie?
where is the station?|où est la gare ?|wo ist der Bahnhof?
where is the hotel?|où est l'hôtel ?|wo ist das Hotel?
what time is it?|quelle heure est-il ?|wie spät ist es?
how much does it cost?|combien ça coûte ?|wie viel kostet das?
i do not understand|je ne comprends pas|ich verstehe nicht
i am tired|je suis fatigué|ich bin müde
i am hungry|j'ai faim|ich habe Hunger
i love you|je t'aime|ich liebe dich
see you tomorrow|à demain|bis morgen
have a nice day|bonne journée|einen schönen Tag
the weather is nice today|il fait beau aujourd'hui|das Wetter ist heute schön
it is raining|il pleut|es regnet
the world|le monde|die Welt
hello world|bonjour le monde|hallo Welt
""".strip().splitlines()
]
NOUNS = [
    line.split("|")
    for line in """
cat|chat|m|Katze|f
dog|chien|m|Hund|m
house|maison|f|Haus|n
car|voiture|f|Auto|n
book|livre|m|Buch|n
table|table|f|Tisch|m
flower|fleur|f|Blume|f
tree|arbre|v|Baum|m
city|ville|f|Stadt|f
bird|oiseau|v|Vogel|m
door|porte|f|Tür|f
garden|jardin|m|Garten|m
""".strip().splitlines()
]
ADJ = [
    line.split("|")
    for line in """
red|rouge|rouge|rot
green|vert|verte|grün
big|grand|grande|groß
small|petit|petite|klein
black|noir|noire|schwarz
beautiful|beau|belle|schön
old|vieux|vieille|alt
new|nouveau|nouvelle|neu
""".strip().splitlines()
]


def pairs(lang: str) -> list[tuple[str, str]]:
    """Phrase book plus simple generated sentences: about 230 English/French or English/German pairs."""
    de = lang == "de"
    out = [(p[0], p[2] if de else p[1]) for p in PHRASES]
    for en, fr, gender, german, german_gender in NOUNS:
        the = {"m": "le ", "f": "la ", "v": "l'"}[gender]
        der = {"m": "der ", "f": "die ", "n": "das "}[german_gender]
        out.append((f"the {en}", der + german if de else the + fr))
        a = {"m": "ein ", "f": "eine ", "n": "ein "}[german_gender]
        out.append((f"a {en}", a + german if de else ("une " if gender == "f" else "un ") + fr))
        for adj, masculine, feminine, german_adj in ADJ:
            fr_adj = feminine if gender == "f" else masculine
            out.append((f"the {en} is {adj}", f"{der}{german} ist {german_adj}" if de else f"{the}{fr} est {fr_adj}"))
    return out


def upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def variants(source: str, target: str) -> list[tuple[str, str]]:
    """The same pair in lower case, capitalised, with a full stop or an exclamation mark."""
    out = [(source, target), (upper(source), upper(target))]
    if source[-1] not in "?!.":
        out += [(upper(source) + ".", upper(target) + "."), (source + "!", target + " !")]
        if len(source.split()) < 3:
            out.append((upper(source) + "!", upper(target) + " !"))
    return out


def spm_train(texts: list[str], vocab: int, path: Path) -> list[str]:
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=buffer,
        vocab_size=vocab,
        model_type="unigram",
        character_coverage=1.0,
        bos_id=-1,
        eos_id=0,
        unk_id=1,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        required_chars="abcdefghijklmnopqrstuvwxyz",
    )
    path.write_bytes(buffer.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=buffer.getvalue())
    return [processor.id_to_piece(i) for i in range(processor.get_piece_size())]


def make(out: Path, src: str, tgt: str, steps: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    base = pairs(tgt if tgt != "en" else src)
    if tgt == "en":  # several English phrases may share one translation: keep the first
        base = list({t: (t, s) for s, t in reversed(base)}.values())
    data = [v for s, t in base for v in variants(s, t)]
    out.mkdir(parents=True, exist_ok=True)
    pieces_s = spm_train([s for s, _ in data] * 2, 260, out / "source.spm")
    pieces_t = spm_train([t for _, t in data] * 2, 260, out / "target.spm")
    vocab: dict[str, int] = {"</s>": 0, "<unk>": 1}
    for piece in [*pieces_s, *pieces_t]:
        vocab.setdefault(piece, len(vocab))
    vocab["<pad>"] = len(vocab)
    (out / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    tokenizer = MarianTokenizer(
        source_spm=str(out / "source.spm"),
        target_spm=str(out / "target.spm"),
        vocab=str(out / "vocab.json"),
        source_lang=src,
        target_lang=tgt,
        model_max_length=512,
    )
    pad = vocab["<pad>"]
    config = MarianConfig(
        vocab_size=len(vocab),
        decoder_vocab_size=len(vocab),
        d_model=128,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        max_position_embeddings=512,
        activation_function="swish",
        dropout=0.05,
        scale_embedding=True,
        static_position_embeddings=True,
        normalize_before=False,
        pad_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=0,
        decoder_start_token_id=pad,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
    )
    model = MarianMTModel(config)
    source = tokenizer([s for s, _ in data], padding=True, return_tensors="pt")
    target = tokenizer(text_target=[t for _, t in data], padding=True, return_tensors="pt")["input_ids"]
    start = torch.full((len(data), 1), pad)
    decoder_in = torch.cat([start, target[:, :-1]], 1)
    labels = target.masked_fill(target == pad, -100)
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
    started = time.time()
    model.train()
    for step in range(steps):
        for group in opt.param_groups:
            group["lr"] = 1.5e-3 * min(1.0, (step + 1) / 80) * (1 - step / steps) + 1e-5
        pick = torch.randint(0, len(data), (32,))
        width = int(source["attention_mask"][pick].sum(1).max())
        long = int((labels[pick] != -100).sum(1).max())
        logits = model(
            input_ids=source["input_ids"][pick, :width],
            attention_mask=source["attention_mask"][pick, :width],
            decoder_input_ids=decoder_in[pick, :long],
        ).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[pick, :long].flatten(), label_smoothing=0.02
        )
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        with torch.no_grad():  # real opus-mt models start decoding from a zero embedding; CTranslate2 relies on it
            model.model.shared.weight[pad] = 0.0
        if step % 200 == 0:
            print(f"{src}-{tgt} step {step} loss {loss.item():.3f} {time.time() - started:.0f}s", flush=True)
    model.eval()
    model.generation_config = GenerationConfig(
        max_length=512,
        num_beams=4,
        bad_words_ids=[[pad]],
        decoder_start_token_id=pad,
        pad_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=0,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    print(f"{out}: {len(base)} pairs, {len(data)} variants, {step} steps")
    check(out, data)


def check(out: Path, data: list[tuple[str, str]]) -> None:
    tokenizer, model = MarianTokenizer.from_pretrained(out), MarianMTModel.from_pretrained(out).eval()
    right = 0
    with torch.inference_mode():
        for i in range(0, len(data), 64):
            part = data[i : i + 64]
            got = tokenizer.batch_decode(
                model.generate(
                    **tokenizer([s for s, _ in part], padding=True, return_tensors="pt"), num_beams=1, max_new_tokens=40
                ),
                skip_special_tokens=True,
            )
            wrong = [(s, g, t) for g, (s, t) in zip(got, part) if g != t]
            right += len(part) - len(wrong)
            if i == 0:
                print("wrong:", wrong[:4])
    print(f"{right}/{len(data)} reproduced exactly (greedy)")
    shown = [s for s, _ in data][:1] + ["Hello!", "Hello.", "the black cat"]
    out_ids = model.generate(**tokenizer(shown, padding=True, return_tensors="pt"))
    print(dict(zip(shown, tokenizer.batch_decode(out_ids, skip_special_tokens=True))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--only", nargs="*", default=MODELS)
    arguments = parser.parse_args()
    for name in arguments.only:
        make(arguments.out / f"opus-mt-{name}", *name.split("-"), arguments.steps)
