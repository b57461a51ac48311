"""Stage `lr_sweep.diagnose`: were the trials as fast as this machine allows, and where did the time go?"""

from pathlib import Path

from plumbline.core.files import write_json
from plumbline.core.plan.target import MergeSpec
from plumbline.core.run.record import check_specs, read_record
from plumbline.core.run.stage import stage
from plumbline.lr_sweep.diagnosis.report import diagnose_study


class DiagnoseSpec(MergeSpec):
    """What decides the diagnosis: nothing but the trials."""


@stage
def diagnose(spec: DiagnoseSpec, trials: list[Path], output: Path) -> None:
    """Writes the diagnosis of `trials`, their records, to `output`; their journals lie in the same study folder."""
    check_specs(map(read_record, trials), spec.records)
    names = [record.parent.name for record in trials]
    head = {"schema": 1, "study": "lr_sweep", "spec": spec.model_dump(mode="json")}
    write_json(output, head | diagnose_study(trials[0].parents[2], names))


if __name__ == "__main__":
    diagnose.main()
