"""Stage `lr_sweep.diagnose`: whether the trials were as fast as this machine allows, and where the time went."""

from pathlib import Path

from plumbline.core.files import write_json
from plumbline.core.plan.target import MergeSpec
from plumbline.core.run.stage import stage
from plumbline.lr_sweep.diagnosis.report import diagnose_study
from plumbline.lr_sweep.record import read_trials


class DiagnoseSpec(MergeSpec):
    """What decides the diagnosis: nothing but the trials."""


@stage
def diagnose(spec: DiagnoseSpec, trials: list[Path], output: Path) -> None:
    """Writes the diagnosis of the trials with the records `trials` to `output`; reads their journals as well."""
    read_trials(trials, spec.records)  # refuses records of another plan
    names = [record.parent.name for record in trials]
    head = {"schema": 1, "study": "lr_sweep", "spec": spec.model_dump(mode="json")}
    write_json(output, head | diagnose_study(trials[0].parents[2], names).to_json())


if __name__ == "__main__":
    diagnose.main()
