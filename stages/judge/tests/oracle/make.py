"""Writes judges.json, from the folder of this file: python make.py (PyTorch 2.15, transformers 5.24, jinja2).

For six pairs and both orders: the greedy rationale of a tiny Llama, and the log-probs of the labels behind it and an
ending. For each response: the log-probs of the levels of a scale. The model computes in f64.
"""

import json
from pathlib import Path

import jinja2
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
ORACLES = HERE / "../../../../tests/fixtures/oracles"
TEMPLATES = HERE / "../../templates"
ENDING = "\nThe better one is"
LABELS = [[" A", "A"], [" B", "B"]]
LEVELS = [["1", " 1"], ["2", " 2"], ["3", " 3"], ["4", " 4"]]

tokenizer = AutoTokenizer.from_pretrained(ORACLES / "llama")
model = AutoModelForCausalLM.from_pretrained(ORACLES / "llama", dtype=torch.float64)
rows = [json.loads(line) for line in (ORACLES / "pairs.jsonl").read_text().splitlines()][:6]


def asked(template, **values):
    text = jinja2.Template((TEMPLATES / f"{template}.jinja").read_text()).render(form="chat", **values)
    message = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)


def ids(text):
    return tokenizer(text, add_special_tokens=False).input_ids


def shared(one, other):
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


@torch.no_grad()
def log_probs(before, groups):
    """Log of the summed probability of each group's spellings behind a text."""
    alone = ids(before)
    wholes = [[ids(before + spelling) for spelling in group] for group in groups]
    start = min(shared(alone, whole) for group in wholes for whole in group)

    def of(whole):
        logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        return sum(logits[at - 1, whole[at]] for at in range(start, len(whole)))

    def distinct(group):
        return [list(whole) for whole in dict.fromkeys(map(tuple, group))]

    return [torch.logsumexp(torch.stack([of(whole) for whole in distinct(group)]), 0).item() for group in wholes]


def order(prompt, first, second):
    question = asked("helpful-rationale", prompt=prompt, a=first, b=second)
    start = torch.tensor([ids(question)])
    written = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=12, do_sample=False)
    rationale = tokenizer.decode(written[0, start.shape[1]:], skip_special_tokens=True)
    return {"rationale": rationale, "labels": log_probs(question + rationale + ENDING, LABELS)}


def levels(prompt, response):
    spelled = [level[0] for level in LEVELS]
    question = asked("helpful-rating", prompt=prompt, response=response, criterion="", rubric="", levels=spelled)
    return log_probs(question, LEVELS)


result = [
    {
        "ab": order(row["prompt"], row["chosen"], row["rejected"]),
        "ba": order(row["prompt"], row["rejected"], row["chosen"]),
        "a_levels": levels(row["prompt"], row["chosen"]),
        "b_levels": levels(row["prompt"], row["rejected"]),
    }
    for row in rows
]
(HERE / "judges.json").write_text(json.dumps(result, indent=1) + "\n")
