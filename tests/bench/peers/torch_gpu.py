"""DPO steps on a GPU in a plain torch loop, at the sizes of `gpu_bench training`: 16 pairs of 512 tokens, a prompt of 256
and responses of 256, random weights in bf16, no padding, PyTorch's own attention. SHAPE..."""
import json
import sys
import time

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

PAIRS, PROMPT, RESPONSE, STEPS = 16, 256, 256, 8
SHAPES = {
    "0.5b": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14),
    "1.5b": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12),
}


def product():
    """The rate of one large product: what the card can reach."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in "ab")
    times = []
    for _ in range(13):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in "be")
        began.record()
        a @ b
        ended.record()
        torch.cuda.synchronize()
        times.append(began.elapsed_time(ended))
    ms = sorted(times[3:])[5]
    print(json.dumps({"name": "torch product of 8192^3", "ms": ms, "rate": 2 * 8192**3 / ms / 1e9, "unit": "TFLOP/s"}))


def attention(heads, kv_heads, width, length):
    q = torch.randn(16384 // length, heads, length, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    k, v = (
        torch.randn(16384 // length, kv_heads, length, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in "kv"
    )
    forward, backward = [], []
    for _ in range(12):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
        events[0].record()
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        events[1].record()
        out.backward(q.detach())
        events[2].record()
        torch.cuda.synchronize()
        forward.append(events[0].elapsed_time(events[1]))
        backward.append(events[1].elapsed_time(events[2]))
    flops = 4 * heads * width * 16384 * (length + 1) / 2 / 1e12
    for part, times, amount in (("forward", forward, flops), ("backward", backward, 2.5 * flops)):
        ms = sorted(times[3:])[4]
        name = f"torch attention {part}, S={length}, D={width}"
        print(json.dumps({"name": name, "ms": ms, "rate": amount / ms * 1e3, "unit": "TFLOP/s"}))


def steps(shape):
    config = AutoConfig.for_model(
        "qwen2", vocab_size=151936, num_key_value_heads=2, max_position_embeddings=32768, rope_theta=1e6,
        tie_word_embeddings=True, **SHAPES[shape])
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(STEPS):
        prompt = torch.randint(5, 30000, (PAIRS, PROMPT), device="cuda")
        ids = torch.cat([torch.cat([prompt, torch.randint(5, 30000, (PAIRS, RESPONSE), device="cuda")], 1) for _ in "cr"])
        torch.cuda.synchronize()
        began = time.time()
        logits = model(input_ids=ids, use_cache=False).logits[:, PROMPT - 1 : -1]
        logp = torch.stack([F.log_softmax(l.float(), -1).gather(-1, t[:, None])[:, 0] for l, t in zip(logits, ids[:, PROMPT:])])
        score = logp.sum(1)
        chosen, rejected = (score - score.detach() - 0.1).chunk(2)
        loss = -F.logsigmoid(0.1 * (chosen - rejected)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append((time.time() - began) * 1e3)
    ms = sorted(times[2:])[(STEPS - 2) // 2]
    gb = torch.cuda.max_memory_allocated() / 1e9
    name = f"torch step {shape}, {PAIRS} pairs of 512 tokens, {gb:.1f} GB at most"
    print(json.dumps({"name": name, "ms": ms, "rate": PAIRS * 2 * (PROMPT + RESPONSE) / ms * 1e3, "unit": "tokens/s"}))


product()
attention(14, 2, 64, 512)
attention(14, 2, 64, 2048)
attention(12, 2, 128, 512)
attention(12, 2, 128, 2048)
for shape in sys.argv[1:]:
    steps(shape)
    torch.cuda.empty_cache()
