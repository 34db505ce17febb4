"""Embeddings by sentence-transformers, 32 texts at a time. MODEL TEXTS"""
import json
import sys
import time

from common import tell
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(sys.argv[1], device="cpu")
texts = [json.loads(line)["prompt"] for line in open(sys.argv[2])]
model.encode(texts[:32])
began = time.time()
model.encode(texts, batch_size=32, normalize_embeddings=True)
tell(len(texts) / (time.time() - began))
