"""Settings of the study `disaggregation`: its block of the config. The trials are in `plan`."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from plumbline.core.settings import Settings, distinct

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Link = Literal["loopback", "10gbit", "1gbit"]

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
CAPTURE, RPC, RAY = "capture_only", "rpc", "ray"
OTHERS = (RPC, RAY)
"""The baselines behind remote calls of other systems."""
SENDING = (*REMOTE, *OTHERS)
MARGIN = 0.05
"""Two times within this share of each other, either way, are equivalent: what "no overhead" means."""
FIGURES = ("latency", "features", "traffic")
TABLES = ("decode", "features", "baselines")


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
    baselines: list[Literal["capture_only", "rpc", "ray"]] = ["capture_only", "rpc"]
    """Further baselines: the decode step captured and replayed here; torch's rpc; an actor of Ray, which needs the
    extra `ray` and makes each block longer by half a minute."""
    blocks: PositiveInt = 4
    """Number of fresh pairs of processes that everything is measured in."""
    seconds: PositiveFloat = 1.5
    """Time budget of each context in a block, once there are enough rounds."""
    precision: PositiveFloat = 0.02
    """Measuring stops early when half of every interval is at most this share."""
    spin_seconds: Annotated[float, Field(ge=0)] = 0.0
    """How long reads try again before they sleep, on both sides; it takes a core."""

    @field_validator("baselines")
    @classmethod
    def _named_once(cls, values: list[object]) -> list[object]:
        return distinct(values)

    @field_validator("contexts", "links")
    @classmethod
    def _distinct(cls, values: list[object]) -> list[object]:
        if not values:
            raise ValueError("is empty; name at least one")
        return distinct(values)

    @model_validator(mode="after")
    def _prompts_fit(self) -> Self:
        longest = max(self.contexts) + self.tokens
        if longest > self.model.positions:
            raise ValueError(f"contexts: the longest and tokens need {longest} positions, above model.positions")
        return self
