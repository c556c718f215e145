"""The language models that studies train: plain functions of a parameter pytree."""
