#!/usr/bin/env python3
"""Write invoices.jsonl: 60 invented invoices, half of them German, with the amount that is to be paid.

Usage: python examples/invoices/make_invoices.py    (the seed is fixed: the same 60 rows each time)

Each invoice has positions, value-added tax, sometimes a discount or an amount paid in advance, so the
answer has to be computed. All amounts are whole cents, computed in whole numbers.
"""

import json
import random
from pathlib import Path

GOODS = {
    "en": [
        "oak board",
        "box of screws",
        "tin of paint",
        "door hinge",
        "roll of wire",
        "pair of gloves",
        "saw blade",
    ],
    "de": [
        "Eichenbrett",
        "Packung Schrauben",
        "Dose Farbe",
        "Türband",
        "Rolle Draht",
        "Paar Handschuhe",
        "Sägeblatt",
    ],
}
WORDS = {
    "en": {
        "title": "Invoice {number} of {firm}",
        "position": "{count} x {name} at {price} each",
        "discount": "Discount of {percent} % on the goods",
        "tax": "Value-added tax of {percent} % on top",
        "paid": "Already paid: {amount}",
        "question": "Which amount is still to be paid? Compute step by step, then give the amount between "
        "<answer> and </answer>, as in <answer>12.50</answer>.",
    },
    "de": {
        "title": "Rechnung {number} der Firma {firm}",
        "position": "{count} x {name} zu je {price}",
        "discount": "{percent} % Rabatt auf die Waren",
        "tax": "zuzüglich {percent} % Mehrwertsteuer",
        "paid": "Bereits bezahlt: {amount}",
        "question": "Welcher Betrag ist noch zu zahlen? Rechne Schritt für Schritt und schreibe den Betrag "
        "zum Schluss zwischen <answer> und </answer>, zum Beispiel <answer>12,50</answer>.",
    },
}
FIRMS = {
    "en": ["Hollis & Wren", "Marsh Tools", "Eastgate Supplies"],
    "de": ["Holz Brandt", "Eisen Kuhn", "Nordbau"],
}


def main() -> None:
    """Write the rows beside this file."""
    draw = random.Random(20261122)
    rows = [invoice(draw, number, "de" if number % 2 else "en") for number in range(1, 61)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    Path(__file__).with_name("invoices.jsonl").write_text(text, encoding="utf-8")


def invoice(draw: random.Random, number: int, language: str) -> dict[str, object]:
    """One row."""
    words, cents = WORDS[language], 0
    lines = [
        words["title"].format(
            number=f"{draw.randrange(1000, 10000)}-{number}", firm=draw.choice(FIRMS[language])
        )
    ]
    for name in draw.sample(GOODS[language], draw.randrange(2, 5)):
        # Counts of 20, 40, ... and prices of 0.50, 1.00, ... keep discount and tax at whole cents.
        count, price = 20 * draw.randrange(1, 6), 50 * draw.randrange(1, 60)
        cents += count * price
        lines.append(words["position"].format(count=count, name=name, price=money(price, language)))
    if draw.random() < 0.5:
        percent = draw.choice([10, 20])
        cents = exactly(cents * (100 - percent), 100)
        lines.append(words["discount"].format(percent=percent))
    tax = {"en": 20, "de": 19}[language]
    cents = exactly(cents * (100 + tax), 100)
    lines.append(words["tax"].format(percent=tax))
    if draw.random() < 0.4:
        paid = 1000 * draw.randrange(1, 1 + cents // 2000)
        cents -= paid
        lines.append(words["paid"].format(amount=money(paid, language)))
    lines += ["", words["question"]]
    row: dict[str, object] = {"id": f"{language}-{number:02}", "prompt": "\n".join(lines)}
    row["answer"] = money(cents, language).removeprefix("£").removesuffix(" €")
    if language == "de":
        row["checker"] = {"kind": "number", "locale": "de"}
    return row


def exactly(dividend: int, divisor: int) -> int:
    """The quotient of a division that leaves nothing."""
    quotient, rest = divmod(dividend, divisor)
    assert rest == 0, (dividend, divisor)
    return quotient


def money(cents: int, language: str) -> str:
    """£1,234.50 or 1.234,50 €."""
    text = f"{cents / 100:,.2f}"
    return f"£{text}" if language == "en" else text.translate(str.maketrans(",.", ".,")) + " €"


if __name__ == "__main__":
    main()
