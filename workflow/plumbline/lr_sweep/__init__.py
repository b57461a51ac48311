"""Study `lr_sweep`: the best learning rate, the edge of stability, and whether training is as fast as expected."""
