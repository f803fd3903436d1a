"""Writes dequantize.txt: blocks of every weight type and what the `gguf` package reads in them.

    python3 -m venv venv && venv/bin/pip install gguf==0.19.0 numpy && venv/bin/python make_dequantize.py

A line is: type, bytes in hex, the weights' fp32 bit patterns in hex, big digit first. Blocks are
random bytes with finite scales, so that every bit of the format matters.
"""

import pathlib

import gguf
import numpy as np

ROWS = 2
SCALE_OFFSETS = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def blocks(rng, name):
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    if name in SCALE_OFFSETS:
        data = rng.integers(0, 256, (ROWS, size), dtype=np.uint8)
        for offset in SCALE_OFFSETS[name]:
            scale = rng.normal(0, 0.05, (ROWS, 1)).astype(np.float16)
            data[:, offset : offset + 2] = scale.view(np.uint8)
        return data
    values = rng.normal(0, 1, (ROWS, 16)).astype(np.float32)
    return gguf.quants.quantize(values, gguf.GGMLQuantizationType[name]).view(np.uint8)


def main():
    rng = np.random.default_rng(20240607)
    lines = []
    for name in ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K"]:
        kind = gguf.GGMLQuantizationType[name]
        for row in blocks(rng, name):
            data = row.view({"F32": np.float32, "F16": np.float16}.get(name, np.uint8))
            values = gguf.quants.dequantize(data.reshape(1, -1), kind).astype(np.float32)
            bits = "".join(f"{word:08x}" for word in values.reshape(-1).view(np.uint32))
            lines.append(f"{name} {row.tobytes().hex()} {bits}\n")
    pathlib.Path(__file__).with_name("dequantize.txt").write_text("".join(lines))


main()
