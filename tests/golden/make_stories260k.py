"""Writes stories260K.gguf, a trained model of 260 K parameters, and stories260K.json, what it says.

    python3 -m venv venv && venv/bin/pip install gguf==0.19.0 numpy
    venv/bin/python make_stories260k.py stories260K.bin tok512.bin

The inputs are karpathy/llama2.c's (MIT licence): a Llama of 5 layers with head size 8, and its
SentencePiece vocabulary. The weights become F16. The JSON holds greedy continuations by the forward
pass below, in float64 on the same F16 weights: for each prompt its ids, 64 generated ids, the margin
between the two best logits at each, and the logits after the prompt.
"""

import json
import pathlib
import struct
import sys

import gguf
import numpy as np

PROMPTS = ["Once upon a time", "Lily and Tom went to the park.", "The dog"]
STEPS = 64
EPSILON = 1e-5


def read_checkpoint(path):
    data = path.read_bytes()
    dim, ffn, layers, heads, kv_heads, vocabulary, context = struct.unpack("<7i", data[:28])
    head = dim // heads
    values = np.frombuffer(data, np.float32, offset=28)
    position = 0

    def take(*shape):
        nonlocal position
        count = int(np.prod(shape))
        position += count
        return values[position - count : position].reshape(shape)

    w = {"token_embd": take(vocabulary, dim), "attn_norm": take(layers, dim)}
    w["attn_q"] = take(layers, dim, dim)
    w["attn_k"] = take(layers, kv_heads * head, dim)
    w["attn_v"] = take(layers, kv_heads * head, dim)
    w["attn_output"] = take(layers, dim, dim)
    w["ffn_norm"] = take(layers, dim)
    w["ffn_gate"] = take(layers, ffn, dim)
    w["ffn_down"] = take(layers, dim, ffn)
    w["ffn_up"] = take(layers, ffn, dim)
    w["output_norm"] = take(dim)
    take(2, context, head // 2)  # rotary tables
    assert position == values.size  # the output matrix is the embedding table
    w = {k: v if k.endswith("norm") else v.astype(np.float16) for k, v in w.items()}
    shape = dict(dim=dim, ffn=ffn, layers=layers, heads=heads, kv_heads=kv_heads, context=context)
    return shape, w


def read_vocabulary(path):
    data = path.read_bytes()
    position = 4
    tokens, scores = [], []
    while position < len(data):
        score, length = struct.unpack("<fi", data[position : position + 8])
        position += 8
        tokens.append(data[position : position + length])
        scores.append(score)
        position += length
    tokens[1:3] = [b"<s>", b"</s>"]
    return [t.replace(b" ", "\u2581".encode()) for t in tokens], scores


def encode(text, tokens, scores):
    """Best-score-first merging from single characters; bytes for those not in the vocabulary."""
    ids = [1]
    by_piece = {t: i for i, t in enumerate(tokens) if i > 258}
    for char in "\u2581" + text.replace(" ", "\u2581"):
        piece = char.encode()
        ids += [by_piece[piece]] if piece in by_piece else [byte + 3 for byte in piece]
    while True:
        pairs = [(scores[by_piece[tokens[a] + tokens[b]]], -i) for i, (a, b) in
                 enumerate(zip(ids, ids[1:])) if i > 0 and tokens[a] + tokens[b] in by_piece]
        if not pairs:
            return ids
        i = -max(pairs)[1]
        ids[i : i + 2] = [by_piece[tokens[ids[i]] + tokens[ids[i + 1]]]]


def rms_norm(x, weight):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPSILON) * weight


def forward(shape, weights, ids):
    """Logits of all positions. Rotary pairs are neighbouring channels."""
    w = {k: v.astype(np.float64) for k, v in weights.items()}
    count, heads, kv_heads = len(ids), shape["heads"], shape["kv_heads"]
    head = shape["dim"] // heads
    angles = np.outer(np.arange(count), 10000.0 ** (-np.arange(0, head, 2) / head))
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def rope(x):
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)

    mask = np.triu(np.full((count, count), -np.inf), 1)
    x = w["token_embd"][ids]
    for i in range(shape["layers"]):
        h = rms_norm(x, w["attn_norm"][i])
        q = rope((h @ w["attn_q"][i].T).reshape(count, heads, head))
        k = rope((h @ w["attn_k"][i].T).reshape(count, kv_heads, head)).repeat(heads // kv_heads, 1)
        v = (h @ w["attn_v"][i].T).reshape(count, kv_heads, head).repeat(heads // kv_heads, 1)
        scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(head) + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        x = x + np.einsum("hts,shd->thd", scores, v).reshape(count, -1) @ w["attn_output"][i].T
        h = rms_norm(x, w["ffn_norm"][i])
        gate = h @ w["ffn_gate"][i].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["ffn_up"][i].T)) @ w["ffn_down"][i].T
    return rms_norm(x, w["output_norm"]) @ w["token_embd"].T


def write_gguf(path, shape, weights, tokens, scores):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("stories260K")
    writer.add_block_count(shape["layers"])
    writer.add_context_length(shape["context"])
    writer.add_embedding_length(shape["dim"])
    writer.add_feed_forward_length(shape["ffn"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    kinds = gguf.TokenType
    writer.add_token_types([kinds.UNKNOWN] + [kinds.CONTROL] * 2 + [kinds.BYTE] * 256 +
                           [kinds.NORMAL] * (len(tokens) - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for name, value in weights.items():
        if value.ndim == 1 or name == "token_embd":
            writer.add_tensor(f"{name}.weight", value)
            continue
        for i in range(shape["layers"]):
            writer.add_tensor(f"blk.{i}.{name}.weight", value[i])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    folder = pathlib.Path(__file__).parent
    shape, weights = read_checkpoint(pathlib.Path(sys.argv[1]))
    tokens, scores = read_vocabulary(pathlib.Path(sys.argv[2]))
    write_gguf(folder / "stories260K.gguf", shape, weights, tokens, scores)
    cases = []
    for text in PROMPTS:
        prompt = encode(text, tokens, scores)
        ids, margins = list(prompt), []
        for step in range(STEPS):
            logits = forward(shape, weights, ids)[-1]
            if step == 0:
                first = [round(float(x), 5) for x in logits]
            best = np.sort(logits)[-2:]
            margins.append(round(float(best[1] - best[0]), 5))
            ids.append(int(np.argmax(logits)))
        output = ids[len(prompt) :]
        written = b"".join(tokens[i] for i in output).decode().replace("\u2581", " ")
        print(f"{text} |{written}")
        cases.append({"text": text, "prompt": prompt, "greedy": output, "margins": margins,
                      "logits_after_prompt": first})
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    (folder / "stories260K.json").write_text(f"[\n{lines}\n]\n")


main()
