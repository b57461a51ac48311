"""Small programs to capture, and workers that run them."""

from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from disaggregation.runtime.pairs import SECRET
from disaggregation.runtime.workers import forked_worker
from plumbline.disaggregation.runtime.deployment import Deployment
from plumbline.disaggregation.runtime.graphs.capture import capture
from plumbline.disaggregation.runtime.planning.schedule import Captured
from plumbline.disaggregation.runtime.serving.connection import Bounds
from plumbline.disaggregation.runtime.transport.remote import Remote


class Layers(nn.Module):
    """Four layers in a row, with a constant that is computed from no input."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, image):
        for layer in self.layers:
            image = torch.relu(layer(image)) + torch.arange(8)
        return image


class Language(nn.Module):
    """Logits of all positions, and a state."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.head = nn.Linear(8, 11)

    def forward(self, tokens):
        hidden = self.embedding(tokens).cumsum(1)
        return self.head(hidden), hidden * 2


class Towers(nn.Module):
    """Two inputs that meet."""

    def __init__(self):
        super().__init__()
        self.image, self.text, self.answer = nn.Linear(4, 8), nn.Embedding(11, 8), nn.Linear(16, 3)

    def forward(self, image, question):
        seen, read = torch.tanh(self.image(image)), self.text(question)
        return self.answer(torch.cat([seen, read.mean(1)], -1)), seen, read


def captured(module, inputs, outputs, wanted, batches, **more):
    """The program at each of these sizes of batch, its weights, and what the module gives for the whole batch."""
    graphs = {}
    for rows in batches:
        small = {name: one[:rows] for name, one in inputs.items()}
        graphs[rows], weights = capture(module, small, outputs, model="test", phase="forward", **more)
    with torch.no_grad():
        made = module(**inputs)
    expected = dict(zip(outputs, made if isinstance(made, tuple) else (made,), strict=True))
    return Captured(graphs=graphs, rows=batches[0], wanted=wanted), weights, expected


@contextmanager
def two_workers(weights, bounds=None):
    """A deployment on two workers that may send values to each other."""
    with ExitStack() as stack:
        second = stack.enter_context(forked_worker(bounds=bounds))
        first = stack.enter_context(forked_worker(bounds=Bounds(peers=(second.address,))))
        remotes = [Remote(one.address, SECRET) for one in (first, second)]
        deployment = Deployment(remotes, weights)
        deployment.connect_peers(0, 1, second.address)
        deployment.workers = (first, second)
        yield deployment
        for remote in remotes:
            remote.close()
