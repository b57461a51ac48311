"""Settings of the study `disaggregation`: its block of the config. The trials are in `plan`."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from plumbline.core.settings import Settings, distinct
from plumbline.disaggregation.families import Families

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Link = Literal["loopback", "10gbit", "1gbit"]

DECODING = "llm_decode"
LOCAL = "local"
FULL = "full"
GENERATE = "generate"
NO_STREAM = "no_stream"
NO_WEIGHTS = "no_weights_resident"
REMOTE = {
    FULL: "stream",
    NO_STREAM: "step",
    "no_server_sampling": "logits",
    "no_last_logits": "positions",
    "no_phase": "phaseless",
    "no_state_resident": "carried",
    NO_WEIGHTS: "stream",
    "remote": "whole",
    "no_semantics": "shipped",
}
"""The variants that decode on a worker, and how the runtime's client calls them."""
STREAMED = frozenset({FULL, "no_last_logits", "no_phase", NO_WEIGHTS})
"""Those whose tokens the worker sends as they come: the time decides how many share a frame."""
FEATURES = {
    "stream": NO_STREAM,
    "server_sampling": "no_server_sampling",
    "last_logits": "no_last_logits",
    "phase": "no_phase",
    "state_resident": "no_state_resident",
    "weights_resident": NO_WEIGHTS,
}
"""What the runtime knows, and the variant that is `full` without it."""
CANNOT_STREAM = ("server_sampling", "state_resident")
"""Without one of these, the next step has to wait for the client, so there is no stream either."""
BLIND = ("remote", "no_semantics")
"""The page's baselines on the same worker, which leave out several things at once."""
CAPTURE, RPC, RAY, COMPILED = "capture_only", "rpc", "ray", "ray_compiled"
OTHERS = (RPC, RAY, COMPILED)
"""The baselines behind remote calls of other systems."""
SENDING = (*REMOTE, *OTHERS)
MARGIN = 0.05
"""Two times within this share of each other, either way, are equivalent: what "no overhead" means."""
FIGURES = ("latency", "features", "traffic", "heat_map", "workloads", "workload_traffic", "speedup", "cost_model")
TABLES = (
    "decode",
    "features",
    "baselines",
    "heat_map",
    "workloads",
    "workload_features",
    "workload_baselines",
    "cost_model",
)
CONTRASTS = Families(
    features={FULL: list(FEATURES.values()), NO_STREAM: [FEATURES[feature] for feature in CANNOT_STREAM]},
    baselines={LOCAL: [FULL, CAPTURE], FULL: [*BLIND, *OTHERS]},
)
"""Of decoding."""
WORKLOAD_FEATURES = (
    "no_weights_resident",
    "no_state_resident",
    "no_last_logits",
    "no_server_sampling",
    "no_wanted_only",
    "no_split",
    "no_pipeline",
    "no_branches",
    "no_direct_hop",
)
"""`full` without one thing, of the workloads that it says something of."""
WORKLOAD_CONTRASTS = Families(
    features={FULL: list(WORKLOAD_FEATURES)}, baselines={LOCAL: [FULL, CAPTURE], FULL: [*BLIND, *OTHERS]}
)
WorkloadName = Literal["llm_prefill", "vision_cnn", "multimodal_vqa", "microbenchmark"]
MICRO: WorkloadName = "microbenchmark"
SPLIT = "split"
"""Of the micro workload: half of the rows on each worker."""
ROUND_TRIP, SERIALISE = "round_trip", "serialise"
"""Of the micro workload: what is not a program, but part of a call's costs."""


