"""Tests the table and the Python examples of errors.md with real drivers. Called by drivers.sh: PAGE URL."""

import asyncio
import pathlib
import re
import sys
from urllib.parse import urlparse

import asyncpg
import django
import psycopg
import psycopg2
import sqlalchemy
from django.conf import settings

page = pathlib.Path(sys.argv[1]).read_text()
url = sys.argv[2]
parts = urlparse(url)
STATEMENT = "DELETE FROM users WHERE id = 1"
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:], "USER": parts.username,
    "PASSWORD": parts.password, "HOST": parts.hostname, "PORT": parts.port,
}})
django.setup()
from django.db import connection, models  # noqa: E402, only after setup()


class User(models.Model):
    id = models.IntegerField(primary_key=True)

    class Meta:
        app_label = "drivers"
        db_table = "users"


class TooManyRows(Exception):
    def __init__(self, message, hint=None):
        super().__init__(message)
        self.hint = hint


def engine(driver):
    return sqlalchemy.create_engine(url.replace("postgres://", f"postgresql+{driver}://"))


def with_psycopg():
    with psycopg.connect(url) as session:
        session.execute(STATEMENT)


def with_psycopg2():
    psycopg2.connect(url).cursor().execute(STATEMENT)


def with_sqlalchemy(driver):
    with engine(driver).begin() as session:
        session.execute(sqlalchemy.text(STATEMENT))


def with_django():
    with connection.cursor() as cursor:
        cursor.execute(STATEMENT)


def with_asyncpg():
    async def run():
        session = await asyncpg.connect(url)
        await session.execute(STATEMENT)
    asyncio.run(run())


DRIVERS = {
    "psycopg": with_psycopg,
    "psycopg2": with_psycopg2,
    "SQLAlchemy with psycopg": lambda: with_sqlalchemy("psycopg"),
    "SQLAlchemy with psycopg2": lambda: with_sqlalchemy("psycopg2"),
    "Django with psycopg": with_django,
    "asyncpg": with_asyncpg,
}


def raised(run):
    try:
        run()
    except Exception as error:
        return error
    raise AssertionError("the guard did not stop the statement")


def row_of(driver):
    """Exception, SQLSTATE and table in the row of the page, without versions."""
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and re.sub(r" [0-9.]+", "", cells[0]) == driver:
            return [re.search("`([^`]+)`", cell).group(1) for cell in cells[1:]]
    raise AssertionError(f"the page has no row for {driver}")


def check_row(driver, run):
    error = raised(run)
    name, sqlstate, table = row_of(driver)
    found = f"{error.__class__.__module__}.{error.__class__.__name__}".replace("._base.", ".")
    assert name == found, f"the page has {name}, the driver raised {found}"
    found = eval(sqlstate, {"error": error}), eval(table, {"error": error})
    assert found == ("PGR01", "users"), f"{sqlstate}, {table}: {found}"


def check_example(code, names):
    scope = {"TooManyRows": TooManyRows, "url": url, "user_id": 1, **names}
    # The first example defines it for all of them.
    guard_errors = next(line for line in page.splitlines() if line.startswith("GUARD_ERRORS"))
    exec(f"{guard_errors}\n{code}", scope)


def main():
    passed = failed = 0
    examples = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(examples) == 3, "psycopg, SQLAlchemy, Django"
    statement = sqlalchemy.text(STATEMENT)
    checks = [(driver, lambda driver=driver, run=run: check_row(driver, run)) for driver, run in DRIVERS.items()]
    for name, code, names in [
        ("psycopg", examples[0], {}),
        ("SQLAlchemy with psycopg", examples[1], {"engine": engine("psycopg"), "statement": statement}),
        ("SQLAlchemy with psycopg2", examples[1], {"engine": engine("psycopg2"), "statement": statement}),
        ("Django", examples[2], {"user": User(id=1)}),
    ]:
        def example(code=code, names=names):
            error = raised(lambda: check_example(code, names))
            assert isinstance(error, TooManyRows), repr(error)
            assert "maxCascadeRows" in str(error), str(error)
        checks.append((f"example: {name}", example))
    for name, check in checks:
        try:
            check()
            passed += 1
            print("ok   ", name)
        except Exception as error:
            failed += 1
            print("FAIL ", name, error)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
