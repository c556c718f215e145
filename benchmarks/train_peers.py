"""GPT-2 in torch, as nanoGPT writes it and Hugging Face's: peers of the training step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from train_timing import Run

from autoscale_jax.models import GPT2Config


class Block(nn.Module):
    """Pre-norm block with torch's fused attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(rows, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        h = nn.functional.gelu(self.mlp_in(self.norm_mlp(x)), approximate="tanh")
        return x + self.mlp_out(h)


class NanoGPT(nn.Module):
    """Mean loss of a GPT-2 with tied output, as nanoGPT writes it.

    residual: of the stream between blocks. Under autocast it stays the embeddings' float32 unless
    it is made narrower, as ours is.
    """

    def __init__(self, config: GPT2Config, residual: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.residual = residual
        width = config.d_model
        self.wte = nn.Embedding(config.vocab_size, width)
        self.wpe = nn.Embedding(config.seq_len, width)
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = (self.wte(inputs) + self.wpe.weight).to(self.residual)
        for block in self.blocks:
            x = block(x)
        logits = nn.functional.linear(self.norm(x), self.wte.weight)
        return nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


class HuggingFace(nn.Module):
    """Mean loss of Hugging Face's GPT-2, without dropout, its attention causal without a mask.

    Compiled, transformers makes a mask of whole rows too (before torch 2.14), which keeps torch
    from taking flash attention. An attention of a name of its own gets none.
    """

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        import transformers
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        transformers.AttentionInterface.register("sdpa_whole_rows", sdpa_attention_forward)
        none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        theirs = transformers.GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.seq_len,
            n_embd=config.d_model,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            use_cache=False,
            attn_implementation="sdpa_whole_rows",
            **none,
        )
        self.model = transformers.GPT2LMHeadModel(theirs)

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=inputs, labels=targets).loss


def make(name: str, config: GPT2Config) -> nn.Module:
    """The peer of a name: "nanogpt", "nanogpt-bf16" or "huggingface"."""
    if name == "huggingface":
        return HuggingFace(config)
    narrow = getattr(torch, config.dtype)  # bfloat16 of all models but the tiny one
    return NanoGPT(config, narrow if name == "nanogpt-bf16" else torch.float32)


def residual(model: nn.Module) -> str:
    """What its stream between blocks is: Hugging Face's, under autocast, is float32."""
    return str(getattr(model, "residual", torch.float32)).removeprefix("torch.")


def versions() -> dict[str, Any]:
    """Of torch, the CUDA it was built for and its cuDNN (None without)."""
    cudnn = torch.backends.cudnn.version()
    return {"torch": torch.__version__, "torch's CUDA": torch.version.cuda, "torch's cuDNN": cudnn}


def theirs(model: nn.Module, config: GPT2Config, rows: int, device: str, mode: str | None) -> Run:
    """Steps of AdamW with clipping; products in config.dtype by autocast, weights in float32.

    mode: of torch.compile; None: eager.
    """
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=1e-2, fused=True)
    tokens = torch.randint(config.vocab_size, (rows, config.seq_len), device=device)
    loss_of = torch.compile(model, mode=mode) if mode else model
    dtype = getattr(torch, config.dtype)

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                loss = loss_of(tokens, tokens)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # their memory is free while others have their turn
        if device == "cuda":
            torch.cuda.synchronize()

    return run