class ModelSettings(Settings):
    """A GPT-2 with random weights: its speed depends on its shape alone."""

    vocabulary: PositiveInt = 2048
    """Number of tokens in the vocabulary."""
    positions: PositiveInt = 512
    """Number of positions: prompt and generated tokens together."""
    width: PositiveInt = 128
    """Width of the residual stream."""
    layers: PositiveInt = 4
    """Number of layers."""
    heads: PositiveInt = 4
    """Number of attention heads."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of weights, keys and values."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide width {self.width}")
        return self

    @property
    def gpt2(self) -> dict[str, Any]:
        """The config of transformers; no token ends a text."""
        config = {"model_type": "gpt2", "n_embd": self.width, "n_layer": self.layers, "n_head": self.heads}
        config |= {"vocab_size": self.vocabulary, "n_positions": self.positions}
        return config | {"bos_token_id": None, "eos_token_id": None}


class PrefillSettings(Settings):
    """Workload `llm_prefill`: prompts for `model`."""

    rows: PositiveInt = 2
    """Number of prompts in the batch; two workers take half each."""
    tokens: PositiveInt = 128
    """Tokens of each prompt."""

    @field_validator("rows")
    @classmethod
    def _even(cls, rows: int) -> int:
        if rows % 2:
            raise ValueError(f"{rows} is odd: two workers take half of the prompts each")
        return rows


class VisionSettings(Settings):
    """Workload `vision_cnn`: a ResNet with random weights."""

    batch: PositiveInt = 16
    """Number of images."""
    micro_batches: PositiveInt = 16
    """Number of parts in which the batch goes through the pipeline."""
    pixels: PositiveInt = 64
    """Height and width of an image."""
    widths: list[PositiveInt] = [96, 160]
    """Channels of each stage: many, so that one image is work enough beside what a call and a hop cost."""
    depths: list[PositiveInt] = [3, 2]
    """Blocks of each stage."""
    layer: Literal["basic", "bottleneck"] = "basic"
    """Kind of block: that of ResNet-18, or that of ResNet-50."""
    labels: PositiveInt = 100
    """Number of classes."""

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.batch % self.micro_batches:
            raise ValueError(f"micro_batches: {self.micro_batches} does not divide batch {self.batch}")
        if len(self.widths) != len(self.depths):
            raise ValueError(f"depths: has {len(self.depths)} stages, widths {len(self.widths)}")
        return self


class VqaSettings(Settings):
    """Workload `multimodal_vqa`: two towers of CLIP's kind with random weights, of one width, and an answer."""

    batch: PositiveInt = 4
    """Number of images, each with a question."""
    pixels: PositiveInt = 64
    """Height and width of an image."""
    patch: PositiveInt = 8
    """Height and width of the patches that images are cut into."""
    tokens: PositiveInt = 64
    """Tokens of a question."""
    vocabulary: PositiveInt = 1000
    """Number of tokens in the vocabulary."""
    width: PositiveInt = 128
    """Width of both towers."""
    layers: PositiveInt = 4
    """Layers of each tower."""
    heads: PositiveInt = 4
    """Attention heads of each layer."""
    answers: PositiveInt = 100
    """Number of answers to choose from."""

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.pixels % self.patch:
            raise ValueError(f"patch: {self.patch} does not divide pixels {self.pixels}")
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide width {self.width}")
        return self


class MicroSettings(Settings):
    """Workload `microbenchmark`: single operations, from which the cost model is calibrated."""

    rows: PositiveInt = 4
    """Rows of each input; two workers take half each."""
    sizes: Annotated[list[Annotated[int, Field(ge=8, multiple_of=8)]], Field(min_length=1)] = [32, 128]
    """Sizes of the operations: width of matrices, tokens of attention, eight times the height of images."""
    repeats: PositiveInt = 16
    """How many times in a row each operation also runs: more to compute for what is moved."""

    @field_validator("rows")
    @classmethod
    def _even(cls, rows: int) -> int:
        if rows % 2:
            raise ValueError(f"{rows} is odd: two workers take half of the rows each")
        return rows


class Shapes(Settings):
    """What decides the programs of the workloads."""

    model: ModelSettings
    prefill: PrefillSettings
    vision: VisionSettings
    vqa: VqaSettings
    micro: MicroSettings


