"""Sections that several commands' configurations share: where rows come from, prompts, optimizer, layout, engines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ringrl.config.load import FIXED, Knobs, Layout

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."  # [P §3.3]
FENCED = "Write your solution in Python, in one ```python block."  # [ours]

Domain = Literal["math", "code", "science"]
DATE = r"^(\d{4}-\d\d-\d\d)?$"


class Source(Knobs):
    """Where rows come from: JSONL files, or dataset names on the Hugging Face hub."""

    files: tuple[str, ...] = Field(min_length=1)
    split: str = "train"  # of hub datasets
    columns: dict[str, str] = {}  # our key -> the key in the file, e.g. {problem: question}
    domain: Literal["math", "code", "science", "row"] = "row"  # "row": every row names its own domain
    limit: int = Field(0, ge=0)  # rows to read, 0 = all


class Prompting(Knobs):
    """How a problem becomes a prompt."""

    suffix: dict[Domain, str] = {"math": BOXED, "science": BOXED, "code": FENCED}
    system: str = ""  # system message, none when empty
    max_tokens: int = Field(2048, ge=1)  # longer prompts are refused, by name
    template: str = ""  # used instead of the tokenizer's: bailing (Ling-lite, Ring-lite), bailing_v2 (Ling 2.0), or a
    # Jinja file; empty: the tokenizer's own, or its family's among these when it has none
    thinking: bool = True  # `enable_thinking` of templates that have this switch


class Optimizer(Knobs):
    """AdamW. The paper gives the learning rate and, for SFT, weight decay 0.1; betas are [ours]."""

    lr: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = Field(0.0, ge=0, lt=1)  # share of all steps, linear from 0
    final_lr: float = Field(0.0, ge=0, le=1)  # where cosine ends, as a share of lr
    clip_norm: float = Field(1.0, gt=0)  # global gradient norm


class Parallel(Knobs):
    """How the model lies on the ranks."""

    expert: int = Field(1, ge=1)  # ranks that share out the experts of every layer
    zero: Literal[1, 2, 3] = 1  # DeepSpeed ZeRO stage; stage 0 knows no gradient norm over all ranks' experts
    offload: Literal["none", "optimizer", "parameters"] = "none"  # what lies in the host's memory; optimizer: AdamW's
    # states, and its step is computed there; parameters: they too, zero 3 only


class Trainer(Layout):
    """How the update is computed. None of these changes the result beyond rounding."""

    ranks: int = Field(1, ge=1)  # training processes on this node
    threads: int = Field(0, ge=0)  # OpenMP threads per rank; 0 = cores / ranks
    parallel: Parallel = Parallel()
    dtype: Annotated[Literal["float32", "bfloat16"], FIXED] = "bfloat16"  # bfloat16 keeps fp32 master weights
    microbatch_tokens: int = Field(16384, ge=1)  # per forward pass and rank
    packing: bool = True  # False: one sequence per row, padded
    attention: Literal["packed", "sdpa", "flash_attention_2"] = "flash_attention_2"
    recompute: bool = False  # activation checkpointing

    @model_validator(mode="after")
    def _check(self) -> Trainer:
        if self.ranks % self.parallel.expert:
            raise ValueError(f"parallel.expert: got {self.parallel.expert}, expected a divisor of ranks={self.ranks}")
        if self.parallel.offload == "parameters" and self.parallel.zero < 3:
            raise ValueError(f"parallel.offload: got parameters, expected none or optimizer with parallel.zero "
                             f"{self.parallel.zero}: only stage 3 can offload parameters")  # fmt: skip
        return self


class Rollout(Layout):
    """The engine that samples."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"  # auto: vLLM where it is installed
    workers: int = Field(1, ge=1)  # vLLM processes on this node
    addresses: tuple[str, ...] = ()  # "host:port" of every `ringrl worker`; instead of workers on this node
    key_file: str = ""  # the secret that they ask for: a file of hexadecimal digits
    colocated: bool = False  # workers share the ranks' GPUs, sleep while those train, and map weights, not copy them
    in_flight: bool = False  # new weights arrive in the middle of a generation
    dtype: Annotated[Literal["float32", "bfloat16"], FIXED] = "bfloat16"
    tensor_parallel: int = Field(1, ge=1)  # GPUs per worker
    concurrent: int = Field(256, ge=1)  # sequences decoded together by one worker
    gpu_memory: float = Field(0.9, gt=0, lt=1)  # share of the GPU's memory that a worker takes
    kv_cache_mib: int = Field(0, ge=0)  # per worker; 0 = what is left of gpu_memory
    start_deadline_s: float = Field(600.0, gt=0)
    deadline_s: float = Field(3600.0, gt=0)  # for one batch
    update_deadline_s: float = Field(600.0, gt=0)  # for one phase of a weight sync
    bucket_mib: int = Field(512, ge=1)  # weights gathered and sent at a time
    max_restarts: int = Field(3, ge=0)  # how often workers that failed are started again
    parity_limit: float = Field(0.2, gt=0)  # nats: largest mean trainer/worker log-prob gap after a sync

    @model_validator(mode="after")
    def _check(self) -> Rollout:
        if bool(self.addresses) != bool(self.key_file):
            raise ValueError(f"key_file: got {self.key_file!r}, expected one exactly when there are addresses")
        if self.addresses and self.colocated:
            raise ValueError("colocated: got true, expected false with addresses")
        return self


class Verify(Layout):
    workers: int = Field(2, ge=1)  # verifier processes
    deadline_s: float = Field(20.0, gt=0)  # per response
    remote: str = Field("", pattern="^(https?://.+)?$")  # a service with SandboxFusion's API, which runs programs
    # instead of this machine
    max_error_share: float = Field(0.1, ge=0, le=1)  # [ours] of the responses of a batch; more errors end the run


class Server(Layout):
    """An OpenAI-compatible server that answers instead of an engine of ours."""

    base_url: str = ""  # e.g. http://host:8000/v1; empty = none
    key_variable: str = "OPENAI_API_KEY"  # the environment variable with the secret, where the server wants one
    concurrent: int = Field(64, ge=1)  # requests under way
    deadline_s: float = Field(3600.0, gt=0)  # for one response
    retries: int = Field(8, ge=0)  # of a request that fails for now (429, 5xx, no connection), with growing pauses
