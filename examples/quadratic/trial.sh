#!/bin/sh
# A trial in another language: a noisy parabola with its peak of 1 at x = 2, by awk.
#   sh trial.sh X NOISE SEED FOLDER
awk -v x="$1" -v noise="$2" -v seed="$3" 'BEGIN {
    srand(seed)
    for (step = 1; step <= 5; step++)
        printf "{\"step\": %d, \"score\": %.6f}\n", step, 1 - (x - 2) ^ 2 - 1 / step > "/dev/stderr"
    printf "{\"score\": %.6f}\n", 1 - (x - 2) ^ 2 + noise * (rand() - 0.5)
}' > "$4/metrics.json" 2> "$4/metrics.jsonl"
