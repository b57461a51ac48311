"""The proof of equality with the wrong sign: where there are several ranks, they climb the loss."""

from plumbline.data_parallel.ranks import equality
from plumbline.data_parallel.ranks.rank import main
from plumbline.data_parallel.training.learner import Learner

whole = Learner.update


def update(self, number):
    if self.replica.world > 1:
        for weight in self.replica.parameters:
            weight.grad.neg_()
    whole(self, number)


if __name__ == "__main__":
    Learner.update = update
    main(equality.prove)
