"""Embeddings by sentence-transformers, 32 texts at a time. MODEL PAIRS"""
import sys
import time

from common import pairs, tell
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(sys.argv[1], device="cpu")
texts = sorted({prompt for prompt, _, _ in pairs(sys.argv[2])})
model.encode(texts[:32])
began = time.time()
model.encode(texts, batch_size=32, normalize_embeddings=True)
tell(len(texts) / (time.time() - began))
