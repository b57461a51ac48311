"""What a user calls: a causal language model whose weights and state are on a worker, and whose `generate` runs there.

remote = connect("127.0.0.1:7700", key_file="worker.key")
model = remote.upload(AutoModelForCausalLM.from_pretrained("my-model"))
tokens = model.generate(prompt, max_new_tokens=100)
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.asked import saved, seeded, uploaded
from plumbline.disaggregation.runtime.generation import RemoteModel, WorkerLostError
from plumbline.disaggregation.runtime.models.defaults import Defaults, positions_of
from plumbline.disaggregation.runtime.models.weights import content_hash, weights_of
from plumbline.disaggregation.runtime.transport.address import parse_address
from plumbline.disaggregation.runtime.transport.keys import read_key
from plumbline.disaggregation.runtime.transport.protocol import (
    ON_MODEL,
    Limits,
    Op,
    WireError,
)
from plumbline.disaggregation.runtime.transport.remote import Remote

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("plumbline")

RETRY_SECONDS = 0.2
RECOVERS = ("none", "lineage")


def connect(
    addresses: str | Sequence[str],
    key_file: str | Path,
    *,
    recover: Literal["none", "lineage"] = "none",
    recover_seconds: float = 30.0,
    spin_seconds: float = 0.0,
    reply_seconds: float = 300.0,
) -> "Client":
    """A client of the worker at the first of `addresses`, HOST:PORT; further ones are for `lineage`.

    recover: with `lineage`, the client is of the first worker that answers, and a generation whose worker is lost goes
    on at whichever address answers within `recover_seconds`: its inputs are replayed there, and the tokens so far must
    come out again. spin_seconds: how long a read tries again before it sleeps. reply_seconds: how long a worker may
    take for an answer, the first one too, as it may be building a model for another client; `lineage` goes on to the
    next address after 10 s instead. Raises UserError when the worker cannot be reached, does not answer or refuses;
    with `lineage`, when none answers.
    """
    named = [addresses] if isinstance(addresses, str) else list(addresses)
    if not named:
        raise UserError("connect: names no worker's address; give HOST:PORT")
    if recover not in RECOVERS:
        raise UserError(f"recover: {recover!r} does not exist; choose from {', '.join(RECOVERS)}")
    for address in named:
        parse_address(address)
    limits = Limits(spin_seconds=spin_seconds)
    secret = read_key(Path(key_file))
    hello_seconds = limits.stall_seconds if recover == "lineage" else reply_seconds

    def opened(address: str) -> Remote:
        return Remote(address, secret, limits, reply_seconds, hello_seconds)

    return Client(named, opened, recover, recover_seconds)


class Client:
    """Models on a worker. Close it, or use it in a `with` block, to free what it holds there."""

    def __init__(
        self, addresses: list[str], open_remote: Callable[[str], Remote], recover: str, recover_seconds: float
    ) -> None:
        self.recovers = recover == "lineage"
        self._addresses = addresses
        self._open = open_remote
        self.remote = self._first() if self.recovers else open_remote(addresses[0])
        self._recover_seconds = recover_seconds
        self._models: list[RemoteModel] = []

    def _first(self) -> Remote:
        """A connection to the first address that answers."""
        reasons = []
        for address in self._addresses:
            try:
                found = self._open(address)
            except UserError as error:
                reasons.append(str(error))
                continue
            if reasons:
                log.warning("%s; continuing with worker %s", "; ".join(reasons), address)
            return found
        raise UserError("; ".join(reasons))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; the worker frees what it held for it."""
        self.remote.close()

    def upload(self, model: "PreTrainedModel") -> "RemoteModel":
        """A causal language model of this process. Its weights are sent unless the worker holds the same content.

        What its `generation_config` sets holds on the worker, too. Raises UserError where that is not possible.
        """
        asked = {**uploaded(model), "content": content_hash(model)}
        defaults = Defaults.of(model.generation_config, positions_of(model.config))
        defaults.check(do_sample=False)
        return self._loaded(asked, weights_of(model), defaults)

    def seeded(self, config: Mapping[str, Any], dtype: str = "float32", seed: int = 0) -> "RemoteModel":
        """A model of a transformers config, as `to_dict` gives it, whose random weights the worker draws."""
        return self._loaded(seeded(config, dtype, seed), {})

    def folder(self, name: str, dtype: str = "float32") -> "RemoteModel":
        """The model that lies in the folder `name` below the worker's --models."""
        return self._loaded(saved(name, dtype), {})

    def move(self, lost: str) -> None:
        """Opens a connection to any of the addresses, and loads all models there.

        lost: which worker was, and at which token. Raises WorkerLostError with it when none answers.
        """
        self.remote.cut_off()
        deadline = time.monotonic() + self._recover_seconds
        while True:
            for address in self._addresses:
                try:
                    self.remote = self._open(address)
                    for model in self._models:
                        model.load(self.remote)
                    log.warning("%s; continuing with worker %s", lost, address)
                    return
                except (UserError, WireError) as error:
                    if time.monotonic() > deadline:
                        raise WorkerLostError(
                            f"{lost}, and none of {', '.join(self._addresses)} took over within "
                            f"{self._recover_seconds:g} s ({error})"
                        ) from None
            time.sleep(RETRY_SECONDS)

    def _loaded(
        self, asked: dict[str, Any], weights: Mapping[str, Tensor], defaults: Defaults | None = None
    ) -> "RemoteModel":
        model = RemoteModel(self, asked, weights, defaults)
        try:
            model.load(self.remote)
        except WireError as error:
            raise WorkerLostError(f"worker {self.remote.address}: was lost while it loaded a model ({error})") from None
        self._models.append(model)
        return model

    def forget(self, model: "RemoteModel") -> None:
        """Gives up a model. Raises UserError when that was done before, and WorkerLostError."""
        if model not in self._models:
            raise UserError("free: this model was already freed")
        self._models.remove(model)
        try:
            self.remote.ask(Op.FREE, model.handle, flags=ON_MODEL)
        except WireError as error:
            raise WorkerLostError(f"worker {self.remote.address}: was lost while it freed a model ({error})") from None
