# The report: findings, figures and tables of all studies on one page.
# Needs: every study; `plumbline report` writes the same from the results that are there.
# Makes: results/REPORT.md, results/report.html.
import shlex

from plumbline.core.present.report.chapters import given_options

TEXTS = Path(os.path.relpath(PACKAGES / "report"))

# Asked for by the report's job alone: following its code takes half a second.
report_spec = cache(lambda: configuration.report_spec(PLAN))


localrules:
    report,


rule report:
    """Findings of all studies as text, and a page with their figures and tables that needs nothing beside it."""
    input:
        chapters=lambda wildcards: [
            str(RESULTS / path)
            for chapter in report_spec().chapters
            for path in (chapter.findings, chapter.records, *chapter.figures, *chapter.tables)
        ],
        texts=sorted(TEXTS.iterdir()),
    output:
        page="<results>/report.html",
        text="<results>/REPORT.md",
    log:
        "<results>/logs/report/all.log",
    conda:
        ENVIRONMENT
    resources:
        options=given_options(workflow.config_settings.configfiles, workflow.config_settings.config_args),
    params:
        spec=lambda wildcards: canonical(report_spec().to_json()),
    shell:
        command(
            "core.present.report.write",
            f"--results {shlex.quote(str(RESULTS))} --texts {shlex.quote(str(TEXTS))}"
            " --options={resources.options:q} --output {output.page:q}",
        )
