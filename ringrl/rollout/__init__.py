"""Sampling: token ids in; token ids, log-probs of the sampled tokens and the weights version out.

`engine.py` is the interface, `vllm_pool.py` talks to vLLM workers, `vllm_worker.py` is such a worker,
`transfer.py` moves weights, `local.py` samples in process with transformers.
"""
