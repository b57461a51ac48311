"""Display names of views, layer sets, classifiers, representations and measures in tables, figures and findings."""

from types import MappingProxyType

VIEWS = MappingProxyType({"factor": "Factor view", "product": "Product view"})

LAYERS = MappingProxyType({"all_layers": "All layers", "visual_only": "Visual only", "text_only": "Text only"})

REPRESENTATIONS = MappingProxyType(
    {
        "simple_stats": "Simple statistics",
        "rank_based": "Percentiles",
        "stats": "Moments",
        "spectral": "Singular values",
        "matrix_norms": "Matrix norms",
        "distribution": "Distribution",
        "frequency": "Frequency",
        "info_theoretic": "Histogram entropy",
        "ensemble": "Ensemble",
        "flat": "Flat entries",
        "energies": "Energies",
        "probes": "Random probes",
        "sketch": "Bilinear sketch",
        "tokens": "Tokens (Transformer)",
    }
)

CLASSIFIERS = MappingProxyType({"mlp": "MLP", "linear": "linear", "transformer": "Transformer"})

METRICS = MappingProxyType(
    {"accuracy": "Accuracy", "macro_f1": "Macro F1", "macro_precision": "Precision", "macro_recall": "Recall"}
)


def view_label(name: str) -> str:
    """`factor` -> Factor view."""
    return VIEWS.get(name, _as_words(name))


def classifier_label(name: str) -> str:
    """`mlp` -> MLP."""
    return CLASSIFIERS.get(name, name)


def layers_label(name: str) -> str:
    """`all_layers` -> All layers."""
    return LAYERS.get(name, _as_words(name))


def representation_label(name: str) -> str:
    """`matrix_norms` -> Matrix norms; `my_lab.features:curvature` -> Curvature."""
    return REPRESENTATIONS.get(name, _as_words(name.rpartition(":")[2].rpartition(".")[2]))


def _as_words(name: str) -> str:
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
