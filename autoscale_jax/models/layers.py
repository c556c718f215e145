"""What the models share: their config, attention and MLP layers, the stack of blocks.

Shape letters: B batch, L length, D model, H heads, d width of a head, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from autoscale_jax.models import attention, products, sharding

INIT_STD = 0.02  # GPT-2's and BERT's
# Up to so many layers are compiled one by one. On a CPU that is 10% faster than a loop; on a GPU a
# loop copies what each layer keeps into an array of all layers, and out of it again.
UNROLLED = {"cpu": 12, "gpu": 48, "tpu": 12}

# What the axes of each parameter are, by the end of its path, first match; the parameters of
# blocks are stacked, so that their first axis is "layers".
AXES: dict[str, tuple[str, ...]] = {
    "wte": ("vocab", "embed"),
    "wpe": ("position", "embed"),
    "segment": ("segment", "embed"),
    "head": ("vocab", "embed"),
    "head_bias": ("vocab",),
    "qkv/kernel": ("embed", "qkv", "heads", "kv"),
    "qkv/bias": ("qkv", "heads", "kv"),
    "attention/out/kernel": ("heads", "kv", "embed"),
    "mlp/in/kernel": ("embed", "mlp"),
    "mlp/in/bias": ("mlp",),
    "mlp/out/kernel": ("mlp", "embed"),
    "transform/kernel": ("embed", "norm"),
    "scale": ("norm",),
    "bias": ("norm",),
}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Shape and arithmetic of a model.

    dtype: of matrix products and activations; parameters, softmax, statistics of norms and losses
        are float32.
    remat: what the backward pass recomputes: "none"; "dots": all but products with parameters and
        the outcome of attention; "full": all but each block's input.
    attention: which implementation, see `attention.attention`.
    document_attention: a position sees its own document alone, not the other ones of its row;
        positions are counted over the row all the same.
    """

    vocab_size: int
    seq_len: int
    num_layers: int
    d_model: int
    num_heads: int
    tie_embeddings: bool = True
    embedding_std: float = INIT_STD
    dtype: str = "float32"
    remat: str = "none"
    attention: str = "auto"
    document_attention: bool = False

    @property
    def mlp_width(self) -> int:
        return 4 * self.d_model

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding: whole tiles, divisible by up to 256 devices, at most 2% more.

        A multiple of 256 from a vocabulary of 16,384 on, of a smaller power of two below.
        """
        multiple = 1 << max(0, min(8, (self.vocab_size // 64).bit_length() - 1))
        return -(-self.vocab_size // multiple) * multiple


def embedding_init(std: float, rows: int) -> Callable[..., jax.Array]:
    """Normal in the first `rows` rows, zero in those that only pad."""

    def init(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
        used = std * jax.random.normal(key, (rows, shape[1]), dtype)
        return jnp.pad(used, ((0, shape[0] - rows), (0, 0)))

    return init


def embed(table_VxD: jax.Array, tokens_BxL: jax.Array) -> jax.Array:
    """The tokens' rows of the table, [B, L, D].

    Where the mesh splits the table's width, each device first collects that of its rows: rows of
    the batch are split over the same devices, and the compiler would collect the whole batch.
    """
    whole = len(table_VxD) % sharding.ways(sharding.TENSOR) > 0
    table_VxD = sharding.constrain(table_VxD, () if whole else (sharding.TENSOR,), ())
    return sharding.constrain(table_VxD[tokens_BxL], sharding.ROWS, (), ())


def dense(
    features: int | tuple[int, ...], name: str, dtype: str, std: float = INIT_STD, axes: int = 1
) -> nn.DenseGeneral:
    """Affine map of the last `axes` axes to `features`."""
    return nn.DenseGeneral(
        features,
        axis=tuple(range(-axes, 0)),
        dtype=dtype,
        kernel_init=nn.initializers.normal(std),
        dot_general=products.dot_general(),
        name=name,
    )


class SelfAttention(nn.Module):
    """Multi-head attention of [B, L, D] to itself."""

    config: TransformerConfig
    causal: bool
    out_std: float

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, segments_BxL: jax.Array | None) -> jax.Array:
        c = self.config
        heads = (3, c.num_heads, c.d_model // c.num_heads)
        qkv_BxLx3xHxd = dense(heads, "qkv", c.dtype)(x_BxLxD)
        q, k, v = jnp.moveaxis(qkv_BxLx3xHxd, 2, 0)
        mixed_BxLxHxd = attention.attention(
            q, k, v, segments_BxL, causal=self.causal, backend=c.attention
        )
        return dense(c.d_model, "out", c.dtype, self.out_std, axes=2)(mixed_BxLxHxd)


class MLP(nn.Module):
    """Two dense layers, four times as wide between."""

    config: TransformerConfig
    approximate_gelu: bool
    out_std: float

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        c = self.config
        h = dense(c.mlp_width, "in", c.dtype)(x_BxLxD)
        h = _gelu(h, self.approximate_gelu)
        return dense(c.d_model, "out", c.dtype, self.out_std)(h)


def _gelu(x: jax.Array, approximate: bool) -> jax.Array:
    """On a GPU only x is kept for the backward pass, where reading more costs more than tanh."""
    gelu = functools.partial(nn.gelu, approximate=approximate)
    return (jax.checkpoint(gelu) if sharding.platform() == "gpu" else gelu)(x)


def stack(
    block: type[nn.Module], config: TransformerConfig
) -> Callable[[jax.Array, jax.Array | None], jax.Array]:
    """`num_layers` of `block`, ([B, L, D], segments) -> [B, L, D]; their parameters are stacked,
    "layers" first."""
    platform = sharding.platform()
    few = config.num_layers <= UNROLLED[platform]
    unrolled = few and (config.remat == "none" or platform == "gpu")
    body: Any = block
    if config.remat != "none":
        policies = jax.checkpoint_policies
        saved = policies.save_from_both_policies(
            policies.dots_with_no_batch_dims_saveable,
            attention.saved,
        )
        # outside a loop the compiler would merge what is recomputed with what it repeats
        policy = saved if config.remat == "dots" else None
        body = nn.remat(block, prevent_cse=unrolled, policy=policy)
    blocks = nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=config.num_layers,
        unroll=config.num_layers if unrolled else 1,
    )(config, name="layers")
    return lambda x_BxLxD, segments_BxL: blocks(x_BxLxD, segments_BxL)[0]


def path_of(path: Any) -> str:
    """A path of jax.tree_util as "layers/mlp/in/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def axes(path: Any) -> tuple[str, ...]:
    """The names of the axes of the parameter at a path of the pytree."""
    at = path_of(path)
    found = next(names for end, names in AXES.items() if at.endswith(end))
    return ("layers", *found) if at.startswith("layers/") else found
