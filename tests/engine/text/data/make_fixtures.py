"""Makes the small tokenizer.json files of this folder and the ids the `tokenizers` package gives.

    pip install tokenizers==0.23.3 && python make_fixtures.py

Each NAME.json is a tokenizer in the form that a family of models publishes, with a few hundred
tokens; NAME.expected.json holds texts and their ids, with and without the special tokens.
"""

import json
import pathlib
import random

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
SPACE = "\u2581"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
HAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
TEXT = ("The quick brown fox jumps over the lazy dog. It's 12 o'clock, they're late; we'll see.\n\n"
        "  indented  code(x) = {'a': 1234, \"b\": 5.6}\r\n\tThe other thing: \u00e9t\u00e9 na\u00efve "
        "caf\u00e9, \u4e2d\u6587\u6587\u672c \u4e2d\u6587, \u041f\u0440\u0438\u0432\u0435\u0442 "
        "\u043c\u0438\u0440! ") * 3
UNITS = ["the", " the", "The quick ", "'s", "'LL", "12", "3", "\u0663", "\u00bd", "\n", "\r\n", " ",
         "  ", "\t", "\u3000", "\u180e", "!", "?!", "...", "caf\u00e9", "cafe\u0301", "\u4e2d\u6587",
         "\u041f\u0440\u0438", "\U0001f600", "\ud55c\uae00", "\u1112\u1161\u11ab", "_", "$+<=>`~|^",
         "\u2018x\u2019", "<s>", "<|end|>", "<tool>", " <tool> ", "\u2581", "\u00b5\u212b", "x\u0000"]


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def byte_level(use_regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
            "use_regex": use_regex}


def sequence(kind, steps):
    return {"type": "Sequence", kind: steps}


def added(token_id, content, special, **changes):
    token = {"id": token_id, "content": content, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": special}
    token.update(changes)
    return token


def template(bos):
    return {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos, "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [0], "tokens": [bos]}}}


def train(normalizer, pre_tokenizer, alphabet, vocabulary):
    trainer = Tokenizer(models.BPE())
    trainer.normalizer = normalizer
    trainer.pre_tokenizer = pre_tokenizer
    trainer.train_from_iterator([TEXT], trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(trainer.to_str())["model"]
    return list(model["vocab"]), model["merges"]


def byte_level_file(pre_tokenizer, normalizer=None, post_processor=None, ignore_merges=False,
                    merges_as_strings=False):
    special = ["<s>", "</s>", "<|end|>"]
    tokens, merges = train(None, pre_tokenizers.ByteLevel(add_prefix_space=False),
                           pre_tokenizers.ByteLevel.alphabet(), 330)
    vocab = {token: i for i, token in enumerate(special + sorted(set(tokens)))}
    tool = len(vocab)
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(i, token, True) for i, token in enumerate(special)]
                        + [added(tool, "<tool>", False, rstrip=True, lstrip=True)],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": post_processor,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": ignore_merges, "vocab": vocab,
                  "merges": [" ".join(m) for m in merges] if merges_as_strings else merges},
    }


def pieces_file(normalizer, pre_tokenizer):
    special = ["<unk>", "<s>", "</s>"]
    replace = normalizers.Replace(" ", SPACE)
    tokens, merges = train(replace, pre_tokenizers.Metaspace(prepend_scheme="never"), [], 130)
    ordered = special + [f"<0x{byte:02X}>" for byte in range(256)] + tokens
    vocab = {token: i for i, token in enumerate(ordered)}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(i, token, True) for i, token in enumerate(special)],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": template("<s>") | {"special_tokens": {
            "<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": sequence("decoders", [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]),
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                  "byte_fallback": True, "ignore_merges": False, "vocab": vocab, "merges": merges},
    }


def deepseek_coder():
    return sequence("pretokenizers", [
        split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(HAN),
        {"type": "Digits", "individual_digits": True}, byte_level(False)])


def fixtures():
    digits = {"type": "Digits", "individual_digits": True}
    yield "gpt2", byte_level_file(byte_level(True), merges_as_strings=True)
    yield "smollm", byte_level_file(sequence("pretokenizers", [digits, byte_level(True)]))
    yield "llama3", byte_level_file(
        sequence("pretokenizers", [split(LLAMA3), byte_level(False)]), ignore_merges=True,
        post_processor=sequence("processors", [byte_level(True), template("<s>")]))
    yield "qwen2", byte_level_file(
        sequence("pretokenizers", [split(QWEN2), byte_level(False)]), normalizer={"type": "NFC"},
        post_processor=byte_level(False))
    yield "deepseek_coder", byte_level_file(deepseek_coder(),
                                            normalizer=sequence("normalizers", []))
    yield "llama2", pieces_file(sequence("normalizers", [
        {"type": "Prepend", "prepend": SPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]), None)
    yield "mistral", pieces_file(None, {"type": "Metaspace", "replacement": SPACE,
                                        "prepend_scheme": "first", "split": False})


def main():
    for name, contents in fixtures():
        text = json.dumps(contents, ensure_ascii=True, separators=(",", ":"))
        (HERE / f"{name}.json").write_text(text + "\n")
        tokenizer = Tokenizer.from_str(text)
        draw = random.Random(20240601)
        texts = ["", " ", TEXT[:200]] + [
            "".join(draw.choice(UNITS) for _ in range(draw.randrange(1, 14))) for _ in range(120)]
        cases = [{"text": t, "ids": tokenizer.encode(t, add_special_tokens=False).ids,
                  "with_special": tokenizer.encode(t).ids} for t in texts]
        (HERE / f"{name}.expected.json").write_text(
            json.dumps(cases, ensure_ascii=True, separators=(",", ":")).replace("},{", "},\n{") + "\n")


if __name__ == "__main__":
    main()
