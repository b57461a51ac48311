"""The proof of equality for several shapes of model and batch, one after another in the same ranks.

With `wrong` in the request, the loss is the mean of the ranks' own means.
"""

from data_parallel import mean_of_means
from plumbline.data_parallel.ranks import equality
from plumbline.data_parallel.ranks.rank import main
from plumbline.data_parallel.training.learner import Learner


def prove(rank, request):
    if request["wrong"]:
        Learner.step = mean_of_means.step
    found = []
    for shape in request["shapes"]:
        parts = {name: request[name] | shape.get(name, {}) for name in ("model", "training")}
        found.append(equality.differences(rank, request | parts | {"steps": shape.get("steps", 20)}))
    rank.answer({"shapes": found})


if __name__ == "__main__":
    main(prove)
