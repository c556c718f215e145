"""autoscale_jax: which data mixture trains the best language model at a token target."""
