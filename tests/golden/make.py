"""Writes gpt2.npz and bert.npz beside it: small models of Hugging Face's, and what torch computes.

    pip install -e ".[train,parity]" && python tests/golden/make.py

Each holds inputs, targets, logits, the mean loss and three gradients of a model of two layers. Its
parameters are not kept but made by `formula`, here and in the test.
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
VOCAB, LENGTH, LAYERS, WIDTH, HEADS = 50, 12, 2, 16, 2
GRADIENTS = {
    "gpt2": (
        "transformer.wte.weight",
        "transformer.h.0.attn.c_attn.weight",
        "transformer.ln_f.bias",
    ),
    "bert": (
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.0.attention.self.query.weight",
        "cls.predictions.bias",
    ),
}


def formula(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter from its name in Hugging Face's format and its shape: within 0.3 of its mean."""
    count = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    wave = 0.3 * np.sin(count * 1.7 + 0.01 * count**1.5 + sum(name.encode()))
    scale = "weight" in name and ("ln_" in name or "LayerNorm" in name)
    return (wave + scale).astype(np.float32)


def main() -> None:
    import torch
    import transformers as t

    small_gpt2 = {"n_positions": LENGTH, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
    small_bert = {
        "max_position_embeddings": LENGTH,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * WIDTH,
        "pad_token_id": None,
    }
    theirs = {
        "gpt2": t.GPT2LMHeadModel(t.GPT2Config(vocab_size=VOCAB, **small_gpt2)),
        "bert": t.BertForMaskedLM(t.BertConfig(vocab_size=VOCAB, **small_bert)),
    }
    for name, model in theirs.items():
        model.eval()
        named = dict(model.named_parameters())
        with torch.no_grad():
            for key, value in named.items():
                value.copy_(torch.tensor(formula(key, tuple(value.shape))))
        inputs, targets = np.random.default_rng(0).integers(0, VOCAB, (2, 2, LENGTH))
        logits = model(input_ids=torch.tensor(inputs)).logits
        flat = logits.flatten(0, 1), torch.tensor(targets).flatten()
        loss = torch.nn.functional.cross_entropy(*flat)
        loss.backward()
        arrays = {key: named[key].grad.numpy() for key in GRADIENTS[name]}
        arrays |= {"inputs": inputs.astype(np.int32), "targets": targets.astype(np.int32)}
        arrays |= {"logits": logits.detach().numpy(), "loss": loss.detach().numpy()}
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
        print(name, float(loss), (HERE / f"{name}.npz").stat().st_size, "bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
