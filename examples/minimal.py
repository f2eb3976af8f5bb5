"""The whole idea in one file, with NumPy alone: layers, one through time, a loss, Adam, the loop, and a check of every gradient.

python examples/minimal.py

Every backward returns exactly the gradient of its own forward. The library is this, with its names and its order of operations:
a test trains both and compares every number.
"""

import numpy as np


def glorot(n_in, n_out, rng):
    """Draw weights that keep signals as large as they come (Glorot and Bengio, 2010)."""
    limit = np.sqrt(6 / (n_in + n_out))
    return rng.uniform(-limit, limit, (n_in, n_out))


class Dense:
    """y = x W + b."""

    def __init__(self, n_in, n_out, rng):
        self.params = {"W": glorot(n_in, n_out, rng), "b": np.zeros(n_out)}

    def forward(self, x):
        return x @ self.params["W"] + self.params["b"], x

    def backward(self, dy, x):
        return dy @ self.params["W"].T, {"W": x.T @ dy, "b": dy.sum(axis=0)}


class RNN:
    """h_t = tanh(x_t W + b + h_(t-1) U) for the events t = 1 .. T of x, shape (n, T, n_in), from h_0 = 0; y = h_T."""

    def __init__(self, n_in, n_out, rng):
        self.params = {"W": glorot(n_in, n_out, rng), "U": glorot(n_out, n_out, rng), "b": np.zeros(n_out)}

    def forward(self, x):
        W, U, b = self.params["W"], self.params["U"], self.params["b"]
        h = [np.zeros((len(x), len(b)))]
        for t in range(x.shape[1]):
            h.append(np.tanh(x[:, t] @ W + b + h[-1] @ U))
        return h[-1], (x, h)

    def backward(self, dy, cache):
        (x, h), W, U = cache, self.params["W"], self.params["U"]
        dx, dh, grads = np.zeros(x.shape), dy, {name: np.zeros(p.shape) for name, p in self.params.items()}
        for t in reversed(range(x.shape[1])):  # from the last event to the first
            da = dh * (1 - h[t + 1] ** 2)
            grads["W"] += x[:, t].T @ da  # W, U and b are used at every step: sums
            grads["U"] += h[t].T @ da
            grads["b"] += da.sum(axis=0)
            dx[:, t], dh = da @ W.T, da @ U.T
        return dx, grads


class Tanh:
    """y = tanh(x)."""

    params = {}

    def forward(self, x):
        y = np.tanh(x)
        return y, y

    def backward(self, dy, y):
        return dy * (1 - y * y), {}


class SoftmaxCrossEntropy:
    """L = mean over rows of -log p of the label, with p = exp(z) / sum exp(z), of logits z."""

    def forward(self, z, labels):
        z = z - z.real.max(axis=1, keepdims=True)  # changes nothing, and nothing overflows
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        t = np.eye(z.shape[1])[labels]
        return -(t * log_p).sum() / len(z), (np.exp(log_p), t)

    def backward(self, cache):
        p, t = cache
        return (p - t) / len(p)


class Adam:
    """Each parameter's step is scaled by the size of its past gradients."""

    def __init__(self, learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8):
        self.learning_rate, self.beta1, self.beta2, self.epsilon = learning_rate, beta1, beta2, epsilon
        self.t, self.moments = 0, {}

    def step(self, layers, grads):
        self.t += 1
        for i, layer in enumerate(layers):
            for name, w in layer.params.items():
                dw = grads[i][name]
                m, v = self.moments.setdefault((i, name), (np.zeros_like(w), np.zeros_like(w)))
                m[:] = self.beta1 * m + (1 - self.beta1) * dw
                v[:] = self.beta2 * v + (1 - self.beta2) * dw**2
                m_hat, v_hat = m / (1 - self.beta1**self.t), v / (1 - self.beta2**self.t)
                w -= self.learning_rate * m_hat / (np.sqrt(v_hat) + self.epsilon)


def predict(layers, x):
    """Send x through the layers; return y and what each layer kept."""
    caches = []
    for layer in layers:
        x, cache = layer.forward(x)
        caches.append(cache)
    return x, caches


def objective(layers, loss, x, labels):
    """Return the loss, and the gradients of each layer's parameters: the chain rule, from the last layer to the first."""
    y, caches = predict(layers, x)
    value, cache = loss.forward(y, labels)
    dy, grads = loss.backward(cache), [{} for _ in layers]
    for i in reversed(range(len(layers))):
        dy, grads[i] = layers[i].backward(dy, caches[i])
    return value, grads


def fit(layers, loss, optimizer, x, labels, n_epochs, batch_size, rng):
    """Shuffle, cut into mini-batches, step; again. Return the mean loss of each epoch."""
    losses = []
    for _ in range(n_epochs):
        order, total = rng.permutation(len(x)), 0.0
        for start in range(0, len(x), batch_size):
            rows = order[start : start + batch_size]
            value, grads = objective(layers, loss, x[rows], labels[rows])
            optimizer.step(layers, grads)
            total += value * len(rows)
        losses.append(total / len(x))
    return losses


def largest_error(layers, loss, x, labels):
    """Compare every gradient with a complex step: Im L(w + ih) / h, which nothing rounds. Return the largest difference."""
    _, grads = objective(layers, loss, x, labels)
    errors = []
    for layer, own in zip(layers, grads, strict=True):
        for name, w in layer.params.items():
            for index in np.ndindex(w.shape):
                moved = w.astype(complex)
                moved[index] += 1e-30j
                layer.params[name] = moved
                value, _ = loss.forward(predict(layers, x)[0], labels)
                errors.append(abs(value.imag / 1e-30 - own[name][index]))
            layer.params[name] = w
    return max(errors)


def walks(n, rng):
    """Return sequences of eight numbers, and whether the first is positive: what is to be remembered to the end."""
    x = rng.normal(size=(n, 8, 1))
    return x, (x[:, 0, 0] > 0).astype(int)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    x, labels = walks(400, rng)
    layers, loss = [RNN(1, 8, rng), Dense(8, 8, rng), Tanh(), Dense(8, 2, rng)], SoftmaxCrossEntropy()
    print(f"every gradient is right to {largest_error(layers, loss, x[:20], labels[:20]):.0e}")
    losses = fit(layers, loss, Adam(0.01), x, labels, n_epochs=100, batch_size=32, rng=rng)
    right = (predict(layers, x)[0].argmax(axis=1) == labels).mean()
    print(
        f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} after {len(losses)} epochs; {right:.1%} of the sequences are right"
    )
