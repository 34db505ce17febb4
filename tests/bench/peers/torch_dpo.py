"""DPO in a plain torch loop: padded batches of both sides, reference log-probs given, AdamW. MODEL PAIRS DTYPE"""
import sys
import time

from common import DEVICE, pairs, tell, wait
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH, STEPS = 8, 12
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[3])).to(DEVICE).train()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
rows = []
for prompt, chosen, rejected in pairs(sys.argv[2]):
    start = len(tokenizer(prompt)["input_ids"])
    whole = [tokenizer(prompt + side + tokenizer.eos_token)["input_ids"] for side in (chosen, rejected)]
    rows.append((start, whole))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
times = []
for step in range(STEPS):
    began = time.time()
    batch = [rows[(step * BATCH + i) % len(rows)] for i in range(BATCH)]
    sequences = [(start, whole[side]) for side in (0, 1) for start, whole in batch]
    longest = max(len(ids) for _, ids in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    seen, response = torch.zeros_like(ids), torch.zeros(len(sequences), longest)
    for i, (start, tokens) in enumerate(sequences):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        seen[i, : len(tokens)] = 1
        response[i, start : len(tokens)] = 1
    ids, seen, response = ids.to(DEVICE), seen.to(DEVICE), response.to(DEVICE)
    logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1]
    logp = torch.stack([F.log_softmax(l.float(), -1).gather(-1, t[1:, None])[:, 0] for l, t in zip(logits, ids)])
    score = (logp * response[:, 1:]).sum(1)
    chosen, rejected = (score - score.detach() - 0.1).chunk(2)
    loss = -F.logsigmoid(0.1 * (chosen - rejected)).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    wait()
    times.append(time.time() - began)
times = sorted(times[2:])
tell(BATCH / times[len(times) // 2])
