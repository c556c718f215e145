"""Training one run: sharded step, loop, evaluation, checkpoints."""
