"""What a model's `generation_config` says: the settings that `generate` takes from it, and those it cannot follow."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from plumbline.core.errors import UserError

NO_EFFECT = {
    *("bos_token_id", "transformers_version", "_from_model_config", "use_cache"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
    *("cache_implementation", "renormalize_logits", "length_penalty", "early_stopping", "disable_compile"),
}
"""Keys that leave the tokens as they are."""
NEUTRAL = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "diversity_penalty": 0.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "guidance_scale": 1.0,
    "top_p": 1.0,
    "typical_p": 1.0,
    "min_p": 0.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""Values with which a logits processor does nothing."""
OF_SAMPLING = ("top_p", "typical_p", "min_p", "top_h", "epsilon_cutoff", "eta_cutoff")
"""Processors that greedy decoding ignores."""
NEW_TOKENS = 20
"""How many tokens transformers generates where nobody says how many."""
log = logging.getLogger("plumbline")


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What `generate` uses where its caller says nothing."""

    eos: tuple[int, ...] = ()
    pad: int = -1
    """-1: none."""
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    max_new_tokens: int | None = None
    max_length: int | None = None
    """Prompt included."""
    positions: int | None = None
    """Of the model, prompt included; None: as many as there are."""
    unsupported: tuple[str, ...] = ()
    """Settings that change the tokens in a way that the runtime does not implement."""

    @classmethod
    def of(cls, config: Any, positions: int | None) -> Self:
        """Those of a transformers GenerationConfig, for a model of so many `positions`; None: of one without it."""
        if config is None:
            return cls(positions=positions)
        values = {key: value for key, value in config.to_diff_dict().items() if value is not None}
        eos = values.pop("eos_token_id", ())
        return cls(
            eos=(eos,) if isinstance(eos, int) else tuple(eos),
            pad=values.pop("pad_token_id", -1),
            do_sample=values.pop("do_sample", False),
            temperature=values.pop("temperature", 1.0),
            top_k=values.pop("top_k", 50),
            max_new_tokens=values.pop("max_new_tokens", None),
            max_length=values.pop("max_length", None),
            positions=positions,
            unsupported=tuple(key for key, value in sorted(values.items()) if _matters(key, value)),
        )

    @classmethod
    def told(cls, values: Mapping[str, Any]) -> Self:
        """Those that a worker told of."""
        return cls(**{**values, "eos": tuple(values["eos"]), "unsupported": tuple(values["unsupported"])})

    def to_json(self) -> dict[str, Any]:
        """As a worker tells them."""
        return asdict(self)

    def new_tokens(self, prompt: int) -> int:
        """How many tokens follow a prompt of so many when the caller does not say, by transformers' rules.

        Raises UserError when the prompt leaves no room for one.
        """
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        if self.max_length is None:
            room = NEW_TOKENS if self.positions is None else self.positions - prompt
            new = min(NEW_TOKENS, room) if room > 0 else NEW_TOKENS  # the worker refuses a prompt that fills the model
            log.warning("max_new_tokens: neither in the call nor in the generation_config; using %d", new)
            return new
        if self.max_length <= prompt:
            raise UserError(
                f"generation_config: max_length: {self.max_length} leaves no room after a prompt of {prompt} tokens; "
                "pass max_new_tokens"
            )
        return self.max_length - prompt

    def check(self, *, do_sample: bool) -> None:
        """Raises UserError when the generation_config asks for something that is not implemented."""
        wrong = [key for key in self.unsupported if do_sample or key not in OF_SAMPLING]
        if wrong:
            raise UserError(
                f"generation_config: {', '.join(wrong)}: not supported on a worker, and transformers would give other "
                "tokens; unset it in the model's generation_config, or generate locally"
            )


def positions_of(config: Any) -> int | None:
    """What transformers takes a model's config to allow."""
    found: int | None = getattr(config, "max_position_embeddings", None)
    return found


def _matters(key: str, value: Any) -> bool:
    """Whether a setting changes the tokens."""
    return key not in NO_EFFECT and value is not False and value != NEUTRAL.get(key)


def inferred_mask(prompt: Tensor, eos: tuple[int, ...], pad: int) -> Tensor | None:
    """The mask that transformers infers when it is given none: 0 at padding tokens, unless they also end a text."""
    if pad < 0 or pad in eos:
        return None
    mask = prompt.ne(pad)
    return None if bool(mask.all()) else mask.to(torch.int64)
