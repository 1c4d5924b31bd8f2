"""The shop's rows, counted by the example and by a plain script."""

import csv
import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tailrace.tests.support.command import Command
from tailrace.tests.support.shared import shared_data

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"


def generated(folder: Path) -> Path:
    """Make 300 rows over three days, every third without a customer."""
    rows = [
        f'{number},S{number % 11},"A, thing",1,2010-12-{number // 100 + 1:02} 08:{number % 60:02}:00,2.5,'
        f"{'' if number % 3 == 0 else f'{number % 5}.0'},France"
        for number in range(300)
    ]
    with gzip.open(folder / "made.csv.gz", "wt") as file:
        file.write("\n".join([HEADER, *rows]))
    return folder / "made.csv.gz"


@pytest.mark.timeout(240)
def test_counts_equal_a_plain_count(tailrace: Command, tmp_path: Path) -> None:
    path = shared_data("shop/online_retail_2010-12_2011-03.csv.gz") or generated(tmp_path)
    articles: Counter[tuple[str, str]] = Counter()
    customers: Counter[str] = Counter()
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            articles[row["StockCode"], row["InvoiceDate"][:10]] += 1
            customers[row["CustomerID"].removesuffix(".0")] += 1
    without = customers.pop("")

    tailrace.ok("topics", "create", "sales")
    tailrace.ok("send", "sales", str(path))
    summary = tailrace.ok("run", "tailrace.examples.online_retail", "--until", "end", "--json").json[0]
    assert summary["records_in"] == articles.total()
    assert {reason: count for reason, count in summary["dropped"].items() if count} == {"null_key": without}
    sales = values(tailrace, "sales-per-day")
    assert {(row["stock_code"], row["day"][:10]): row["lines"] for row in sales} == dict(articles)
    assert {row["customer"]: row["lines"] for row in values(tailrace, "lines-per-customer")} == dict(customers)


def values(tailrace: Command, topic: str) -> list[Any]:
    rows = tailrace.ok("tail", topic, "--from", "earliest", "--json", "--value-type", "json").json
    return [row["value"] for row in rows]
