"""The policy that is trained: forward pass, DeepSpeed engine, weight sync to the rollout engine, checkpoints."""
