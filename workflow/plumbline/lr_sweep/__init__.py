"""Study `lr_sweep`: which learning rate, where is the edge, and is this run as fast as it should be?"""
