"""DPO by TRL's DPOTrainer, reference log-probs computed beforehand. MODEL PAIRS DTYPE [lora]"""
import sys
import tempfile
import time

from common import pairs, tell
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

STEPS = 12
rows = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in pairs(sys.argv[2])]
times = []


class Clock(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        times.append(time.time())


config = DPOConfig(
    output_dir=tempfile.mkdtemp(), per_device_train_batch_size=8, max_steps=STEPS, learning_rate=1e-6, report_to=[],
    bf16=sys.argv[3] == "bfloat16", use_cpu=True, precompute_ref_log_probs=True, gradient_checkpointing=False,
    save_strategy="no", max_length=2048, disable_tqdm=True,
)
adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM") if "lora" in sys.argv else None
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
trainer = DPOTrainer(
    model=model, args=config, train_dataset=Dataset.from_list(rows[: 8 * STEPS]),
    processing_class=AutoTokenizer.from_pretrained(sys.argv[1]), callbacks=[Clock()], peft_config=adapter,
)
trainer.train()
steps = sorted(b - a for a, b in zip(times[1:], times[2:]))
tell(8 / steps[len(steps) // 2])
