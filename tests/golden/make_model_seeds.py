"""Writes the seed corpora of gguf_fuzz and safetensors_fuzz: small valid files of each kind, and the
broken ones that a mutation of those hardly finds. Needs only Python."""

import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent.parent / "corpus"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q",
           I64: "q", F64: "d"}


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, content):
    if kind == STRING:
        return string(content)
    if kind == ARRAY:
        element, items = content
        return struct.pack("<IQ", element, len(items)) + b"".join(value(element, i) for i in items)
    return struct.pack("<" + FORMATS[kind], content)


def gguf_file(keys, tensors, version=3, alignment=32):
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    for key, kind, content in keys:
        out += string(key) + struct.pack("<I", kind) + value(kind, content)
    data = b""
    for name, extents, kind, content in tensors:
        data += b"\0" * (-len(data) % alignment)
        out += string(name) + struct.pack("<I", len(extents))
        out += struct.pack(f"<{len(extents)}Q", *extents) + struct.pack("<IQ", kind, len(data))
        data += content
    return out + b"\0" * (-len(out) % alignment) + data


def model_keys(arch, tokenizer):
    keys = [("general.architecture", STRING, arch), ("general.name", STRING, "seed")]
    sizes = {"block_count": 1, "context_length": 64, "embedding_length": 8, "feed_forward_length": 8,
             "attention.head_count": 1, "attention.head_count_kv": 1, "rope.dimension_count": 8}
    keys += [(f"{arch}.{name}", U32, size) for name, size in sizes.items()]
    keys += [(f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-5),
             (f"{arch}.rope.scaling.type", STRING, "linear"), (f"{arch}.rope.scaling.factor", F32, 2)]
    tokens = ["a", "b", "ab", "<|endoftext|>"]
    keys += [("tokenizer.ggml.model", STRING, tokenizer),
             ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
             ("tokenizer.ggml.token_type", ARRAY, (I32, [1, 1, 1, 3])),
             ("tokenizer.ggml.eos_token_id", U32, 3), ("tokenizer.ggml.add_bos_token", BOOL, False),
             ("tokenizer.chat_template", STRING, "{{ messages }}")]
    if tokenizer == "gpt2":
        keys += [("tokenizer.ggml.pre", STRING, "smollm"),
                 ("tokenizer.ggml.merges", ARRAY, (STRING, ["a b"]))]
    else:
        keys += [("tokenizer.ggml.scores", ARRAY, (F32, [0, -1, -2, 0]))]
    return keys


def model_tensors(arch):
    def tensor(name, *extents):
        count = 4
        for extent in extents:
            count *= extent
        return name, extents, 0, b"\0" * count

    tensors = [tensor("token_embd.weight", 8, 4), tensor("output_norm.weight", 8)]
    for name in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]:
        tensors.append(tensor(f"blk.0.{name}.weight", 8, 8))
    norms = ["attn_norm.weight", "ffn_norm.weight"]
    norms += {"qwen2": ["attn_q.bias", "attn_k.bias", "attn_v.bias"],
              "qwen3": ["attn_q_norm.weight", "attn_k_norm.weight"]}.get(arch, [])
    return tensors + [tensor(f"blk.0.{name}", 8) for name in norms]


def gguf_seeds():
    yield "llama", gguf_file(model_keys("llama", "llama"), model_tensors("llama"))
    yield "qwen2", gguf_file(model_keys("qwen2", "gpt2"), model_tensors("qwen2"))
    yield "qwen3", gguf_file(model_keys("qwen3", "gpt2"), model_tensors("qwen3"), version=2)
    scalars = [(f"k{kind}", kind, 1) for kind in FORMATS]
    nested = ("a", ARRAY, (ARRAY, [(STRING, ["x", ""]), (U16, [1, 2]), (U8, [])]))
    yield "types", gguf_file(scalars + [nested, ("general.alignment", U32, 64)],
                             [("t", (32,), 8, b"\0" * 34), ("u", (256, 1, 1, 1), 14, b"\0" * 210)],
                             alignment=64)
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<I", ARRAY)
    yield "counts", head + struct.pack("<IQ", U64, 2**61 + 1) + b"\0" * 16


def safetensors_file(header, data_bytes):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\1" * data_bytes


def safetensors_seeds():
    def entry(dtype, shape, begin, end):
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    yield "two", safetensors_file({"__metadata__": {"format": "pt"},
                                   "model.layers.0.mlp.up_proj.weight": entry("BF16", [2, 3], 0, 12),
                                   "lm_head.weight": entry("F32", [1], 12, 16)}, 16)
    yield "scalar", safetensors_file({"x": entry("I64", [], 0, 8)}, 8)
    yield "overlap", safetensors_file({"a": entry("U8", [8], 0, 8), "b": entry("U8", [4], 4, 8)}, 8)
    yield "length", struct.pack("<Q", 2**64 - 1) + b"{}"
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
              "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "vocab_size": 300, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
              "rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
                               "high_freq_factor": 4, "original_max_position_embeddings": 256},
              "sliding_window": None, "tie_word_embeddings": True, "hidden_act": "silu"}
    yield "config", json.dumps(config).encode()
    config["architectures"] = ["MistralForCausalLM"]
    config["rope_parameters"] = {"rope_type": "linear", "factor": 2, "rope_theta": 1e6}
    yield "mistral_config", json.dumps(config).encode()


def main():
    for target, seeds in [("gguf_fuzz", gguf_seeds()), ("safetensors_fuzz", safetensors_seeds())]:
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds:
            (folder / name).write_bytes(data)


main()
