"""What the peers share: rows of preference data under the names that people give them, and how a figure is told."""
import json
import os
import resource

os.environ["HF_HUB_OFFLINE"] = "1"
DEVICE = os.environ["BENCH_DEVICE"]


def wait():
    """Until the device has done all that it was given."""
    if DEVICE != "cpu":
        import torch

        torch.cuda.synchronize()


def pairs(path):
    for line in open(path):
        row = json.loads(line)
        prompt = row.get("prompt", row.get("i_chosen", row.get("chosen_prompt")))
        yield prompt, row.get("chosen", row.get("r_chosen")), row.get("rejected", row.get("r_reject"))


def tell(rate):
    print(json.dumps({"rate": rate, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
