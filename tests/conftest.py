"""One thread for every test: two beside a busy neighbour are many times slower than one, and have other bits."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