class DisaggregationSettings(Settings):
    """Study `disaggregation`: how close to local is a model on a remote worker, and what do semantics save?"""

    model: ModelSettings = ModelSettings()
    """The model that decodes."""
    contexts: list[PositiveInt] = [32, 256]
    """Lengths of the prompt in tokens."""
    tokens: PositiveInt = 6
    """Number of tokens that each turn generates, greedily."""
    links: list[Link] = ["loopback", "1gbit"]
    """Networks between client and worker; the shaped ones need root, `ip` and `tc`, and are recorded as unavailable
    elsewhere."""
    baselines: list[Literal["capture_only", "rpc", "ray", "ray_compiled"]] = ["capture_only", "rpc"]
    """Further baselines of all workloads: what is captured, replayed here; torch's rpc; an actor of Ray, and one whose
    step is compiled, which need the extra `ray` and make each workload of a block longer by about 10 s."""
    blocks: PositiveInt = 4
    """Number of blocks: repetitions of all measurements, each in newly forked processes."""
    blocks_per_job: PositiveInt = 8
    """Number of blocks that share a job, which spends three seconds on imports once for all of them. The blocks are
    forks of one process, each with its own memory pages, connections and addresses. With 1, each block is a job.
    A change reruns no finished block."""
    seconds: PositiveFloat = 1.5
    """Time budget of each context in a block, once there are enough rounds."""
    precision: PositiveFloat = 0.02
    """Measuring stops early when half of every interval is at most this share."""
    spin_seconds: Annotated[float, Field(ge=0)] = 0.0
    """How long reads try again before they sleep, on both sides; it takes a core."""
    stream_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.033
    """How long streamed tokens of `llm_decode` may wait for each other on the worker, to go in one frame; 0 sends each
    at once."""
    workloads: dict[WorkloadName, list[Link]] = {
        "llm_prefill": ["loopback", "1gbit"],
        "vision_cnn": ["loopback"],
        "multimodal_vqa": ["loopback"],
        "microbenchmark": ["loopback"],
    }
    """Workloads beside decoding, captured as graphs, each with its networks. An empty list leaves one out."""
    workload_seconds: PositiveFloat = 0.5
    """Time budget of each of these workloads on each link in a block, once there are enough rounds."""
    prefill: PrefillSettings = PrefillSettings()
    """Shape of `llm_prefill`."""
    vision: VisionSettings = VisionSettings()
    """Shape of `vision_cnn`."""
    vqa: VqaSettings = VqaSettings()
    """Shape of `multimodal_vqa`."""
    micro: MicroSettings = MicroSettings()
    """Sizes of `microbenchmark`."""

    contrasts: Families = CONTRASTS
    """Comparisons of decoding's variants, tested on every link and with every prompt, and corrected for all of them."""
    workload_contrasts: Families = WORKLOAD_CONTRASTS
    """Comparisons of the other workloads' variants, tested on every link for every workload that has both, except
    microbenchmark."""

    @property
    def shapes(self) -> Shapes:
        """Of all workloads of captured graphs."""
        return Shapes(model=self.model, prefill=self.prefill, vision=self.vision, vqa=self.vqa, micro=self.micro)

    @field_validator("baselines")
    @classmethod
    def _named_once(cls, values: list[object]) -> list[object]:
        return distinct(values)

    @field_validator("contrasts")
    @classmethod
    def _contrasts_of_variants(cls, families: Families) -> Families:
        families.check({LOCAL, GENERATE, CAPTURE, *SENDING})
        return families

    @field_validator("workload_contrasts")
    @classmethod
    def _contrasts_of_workloads(cls, families: Families) -> Families:
        families.check({LOCAL, FULL, *WORKLOAD_FEATURES, *BLIND, CAPTURE, *OTHERS})
        return families

    @field_validator("contexts", "links")
    @classmethod
    def _distinct(cls, values: list[object]) -> list[object]:
        if not values:
            raise ValueError("is empty; name at least one")
        return distinct(values)

    @field_validator("workloads")
    @classmethod
    def _links_named_once(cls, values: dict[WorkloadName, list[Link]]) -> dict[WorkloadName, list[Link]]:
        return {name: distinct(links) for name, links in values.items()}

    @property
    def workload_pairs(self) -> list[tuple[WorkloadName, Link]]:
        """Each workload of captured graphs with each of its links."""
        return [(name, link) for name, links in self.workloads.items() for link in links]

    @model_validator(mode="after")
    def _prompts_fit(self) -> Self:
        longest = max(self.contexts) + self.tokens
        if longest > self.model.positions:
            raise ValueError(f"contexts: the longest and tokens need {longest} positions, above model.positions")
        if self.workloads.get("llm_prefill") and self.prefill.tokens > self.model.positions:
            raise ValueError(f"prefill.tokens: {self.prefill.tokens} is above model.positions {self.model.positions}")
        return self
