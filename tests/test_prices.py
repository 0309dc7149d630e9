"""prices.py: the shipped file, the user's file over it, currencies, and what is wrong said in a sentence."""

import json
import re
from pathlib import Path

import pytest

from groschen.errors import BadFile
from groschen.prices import Prices, load_prices, user_file


@pytest.fixture(autouse=True)
def nobody_s_prices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GROSCHEN_PRICES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "empty"))


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "own.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


KWH = {"value": 0.5, "currency": "EUR", "date": "2026-11-01", "source": "my contract"}


def test_every_shipped_price_has_a_date_and_a_source() -> None:
    prices = load_prices()
    priced = [
        prices.kwh,
        prices.machine,
        prices.hosted_rft_hour,
        *prices.gpu_hours.values(),
        *prices.apis.values(),
    ]
    assert len(prices.apis) >= 6
    assert all(re.fullmatch(r"20\d\d(-\d\d){1,2}", each.date) and each.source for each in priced)
    assert all(api.cached_input <= api.input <= api.output for api in prices.apis.values())


def test_a_kilowatt_hour_costs_what_the_file_says() -> None:
    prices = load_prices()
    assert prices.of_energy(3.6e6) == pytest.approx(prices.kwh.value)


def test_an_owned_machine_pays_its_share_and_its_electricity_a_rented_one_its_rent_alone(
    tmp_path: Path,
) -> None:
    machine = {
        "kind": "owned",
        "value": 800,
        "lifetime_hours": 8000,
        **{k: KWH[k] for k in ("currency", "date", "source")},
    }
    owned = load_prices(write(tmp_path, {"machine": machine, "kwh": KWH}))
    assert owned.of_machine(3600) == pytest.approx(0.1)
    assert owned.of_energy(3.6e6) == pytest.approx(0.5)
    rented = {**machine, "kind": "rented", "value": 2.5}
    del rented["lifetime_hours"]
    prices = load_prices(write(tmp_path, {"machine": rented, "kwh": KWH}))
    assert prices.of_machine(1800) == pytest.approx(1.25)
    assert prices.of_energy(3.6e6) == 0.0


def test_totals_in_dollars_are_those_in_euros_times_the_rate(tmp_path: Path) -> None:
    euros, dollars = load_prices(), load_prices(write(tmp_path, {"currency": "USD"}))
    assert dollars.of_energy(1e9) == pytest.approx(euros.of_energy(1e9) * euros.rates["USD"].per_euro)
    assert dollars.of_hosted_rft(3600) == pytest.approx(100.0)


def test_an_api_charges_input_cached_input_and_output_apart(tmp_path: Path) -> None:
    prices = load_prices(write(tmp_path, {"currency": "USD"}))
    o1 = prices.of_api("openai/o1", input_tokens=1e6, cached_tokens=1e6, output_tokens=1e6)
    assert o1 == pytest.approx(15.0 + 7.5 + 60.0)


def test_the_user_s_entries_join_the_tables_and_replace_single_prices(tmp_path: Path) -> None:
    api = {"input": 1, "cached_input": 0, "output": 2, **{k: KWH[k] for k in ("currency", "date", "source")}}
    prices = load_prices(write(tmp_path, {"apis": {"mine": api, "openai/o1": api}, "kwh": KWH}))
    assert prices.apis["mine"].output == prices.apis["openai/o1"].output == 2
    assert len(prices.apis) == len(load_prices().apis) + 1
    assert prices.kwh.source == "my contract"


def test_the_environment_names_the_file_and_the_configuration_folder_is_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write(tmp_path, {"kwh": KWH})
    monkeypatch.setenv("GROSCHEN_PRICES", str(path))
    assert load_prices().kwh.value == 0.5
    monkeypatch.delenv("GROSCHEN_PRICES")
    monkeypatch.setattr("groschen.prices.user_config_path", lambda name: tmp_path / name)
    assert load_prices().kwh.value != 0.5
    (tmp_path / "groschen").mkdir()
    path.rename(user_file())
    assert load_prices().kwh.value == 0.5


def test_a_named_file_that_is_missing_is_an_error_and_not_the_shipped_prices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GROSCHEN_PRICES", str(tmp_path / "gone.json"))
    with pytest.raises(BadFile, match=r"gone\.json is missing"):
        load_prices()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not what it should be"),
        ([1], "one JSON object with prices, found list"),
        ({"kwhh": KWH}, "unknown field `kwhh`.*did you mean 'kwh'"),
        ({"kwh": {**KWH, "vlaue": 1}}, "unknown field `vlaue`.*did you mean 'value'"),
        ({"kwh": {**KWH, "value": -1}}, r">= 0.*\$\.kwh\.value"),
        ({"kwh": {**KWH, "value": "a lot"}}, r"float.*\$\.kwh\.value"),
        ({"kwh": {**KWH, "date": "last year"}}, r"\$\.kwh\.date"),
        ({"kwh": {k: v for k, v in KWH.items() if k != "source"}}, "missing required field `source`"),
        ({"kwh": {**KWH, "currency": "CHF"}}, "no rate for CHF"),
        ({"currency": "GBP"}, "no rate for GBP"),
        ({"machine": {**KWH, "kind": "owned"}}, "needs lifetime_hours"),
        ({"machine": {**KWH, "kind": "rented", "lifetime_hours": 5}}, "must not have it"),
        ({"machine": {**KWH, "kind": "lent"}}, r"lent.*\$\.machine\.kind"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_what_is_wrong(
    tmp_path: Path, content: object, sentence: str
) -> None:
    with pytest.raises(BadFile, match=sentence) as caught:
        load_prices(write(tmp_path, content))
    assert "own.json" in str(caught.value)


def test_prices_in_other_currencies_need_only_a_rate(tmp_path: Path) -> None:
    rate = {"per_euro": 0.93, "date": "2026-11-01", "source": "a bank"}
    content = {"rates": {"CHF": rate}, "currency": "CHF", "kwh": {**KWH, "currency": "CHF"}}
    prices: Prices = load_prices(write(tmp_path, content))
    assert prices.of_energy(3.6e6) == pytest.approx(0.5)
    assert "USD" in prices.rates
