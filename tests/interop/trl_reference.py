"""DPO by TRL 1.16 on a folder of `halftone export dataset --reference`, with its reference columns and with TRL's own.

Usage: trl_reference.py MODEL FOLDER. Prints the losses of four steps each as JSON."""
import json
import sys
import tempfile

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

model, folder = sys.argv[1:3]


class Scored(DPOTrainer):
    """Takes the reference log-probs of the dataset. Without this TRL computes them again and then finds two of each."""

    def _precompute_ref_logps(self, dataset, name, batch_size):
        return dataset


def losses(trainer, columns):
    train = load_dataset(folder, split="train", cache_dir=tempfile.mkdtemp()).select_columns(columns)
    config = DPOConfig(
        output_dir=tempfile.mkdtemp(), precompute_ref_log_probs=True, beta=0.3, learning_rate=1e-4, max_steps=4,
        lr_scheduler_type="constant", per_device_train_batch_size=4, logging_steps=1, report_to=[], max_length=None,
        use_cpu=True, bf16=False, gradient_checkpointing=False, seed=17, save_strategy="no", disable_tqdm=True,
    )
    policy = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = trainer(policy, args=config, train_dataset=train, processing_class=tokenizer)
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


text = ["prompt", "chosen", "rejected"]
print(json.dumps({
    "given": losses(Scored, text + ["ref_chosen_logps", "ref_rejected_logps"]),
    "own": losses(DPOTrainer, text),
}))
