"""The interface of scikit-learn's multi-layer perceptrons, over ``fit``: change one import, and keep the rest.

scikit-learn is not imported here. An estimator is what behaves like one; where scikit-learn itself has to be asked (its tags,
a scorer, its picture of an estimator), the caller has loaded it.
"""

from .checks import ConvergenceWarning as ConvergenceWarning
from .checks import DataConversionWarning as DataConversionWarning
from .checks import NotFittedError as NotFittedError
from .classifier import MLPClassifier as MLPClassifier
from .regressor import MLPRegressor as MLPRegressor
