"""roofs.py: the arithmetic of a rate on a clock that the test drives, and one real measurement."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from groschen import machine, roofs
from groschen.errors import BadRequest


def drive_clock(monkeypatch: pytest.MonkeyPatch, durations: list[float]) -> None:
    def readings() -> Iterator[float]:
        now = 0.0
        for duration in durations:
            yield now
            now += duration
            yield now

    clock = readings()
    monkeypatch.setattr(machine, "seconds", lambda: next(clock))


def test_the_rate_of_reading_is_bytes_over_seconds_in_units_of_1e9(monkeypatch: pytest.MonkeyPatch) -> None:
    drive_clock(monkeypatch, [0.5, 0.25, 1.0])
    roof = roofs.measure_read_roof(repeats=3, buffer_bytes=1 << 20)
    gigabytes = (1 << 20) / 1e9
    assert roof.rates == pytest.approx((gigabytes / 0.5, gigabytes / 0.25, gigabytes))
    assert roof.median == pytest.approx(gigabytes / 0.5)
    assert (roof.lowest, roof.best) == pytest.approx((gigabytes, gigabytes / 0.25))
    assert roof.unit == "GB/s"


def test_a_product_counts_two_operations_for_each_weight_and_row(monkeypatch: pytest.MonkeyPatch) -> None:
    drive_clock(monkeypatch, [0.001])
    weight = torch.ones(32, 64, dtype=torch.bfloat16)
    roof = roofs.measure_product_roof(lambda x: x @ weight.T, rows=4, width_in=64, width_out=32, repeats=1)
    assert roof.median == pytest.approx(2 * 4 * 64 * 32 / 1e9 / 0.001)


def test_the_product_is_given_bf16_rows_of_the_width_that_was_named() -> None:
    seen: list[Tensor] = []

    def product(rows: Tensor) -> Tensor:
        seen.append(rows)
        return rows[:, :8]

    roofs.measure_product_roof(product, rows=3, width_in=16, width_out=8, repeats=2)
    assert {(rows.dtype, tuple(rows.shape)) for rows in seen} == {(torch.bfloat16, (3, 16))}


def test_a_product_of_another_shape_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"shape \(3, 16\), expected \(3, 8\)"):
        roofs.measure_product_roof(lambda rows: rows, rows=3, width_in=16, width_out=8)


def test_no_repeats_are_refused() -> None:
    with pytest.raises(BadRequest, match="1 repeat or more"):
        roofs.measure_read_roof(repeats=0, buffer_bytes=1 << 20)


@pytest.mark.parametrize(("l3_bytes", "at_least"), [(None, 1 << 28), (1 << 20, 1 << 28), (1 << 28, 1 << 30)])
def test_no_cache_holds_a_quarter_of_the_buffer(l3_bytes: int | None, at_least: int) -> None:
    assert roofs.read_buffer_bytes(l3_bytes) >= at_least


def test_the_reading_of_this_machine_is_of_a_sane_size() -> None:
    assert 0.1 < roofs.measure_read_roof(repeats=3, buffer_bytes=64 << 20).best < 5000
