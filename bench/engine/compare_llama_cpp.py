#!/usr/bin/env python3
"""Same-run comparison of bench_engine with llama.cpp, through PyPI's llama-cpp-python (built from source).

Runs the two in turn, several rounds, and prints the best of each and the ratio of every round's
figures (median), so that a noisy machine disturbs both sides alike. llama.cpp's figures count
llama_decode only, no sampling and no text: a little more than it could serve.

    python3 -m venv V && V/bin/pip install llama-cpp-python==0.3.36

With g++ 12 on a processor with AMX that build crashes or goes without it: set CFLAGS
and CXXFLAGS to "-include FILE -mno-avx512fp16", and in FILE include immintrin.h and redefine _tile_loadconfig(p) as
__asm__ volatile("ldtilecfg %0" ::"m"(*(const char(*)[64])(p))).

    V/bin/python bench/engine/compare_llama_cpp.py --model FILE --bench build/release/bin/bench_engine
"""
import argparse
import ctypes
import json
import statistics
import subprocess
import time


def run_peer(path, threads, prefill, decode, streams, repetitions):
    import llama_cpp as lc
    silent = lc.llama_log_callback(lambda *_: None)
    lc.llama_log_set(silent, None)
    lc.llama_backend_init()
    start = time.perf_counter()
    model = lc.llama_model_load_from_file(path.encode(), lc.llama_model_default_params())
    load_seconds = time.perf_counter() - start
    vocabulary = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))

    def token(i, seed):
        return 100 + (i * 7919 + seed * 104729) % (vocabulary - 200)

    def context(sequences):
        params = lc.llama_context_default_params()
        params.n_ctx = 2048 if sequences == 1 else 256 * sequences
        params.n_batch = params.n_ubatch = 512
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        return lc.llama_init_from_model(model, params)

    def fill(batch, items):
        batch.n_tokens = len(items)
        for i, (tok, pos, seq, logits) in enumerate(items):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = tok, pos, 1
            batch.seq_id[i][0], batch.logits[i] = seq, logits

    result = {"load_seconds": load_seconds, "decode_tokens_per_second": {}}
    ctx = context(1)
    batch = lc.llama_batch_init(2048, 0, 1)
    best = 0
    for _ in range(repetitions + 1):
        lc.llama_memory_clear(lc.llama_get_memory(ctx), True)
        fill(batch, [(token(i, 0), i, 0, i == prefill - 1) for i in range(prefill)])
        start = time.perf_counter()
        assert lc.llama_decode(ctx, batch) == 0
        lc.llama_synchronize(ctx)
        best = max(best, prefill / (time.perf_counter() - start))
    result["prefill_tokens_per_second"] = best
    lc.llama_free(ctx)
    for n in streams:
        ctx = context(n)
        best = 0
        for _ in range(repetitions):
            lc.llama_memory_clear(lc.llama_get_memory(ctx), True)
            for s in range(n):
                fill(batch, [(token(i, s), i, s, i == 15) for i in range(16)])
                assert lc.llama_decode(ctx, batch) == 0
            lc.llama_synchronize(ctx)
            start = time.perf_counter()
            for step in range(decode - 1):
                fill(batch, [(token(step, s), 16 + step, s, 1) for s in range(n)])
                assert lc.llama_decode(ctx, batch) == 0
                lc.llama_synchronize(ctx)
            best = max(best, n * (decode - 1) / (time.perf_counter() - start))
        result["decode_tokens_per_second"][str(n)] = best
        lc.llama_free(ctx)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--bench", required=True, help="the bench_engine binary")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()

    ours, peers = [], []
    for _ in range(args.rounds):
        out = subprocess.run([args.bench, "--model", args.model, "--threads", str(args.threads), "--json"],
                             check=True, capture_output=True, text=True).stdout
        ours.append(json.loads(out))
        peers.append(run_peer(args.model, args.threads, 512, 128, (1, 4, 16), 3))

    def get(run, key):
        return run[key] if isinstance(key, str) else run[key[0]][key[1]]

    keys = ["prefill_tokens_per_second"] + [("decode_tokens_per_second", s) for s in ("1", "4", "16")]
    rows = []
    print(f"{'tokens/s, ' + str(args.threads) + ' threads':28} {'asymserve':>10} {'llama.cpp':>10} {'ratio':>6}")
    for key in keys:
        mine, peer = max(get(r, key) for r in ours), max(get(r, key) for r in peers)
        ratio = statistics.median(get(a, key) / get(b, key) for a, b in zip(ours, peers))
        label = "prefill 512" if isinstance(key, str) else f"decode, {key[1]} streams"
        rows.append({"what": label, "asymserve": mine, "llama_cpp": peer, "ratio": ratio})
        print(f"{label:28} {mine:10.0f} {peer:10.0f} {ratio:6.2f}")
    print(f"load: {min(r['load_seconds'] for r in ours):.3f} s against {min(r['load_seconds'] for r in peers):.3f} s")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"rows": rows, "asymserve": ours, "llama_cpp": peers}, file, indent=1)


if __name__ == "__main__":
    main()
