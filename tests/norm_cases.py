"""The norms that every test of the contract runs over."""

import jax.numpy as jnp
import pytest

from jaxnorms import Dual, Entrywise, Induced, KyFan, Mixed, Schatten, UnitarilyInvariant

inf = float("inf")


def largest_plus_sum(s):
    return jnp.max(s) + jnp.sum(s)


def scaled_frobenius(s):
    return 2 * jnp.sqrt(jnp.sum(jnp.square(s)))


NORMS = {
    "frobenius": Entrywise(2),
    "sum": Entrywise(1),
    "max": Entrywise(inf),
    "entrywise_3": Entrywise(3),
    "entrywise_1.5": Entrywise(1.5),
    "mixed_2_1": Mixed(2, 1),
    "mixed_1_2_rows": Mixed(1, 2, axis=-2),
    "mixed_3_1.5": Mixed(3, 1.5),
    "mixed_3_inf": Mixed(3, inf),
    "spectral": Schatten(inf),
    "nuclear": Schatten(1),
    "schatten_4": Schatten(4),
    "schatten_1.5": Schatten(1.5),
    "ky_fan_2": KyFan(2),
    "ky_fan_2_2": KyFan(2, 2),
    "ky_fan_3_1.5": KyFan(3, 1.5),
    "induced_1": Induced(1, 1),
    "induced_inf": Induced(inf, inf),
    "induced_1_2": Induced(1, 2),
    "dual_ky_fan_2": Dual(KyFan(2)),
    "dual_ky_fan_2_2": Dual(KyFan(2, 2)),
    "dual_ky_fan_3_1.5": Dual(KyFan(3, 1.5)),
    "user_smooth": UnitarilyInvariant(scaled_frobenius),
    "user_kinked": UnitarilyInvariant(largest_plus_sum),
}

# The dual of a function is not known to the package: 2 ||.||_F has this one, and largest_plus_sum
# is left to the other two certificates.
HALF_FROBENIUS = UnitarilyInvariant(lambda s: jnp.sqrt(jnp.sum(jnp.square(s))) / 2)


def dual_of(name: str):
    """The dual norm, or None where it has no closed form here."""
    known = {"user_smooth": HALF_FROBENIUS, "user_kinked": None}
    return known[name] if name in known else Dual(NORMS[name])


SPECTRAL = [n for n in NORMS if n.split("_")[0] in ("spectral", "nuclear", "schatten", "ky", "dual", "user")]


def defined(name: str, shape: tuple[int, int]) -> bool:
    """Ky Fan norms need k <= min(m, n)."""
    try:
        NORMS[name].check(*shape)
    except ValueError:
        return False
    return True


every_norm = pytest.mark.parametrize("name", NORMS)
