"""Findings: a study's questions, each answered in sentences."""

from collections.abc import Iterable, Mapping


def findings_text(title: str, sections: Mapping[str, Iterable[str]]) -> str:
    """Markdown: `title`, then a heading per question with its sentences as a list; a question without any says so."""
    text = f"# {title}\n"
    for question, sentences in sections.items():
        lines = list(sentences) or ["No trial in this grid answers this question."]
        text += f"\n## {question}\n\n" + "".join(f"- {line}\n" for line in lines)
    return text
