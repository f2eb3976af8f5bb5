"""Which metadata an estimator asks for, where scikit-learn's routing is switched on: ``sample_weight``, and ``classes``."""

from __future__ import annotations

from typing import Any, ClassVar, Self

UNCHANGED = "$UNCHANGED$"  # scikit-learn's word for an argument that was not given


class Routed:
    """``set_fit_request`` and the like, as scikit-learn has them; what was asked for is kept by ``clone``."""

    _routes: ClassVar[dict[str, tuple[str, ...]]] = {
        "fit": ("sample_weight",),
        "partial_fit": ("sample_weight",),
        "score": ("sample_weight",),
    }
    _metadata_request: Any

    def get_metadata_routing(self) -> Any:
        """Return a ``sklearn.utils.metadata_routing.MetadataRequest``."""
        from sklearn.utils.metadata_routing import MetadataRequest, get_routing_for_object

        if hasattr(self, "_metadata_request"):
            return get_routing_for_object(self._metadata_request)
        requests = MetadataRequest(owner=self)
        for method, names in self._routes.items():
            for name in names:
                getattr(requests, method).add_request(param=name, alias=None)
        return requests

    def set_fit_request(self, *, sample_weight: Any = UNCHANGED) -> Self:
        """Say whether ``fit`` is to be given ``sample_weight``: True, False, None (an error if it is given) or another name."""
        return self._request("fit", sample_weight=sample_weight)

    def set_partial_fit_request(self, *, sample_weight: Any = UNCHANGED, **more: Any) -> Self:
        """Say the same of ``partial_fit``; of a classifier also for ``classes``."""
        return self._request("partial_fit", sample_weight=sample_weight, **more)

    def set_score_request(self, *, sample_weight: Any = UNCHANGED) -> Self:
        """Say the same of ``score``."""
        return self._request("score", sample_weight=sample_weight)

    def _request(self, method: str, **asked: Any) -> Self:
        import sklearn

        if not sklearn.get_config()["enable_metadata_routing"]:
            raise RuntimeError(
                "This method is only available when metadata routing is enabled. You can enable it using "
                "sklearn.set_config(enable_metadata_routing=True)."
            )
        if unknown := asked.keys() - set(self._routes[method]):
            raise TypeError(f"Unexpected args: {unknown} in {method}. Accepted arguments are: {self._routes[method]}")
        requests = self.get_metadata_routing()
        for name, alias in asked.items():
            if alias != UNCHANGED:
                getattr(requests, method).add_request(param=name, alias=alias)
        self._metadata_request = requests
        return self
