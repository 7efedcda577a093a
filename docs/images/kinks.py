"""The picture of the page on derivatives: ``python docs/images/kinks.py``."""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxnorms as jn

LINES = {
    "spectral norm of diag(1 + t, 1 - t)": (jn.spectral_norm, lambda t: jnp.stack([1 + t, 1 - t])),
    "nuclear norm of diag(1, t)": (jn.nuclear_norm, lambda t: jnp.stack([jnp.ones_like(t), t])),
}


def main() -> None:
    """Both norms, their derivatives along the lines, and the derivative at the kink."""
    t = jnp.linspace(-0.5, 0.5, 201)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharex=True)
    for axis, (title, (norm, line)) in zip(axes, LINES.items(), strict=True):

        def along(t, norm=norm, line=line):
            return norm(jnp.diag(line(t)))

        value, slope = jax.vmap(jax.value_and_grad(along))(t)
        away = np.abs(t) > 1e-6
        axis.plot(t, value, color="#0072B2", label="norm")
        axis.plot(t, np.where(away, slope, np.nan), color="#D55E00", linestyle="--", label="derivative")
        axis.plot(0, jax.grad(along)(0.0), "o", color="#D55E00", label="derivative at the kink")
        axis.set(title=title, xlabel="t")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130)


if __name__ == "__main__":
    main()
