"""A shop's invoice lines: how often each article sold per day, and how many lines each customer has.

    tailrace topics create sales
    tailrace send sales online_retail.csv.gz
    tailrace run tailrace.examples.online_retail --until end
    tailrace tail sales-per-day

`send` makes a JSON object of strings of each csv row. A third of the rows names no customer: a record whose key is None
belongs to no group, so it is left out of the customers' counts, and the summary tells how many were.
"""

from datetime import UTC, datetime

from msgspec import Struct, field

from tailrace import App, Windowed, days, tumbling


class Sale(Struct):
    """One line of an invoice, under the names of the file."""

    stock_code: str = field(name="StockCode")
    invoice_date: datetime = field(name="InvoiceDate")
    customer_id: str = field(name="CustomerID")


class DailySales(Struct):
    """How many lines named an article on one day, so far."""

    stock_code: str
    day: datetime
    lines: int


class CustomerLines(Struct):
    """How many lines a customer has, so far."""

    customer: str
    lines: int


def customer_of(sale: Sale) -> str | None:
    """Tell the customer; the file writes the number as 17850.0, and nothing where there is none."""
    return sale.customer_id.removesuffix(".0") or None


def as_day(window: Windowed[str], lines: int) -> tuple[str, DailySales]:
    """Make a row of a day's window and its count, keyed by article."""
    return window.key, DailySales(window.key, window.start, lines)


def as_customer(customer: str | None, lines: int) -> tuple[str, CustomerLines]:
    """Make a row of a customer's count; a group's key is never None."""
    assert customer is not None
    return customer, CustomerLines(customer, lines)


app = App("online-retail")

sales = app.topic("sales", key=bytes, value=Sale, timestamp=lambda sale: sale.invoice_date.replace(tzinfo=UTC))
per_day = app.topic("sales-per-day", key=str, value=DailySales)
per_customer = app.topic("lines-per-customer", key=str, value=CustomerLines)

stream = app.stream(sales)
stream.group_by(lambda sale: sale.stock_code).windowed_by(tumbling(days(1))).count(store="articles").changes().map_kv(
    as_day
).to(per_day)
stream.group_by(customer_of).count(store="customers").changes().map_kv(as_customer).to(per_customer)


if __name__ == "__main__":
    app.run()
