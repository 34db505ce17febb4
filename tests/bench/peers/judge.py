"""Both orders of each comparison by transformers: padded batches by length, logits of the last position. MODEL PAIRS DTYPE QUESTION"""
import sys
import time

from common import DEVICE, pairs, tell, wait
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH, ROWS = 16, 200
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], padding_side="left")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[3])).to(DEVICE).eval()
question = open(sys.argv[4]).read()
rows = list(pairs(sys.argv[2]))[:ROWS]
asked = []
for prompt, chosen, rejected in rows:
    for a, b in ((chosen, rejected), (rejected, chosen)):
        text = question.replace("{{ prompt }}", prompt).replace("{{ a }}", a).replace("{{ b }}", b)
        asked.append(tokenizer(text)["input_ids"])
asked.sort(key=len)


def run():
    began = time.time()
    with torch.inference_mode():
        for i in range(0, len(asked), BATCH):
            batch = tokenizer.pad({"input_ids": asked[i : i + BATCH]}, return_tensors="pt").to(DEVICE)
            model(**batch, logits_to_keep=1).logits[:, -1].log_softmax(-1)
    wait()
    return time.time() - began


run()
tell(len(rows) / run())
