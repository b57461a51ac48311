"""The proof of equality for several shapes of model and batch, one after another in the same ranks."""

from plumbline.data_parallel.ranks import equality
from plumbline.data_parallel.ranks.rank import main


def prove(rank, request):
    shapes = request.pop("shapes")
    rank.answer([equality.differences(rank, request | shape) for shape in shapes])


if __name__ == "__main__":
    main(prove)
