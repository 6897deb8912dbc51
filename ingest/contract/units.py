"""Units of measurement and their conversion. Pure.

Symbols are those of UCUM (https://ucum.org), in its case-sensitive form.
"""

from __future__ import annotations

from typing import NamedTuple


class _Unit(NamedTuple):
    """A unit: ``value × scale + offset`` is the value in the base unit of its quantity."""

    quantity: str
    scale: float
    offset: float = 0.0


class Conversion(NamedTuple):
    """A linear conversion: a value in the new unit is ``value × scale + offset``."""

    scale: float
    offset: float


_FACTORS: dict[str, dict[str, tuple[float, ...]]] = {
    "temperature": {"K": (1.0,), "Cel": (1.0, 273.15), "[degF]": (5 / 9, 459.67 * 5 / 9)},
    "pressure": {
        "Pa": (1.0,),
        "hPa": (100.0,),
        "kPa": (1e3,),
        "MPa": (1e6,),
        "mbar": (100.0,),
        "bar": (1e5,),
        "[psi]": (6894.757293168,),
    },
    "length": {
        "um": (1e-6,),
        "mm": (1e-3,),
        "cm": (1e-2,),
        "m": (1.0,),
        "km": (1e3,),
        "[in_i]": (0.0254,),
        "[ft_i]": (0.3048,),
    },
    "speed": {
        "m/s": (1.0,),
        "mm/s": (1e-3,),
        "km/h": (1 / 3.6,),
        "[mi_i]/h": (0.44704,),
        "[kn_i]": (1852 / 3600,),
    },
    "acceleration": {"m/s2": (1.0,), "[g]": (9.80665,)},
    "mass": {"g": (1e-3,), "kg": (1.0,), "t": (1e3,), "[lb_av]": (0.45359237,)},
    "flow": {"m3/s": (1.0,), "m3/h": (1 / 3600,), "L/s": (1e-3,), "L/min": (1e-3 / 60,)},
    "volume": {"mL": (1e-6,), "L": (1e-3,), "m3": (1.0,)},
    "power": {"mW": (1e-3,), "W": (1.0,), "kW": (1e3,), "MW": (1e6,)},
    "energy": {"J": (1.0,), "kJ": (1e3,), "W.h": (3.6e3,), "kW.h": (3.6e6,)},
    "current": {"mA": (1e-3,), "A": (1.0,)},
    "voltage": {"mV": (1e-3,), "V": (1.0,), "kV": (1e3,)},
    "frequency": {"Hz": (1.0,), "kHz": (1e3,), "/min": (1 / 60,)},
    "share": {"1": (1.0,), "%": (1e-2,), "[ppth]": (1e-3,), "[ppm]": (1e-6,)},
    "time": {"ms": (1e-3,), "s": (1.0,), "min": (60.0,), "h": (3600.0,)},
    "angle": {"rad": (1.0,), "deg": (0.017453292519943295,)},
}
"""Factors to the base unit, exact by definition except for ``[psi]`` and ``deg``, which are rounded to 13 digits."""
_UNITS = {
    symbol: _Unit(quantity, *factors) for quantity, symbols in _FACTORS.items() for symbol, factors in symbols.items()
}


def conversion(unit: str, to: str) -> Conversion:
    """Return the conversion of values in ``unit`` to the unit ``to``.

    Raise ValueError if a unit is unknown, or if the units measure different quantities.
    """
    source, target = _UNITS.get(unit), _UNITS.get(to)
    if source is None:
        raise ValueError(f"expected a unit that can be converted ({', '.join(_UNITS)}), not unit = {unit!r}")
    if target is None or target.quantity != source.quantity:
        same = ", ".join(
            symbol for symbol, one in _UNITS.items() if one.quantity == source.quantity and symbol != unit
        )
        raise ValueError(f"expected convert_to with a unit of {source.quantity} ({same}), not {to!r}")
    return Conversion(source.scale / target.scale, (source.offset - target.offset) / target.scale)
