#!/usr/bin/env python3
"""Writes smollm2_greedy.json: an independent NumPy forward pass of the default model.

Weights are dequantized by PyPI's gguf package; activations, keys and values are fp32 throughout (ours
are int8 per block of 32 and fp16), so the stored logits bound our arithmetic from outside.

    python3 -m venv V && V/bin/pip install gguf numpy tokenizers
    V/bin/python tests/golden/make_smollm2_golden.py MODEL.gguf tests/golden/smollm2_greedy.json
"""
import json
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "Question: A farmer has 17 sheep and buys 5 more. How many sheep does he have?\nAnswer:",
    "The three laws of thermodynamics are",
    "<|im_start|>user\nWrite a haiku about autumn.<|im_end|>\n<|im_start|>assistant\n",
    "Die Hauptstadt von Deutschland ist",
    "1, 1, 2, 3, 5, 8, 13,",
]
STEPS = 64
SAMPLED = 256  # logits kept besides the top 16


class Reference:
    def __init__(self, reader):
        self.w = {}
        for t in reader.tensors:
            shape = [int(x) for x in t.shape[::-1]]
            self.w[t.name] = dequantize(t.data, t.tensor_type).reshape(shape).astype(np.float32)
        get = lambda key: reader.fields["llama." + key].contents()
        self.layers, self.heads = get("block_count"), get("attention.head_count")
        self.kv_heads, self.width = get("attention.head_count_kv"), get("embedding_length")
        self.eps = get("attention.layer_norm_rms_epsilon")
        self.d = self.width // self.heads
        self.freq = get("rope.freq_base") ** (-np.arange(0, self.d, 2) / self.d)

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[name]

    def rope(self, x, pos):  # [T, heads, D], interleaved pairs
        angle = pos[:, None] * self.freq[None, :]
        c, s = np.cos(angle)[:, None, :].astype(np.float32), np.sin(angle)[:, None, :].astype(np.float32)
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * c - x[..., 1::2] * s
        out[..., 1::2] = x[..., 0::2] * s + x[..., 1::2] * c
        return out

    def forward(self, ids, cache):
        """Logits of the last token; appends to cache, a list of [k, v] per layer."""
        start = 0 if not cache[0] else cache[0][0].shape[0]
        t = len(ids)
        pos = np.arange(start, start + t)
        x = self.w["token_embd.weight"][ids]
        for layer in range(self.layers):
            p = f"blk.{layer}."
            h = self.norm(x, p + "attn_norm.weight")
            q = self.rope((h @ self.w[p + "attn_q.weight"].T).reshape(t, self.heads, self.d), pos)
            k = self.rope((h @ self.w[p + "attn_k.weight"].T).reshape(t, self.kv_heads, self.d), pos)
            v = (h @ self.w[p + "attn_v.weight"].T).reshape(t, self.kv_heads, self.d)
            if cache[layer]:
                k = np.concatenate([cache[layer][0], k])
                v = np.concatenate([cache[layer][1], v])
            cache[layer] = [k, v]
            group = self.heads // self.kv_heads
            out = np.empty((t, self.heads, self.d), np.float32)
            mask = np.arange(k.shape[0])[None, :] > pos[:, None]
            for head in range(self.heads):
                score = q[:, head] @ k[:, head // group].T / np.sqrt(self.d)
                score[mask] = -np.inf
                score = np.exp(score - score.max(-1, keepdims=True))
                score /= score.sum(-1, keepdims=True)
                out[:, head] = score @ v[:, head // group]
            x = x + out.reshape(t, -1) @ self.w[p + "attn_output.weight"].T
            h = self.norm(x, p + "ffn_norm.weight")
            gate, up = h @ self.w[p + "ffn_gate.weight"].T, h @ self.w[p + "ffn_up.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.w[p + "ffn_down.weight"].T
        return self.norm(x[-1], "output_norm.weight") @ self.w["token_embd.weight"].T


def make_tokenizer(reader):
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = reader.fields["tokenizer.ggml.merges"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)},
                               merges=[tuple(m.split(" ", 1)) for m in merges]))
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([t for t, kind in zip(tokens, types) if kind == 3])
    return tok


def main():
    reader = GGUFReader(sys.argv[1])
    reference, tok = Reference(reader), make_tokenizer(reader)
    rng = np.random.default_rng(7)
    cases = []
    for prompt in PROMPTS:
        ids = tok.encode(prompt).ids
        cache = [[] for _ in range(reference.layers)]
        logits = reference.forward(np.array(ids), cache)
        sample = np.unique(np.concatenate([rng.choice(len(logits), SAMPLED, replace=False),
                                           np.argsort(logits)[-16:]]))
        case = {"prompt": prompt, "prompt_ids": ids, "continuation": [], "margins": [],
                "logit_ids": sample.tolist(), "logits": [round(float(v), 4) for v in logits[sample]]}
        for _ in range(STEPS):
            order = np.argsort(logits)
            case["continuation"].append(int(order[-1]))
            case["margins"].append(round(float(logits[order[-1]] - logits[order[-2]]), 4))
            logits = reference.forward(np.array([order[-1]]), cache)
        case["text"] = tok.decode(case["continuation"], skip_special_tokens=False)
        cases.append(case)
        print(repr(prompt), "->", repr(case["text"][:70]), file=sys.stderr)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump({"model": "SmolLM2-135M-Instruct Q4_1", "cases": cases}, file)
        file.write("\n")


main()
