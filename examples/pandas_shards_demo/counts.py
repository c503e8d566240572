"""Bicycles counted at four places, every half hour: CSV files as somebody's logger writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["write_counts"]

_STATIONS = {"Bridge": 90.0, "Harbour": 55.0, "Market": 140.0, "Park": 35.0}


def write_counts(folder: str, days: int, seed: int = 0) -> str:
    """Write one file a month, with the flaws of real ones: lines twice, gaps, broken sensors.

    Args:
        folder: Where to write.
        days: How many, from the first of July.
        seed: Of chance.

    Returns:
        The folder.
    """
    draw = np.random.default_rng(seed)
    times = pd.date_range("2024-07-01", periods=48 * days, freq="30min")
    weather = _weather(times, draw)
    rows = pd.concat([_station(name, weather, draw) for name in _STATIONS])
    rows = rows.sort_values(["time", "station"], ignore_index=True)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for old in Path(folder).glob("*.csv"):
        old.unlink()
    for month, part in rows.groupby(rows["time"].dt.strftime("%Y-%m")):
        _flawed(part, draw).to_csv(Path(folder, f"{month}.csv"), index=False)
    return folder


def _weather(times: pd.DatetimeIndex, draw: np.random.Generator) -> pd.DataFrame:
    day = np.asarray(times.dayofyear, float)
    hour = np.asarray(times.hour + times.minute / 60, float)
    daily = np.repeat(draw.normal(0, 3, len(times) // 48 + 1), 48)[: len(times)]
    warmth = 11 - 10 * np.cos(2 * np.pi * (day - 20) / 365) - 4 * np.cos(2 * np.pi * hour / 24)
    wet = np.repeat(draw.random(len(times) // 6 + 1) < 0.14, 6)[: len(times)]
    rain = np.where(wet, draw.gamma(1.5, 0.8, len(times)), 0.0)
    return pd.DataFrame(
        {"time": times, "temperature": (warmth + daily).round(1), "rain": rain.round(1)}
    )


def _station(name: str, weather: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    hour = weather["time"].dt.hour + weather["time"].dt.minute / 60
    free = weather["time"].dt.dayofweek >= 5
    work = _hump(hour, 8, 1.1) + 0.9 * _hump(hour, 17.5, 1.6) + 0.25 * _hump(hour, 13, 3)
    leisure = 0.75 * _hump(hour, 14.5, 3.2)
    share = np.where(free, leisure * (1.6 if name == "Park" else 1.0), work)
    pleasant = np.clip(0.35 + weather["temperature"] / 28, 0.15, 1.3)
    dry = np.where(weather["rain"] > 0, 0.5, 1.0)
    expected = _STATIONS[name] * (0.02 + share) * pleasant * dry
    rides = draw.poisson(expected)
    return weather.assign(station=name, rides=rides)[
        ["time", "station", "rides", "temperature", "rain"]
    ]


def _hump(hour: pd.Series, middle: float, width: float) -> pd.Series:
    return np.exp(-(((hour - middle) / width) ** 2) / 2)


def _flawed(rows: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    rows = rows.copy()
    rows.loc[draw.random(len(rows)) < 0.005, "rides"] = -1
    rows.loc[draw.random(len(rows)) < 0.01, "temperature"] = np.nan
    twice = rows[draw.random(len(rows)) < 0.003]
    return pd.concat([rows, twice]).sort_index(kind="stable")
