"""The linear classifier is scikit-learn's logistic regression on features standardised by the training rows."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plumbline.ablation.classifier.linear import _fitted, fit_linear
from plumbline.ablation.classifier.splits import rotating_splits
from plumbline.ablation.settings import LinearSettings
from plumbline.core.errors import UserError


def data() -> tuple[np.ndarray, np.ndarray]:
    random, labels = np.random.default_rng(0), np.arange(150) % 3
    features = random.normal(size=(3, 6))[labels] + random.normal(size=(150, 6))
    return np.column_stack([features, np.full(150, 2.0)]), labels


def test_runs_are_scikit_learns_on_each_split() -> None:
    features, labels = data()
    splits = rotating_splits(labels, np.arange(150), runs=5, seed=0)
    results = fit_linear(features, labels, splits, 3, LinearSettings(inverse_penalty=0.1), range(5))
    for result, split in zip(results, splits, strict=True):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8, max_iter=5000))
        model.fit(features[split.train], labels[split.train])
        assert (result.predictions[split.test] == model.predict(features[split.test])).all()
        assert result.test is not None
        assert result.test.accuracy == pytest.approx((result.predictions == labels).sum() / len(split.test))
        assert (result.classifier, result.feature_width, result.curves.train_loss) == ("linear", 6, [])


def test_weights_are_scikit_learns_in_float32_too() -> None:
    features, labels = data()
    x = StandardScaler().fit_transform(features)[:, :6].astype(np.float32)
    model = LogisticRegression(C=0.3, tol=1e-8, max_iter=5000).fit(x.astype(np.float64), labels)
    ours = _fitted(x, labels, 3, LinearSettings(inverse_penalty=0.3))
    expected = np.column_stack([model.coef_, model.intercept_])
    np.testing.assert_allclose(ours.x.reshape(3, 7), expected, atol=3e-3)


def test_fit_that_does_not_converge_names_the_setting() -> None:
    features, labels = data()
    splits = rotating_splits(labels, np.arange(150), runs=1, seed=0)
    with pytest.raises(UserError, match=r"ablation\.linear\.max_iterations: 2 are too few"):
        fit_linear(features, labels, splits, 3, LinearSettings(max_iterations=2), [0])
