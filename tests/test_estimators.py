"""MLPClassifier and MLPRegressor behave as scikit-learn's do, and do what its users asked for in vain."""

from __future__ import annotations

import copy
import json
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnprofile as nn
from nnprofile import MLPClassifier, MLPRegressor, modelfile
from nnprofile.estimators.losses import OneHot
from nnprofile.gradcheck import check_loss

sklearn = pytest.importorskip("sklearn")
scipy_sparse = pytest.importorskip("scipy.sparse")

from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.ensemble import BaggingClassifier  # noqa: E402
from sklearn.exceptions import ConvergenceWarning, NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.neural_network import MLPClassifier as TheirClassifier  # noqa: E402
from sklearn.neural_network import MLPRegressor as TheirRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    return x, np.array(["a", "b", "c"], object)[(x[:, 0] > 0).astype(int) + (x[:, 1] > 0)]


with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # they do not inherit from BaseEstimator, on purpose
    scikit_learns_checks = parametrize_with_checks(
        [MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)]
    )  # all must pass


@pytest.mark.filterwarnings("ignore")
@scikit_learns_checks
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
def test_scikit_learns_own_tests() -> None:
    command = [sys.executable, str(ROOT / "tests" / "run_scikit_learns_tests.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ passed, 2 deselected", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("target", ["numbers", "two", "three", "labels"])
def test_lbfgs_finds_what_scikit_learns_finds(activation: str, target: str, data: Any) -> None:
    """The same random_state gives the same first weights; the rest is the same mathematics.

    Not for several numbers: there its gradient is not that of the value that it reports, and L-BFGS believes both.
    """
    x, y = data
    y = {
        "numbers": x[:, 0] * x[:, 1],
        "two": y == "a",
        "three": y,
        "labels": (x[:, :3] > 0.3).astype(int),
    }[target]
    ours, theirs = (MLPRegressor, TheirRegressor) if target == "numbers" else (MLPClassifier, TheirClassifier)
    settings = {
        "hidden_layer_sizes": (6, 5),
        "activation": activation,
        "solver": "lbfgs",
        "max_iter": 8,
        "random_state": 3,
        "alpha": 0.1,
    }
    one, two = ours(**settings).fit(x, y), theirs(**settings).fit(x, y)
    for a, b in zip([*one.coefs_, *one.intercepts_], [*two.coefs_, *two.intercepts_], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert one.loss_ == pytest.approx(two.loss_, rel=1e-7)
    assert one.get_params().keys() >= two.get_params().keys()
    assert one.n_iter_ == two.n_iter_ and one.out_activation_ == two.out_activation_ and one.n_layers_ == two.n_layers_


def test_metadata_routing(data: Any, tmp_path: Path) -> None:
    x, y = data
    with pytest.raises(RuntimeError, match="only available when metadata routing is enabled"):
        MLPClassifier().set_fit_request(sample_weight=True)
    weight = np.where(y == "a", 1.0, 0.0) + 1e-3
    with sklearn.config_context(enable_metadata_routing=True):
        model = MLPClassifier(4, solver="lbfgs", max_iter=5, random_state=0)
        weighted = sklearn.clone(model.set_fit_request(sample_weight=True).set_score_request(sample_weight=True))
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipe = make_pipeline(scaler, weighted).fit(x, y, sample_weight=weight)
        expected = MLPClassifier(4, solver="lbfgs", max_iter=5, random_state=0)
        expected.fit(StandardScaler().fit_transform(x), y, sample_weight=weight)
        np.testing.assert_array_equal(pipe[-1].coefs_[0], expected.coefs_[0])
        share = pipe.score(x, y, sample_weight=weight)
        assert share == expected.score(StandardScaler().fit_transform(x), y, sample_weight=weight)
        grid = GridSearchCV(weighted, {"alpha": [0.1]}, cv=2).fit(x, y, sample_weight=weight)
        assert grid.best_estimator_.get_metadata_routing().fit.requests == {"sample_weight": True}
        with pytest.raises(ValueError, match="not explicitly set as requested or not requested"):
            make_pipeline(scaler, MLPClassifier()).fit(x, y, sample_weight=weight)
        with pytest.raises(TypeError, match="Unexpected args: {'classes'}"):
            MLPRegressor().set_partial_fit_request(classes=True)
        assert (
            "classes"
            in MLPClassifier().set_partial_fit_request(classes=True).get_metadata_routing().partial_fit.requests
        )
    pipe[-1].save(tmp_path / "m")
    assert MLPClassifier.load(tmp_path / "m").predict(x[:3]).shape == (3,)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_lbfgs_is_the_same_by_the_engine_and_in_pieces(kind: str, dtype: Any) -> None:
    """More rows than NumPy takes at a time, with weights, of which some pieces have none."""
    x = np.random.default_rng(0).normal(size=(2500, 4)).astype(dtype)
    y = {"classes": x[:, :3].argmax(axis=1), "labels": (x[:, :2] > 0).astype(int), "numbers": x[:, :2] ** 2}[kind]
    weight = np.abs(x[:, 0]).astype(float)
    weight[1024:2048] = 0
    cls = MLPRegressor if kind == "numbers" else MLPClassifier
    fitted = [
        cls(hidden_layer_sizes=(5,), solver="lbfgs", max_iter=5, alpha=0.1, random_state=0, engine=engine).fit(
            x_form, y, weight
        )
        for engine, x_form in (("numpy", x), ("numba", x), ("numpy", scipy_sparse.csr_array(x)))
    ]
    tolerance = 1e-9 if dtype == np.float64 else 1e-3
    for other in fitted[1:]:
        for a, b in zip(fitted[0].coefs_, other.coefs_, strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    with pytest.raises(ValueError, match="engine='numba' is not possible: the engine differentiates for plain arrays"):
        cls(solver="lbfgs", engine="numba").fit(scipy_sparse.csr_array(x), y)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_one_batch_an_epoch_is_the_same_as_scikit_learns(solver: str, data: Any) -> None:
    """Without shuffling and with one batch, every epoch is determined. (Adam's epsilon stands elsewhere there.)"""
    x, y = data
    settings = {"hidden_layer_sizes": (6,), "activation": "tanh", "solver": solver, "batch_size": 300, "shuffle": False}
    settings |= {"max_iter": 12, "random_state": 3, "learning_rate_init": 0.05, "alpha": 0.5, "epsilon": 1e-30}
    one, two = MLPClassifier(**settings).fit(x, y), TheirClassifier(**settings).fit(x, y)
    for a, b in zip(one.coefs_, two.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one.loss_curve_, two.loss_curve_, rtol=1e-9)


def test_what_users_compose_works(data: Any) -> None:
    pd = pytest.importorskip("pandas")
    x, y = data
    model = MLPClassifier(8, max_iter=60, learning_rate_init=0.02, random_state=0)
    pipeline = make_pipeline(StandardScaler(), model).set_output(transform="pandas")
    frame = pd.DataFrame(x, columns=list("pqrs"))
    assert pipeline.fit(frame, y).score(frame, y) > 0.8
    assert pipeline[-1].feature_names_in_.tolist() == [f"{name}" for name in "pqrs"]
    assert cross_val_score(pipeline, x, y, cv=3).mean() > 0.7
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [1e-4, 10.0]}, cv=2).fit(x, y)
    assert search.best_params_ == {"mlpclassifier__alpha": 1e-4}
    assert CalibratedClassifierCV(model, cv=2).fit(x, y).predict_proba(x).shape == (300, 3)
    assert BaggingClassifier(model, n_estimators=3, random_state=0).fit(x, y).score(x, y) > 0.7
    assert "MLPClassifier" in model._repr_mimebundle_()["text/html"] and "MLPClassifier" in model._repr_html_()
    assert repr(MLPRegressor(hidden_layer_sizes=3, alpha=0.1)) == "MLPRegressor(alpha=0.1, hidden_layer_sizes=3)"


@pytest.mark.parametrize("way", ["file", "pickle", "deepcopy", "joblib"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_partial_fit_goes_on_bit_for_bit(way: str, dtype: Any, data: Any, tmp_path: Path) -> None:
    import joblib

    x, y = data[0].astype(dtype), data[1]
    model = MLPClassifier(8, max_iter=3, random_state=0, dropout=0.2, early_stopping=False).fit(x, y)
    path = tmp_path / "model"
    if way == "file":
        model.save(path)
        other = MLPClassifier.load(path)
    elif way == "joblib":
        joblib.dump(model, path)
        other = joblib.load(path)
    else:
        other = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
    assert other.get_params() == model.get_params() and other.loss_curve_ == model.loss_curve_
    np.testing.assert_array_equal(other.predict_proba(x), model.predict_proba(x))
    np.testing.assert_array_equal(other.classes_, model.classes_)
    before = other.coefs_[0].copy()
    for _ in range(3):
        model.partial_fit(x, y)
        other.partial_fit(x, y)
    assert not np.array_equal(other.coefs_[0], before)
    np.testing.assert_array_equal(other.predict_proba(x), model.predict_proba(x))
    assert other.loss_curve_ == model.loss_curve_ and len(model.loss_curve_) == 6


@pytest.mark.parametrize("labels", [[0, 1], [True, False], ["no", "yes"], [1.0, 2.5 - 0.5], [-3, 7]])
def test_files_keep_labels_of_any_kind(labels: list[Any], tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    y = np.array(labels)[(x[:, 0] > 0).astype(int)]
    model = MLPClassifier(
        4, solver="lbfgs", max_iter=20, random_state=0, class_weight={labels[0]: 2.0, labels[1]: 1.0}
    ).fit(x, y)
    model.save(tmp_path / "m")
    other = MLPClassifier.load(tmp_path / "m")
    assert other.predict(x).tolist() == model.predict(x).tolist() and other.classes_.dtype == model.classes_.dtype
    assert other.class_weight == model.class_weight


def test_files_that_are_no_estimators(data: Any, tmp_path: Path) -> None:
    x, y = data
    model = MLPClassifier(4, max_iter=2, random_state=0).fit(x, y)
    path = tmp_path / "m"
    model.save(path)
    assert nn.load(path).net.predict(x).shape == (300, 3)  # it is a model file like any other
    with pytest.raises(nn.ModelFileError, match="holds MLPClassifier, not MLPRegressor"):
        MLPRegressor.load(path)
    nn.save(model.network_, tmp_path / "net")
    with pytest.raises(nn.ModelFileError, match="holds no estimator"):
        MLPClassifier.load(tmp_path / "net")
    saved, about, _ = modelfile.load_with(path)
    for change in (
        {"params": {**about["params"], "os": "system"}},
        {"params": {**about["params"], "alpha": -1}},
        {"state": {**about["state"], "predict": 3}},
        {"state": {**about["state"], "_net": 3}},
        {"state": {**about["state"], "n_outputs_": 9}},
        {"state": {**about["state"], "classes_": {"array": [1], "dtype": "V8"}}},
        {"state": {**about["state"], "loss_": {"call": "x"}}},
        {"class": "object"},
        {"params": 3},
    ):
        modelfile.save_with(about | change, saved.net, path, optimizer=saved.optimizer, rng=saved.rng)
        with pytest.raises(nn.ModelFileError):
            MLPClassifier.load(path)
    with pytest.raises(ValueError, match=r"loss=.* cannot be saved"):
        MLPClassifier(4, loss=nn.SoftmaxCrossEntropy(), max_iter=1).fit(x, y).save(path)
    with pytest.raises(NotFittedError):
        MLPClassifier().save(path)


def test_warm_start_keeps_the_moments(data: Any) -> None:
    x, y = data
    warm = MLPClassifier(6, max_iter=4, random_state=0, warm_start=True, shuffle=False).fit(x, y).fit(x, y)
    whole = MLPClassifier(6, max_iter=8, random_state=0, shuffle=False).fit(x, y)
    np.testing.assert_array_equal(warm.coefs_[0], whole.coefs_[0])
    assert warm.n_iter_ == 4 and warm.loss_curve_ == whole.loss_curve_


@pytest.mark.parametrize("way", ["warm_start", "partial_fit", "file"])
def test_training_goes_on_with_changed_arguments(way: str, data: Any, tmp_path: Path) -> None:
    """What set_params changes of the optimizer counts, and its moments stay; the network is not another without a word."""
    x, y = data
    model = MLPClassifier(4, max_iter=3, warm_start=True, random_state=0).fit(x, y)

    def go_on() -> Any:
        return model.partial_fit(x, y) if way == "partial_fit" else model.fit(x, y)

    before = model.coefs_[0].copy()
    model.set_params(learning_rate_init=0.25)
    if way == "file":
        model.save(tmp_path / "m")
        model = MLPClassifier.load(tmp_path / "m")
    n_steps = model._optimizer.n_steps
    moments = model._optimizer.state["m"].copy()
    model._follow()
    np.testing.assert_array_equal(model._optimizer.state["m"], moments)
    go_on()
    assert model._optimizer.learning_rate == 0.25 and model._optimizer.n_steps > n_steps > 0
    assert np.abs(model.coefs_[0] - before).max() > 0.2
    for change, said in (
        ({"hidden_layer_sizes": (9,)}, r"hidden_layer_sizes=\[4\]"),
        ({"activation": "tanh"}, "activation=relu"),
        ({"dropout": 0.5}, "dropout=0.0"),
        ({"loss": nn.MeanSquaredError()}, "loss='log_loss'"),
    ):
        kept = model.get_params()
        model.set_params(**change)
        with pytest.raises(ValueError, match=f"goes on with the network as it is, made with {said}"):
            go_on()
        model.set_params(**kept)
    model.set_params(solver="sgd", momentum=0.5)
    go_on()
    assert isinstance(model._optimizer, nn.SGD) and model._optimizer.momentum == 0.5
    model.set_params(learning_rate="adaptive")
    model._follow()
    model._optimizer.learning_rate = 1e-3  # as if it had been lowered
    model.set_params(momentum=0.0)
    go_on()
    assert model._optimizer.learning_rate <= (1e-3 if way == "partial_fit" else 0.25)  # fit begins the schedule anew


def test_a_refused_call_leaves_the_model_as_it_was(data: Any, tmp_path: Path) -> None:
    x, y = data
    model = MLPClassifier(4, max_iter=2, random_state=0).fit(x, y)
    before = model.predict_proba(x)
    for call in (
        lambda: model.fit(x[:, :2], y[:-1]),
        lambda: model.fit(x, y, sample_weight=0),
        lambda: model.fit(x, y, validation_data=(x, y[:3])),
        lambda: model.partial_fit(x, np.arange(len(y)).astype(str), sample_weight=np.zeros(len(y))),
        lambda: model.partial_fit(x, np.arange(len(y))),
        lambda: model.score(x, y[:-1]),
        lambda: model.score(x, np.arange(len(y))),
    ):
        with pytest.raises(ValueError, match=r"weight|samples|labels such as"):
            call()
        np.testing.assert_array_equal(model.predict_proba(x), before)
    fresh = MLPClassifier(4, max_iter=2, random_state=0)
    with pytest.raises(ValueError, match="NaN"):
        fresh.partial_fit(np.full((3, 2), np.nan), ["a", "b", "a"], classes=["a", "b", "c"])
    assert fresh.fit(x, y == "a").classes_.tolist() == [False, True]  # nothing of the refused call is left
    many = MLPClassifier(4, random_state=0).partial_fit(x, (x > 0).astype(int), classes=[0, 1, 2, 3])
    many.save(tmp_path / "m")
    np.testing.assert_array_equal(MLPClassifier.load(tmp_path / "m").predict(x), many.predict(x))
    assert many.fit(x, y == "a").n_outputs_ == 1
    regressor = MLPRegressor(hidden_layer_sizes=4, max_iter=2).fit(x, x[:, :2])
    for wrong in (x[:, :2].T, np.full((len(x), 2), np.nan)):
        with pytest.raises(ValueError, match=r"inconsistent|NaN"):
            regressor.score(x, wrong)


def test_early_stopping_when_training_goes_on(data: Any) -> None:
    """What there is may be the best; and it may be switched on or off."""
    x, y = data
    held = x[:100], y[:100]
    model = MLPClassifier(8, early_stopping=True, warm_start=True, max_iter=30, learning_rate_init=0.01, random_state=0)
    model.fit(x, y, validation_data=held)
    best = model.best_validation_score_
    assert model.score(*held) == best
    model.set_params(max_iter=2, learning_rate_init=0.5).fit(x, np.roll(y, 7), validation_data=held)
    assert model.best_validation_score_ == model.score(*held) == best
    assert model.set_params(early_stopping=False).partial_fit(x, y).best_loss_ < np.inf
    off = MLPClassifier(8, warm_start=True, max_iter=2, random_state=0).fit(x, y)
    assert len(off.set_params(early_stopping=True, scoring="loss").fit(x, y).validation_scores_) == 2


def test_a_rate_that_was_lowered_begins_anew_in_fit(data: Any) -> None:
    x, y = data
    settings = {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.5, "tol": 1e-2}
    model = MLPClassifier(8, warm_start=True, max_iter=500, n_iter_no_change=1, random_state=0, **settings).fit(x, y)
    assert model._optimizer.learning_rate < 1e-5
    before = model.coefs_[0].copy()
    assert np.abs(model.set_params(max_iter=1).fit(x, y).coefs_[0] - before).max() > 1e-3


def test_what_a_file_cannot_hold_is_said_when_it_is_saved(data: Any, tmp_path: Path) -> None:
    x, y = data
    model = MLPRegressor(hidden_layer_sizes=np.array([4, 3]), max_iter=2, random_state=0).fit(x, x[:, 0] ** 2)
    model.save(tmp_path / "m")
    assert MLPRegressor.load(tmp_path / "m").hidden_layer_sizes == (4, 3)
    for change, says in (
        ({"loss": "poisson"}, "made with loss='squared_error'"),
        ({"alpha": -1}, "alpha must be"),
        ({"early_stopping": "x"}, "early_stopping must be True or False"),
    ):
        kept = model.get_params()
        model.set_params(**change)
        with pytest.raises(ValueError, match=says):
            model.save(tmp_path / "n")
        model.set_params(**kept)
    model.note = "mine"
    with pytest.raises(ValueError, match=r"attributes \['note'\] cannot be saved"):
        model.save(tmp_path / "n")
    dated = MLPClassifier(4, max_iter=2).fit(
        x, np.where(y == "a", np.datetime64("2026-01-01"), np.datetime64("2026-01-02"))
    )
    with pytest.raises(ValueError, match="cannot be saved"):
        dated.save(tmp_path / "n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_a_curve_longer_than_a_header(data: Any, tmp_path: Path) -> None:
    x, y = data
    model = MLPClassifier(4, max_iter=3, random_state=0).fit(x, y, validation_data=(x, y))
    model.loss_curve_ = [0.1 / (k + 1) for k in range(100_000)]
    model.save(tmp_path / "m")
    other = MLPClassifier.load(tmp_path / "m")
    assert other.loss_curve_ == model.loss_curve_ and other.validation_loss_curve_ == model.validation_loss_curve_


def test_scorers_are_given_weights_and_no_warning(data: Any) -> None:
    x, y = data
    pd = pytest.importorskip("pandas")
    frame, weight = pd.DataFrame(x, columns=list("pqrs")), np.where(y == "a", 100.0, 0.01)
    settings = {"hidden_layer_sizes": 4, "early_stopping": True, "max_iter": 4, "random_state": 0}
    default = MLPClassifier(**settings).fit(frame, y, sample_weight=weight).validation_scores_
    named = MLPClassifier(**settings, scoring="accuracy").fit(frame, y, sample_weight=weight).validation_scores_
    np.testing.assert_allclose(default, named)
    with pytest.raises(ValueError, match="have no weight"):
        MLPClassifier(**settings).fit(frame, y, sample_weight=np.arange(len(y)) == 3)
    later = MLPClassifier(4, class_weight={"a": 1.0, "b": 2.0, "z": 3.0}, random_state=0)
    assert later.partial_fit(x[y == "a"], y[y == "a"]).partial_fit(x, y).classes_.tolist() == ["a", "b", "c"]
    nullable = pd.DataFrame((x > 0).astype(int)).astype("Int64")
    assert MLPClassifier(4, max_iter=1).fit(x, nullable).predict(x).shape == x.shape


def test_missing_values_of_pandas_are_named(data: Any) -> None:
    x, y = data
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(x).astype("Float64")
    frame.columns = [f"c{k}" for k in range(x.shape[1])]
    assert MLPClassifier(3, max_iter=1).fit(frame, pd.Series(y).astype("category")).predict(frame).shape == (300,)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        MLPClassifier().fit(frame.mask(frame > 1), y)
    for target in (pd.Series(y).astype("string").mask(y == "a"), pd.Series(y == "a").astype("boolean").mask(y == "b")):
        with pytest.raises(ValueError, match="Input y contains NaN"):
            MLPClassifier().fit(frame, target)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        MLPRegressor().fit(frame, pd.Series(x[:, 0]).astype("Float64").mask(y == "a"))


def test_early_stopping_sees_rare_positives(data: Any) -> None:
    """Accuracy cannot tell models apart at 3 % positives: whatever is asked for is watched, and the best state kept."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 5))
    y = (x[:, 0] + 0.7 * rng.normal(size=2000) > 2.3).astype(int)
    assert 0.02 < y.mean() < 0.06
    settings = {
        "hidden_layer_sizes": 8,
        "max_iter": 40,
        "random_state": 0,
        "early_stopping": True,
        "learning_rate_init": 0.01,
    }
    for scoring in (None, "loss", "roc_auc", lambda model, x, y: -np.mean((model.predict_proba(x)[:, 1] - y) ** 2)):
        model = MLPClassifier(scoring=scoring, **settings).fit(x, y)
        assert model.best_validation_score_ == max(model.validation_scores_)
        assert len(model.validation_loss_curve_) == len(model.validation_scores_) == model.n_iter_
        if scoring == "loss":
            np.testing.assert_allclose(model.validation_scores_, -np.array(model.validation_loss_curve_))
            assert len(set(model.validation_scores_)) > 5
    held = x[:500], y[:500]
    model = MLPClassifier(scoring="loss", **settings).fit(x[500:], y[500:], validation_data=held)
    p = np.clip(model.predict_proba(held[0])[:, 1], 1e-300, 1)
    loss = -np.mean(np.where(held[1] == 1, np.log(p), np.log1p(-p)))
    assert loss == pytest.approx(-model.best_validation_score_)  # the best epoch's parameters, not the last one's


def test_class_weights_are_sample_weights(data: Any) -> None:
    x, y = data
    y = np.where(y == "c", "b", y)
    settings = {"hidden_layer_sizes": 5, "max_iter": 30, "random_state": 0, "solver": "lbfgs"}
    one = MLPClassifier(class_weight={"a": 3.0}, **settings).fit(x, y)
    two = MLPClassifier(**settings).fit(x, y, sample_weight=np.where(y == "a", 3.0, 1.0))
    np.testing.assert_array_equal(one.coefs_[0], two.coefs_[0])
    balanced = MLPClassifier(class_weight="balanced", **settings).fit(x, y)
    factor = {name: 300 / (2 * np.sum(y == name)) for name in ("a", "b")}
    three = MLPClassifier(class_weight=factor, **settings).fit(x, y)
    np.testing.assert_allclose(balanced.coefs_[0], three.coefs_[0])
    for wrong, says in (
        ({"z": 1}, "none of the classes"),
        ({"a": 0, "b": 0, "c": 0}, "leaves no row a weight"),
        ("even", "class_weight must be one of"),
        (3, "must be a mapping"),
    ):
        with pytest.raises(ValueError, match=says):
            MLPClassifier(class_weight=wrong).fit(x, y)


@pytest.mark.parametrize(
    "loss",
    [nn.SoftmaxCrossEntropy(), nn.MeanSquaredError(), nn.HalfSquaredError(), nn.MeanAbsoluteError(), nn.Huber(0.2)],
)
def test_all_losses_classify(loss: nn.Loss, data: Any) -> None:
    x, y = data
    model = MLPClassifier(16, loss=loss, learning_rate_init=0.01, max_iter=300, random_state=1).fit(x, y)
    assert model.score(x, y) > (0.7 if isinstance(loss, nn.MeanAbsoluteError) else 0.95)
    np.testing.assert_allclose(model.predict_proba(x).sum(axis=1), 1)
    two = MLPClassifier(8, loss=nn.BinaryCrossEntropy(), solver="lbfgs", max_iter=200, random_state=1).fit(x, y == "a")
    log = MLPClassifier(8, solver="lbfgs", max_iter=200, random_state=1).fit(x, y == "a")
    assert two.score(x, y == "a") == log.score(x, y == "a") == 1.0


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "poisson", nn.MeanSquaredError()])
def test_all_losses_regress(loss: Any, data: Any) -> None:
    x = data[0]
    y = np.exp(0.5 * x[:, 0]) if loss == "poisson" else x[:, 0] * x[:, 1]
    model = MLPRegressor(loss, (16,), activation="tanh", solver="lbfgs", max_iter=500, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.8
    with pytest.raises(ValueError, match="loss must be"):
        MLPRegressor(loss="nothing").fit(x, y)


@pytest.mark.parametrize("loss", [nn.PoissonLoss(), OneHot(nn.MeanSquaredError())])
def test_the_losses_of_this_module_are_gradients(loss: nn.Loss) -> None:
    rng = np.random.default_rng(0)
    y = rng.poisson(2, (6, 3)).astype(float) if isinstance(loss, nn.PoissonLoss) else rng.integers(0, 3, 6)
    report = check_loss(loss, rng.normal(size=(6, 3)), y)
    assert report.ok, report


def test_classes_that_appear_later(data: Any) -> None:
    x, y = data
    model = MLPClassifier(16, random_state=0, learning_rate_init=0.01)
    for _ in range(40):
        model.partial_fit(x[y != "c"], y[y != "c"])
    before = model.predict_proba(x)
    model.partial_fit(x[:1], y[y == "c"][:1])  # one row of a new class: two outputs become three
    after = model.predict_proba(x)
    assert model.classes_.tolist() == ["a", "b", "c"] and after.shape == (300, 3) and model.out_activation_ == "softmax"
    np.testing.assert_allclose(after[:, :2] / after[:, :2].sum(axis=1, keepdims=True), before, atol=0.15)
    for _ in range(80):
        model.partial_fit(x, y)
    assert model.score(x, y) > 0.9
    model.partial_fit(x[:2], np.array(["0", "z"], object))
    assert model.classes_.tolist() == ["0", "a", "b", "c", "z"] and model.score(x, y) > 0.85
    closed = MLPClassifier(4).partial_fit(x, y, classes=["a", "b", "c"])
    with pytest.raises(ValueError, match="has classes not in"):
        closed.partial_fit(x[:1], ["z"])


@pytest.mark.parametrize("late", ["a", "c"])
def test_a_second_class_that_appears_later_takes_nothing_from_the_first(late: str, data: Any) -> None:
    x = data[0]
    model = MLPClassifier(8, random_state=0, learning_rate_init=0.05)
    for _ in range(50):
        model.partial_fit(x, np.full(300, "b"))
    model.partial_fit(x[:1], [late])  # before "b", or after it
    assert model.classes_.tolist() == sorted(["b", late]) and np.mean(model.predict(x) == "b") > 0.95


def test_validation_rows_and_wrong_weights_do_not_widen_the_network(data: Any) -> None:
    x, y = data
    with pytest.raises(ValueError, match="has classes not in"):
        MLPClassifier(4, max_iter=2).fit(x, y, validation_data=(x[:1], ["z"]))
    model = MLPClassifier(4, max_iter=2).fit(x, y)
    with pytest.raises(ValueError, match="Negative values"):
        model.partial_fit(x[:1], ["z"], sample_weight=[-1.0])
    assert model.classes_.tolist() == ["a", "b", "c"] and model.predict_proba(x).shape == (300, 3)


def test_batches_from_an_iterator(data: Any) -> None:
    x, y = data
    batches = [(x[i : i + 50], y[i : i + 50]) for i in range(0, 300, 50)] * 30
    model = MLPClassifier(16, random_state=0, learning_rate_init=0.01)
    assert model.fit_batches(iter(batches), classes=["a", "b", "c"]).score(x, y) > 0.9
    assert model.t_ == 300 * 30
    with pytest.raises(NotFittedError):
        MLPClassifier().fit_batches([])


def test_multi_label_partial_fit(data: Any) -> None:
    x = data[0]
    y = (x[:, :3] > 0).astype(int)
    model = MLPClassifier(16, random_state=0, learning_rate_init=0.02)
    for _ in range(60):
        model.partial_fit(x, y)
    assert model.score(x, y) > 0.9 and model.predict_proba(x).shape == (300, 3)
    sparse = MLPClassifier(16, random_state=0, learning_rate_init=0.02)
    for _ in range(60):
        sparse.partial_fit(scipy_sparse.csr_array(x), scipy_sparse.csr_array(y))
    np.testing.assert_array_equal(sparse.predict(x), model.predict(x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_inputs_stay_finite(dtype: Any) -> None:
    """In float32 a clip at 1e-15 gives log(0): here the loss is on logits."""
    x = np.array([[1e4, -1e4], [-1e4, 1e4]] * 20, dtype)
    for y in (np.array([0, 1] * 20), np.array([1, 0] * 20)):
        model = MLPClassifier(8, max_iter=30, random_state=0).fit(x, y)
        assert model.coefs_[0].dtype == dtype and np.isfinite(model.loss_curve_).all()
        p = model.predict_proba(x)
        assert p.dtype == dtype and np.isfinite(p).all()


def test_callbacks_progress_and_interrupts(data: Any, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = data
    seen = []
    MLPClassifier(4, max_iter=50, callbacks=[lambda epoch, logs, net: seen.append(logs["loss"]) or epoch == 6]).fit(
        x, y
    )
    assert len(seen) == 7
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MLPClassifier(4, max_iter=2, progress=True, verbose=True).fit(x, y)
    out, err = capsys.readouterr()
    assert "Iteration 2, loss = " in out and err


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"hidden_layer_sizes": 0}, "hidden_layer_sizes must be integers above 0"),
        ({"hidden_layer_sizes": (3, 2.5)}, "hidden_layer_sizes must be integers above 0"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"solver": "newton"}, "solver must be one of"),
        ({"alpha": -1}, "alpha must be a number >= 0"),
        ({"alpha": "big"}, "alpha must be a number >= 0"),
        ({"max_iter": 0}, "max_iter must be an integer >= 1"),
        ({"max_iter": 2.5}, "max_iter must be an integer >= 1"),
        ({"momentum": 1.0}, "momentum must be a number >= 0 and < 1"),
        ({"dropout": 1}, "dropout must be a number >= 0 and < 1"),
        ({"batch_size": 0}, "batch_size must be 'auto' or"),
        ({"solver": "lbfgs", "dropout": 0.5}, "solver='lbfgs' has no mini-batches"),
        ({"loss": "squared"}, "loss must be one of"),
        ({"loss": 3}, "loss must be a name or a Loss"),
        ({"random_state": "x"}, "cannot be used to seed"),
        ({"engine": "cuda"}, "engine must be"),
        ({"callbacks": 3}, "callbacks must be a sequence of functions"),
    ],
)
def test_arguments_are_checked_at_fit(wrong: dict[str, Any], says: str, data: Any) -> None:
    with pytest.raises(ValueError, match=says):
        MLPClassifier(**wrong).fit(*data)


def test_random_states_as_scikit_learn_has_them(data: Any) -> None:
    """None is NumPy's global generator, and a RandomState draws the weights first: the same weights as there."""
    x, y = data
    settings = {"hidden_layer_sizes": 3, "solver": "lbfgs", "max_iter": 1}
    for state in (lambda: None, lambda: np.random.RandomState(5), lambda: 5):
        fitted = []
        for kind in (MLPClassifier, TheirClassifier):
            np.random.seed(5)  # noqa: NPY002
            fitted.append(kind(random_state=state(), **settings).fit(x, y))
        np.testing.assert_allclose(fitted[0].coefs_[0], fitted[1].coefs_[0], rtol=1e-6, atol=1e-9)


def test_an_overflow_of_lbfgs_leaves_finite_weights(data: Any) -> None:
    x, y = data
    model = MLPRegressor(hidden_layer_sizes=4, solver="lbfgs", max_iter=9, random_state=0, warm_start=True).fit(
        x, x[:, 0]
    )
    for wrong in (x * 1e160, x * 1e300):
        with pytest.raises(ValueError, match="non-finite parameter weights"):
            model.fit(wrong, x[:, 0])
        assert np.isfinite(model.network_.params.vector).all() and np.isfinite(model.predict(x)).all()
    with pytest.raises(ValueError, match=r"validation_data must be \(X, y\)"):
        MLPClassifier(4).fit(x, y, validation_data=x)


def test_random_states() -> None:
    x, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 2
    for make in (lambda: 3, lambda: np.random.RandomState(3), lambda: np.random.default_rng(3)):
        one, two = (MLPClassifier(4, max_iter=3, random_state=make()).fit(x, y) for _ in range(2))
        np.testing.assert_array_equal(one.coefs_[0], two.coefs_[0])
    one, two = (MLPClassifier(4, max_iter=3).fit(x, y) for _ in range(2))
    assert not np.array_equal(one.coefs_[0], two.coefs_[0])


def test_where_scikit_learn_is_not_loaded(tmp_path: Path) -> None:
    code = """
import sys, warnings
sys.modules["sklearn"] = None
import numpy as np, nnprofile as nn
from nnprofile.estimators import NotFittedError, ConvergenceWarning
x, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 3
try:
    nn.MLPClassifier().predict(x)
except NotFittedError as error:
    assert isinstance(error, ValueError) and isinstance(error, AttributeError)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = nn.MLPClassifier(4, max_iter=2, random_state=0, early_stopping=True, scoring="loss").fit(x, y)
assert [w.category for w in caught] == [ConvergenceWarning]
assert model.predict(x).shape == (60,) and 0 <= model.score(x, y) <= 1
assert nn.MLPRegressor(hidden_layer_sizes=4, solver="lbfgs", max_iter=500).fit(x, x[:, 0]).score(x, x[:, 0]) > 0.9
print(model)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.dumps(done.stdout.strip()) == json.dumps(
        "MLPClassifier(early_stopping=True, hidden_layer_sizes=4, max_iter=2, random_state=0, scoring='loss')"
    )


def test_convergence_warnings(data: Any) -> None:
    x, y = data
    for model in (MLPClassifier(4, max_iter=2), MLPClassifier(4, max_iter=2, solver="lbfgs")):
        with pytest.warns(ConvergenceWarning):
            model.fit(x, y)


def test_shuffle_of_fit() -> None:
    x, y = np.arange(20.0)[:, None] / 20, np.arange(20) % 2
    vectors = []
    for seed, shuffle in ((1, True), (2, True), (1, False), (2, False)):
        net = nn.Sequential([nn.Dense(1, 3), nn.Tanh(), nn.Dense(3, 1)], rng=np.random.default_rng(0))
        nn.fit(
            net,
            nn.SigmoidCrossEntropy(),
            nn.SGD(0.5),
            x,
            y,
            n_epochs=3,
            batch_size=4,
            rng=np.random.default_rng(seed),
            shuffle=shuffle,
        )
        vectors.append(net.params.vector.copy())
    assert not np.array_equal(vectors[0], vectors[1]) and not np.array_equal(vectors[0], vectors[2])
    np.testing.assert_array_equal(vectors[2], vectors[3])
    with pytest.raises(ValueError, match="shuffle must be True or False"):
        nn.fit(net, nn.SigmoidCrossEntropy(), nn.SGD(0.5), x, y, n_epochs=1, rng=np.random.default_rng(0), shuffle=1)  # type: ignore[arg-type]
