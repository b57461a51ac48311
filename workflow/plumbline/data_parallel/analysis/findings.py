"""The findings in sentences."""

from collections.abc import Iterator, Sequence

import pandas as pd

from plumbline.core.present.findings import findings_text
from plumbline.core.present.formatting import bytes_text, reason, with_interval
from plumbline.core.run.records import machine_note, machines
from plumbline.data_parallel.analysis.frames import epochs_frame, label, time_to_bleu
from plumbline.data_parallel.analysis.network import HERE, Prediction
from plumbline.data_parallel.analysis.speedups import Speedup, is_busy
from plumbline.data_parallel.record import ComparisonRecord, EqualityRecord, TrialRecord


def findings(
    records: Sequence[TrialRecord],
    trials: pd.DataFrame,
    equality: EqualityRecord,
    comparison: ComparisonRecord,
    speedups: Sequence[Speedup],
    predictions: Sequence[Prediction],
) -> str:
    """The study's findings as Markdown."""
    return findings_text(
        "What does a second device buy in training?",
        {
            "How much faster is training?": _speed(comparison, speedups),
            "Do all of them compute the same?": _equality(equality),
            "What do the trials learn, and how long do they take?": _learned(records, trials),
            "What would more devices buy?": _predicted(speedups, predictions),
            "Caveats": _caveats(records, comparison),
        },
    )


def _speed(comparison: ComparisonRecord, speedups: Sequence[Speedup]) -> Iterator[str]:
    if not comparison.ok:
        yield f"The comparison has no result: {reason(comparison.outcome, comparison.message)}."
    else:
        yield f"A step of one process has {comparison.batch} sequences, {comparison.step_tokens:,} tokens on average."
    for one in speedups:
        ratio = with_interval(one.ratio.value, one.ratio.low, one.ratio.high, digits=2)
        if one.turns.name == "control":
            yield f"One process against itself (A/A): {ratio}. Smaller differences cannot be resolved."
        elif one.of_ceiling is None:
            yield f"{one.turns.name}: {ratio} times the tokens per second of one process ({one.verdict})."
        else:
            of, each, world = one.of_ceiling, one.efficiency, one.turns.world
            share = with_interval(of.value, of.low, of.high, digits=2)
            efficiency = with_interval(each.value, each.low, each.high, digits=2)
            yield (
                f"{one.turns.name}: {ratio} times the tokens per second of one process ({one.verdict}). That is {share}"
                f" of what {world} independent processes reach together, and an efficiency of {efficiency}."
            )


def _equality(record: EqualityRecord) -> Iterator[str]:
    for one in record.differences:
        name = f"{one.method} on {one.world} in {one.dtype}"
        if one.outcome == "unavailable":
            yield f"{name}: unavailable ({one.message})."
        elif one.largest is not None:
            kept = f" ({'within' if one.holds else 'beyond'} {one.promise})" if one.promise else ""
            of_median = ""
            if one.relative_bound is not None and one.relative is not None:
                of_median = f", the median one {100 * one.relative:.2g}% of what training changes"
            agree = "agree" if one.ranks_agree else "do not agree"
            yield (
                f"{name}: after {record.steps} steps the largest difference from one process is {one.largest:.1e}"
                f"{of_median}{kept}; the ranks {agree} bit for bit."
            )


def _learned(records: Sequence[TrialRecord], trials: pd.DataFrame) -> Iterator[str]:
    for record, (_, row) in zip(records, trials.iterrows(), strict=True):
        if not record.ok:
            yield f"{label(record)}: {reason(record.outcome, record.message)}."
            continue
        scores = "; ".join(
            f"{found.bleu:.1f} on {split.replace('_', '-')} (copying: {found.copied_bleu:.1f})"
            for split, found in record.translations.items()
        )
        wire = bytes_text(row["wire_bytes_per_step"])
        yield (
            f"{label(record)}: {row['training_time_mean']:.1f} s per epoch without the first,"
            f" {row['tokens_per_second_mean']:,.0f} tokens/s over all ranks; validation loss"
            f" {row['validation_loss']:.2f} nats per token; BLEU {scores}; each rank sends {wire} a step."
        )
    if any(record.epochs for record in records):
        target, reached = time_to_bleu(epochs_frame(records))
        times = "; ".join(f"{name} {seconds:.1f} s" for name, seconds in reached.items())
        yield (
            f"Training until a BLEU of {target:.1f} on the validation sentences translated after each epoch (the"
            f" highest that every trial reaches), in whole epochs of one run each: {times}."
        )


def _predicted(speedups: Sequence[Speedup], predictions: Sequence[Prediction]) -> Iterator[str]:
    measured: dict[tuple[int, str], Speedup] = {}
    for found in speedups:
        if found.turns.method:  # the first method is measured in every world
            measured.setdefault((found.turns.world, found.turns.scaling), found)
    for one in sorted(predictions, key=lambda each: not each.is_fitted):
        if one.network != HERE:
            where = f"{one.world} devices like this one on {one.network}, {one.scaling}"
            yield f"{where}: predicted {one.speedup:,.1f} times as fast."
        elif one.is_fitted:
            yield (
                f"In training, an all-reduce costs {_with_ends(one)} times what it costs alone, estimated from how"
                f" far weak scaling on {one.world} processes falls short of independent ones: ranks wait for"
                " each other, and sending competes with computing."
            )
        elif (one.world, one.scaling) in measured:
            value = measured[one.world, one.scaling].ratio.value
            yield (
                f"{one.world} processes here, {one.scaling}: {one.speedup:.2f} predicted and {value:.2f} measured,"
                f" {100 * abs(one.speedup / value - 1):.1f}% apart."
            )


def _with_ends(one: Prediction) -> str:
    """`2.9 [1.2, 4.6]`."""
    if one.contention_ends is None:
        return f"{one.contention:.1f}"
    return with_interval(one.contention, *one.contention_ends)


def _caveats(records: Sequence[TrialRecord], comparison: ComparisonRecord) -> Iterator[str]:
    yield (
        "The trials ran one after another, so their times and rates also differ by what the machine did; only "
        "the interleaved turns say what is faster."
    )
    single = next((record.batch for record in records if record.world == 1), None)
    if None not in (single, comparison.batch) and single != comparison.batch:
        yield (
            f"A step of one process has {single} sequences in the trials and {comparison.batch} in the comparison: the"
            " smaller the batch, the larger the share of communication."
        )
    yield (
        "Predictions for more devices assume that communication does not overlap with computing, a device and a network"
        " port for each process, and an all-reduce that costs in training what it costs alone."
    )
    if is_busy(comparison):
        yield (
            "The machine was busy: in the median round, independent processes waited for a core"
            f" {comparison.busy_percent:.0f}% of their turn. A speed-up is called faster or slower only if it would be"
            " with that time given back, to either side."
        )
    if comparison.launches and max(comparison.launches) == 0:
        yield "The ranks were launched once: the intervals cover the spread over rounds, not over launches."
    if comparison.precise is False:
        yield "The comparison's time was used up before every interval was as narrow as asked for."
    if note := machine_note(machines(records)):
        yield note
